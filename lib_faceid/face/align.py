"""The upright, centred crop of a face, from its five points. Same framing as ``insightface.utils.face_align``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import BadPhoto
from .opencv import load_cv2
from .types import FloatsOf, Photo

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""Where the five points of a face lie in a crop of 112 px: ArcFace (arXiv 1801.07698), insightface face_align.py."""

_WIDER_OFFSET = 8.0  # sizes 128·k show 8·k px more on the left and right, and 16·k px more at the bottom


def target_points(size: int) -> NDArray[np.float64]:
    """(5, 2): where the points lie in a crop of ``size`` px. Raises ValueError unless size is 112·k or 128·k.

    A multiple of both (896) counts as one of 112, as in insightface.
    """
    if size > 0 and size % 112 == 0:
        return TEMPLATE * (size / 112)
    if size > 0 and size % 128 == 0:
        return (TEMPLATE + np.array([_WIDER_OFFSET, 0.0])) * (size / 128)
    raise ValueError(f"A face crop is a multiple of 112 or 128 px wide; found {size}.")


def estimate_similarity(source: FloatsOf, target: FloatsOf) -> NDArray[np.float64]:
    """(2, 3) matrix of the turn, scale and shift that takes source (n, 2) to target (n, 2) with least squared error.

    Umeyama (1991), equation 40, for the plane: with points as complex numbers z the map is z → a·z + b, and the least
    squares a is one quotient. A mirror image cannot be expressed by it, just as Umeyama's sign matrix rules it out.
    Raises BadPhoto when the source points coincide.
    """
    z, w = (points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64) for points in (source, target))
    centred = z - z.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not np.isfinite(spread) or spread == 0.0:
        raise BadPhoto("The five points of this face coincide or are not numbers, so it cannot be aligned.")
    a = np.sum(np.conj(centred) * (w - w.mean())) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def norm_crop(image: Photo, points: FloatsOf, size: int = 112) -> Photo:
    """The face as (size, size, 3) uint8, in the image's channel order; outside of the image is black.

    image: (H, W, 3) uint8; points: (5, 2) pixels. 224 is the framing FaceID Plus was published with.
    """
    matrix = estimate_similarity(points, target_points(size))
    return load_cv2().warpAffine(np.ascontiguousarray(image), matrix, (size, size), borderValue=0.0)
