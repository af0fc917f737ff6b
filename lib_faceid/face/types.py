"""What a search gives back. Coordinates are pixels of the photo as it was given, x to the right, y down.

Coordinate k means the middle of pixel k, as in ``cv2.warpAffine``: turning a photo of width W by 180° moves x to W-1-x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
"""(height, width, 3), RGB."""
Floats = NDArray[np.float32]
FloatsOf = NDArray[np.floating[Any]]
"""Any float precision."""
Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 as plain numbers."""


class Detections(NamedTuple):
    """n faces, best score first: boxes (n, 4) as x0 y0 x1 y1, points (n, 5, 2), scores (n,); all float32."""

    boxes: Floats
    points: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of looking. ``size``: the photo is fitted into a square of so many pixels for the detector.

    ``padding``: black border on every side, in percent of the photo's width and height. ``rotation``: degrees by which
    the photo is turned counter-clockwise first: 0, 90, 180, 270. ``threshold``: lowest score that counts as a face.
    """

    size: int
    padding: int = 0
    rotation: int = 0
    threshold: float = 0.5

    @property
    def words(self) -> str:
        """For people: "at 320 px, with 50 % border"."""
        where = f"at {self.size} px" if self.size else "in the box drawn by hand"
        return f"{where}, {self.unusual}" if self.unusual else where

    @property
    def unusual(self) -> str:
        """What was done to the photo besides fitting it to a size; empty for most photos."""
        parts: list[str] = []
        if self.padding:
            parts.append(f"with {self.padding} % border")
        if self.rotation:
            parts.append(f"turned by {self.rotation}°")
        if self.threshold < USUAL_THRESHOLD:
            parts.append(f"with the score threshold lowered to {self.threshold:g}")
        return ", ".join(parts)


USUAL_THRESHOLD = 0.5
"""insightface's own default (``FaceAnalysis.prepare``), and so every published FaceID example's."""
BY_HAND = Attempt(0)
"""No search at all: somebody drew the box."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face. ``index`` is the number people see, from 1, largest first.

    box: (4,) float32 x0 y0 x1 y1, not cut off at the photo's edge. points: (5, 2) float32: the eye, then the mouth
    corner, that are further left in an upright photo come before the right ones (eyes, nose, mouth corners).
    vector: (512,) float32 as the recogniser gives it; adapters that want it divided by its length use ``normed``.
    """

    box: Floats
    points: Floats
    score: float
    vector: Floats
    index: int

    @property
    def area(self) -> float:
        return box_area(self.box)

    @property
    def normed(self) -> Floats:
        """The vector divided by its length; zeros stay zeros."""
        length = float(np.linalg.norm(self.vector))
        return np.asarray(self.vector / (length or 1.0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The faces of one photo, largest first, and how they were found; the last of ``tried`` is ``used``."""

    faces: tuple[Face, ...]
    tried: tuple[Attempt, ...]
    used: Attempt


def box_area(box: FloatsOf) -> float:
    """Square pixels of x0 y0 x1 y1."""
    return float(box[2] - box[0]) * float(box[3] - box[1])
