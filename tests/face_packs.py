"""Face packs and scenes for tests, on the synthetic models of the demo (lib_faceid/demo/face_pack.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from lib_faceid.demo.face_pack import (
    CELL,
    FRACTIONS,
    Box,
    Habits,
    build_pack,
    detector,
    draw_marker,
    marker_colour,
    recogniser,
    tint_quarter,
)
from lib_faceid.demo.onnx_graph import Graph, save

__all__ = [
    "CELL",
    "FRACTIONS",
    "Box",
    "Habits",
    "build_pack",
    "detector",
    "draw_bar",
    "draw_marker",
    "make_pack",
    "marker_colour",
    "recogniser",
    "save",
    "scene",
    "side_model",
    "tint_quarter",
]

USUAL = Habits()


def side_model(side: int, width: int) -> ModelProto:
    """A model that is neither: genderage takes 96 px and gives 3 numbers, 2d106det takes 192 and gives 212."""
    g = Graph()
    pooled = g.add("Flatten", g.add("GlobalAveragePool", "data"))
    out = g.add("MatMul", pooled, g.constant(np.random.default_rng(side).standard_normal((3, width))))
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, side, side])
    return g.model([data], [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["None", width])])


def make_pack(folder: Path, habits: Habits = USUAL) -> Path:
    """The folder, with the files of buffalo_l that a pack of four models has."""
    save(detector(habits), folder / "det_10g.onnx")
    save(recogniser(), folder / "w600k_r50.onnx")
    save(side_model(96, 3), folder / "genderage.onnx")
    save(side_model(192, 212), folder / "2d106det.onnx")
    return folder


def draw_bar(image: np.ndarray, box: Box) -> None:
    """A green bar on top of the marker's box, a quarter as high: this way is up."""
    x0, y0, x1, y1 = box
    image[max(0, y0 - (y1 - y0) // 4) : y0, x0:x1] = (0, 255, 0)


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth random photo without magenta: (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (height // 16 + 1, width // 16 + 1, 3))
    coarse[..., 2] = np.minimum(coarse[..., 2], 120)  # no blue above the middle, so nothing is magenta
    return np.kron(coarse, np.ones((16, 16, 1)))[:height, :width].astype(np.uint8)
