"""The arithmetic around a SCRFD detector (arXiv 2105.04714): fitting a photo into its input, reading its output maps.

Numbers and order of operations are those of insightface's scrfd.py, so that both give the same boxes to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .opencv import load_cv2
from .types import Detections, Floats, Photo

MEAN, STD = 127.5, 128.0
OVERLAP = 0.4  # two boxes that share more of their union are one face
_POINTS = 5


def fit_into(image: Photo, size: int, side: int) -> tuple[Photo, float]:
    """The photo in the top left corner of a black (side, side, 3) square, its longer edge ``size`` px, and the scale.

    The scale is new height / old height, truncated to whole pixels as insightface does it.
    """
    height, width = image.shape[:2]
    ratio = height / width
    new_height, new_width = (size, int(size / ratio)) if ratio > 1 else (int(size * ratio), size)
    square = np.zeros((side, side, 3), np.uint8)
    square[:new_height, :new_width] = load_cv2().resize(image, (new_width, new_height))
    return square, new_height / height


def to_input(square: Photo) -> Floats:
    """(side, side, 3) RGB uint8 → (1, 3, side, side) float32: the network was trained on RGB."""
    scaled = (square.astype(np.float32) - MEAN) * (1.0 / STD)
    return np.ascontiguousarray(np.transpose(scaled, (2, 0, 1))[None], np.float32)


def decode(outputs: Sequence[Floats], side: int, scale: float, threshold: float) -> Detections:
    """Faces with at least ``threshold`` in pixels of the photo, overlaps removed (in those pixels: see keep_best).

    side, scale: of the square the network saw, from ``fit_into``.
    outputs: scores (n, 1), then box distances (n, 4), then point offsets (n, 10), each for strides 8, 16, 32 (two
    anchors per position) or 8 to 128 (one anchor); some models put a batch dimension of 1 before.
    """
    levels = len(outputs) // 3
    anchors = 2 if levels == 3 else 1
    flat = [np.asarray(output, np.float32) for output in outputs]
    flat = [output[0] if output.ndim == 3 else output for output in flat]
    parts = [_read_level(flat[i::levels], side, 8 << i, anchors, threshold) for i in range(levels)]
    boxes, points, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    found = Detections((boxes / scale).astype(np.float32), (points / scale).astype(np.float32), scores)
    order = np.argsort(-found.scores, kind="stable")
    return take(found, order[keep_best(take(found, order))])


def _read_level(maps: Sequence[Floats], side: int, stride: int, anchors: int, threshold: float) -> Detections:
    """One stride's faces. Distances and offsets are in strides, from the anchor at (column · stride, row · stride)."""
    scores, boxes, points = maps
    kept = np.flatnonzero(scores[:, 0] >= threshold)
    cells = side // stride
    position = kept // anchors
    centre = np.stack([position % cells, position // cells], axis=1).astype(np.float32) * stride
    reach = boxes[kept] * stride
    corners = np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1)
    spots = centre[:, None] + np.reshape(points[kept] * stride, (-1, _POINTS, 2))
    return Detections(corners, spots, scores[kept, 0])


def keep_best(found: Detections) -> NDArray[np.intp]:
    """Indices of the boxes, best first, that overlap no better one by more than OVERLAP.

    Sides are counted as x1 - x0 + 1, as the detector's authors do.
    """
    x0, y0, x1, y1 = (found.boxes[:, i] for i in range(4))
    areas = (x1 - x0 + 1) * (y1 - y0 + 1)
    left = np.arange(len(areas))
    kept: list[int] = []
    while left.size:
        best, rest = left[0], left[1:]
        kept.append(int(best))
        width = np.maximum(0.0, np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest]) + 1)
        height = np.maximum(0.0, np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest]) + 1)
        shared = width * height
        left = rest[shared / (areas[best] + areas[rest] - shared) <= OVERLAP]
    return np.array(kept, np.intp)


def take(found: Detections, which: NDArray[np.intp]) -> Detections:
    return Detections(found.boxes[which], found.points[which], found.scores[which])
