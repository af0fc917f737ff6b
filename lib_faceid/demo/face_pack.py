"""A small face pack that behaves: a detector that finds magenta frames, a recogniser of what is inside them.

The detector works on cells of 8 px of the picture it is shown. A magenta region (or the outline of one) of at least two
cells, at most twice as long as wide, is a face; its five points lie where a face has them in ArcFace's crop, so that
the crop of 112 px is the box. The marker's colour says its score: (127.5+127.5s, 127.5-127.5s, 127.5+127.5s) gives
about s. Markers must not touch each other. Boxes come in steps of one cell, from stride 8, 16 or 32 by size.

Real models, real shapes, about 1.2 MB, and the same bytes each time. Needs the package onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from .onnx_graph import Graph, save

# The template of ArcFace in parts of the crop; written again here: tests use it as
# the oracle of face/align.py.
FRACTIONS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
) / 112  # fmt: skip
CELL = 8
"""Pixels of the detector's picture."""
_FAR = 10_000.0
_WINDOW = 96  # cells; 640 px have 80
_TINT = 32  # added to red: a quarter of what separates the colours of a sure marker from grey
_TINTED = 0.1  # of a cell's magenta; a tinted cell has 0.25 for a score of 0.8, any other 0


@dataclass(frozen=True)
class Habits:
    """What a detector insists on. largest: cells; a longer marker is missed, as real detectors miss faces that fill
    the frame. margin: the marker does not touch the left or upper edge. bar: a green bar lies on top of the marker,
    so that it is only found upright. tint: the same for a marker whose upper left quarter has more red than blue, which
    shows however little of the marker is in the picture. batched: outputs have a batch dimension. side: the input's
    size is fixed.
    """

    largest: int = 80
    margin: bool = False
    bar: bool = False
    tint: bool = False
    batched: bool = False
    side: int | None = None


@dataclass(frozen=True)
class Cells:
    """Maps over cells: position, lengths of the runs that begin here, 1 where a marker begins, and its score."""

    x: str
    y: str
    width: str
    height: str
    begins: str
    score: str


def detector(habits: Habits = Habits()) -> ModelProto:
    """Scores, boxes and points of three strides, as SCRFD with five points gives them."""
    g = Graph()
    cells = _find_markers(g, habits)
    levels = [_level(g, cells, stride) for stride in (8, 16, 32)]
    outputs = [level[kind] for kind in range(3) for level in levels]
    if habits.batched:
        axis = g.constant([0], np.int64)
        outputs = [g.add("Unsqueeze", output, axis) for output in outputs]
    widths = [1] * 3 + [4] * 3 + [10] * 3
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, width] if habits.batched else [None, width])
        for name, width in zip(outputs, widths, strict=True)
    ]
    side = habits.side or "?"
    return g.model([helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, side, side])], ports)


def _find_markers(g: Graph, habits: Habits) -> Cells:
    red, green, blue = (g.slice("input.1", 1, channel, channel + 1) for channel in range(3))
    magenta = _cells_of(g, g.add("Min", red, g.add("Neg", green), blue))
    strongest = g.add("MaxPool", magenta, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    inside = g.times(g.at_least(magenta, g.scaled(strongest, 0.5)), g.at_least(strongest, 0.1))
    # A corner cell that the marker covers by less than half is made up for by its two neighbours.
    corner = g.times(g.neighbour(inside, 0, 1), g.neighbour(inside, 1, 0))
    inside = g.add("Max", inside, corner)
    begins = _upper_left_corners(g, inside)
    ones = g.scaled(magenta, 0.0, 1.0)
    x, y = (g.add("CumSum", ones, g.constant(axis, np.int64), exclusive=1) for axis in (3, 2))
    width, height = _run(g, inside, x, 3), _run(g, inside, y, 2)
    for long, short in ((width, height), (height, width)):
        short_enough = g.at_least(g.scaled(long, -1.0), -habits.largest)
        begins = g.times(begins, g.at_least(long, 2.0), g.at_least(g.scaled(long, 2.0), short), short_enough)
    if habits.margin:
        begins = g.times(begins, g.neighbour(ones, 0, -1), g.neighbour(ones, -1, 0))
    if habits.bar:
        begins = g.times(begins, _bar_above(g, red, green, blue))
    if habits.tint:
        tinted = _cells_of(g, g.add("Min", g.add("Sub", red, blue), g.add("Neg", green), blue))
        begins = g.times(begins, g.at_least(tinted, g.scaled(magenta, _TINTED)))
    return Cells(x, y, width, height, begins, g.times(begins, strongest))


def _upper_left_corners(g: Graph, inside: str) -> str:
    """1 where the cell is inside and the three cells on its left, from it down, and above it, from it on, are outside.

    Three, because a corner on the inner side of a frame has the frame's lower edge one or two cells further down.
    """
    begins = inside
    for dy, dx in ((1, 0), (0, 1)):
        cell = g.neighbour(inside, -dx, -dy)  # left of it, or above it
        for _ in range(3):
            begins = g.times(begins, g.negated(cell))
            cell = g.neighbour(cell, dy, dx)
    return begins


def _cells_of(g: Graph, colour: str) -> str:
    return g.add("AveragePool", g.add("Relu", colour), kernel_shape=[CELL, CELL], strides=[CELL, CELL])


def _run(g: Graph, inside: str, position: str, axis: int) -> str:
    """How many cells in a row are inside, from each cell on: the next position outside, minus this one."""
    outside = g.add("Neg", g.add("Add", position, g.scaled(inside, _FAR)))
    kernel = [1, _WINDOW] if axis == 3 else [_WINDOW, 1]
    pads = [0, 0, kernel[0] - 1, kernel[1] - 1]
    stop = g.add("Neg", g.add("MaxPool", outside, kernel_shape=kernel, pads=pads))
    end = g.scaled(g.add("ReduceMax", position, keepdims=1), 1.0, 1.0)
    return g.add("Sub", g.add("Min", stop, end), position)


def _bar_above(g: Graph, red: str, green: str, blue: str) -> str:
    bar = _cells_of(g, g.add("Min", g.add("Neg", red), green, g.add("Neg", blue)))
    above = g.neighbour(bar, -1, 0)
    return g.at_least(g.add("Max", above, g.neighbour(above, -1, 0)), 0.6)


def _level(g: Graph, cells: Cells, stride: int) -> tuple[str, str, str]:
    """Scores, box distances and point offsets of one stride: markers below 8, below 24, and from 24 cells."""
    block = stride // CELL
    smallest, limit = {8: (0, 8), 16: (8, 24), 32: (24, 1000)}[stride]
    longer = g.add("Max", cells.width, cells.height)
    here = g.times(cells.begins, g.at_least(longer, smallest), g.negated(g.at_least(longer, limit)))

    def pooled(values: str) -> str:
        return g.add("MaxPool", g.times(here, values), kernel_shape=[block, block], strides=[block, block])

    x, y, width, height = (pooled(values) for values in (cells.x, cells.y, cells.width, cells.height))
    score = pooled(cells.score)
    ones = g.scaled(score, 0.0, 1.0)
    anchor = [g.add("CumSum", ones, g.constant(axis, np.int64), exclusive=1) for axis in (3, 2)]
    # Cells to strides; positions are relative to the anchor.
    left, top = (g.add("Sub", g.scaled(at, 1 / block), own) for at, own in zip((x, y), anchor, strict=True))
    across, down = (g.scaled(side, 1 / block) for side in (width, height))
    distances = [g.add("Neg", left), g.add("Neg", top), g.add("Add", left, across), g.add("Add", top, down)]
    offsets: list[str] = []
    for fx, fy in FRACTIONS:
        offsets += [g.add("Add", left, g.scaled(across, fx)), g.add("Add", top, g.scaled(down, fy))]
    second = g.scaled(score, 0.95)  # the other anchor of the same place is a little less sure
    return _rows(g, [score, second], 1), _rows(g, distances * 2, 4), _rows(g, offsets * 2, 10)


def _rows(g: Graph, maps: list[str], width: int) -> str:
    """Maps (1, 1, h, w) of both anchors → (h · w · 2, width)."""
    joined = g.add("Concat", *maps, axis=1)
    last = g.add("Transpose", joined, perm=[0, 2, 3, 1])
    return g.add("Reshape", last, g.constant([-1, width], np.int64))


def recogniser(*, normalises: bool = False, width: int = 512, crop: int = 112) -> ModelProto:
    """512 numbers from the middle of the crop: a random projection of 12 x 12 x 3 averages without colour and contrast.

    normalises: takes pixels 0 to 255 and brings them to [-1, 1] itself, in nodes named Sub and Mul as in old packs.
    """
    g = Graph()
    picture = "data"
    if normalises:
        weights = g.constant(127.5), g.constant(1 / 127.5)
        g.nodes.append(helper.make_node("Sub", ["data", weights[0]], ["minus"], name="Sub_0"))
        g.nodes.append(helper.make_node("Mul", ["minus", weights[1]], ["ready"], name="Mul_1"))
        picture = "ready"
    edge = (crop - 72) // 2
    for axis in (2, 3):
        picture = g.slice(picture, axis, edge, edge + 72)
    small = g.add("AveragePool", picture, kernel_shape=[6, 6], strides=[6, 6])
    centred = g.add("Flatten", g.add("Sub", small, g.add("ReduceMean", small, axes=[2, 3], keepdims=1)))
    contrast = g.add("ReduceMean", g.add("Mul", centred, centred), axes=[1], keepdims=1)
    unit = g.add("Div", centred, g.add("Sqrt", g.scaled(contrast, 1.0, 1e-4)))
    weights = np.random.default_rng(5).standard_normal((432, width)) / np.sqrt(512)
    out = g.add("MatMul", unit, g.constant(weights))
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, crop, crop])
    return g.model([data], [helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, width])])


def build_pack(folder: Path) -> Path:
    """Write a detector and a recogniser into the folder, under the names of buffalo_l. Returns the folder."""
    save(detector(), folder / "det_10g.onnx")
    save(recogniser(), folder / "w600k_r50.onnx")
    return folder


Box = tuple[int, int, int, int]
"""x0 y0 x1 y1 in pixels; x1 and y1 are outside."""


def marker_colour(score: float) -> NDArray[np.uint8]:
    """(3,) RGB of a frame that the detector finds with about this score, 0..1."""
    return np.round(127.5 + 127.5 * score * np.array([1, -1, 1])).astype(np.uint8)


def tint_quarter(image: NDArray[np.uint8], box: Box, quarters: int = 0) -> None:
    """Make the frame of a marker redder in its upper left quarter, in place: this way is up.

    quarters: clockwise quarter turns by which the face lies, 0..3. Scores up to 0.7 leave red room for all of it.
    """
    x0, y0, x1, y1 = box
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    left, up = ((True, True), (False, True), (False, False), (True, False))[quarters % 4]
    rows = slice(max(y0, 0), max(middle_y, 0)) if up else slice(max(middle_y, 0), max(y1, 0))
    columns = slice(max(x0, 0), max(middle_x, 0)) if left else slice(max(middle_x, 0), max(x1, 0))
    part = image[rows, columns]
    magenta = (part[..., 0] > 150) & (part[..., 1] < 100) & (part[..., 2] > 150)
    part[magenta, 0] = np.minimum(part[magenta, 0].astype(int) + _TINT, 255)


def draw_marker(image: NDArray[np.uint8], box: Box, score: float = 0.8, edge: float = 1 / 6) -> None:
    """A magenta frame on the image (H, W, 3) RGB, in place. What is inside the frame stays: that is the face.

    edge: thickness of the frame in parts of the shorter side, at least 8 px; 0.5 fills it.
    """
    x0, y0, x1, y1 = box
    inner = max(CELL, round(min(x1 - x0, y1 - y0) * edge))
    kept = image[y0 + inner : y1 - inner, x0 + inner : x1 - inner].copy()
    image[y0:y1, x0:x1] = marker_colour(score)
    image[y0 + inner : y1 - inner, x0 + inner : x1 - inner] = kept
