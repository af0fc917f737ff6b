"""Who looks for faces: real runners on packs with other habits, and one that answers by a script."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib_faceid.face.backend import Prefer, load_backend
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Detections, Floats, Photo

from ..face_packs import FRACTIONS, Habits, make_pack

BOTH: tuple[Prefer, ...] = ("builtin", "insightface")


def finder_with(folder: Path, habits: Habits) -> FaceFinder:
    return FaceFinder(load_backend(make_pack(folder, habits), "builtin"))


@dataclass
class Scripted:
    """A backend that answers the nth question with the nth detections, and notes what it was asked."""

    answers: dict[int, Detections] = field(default_factory=dict)
    asked: list[tuple[tuple[int, ...], int, float]] = field(default_factory=list)
    closed: int = 0
    name: str = "scripted"
    note: str = ""
    providers: tuple[str, ...] = ()

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        self.asked.append((image_rgb.shape, size, threshold))
        return self.answers.get(len(self.asked), detections())

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        return np.full(512, image_rgb.shape[0], np.float32)

    def close(self) -> None:
        self.closed += 1


def detections(*boxes: tuple[float, ...]) -> Detections:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    points = corners[:, None, :2] + FRACTIONS.astype(np.float32) * (corners[:, None, 2:] - corners[:, None, :2])
    return Detections(corners, points.astype(np.float32), np.full(len(boxes), 0.9, np.float32))
