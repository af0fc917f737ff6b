"""Photos with faces at known places, and somebody who keeps the face pack open and counts."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lib_faceid.engine.extract import ModelFolder
from lib_faceid.face.backend import load_backend
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.library.photos import PhotoData

from ..face_packs import Box, draw_marker, scene

BIG, SMALL, LEFT = (320, 320, 560, 560), (200, 40, 328, 168), (16, 200, 136, 320)


@dataclass
class OnePack:
    """One finder on the built-in runner for everybody, and what was counted."""

    models: ModelFolder
    counts: Counter[str] = field(default_factory=Counter)
    asked: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared = FaceFinder(load_backend(self.models.pack("faceid"), "builtin"))

    def finder(self, folder: Path) -> FaceFinder:
        self.asked.append(folder)
        return self.shared

    def count(self, run: str, times: int = 1) -> None:
        self.counts[run] += times


def photo(*boxes: Box, seed: int = 0, name: str = "anna.png", weight: float = 1.0) -> PhotoData:
    image = scene(640, 640, seed)
    for box in boxes:
        draw_marker(image, box)
    data = io.BytesIO()
    Image.fromarray(image).save(data, format="PNG")
    return PhotoData(data.getvalue(), name, weight=weight)


THREE = photo(SMALL, BIG, LEFT)
