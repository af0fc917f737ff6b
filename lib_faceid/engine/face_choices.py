"""Which face of each photo a unit means, from the text of a request."""

from __future__ import annotations

from ..errors import BadRequest
from ..face.choice import LARGEST, FaceChoice
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
        return FaceChoice("like", vector=load_person(saved_path(rest.strip(), place.identities)).vector)
    raise BadRequest(
        f'A face in a photo is "largest", "leftmost", its number, "like:" and a saved person, or "box:x0,y0,x1,y1" in '
        f"pixels; found {text[:60]!r}."
    )
