"""Which face of each photo a unit means, from the text of a request."""

from __future__ import annotations

import numpy as np

from ..errors import BadIdentity, BadRequest
from ..face.choice import LARGEST, FaceChoice
from ..face.types import Floats
from ..library.person import load_person
from .fields import read_box
from .place import Place, saved_path
from .request import Unit


def face_choices(unit: Unit, place: Place) -> tuple[FaceChoice, ...]:
    """One for each photo: its own where it has one, else the unit's. Raises BadRequest or BadIdentity."""
    texts = [photo.face or unit.face for photo in unit.images]
    known = {text: _read(text, place) for text in set(texts)}
    return tuple(known[text] for text in texts)


def read_choice(text: str) -> FaceChoice | None:
    """ "largest", "leftmost", a number from 1 or "box:x0,y0,x1,y1" as a choice; None for other words."""
    kind, _, rest = text.strip().partition(":")
    box = read_box(rest) if kind == "box" else None
    if text.strip() == "largest":
        return LARGEST
    if text.strip() == "leftmost":
        return FaceChoice("leftmost")
    if kind.isascii() and kind.isdigit() and not rest and int(kind) > 0:
        return FaceChoice("number", number=int(kind))
    return None if box is None else FaceChoice("box", box=box)


def _read(text: str, place: Place) -> FaceChoice:
    kind, _, rest = text.strip().partition(":")
    choice = read_choice(text)
    if choice is not None:
        return choice
    if kind == "like":
        return FaceChoice("like", vector=_vector_of(rest.strip(), place))
    raise BadRequest(
        f'A face in a photo is "largest", "leftmost", its number, "like:" and a saved person, or "box:x0,y0,x1,y1" in '
        f"pixels; found {text[:60]!r}."
    )


def _vector_of(name: str, place: Place) -> Floats:
    """(512,): the mean of a saved person's vectors, each divided by its length. Any base will do."""
    identities = load_person(saved_path(name, place.identities)).identities
    rows = next((identity.vectors for identity in identities if identity.vectors is not None), None)
    if rows is None:
        raise BadIdentity(
            f"{name} was saved without face vectors, so no face can be compared with it. Choose the face by its number."
        )
    wide = rows.numpy().astype(np.float64)
    return np.asarray((wide / np.linalg.norm(wide, axis=1, keepdims=True)).mean(axis=0), np.float32)
