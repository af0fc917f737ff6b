"""Refuse what is not a photo before a library sees it: insightface answers with anything from None to a cv2 crash."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import BadPhoto
from .types import Photo

MIN_SIDE = 16  # the smallest anchor of SCRFD's finest stride; fewer pixels hold no face
MAX_SIDE = 32_000  # cv2.warpAffine and cv2.remap address the source with 16-bit numbers
MAX_PIXELS = 64_000_000  # 192 MB as RGB; the largest cameras sold to people have about as many
MAX_ASPECT = 32  # at 640 px the shorter side has 20 px left, at 128 px still 4

_ASK = "Give an RGB photo as a numpy array of shape (height, width, 3) and type uint8"


def check_photo(image: object, label: str = "The photo") -> Photo:
    """The image as a contiguous (H, W, 3) uint8 array. Raises BadPhoto; ``label`` is what the sentence calls it."""
    if not isinstance(image, np.ndarray):
        raise BadPhoto(f"{label} is of type {type(image).__name__}. {_ASK}.")
    array = cast("NDArray[Any]", image)
    if array.dtype != np.uint8:
        raise BadPhoto(f"{label} is an array of {array.dtype}. {_ASK}; values from 0 to 1 are multiplied by 255 first.")
    if array.ndim != 3 or array.shape[2] != 3:
        raise BadPhoto(f"{label} is an array of shape {array.shape}{_kind(array.shape)}. {_ASK}.")
    _check_size(array.shape[1], array.shape[0], label)
    return np.ascontiguousarray(array)


def _kind(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return ", a grey picture"
    return ", a picture with transparency" if len(shape) == 3 and shape[2] == 4 else ""


def _check_size(width: int, height: int, label: str) -> None:
    if min(height, width) < MIN_SIDE:
        raise BadPhoto(f"{label} is {width}x{height} px; a face needs at least {MIN_SIDE} px. Use a larger photo.")
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        limit = f"{MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} px a side"
        raise BadPhoto(f"{label} is {width}x{height} px; at most {limit} are searched. Make it smaller.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise BadPhoto(f"{label} is {width}x{height} px, a strip too narrow to search. Cut it to the face.")
