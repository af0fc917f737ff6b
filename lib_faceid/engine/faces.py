"""The face meant in each photo, who is most unlike the rest, and what is worth saying about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ..errors import BadRequest
from ..face.choice import LARGEST, FaceChoice, choose
from ..face.pipeline import FaceFinder
from ..face.types import Face, Floats, Found
from ..library.photos import NamedPhoto
from .notes import Note, likeness_to_others, odd_ones, photo_notes, unlike_asked


class Readers(Protocol):
    """Who keeps face packs open from one request to the next, and counts what ran; see ``engine/readers.py``."""

    def finder(self, folder: Path) -> FaceFinder: ...

    def count(self, run: Literal["encodings", "weight_files"], times: int = 1) -> None: ...


@dataclass(frozen=True, eq=False)
class Faces:
    """What was found in k photos, and the face ``chosen`` in each; what is worth saying about it in ``notes``.

    likeness: (k,) float32, the cosine of each face with the mean of the others' normed vectors; None for one photo.
    """

    found: tuple[Found, ...] = ()
    chosen: tuple[Face, ...] = ()
    likeness: Floats | None = None
    notes: tuple[Note, ...] = ()


def find_faces(
    photos: Sequence[NamedPhoto],
    pack: Path,
    choices: Sequence[FaceChoice] | None = None,
    readers: Readers | None = None,
) -> Faces:
    """The faces of each photo, and the one meant. Raises NoFaceFound for the first photo that does not show it.

    choices: one for each photo; without it the largest face is meant. readers: as in ``extract``.
    """
    wanted = [LARGEST] * len(photos) if choices is None else list(choices)
    if len(wanted) != len(photos):
        raise BadRequest(f"There are {len(photos)} photos and {len(wanted)} choices of a face; give one for each.")
    finder = FaceFinder.of_pack(pack) if readers is None else readers.finder(pack)
    try:
        pairs = list(zip(photos, wanted, strict=True))
        found = [finder.look(photo.pixels, choice, photo.label) for photo, choice in pairs]
    finally:
        if readers is None:
            finder.close()
    chosen = [choose(item, choice, photo.label) for item, (photo, choice) in zip(found, pairs, strict=True)]
    notes = [
        note
        for number, (photo, item, face) in enumerate(zip(photos, found, chosen, strict=True), start=1)
        for note in photo_notes(number, photo.pixels, item, face)
    ]
    notes += unlike_asked(chosen, wanted)
    in_order = sorted([*notes, *odd_ones(chosen)], key=lambda note: note.photo)
    return Faces(tuple(found), tuple(chosen), likeness_to_others(chosen), tuple(in_order))
