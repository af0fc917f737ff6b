"""What about a face makes a worse likeness: too few pixels, blur, a view from the side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .align import norm_crop
from .types import Face, FloatsOf, Photo

FEW_PIXELS = 112
"""Side of the recogniser's picture (ArcFace, arXiv 1801.07698): a smaller face is blown up to it."""

BLURRED = 0.06
"""Sharpness below which a face is called blurred.

Measured on the face of scikit-image's astronaut (125 px): sharp 0.51, saved as JPEG of quality 30 0.41, made smaller by
2, 3 and 4 and back 0.098, 0.054 and 0.033. Drawn faces: sharp 0.58 to 3.4, their crop made smaller by 4 and back 0.019
to 0.059. So what is told is a blur that leaves a third of the recogniser's 112 px, or less.
"""

FROM_THE_SIDE = 0.4
"""Parts of the distance between the eyes by which the nose may be off their middle.

In the head model of OpenCV's pose tutorials (nose tip 135 before the corners of the eyes, which are 450 apart, pupils
315) the nose is off by 135/315 of the tangent of the angle: 0.4 is 43°. Recognisers lose profiles first.
"""

# From the brows to the mouth and between the temples, in the crop of 112 px: hair and background are left out, and with
# them the hard edge of the black beyond the photo.
_INNER = (slice(36, 104), slice(24, 88))
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Quality:
    """pixels: the shorter side of the face's box. sharpness: see ``sharpness``. turn: see ``turn``."""

    pixels: int
    sharpness: float
    turn: float

    @property
    def is_small(self) -> bool:
        return self.pixels < FEW_PIXELS

    @property
    def is_blurred(self) -> bool:
        """Only said of a face that has the pixels: one blown up is blurred without saying."""
        return not self.is_small and self.sharpness < BLURRED

    @property
    def is_from_the_side(self) -> bool:
        return abs(self.turn) > FROM_THE_SIDE


def measure(photo: Photo, face: Face) -> Quality:
    """Quality of a face in the photo (H, W, 3) it was found in."""
    sides = face.box[2:] - face.box[:2]
    return Quality(round(float(sides.min())), sharpness(norm_crop(photo, face.points)), turn(face.points))


def sharpness(crop: Photo) -> float:
    """Variance of the Laplacian over the variance of the brightness, inside an aligned crop (112, 112, 3).

    The quotient is the same for a dark and a bright photo. 1.0 for a crop of one colour, which has nothing to blur.
    """
    grey = (crop @ _LUMA)[_INNER]
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    contrast = float(np.var(grey))
    return float(np.var(laplacian)) / contrast if contrast > 0 else 1.0


def turn(points: FloatsOf) -> float:
    """How far the nose is off the middle between the eyes, in their distance: 0 from the front, about ±0.4 at 43°.

    points: (5, 2), eyes first, then the nose. Eyes in one place are a full profile: ±infinity is what it tends to.
    """
    left, right, nose = (np.asarray(spot, np.float64) for spot in points[:3])
    across: NDArray[np.float64] = right - left
    length = float(across @ across)
    return float((nose - (left + right) / 2) @ across) / length if length > 0 else float("inf")
