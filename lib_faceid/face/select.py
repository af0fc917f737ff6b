"""Which of the faces in a photo is meant."""

from __future__ import annotations

import numpy as np

from ..errors import NoFaceFound
from .similarity import cosine_matrix
from .types import Face, FloatsOf, Found


def largest(found: Found) -> Face:
    """The default: people expect the main person."""
    return found.faces[0]


def by_number(found: Found, number: int) -> Face:
    """The face people see with this number, from 1. Raises NoFaceFound when there are fewer."""
    count = len(found.faces)
    if not 1 <= number <= count:
        has = "1 face; its number is 1" if count == 1 else f"{count} faces; choose a number from 1 to {count}"
        raise NoFaceFound(f"Face number {number} was asked for, and the photo has {has}.")
    return found.faces[number - 1]


def leftmost(found: Found) -> Face:
    """The face whose box begins furthest left; of two that begin together, the larger."""
    return min(found.faces, key=lambda face: (float(face.box[0]), face.index))


def most_similar(found: Found, vector: FloatsOf) -> Face:
    """The face whose vector has the largest cosine with ``vector`` (512,); of equals, the larger face."""
    rows = np.stack([face.vector for face in found.faces])
    return found.faces[int(cosine_matrix(rows, vector[None])[:, 0].argmax())]
