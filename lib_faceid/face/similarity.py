"""How alike two faces are: the cosine of the angle between their vectors. 1: the same photo; about 0: strangers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import BadIdentity
from .types import Floats, FloatsOf


def cosine(a: FloatsOf, b: FloatsOf) -> float:
    """Similarity of two vectors (512,), raw or normed. Raises BadIdentity for zeros or different lengths."""
    return float(cosine_matrix(a[None], b[None])[0, 0])


def cosine_matrix(a: FloatsOf, b: FloatsOf) -> Floats:
    """(k, m) float32 in [-1, 1]: similarity of each row of a (k, 512) with each row of b (m, 512)."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise BadIdentity(
            f"Face vectors of shape {a.shape[1:]} and {b.shape[1:]} cannot be compared; both come from one recogniser."
        )
    return np.asarray(np.minimum(np.maximum(_unit(a) @ np.transpose(_unit(b)), -1.0), 1.0), np.float32)


def _unit(rows: FloatsOf) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths == 0.0):
        raise BadIdentity("A face vector is all zeros or not a number, which no face gives; extract it again.")
    return wide / lengths
