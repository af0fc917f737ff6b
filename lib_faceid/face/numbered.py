"""The faces of a photo as data for people to choose from: number, box, crop, and how they were found."""

from __future__ import annotations

from dataclasses import dataclass

from .align import norm_crop
from .types import Box, Floats, Found, Photo


@dataclass(frozen=True, slots=True, eq=False)
class NumberedFace:
    """``number`` counts from 1, the largest first. crop: (size, size, 3) uint8 RGB, aligned: what the models are shown.

    box: x0 y0 x1 y1 in pixels of the photo; points: (5, 2). how: the attempt in words, such as "at 640 px".
    """

    number: int
    box: Box
    points: Floats
    score: float
    crop: Photo
    how: str


def number_faces(photo: Photo, found: Found, size: int = 112) -> tuple[NumberedFace, ...]:
    """Every face of ``found``, which is of this photo (H, W, 3) uint8 RGB.

    size: 112 is what the recogniser sees, 224 what CLIP does. Raises ValueError for one that is no crop's.
    """
    return tuple(
        NumberedFace(
            number=face.index,
            box=(float(face.box[0]), float(face.box[1]), float(face.box[2]), float(face.box[3])),
            points=face.points,
            score=face.score,
            crop=norm_crop(photo, face.points, size),
            how=found.used.words,
        )
        for face in found.faces
    )
