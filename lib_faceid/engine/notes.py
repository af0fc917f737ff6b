"""What is worth saying about the photos of a person: which face was taken, what makes a worse likeness, who is odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..face.choice import FaceChoice
from ..face.quality import FEW_PIXELS, measure
from ..face.similarity import cosine
from ..face.types import BY_HAND, Face, Floats, Found, Photo

SOMEONE_ELSE, UNSURE = 0.2, 0.28
"""Likeness below which two faces are not the same person's, and below which they are only likely so: the limits of
insightface's own demo (web-demos/src_recognition/main.py), for the recognisers of its packs."""


@dataclass(frozen=True)
class Note:
    """``photo``: its number, from 1. ``words``: the end of a sentence that begins with the photo's name."""

    photo: int
    words: str


def photo_notes(number: int, photo: Photo, found: Found, face: Face) -> list[Note]:
    """About one photo: which of several faces was taken, how it was found, size, blur and pose. Empty for a good one.

    ``face`` is the one taken of ``found``. Of a box drawn by hand the pose is not known.
    """
    words: list[str] = []
    count, quality = len(found.faces), measure(photo, face)
    if count > 1:
        which = "the largest" if face.index == 1 else f"number {face.index}"
        words.append(f"shows {count} faces; {which} was taken.")
    if found.used.unusual:
        words.append(f"was found {found.used.unusual}.")
    if quality.is_small:
        words.append(f"has a face of only {quality.pixels} px; {FEW_PIXELS} px or more give a better likeness.")
    if quality.is_blurred:
        words.append("is blurred.")
    if found.used != BY_HAND and quality.is_from_the_side:
        words.append("shows the face from the side.")
    return [Note(number, each) for each in words]


def likeness_to_others(faces: Sequence[Face]) -> Floats | None:
    """(k,) float32: the cosine of each face's vector with the mean of the others' normed vectors; None for one face."""
    if len(faces) < 2:
        return None
    return _to_others(np.stack([face.normed for face in faces]))


def odd_ones(faces: Sequence[Face]) -> list[Note]:
    """The photos that look like someone else than the rest, by number.

    The one least like the rest is named first and left out of what the others are compared with, so that one stranger
    does not make the others strange. Of two photos nobody can say which is the wrong one: the second is named.
    """
    left = dict(enumerate([face.normed for face in faces], start=1))
    notes: list[Note] = []
    while len(left) > 1:
        likeness = _to_others(np.stack(list(left.values())))
        pair = len(left) == 2
        odd = 1 if pair else int(likeness.argmin())
        if likeness[odd] >= UNSURE:
            break
        number, first = list(left)[odd], next(iter(left))
        del left[number]
        value = round(float(likeness[odd]), 2) + 0.0  # never "-0.00"
        verdict = "looks like someone else" if likeness[odd] < SOMEONE_ELSE else "may be someone else"
        than, whom = (f" than photo {first}", "") if pair else ("", " to the others")
        notes.append(Note(number, f"{verdict}{than}: likeness {value:.2f}{whom}."))
    return sorted(notes, key=lambda note: note.photo)


def unlike_asked(faces: Sequence[Face], choices: Sequence[FaceChoice]) -> list[Note]:
    """The photos in which the face most like a saved person is not much like that one."""
    notes: list[Note] = []
    for number, (face, choice) in enumerate(zip(faces, choices, strict=True), start=1):
        if choice.vector is not None and (likeness := cosine(face.vector, choice.vector)) < UNSURE:
            notes.append(Note(number, f"shows nobody like that saved person: likeness {likeness:.2f} at most."))
    return notes


def _to_others(rows: Floats) -> Floats:
    """rows: (k, 512) of length 1 (or 0: a vector that no face gives is like nobody)."""
    others = rows.sum(axis=0, dtype=np.float64) - rows
    lengths = np.linalg.norm(others, axis=1)
    products = (others * rows).sum(axis=1)
    cosines = np.divide(products, lengths, where=lengths > 0, out=np.zeros(len(rows)))
    return np.asarray(np.minimum(np.maximum(cosines, -1.0), 1.0), np.float32)
