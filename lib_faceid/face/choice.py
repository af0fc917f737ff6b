"""Which of the faces in a photo is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import NoFaceFound
from .similarity import cosine_matrix
from .types import BY_HAND, Box, Face, Floats, FloatsOf, Found

How = Literal["largest", "leftmost", "number", "like", "box"]


@dataclass(frozen=True, eq=False)
class FaceChoice:
    """One way to choose a face. ``number``, ``vector`` (512,) and ``box`` belong to the way that has their name.

    "like" is the face most similar to ``vector``. "box" is for a face no detector knows, such as a drawn one: x0 y0 x1
    y1 in pixels of the upright photo; the photo is not searched then.
    """

    how: How = "largest"
    number: int = 0
    vector: Floats | None = None
    box: Box | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FaceChoice) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        """Everything that decides, comparable: arrays are not."""
        vector = None if self.vector is None else np.asarray(self.vector, np.float32).tobytes()
        return self.how, self.number, vector, self.box


LARGEST = FaceChoice()
"""The default: people expect the main person."""


def choose(found: Found, choice: FaceChoice = LARGEST, label: str = "the photo") -> Face:
    """The face meant, of those ``FaceFinder.look`` found for this choice.

    label: what sentences call the photo. Raises NoFaceFound for a number nobody has, and BadIdentity for a vector that
    cannot be compared; ValueError for a choice that lacks what it needs.
    """
    if choice.how == "number":
        return by_number(found, choice.number, label)
    if choice.how == "like":
        if choice.vector is None:
            raise ValueError("a choice by likeness needs a vector")
        return most_similar(found, choice.vector)
    if choice.how == "box" and found.used != BY_HAND:
        raise ValueError("a face in a box is not looked for; use FaceFinder.look or in_box")
    return leftmost(found) if choice.how == "leftmost" else found.faces[0]


def by_number(found: Found, number: int, label: str = "the photo") -> Face:
    """The face people see with this number, from 1. Raises NoFaceFound when there are fewer."""
    count = len(found.faces)
    if not 1 <= number <= count:
        has = "1 face; its number is 1" if count == 1 else f"{count} faces; choose a number from 1 to {count}"
        raise NoFaceFound(f"Face number {number} was asked for, and {label} has {has}.")
    return found.faces[number - 1]


def leftmost(found: Found) -> Face:
    """The face whose box begins furthest left; of two that begin together, the larger."""
    return min(found.faces, key=lambda face: (float(face.box[0]), face.index))


def most_similar(found: Found, vector: FloatsOf) -> Face:
    """The face whose vector has the largest cosine with ``vector`` (512,); of equals, the larger face."""
    rows = np.stack([face.vector for face in found.faces])
    return found.faces[int(cosine_matrix(rows, vector[None])[:, 0].argmax())]
