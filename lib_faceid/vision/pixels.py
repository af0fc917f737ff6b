"""Photos as CLIP saw them in training: exactly what transformers' CLIPImageProcessor makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BadIdentity

# Mean and standard deviation of R, G, B in OpenAI's training images (openai/CLIP clip/clip.py, _transform).
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
# Long side by short side. A photo is below 4; a strip would be resized to any length before it is cropped.
_LONGEST_STRIP = 100


def prepare(images: Sequence[np.ndarray], size: int) -> Tensor:
    """Pixels (B, 3, size, size), float32, of uint8 RGB arrays (H, W, 3), each of its own height and width.

    The shortest edge is resized to ``size`` (PIL, bicubic, antialiased), the middle cropped, values divided by 255 and
    normalised. A picture of ``size`` x ``size`` is not resampled. Raises BadIdentity for another kind of array.
    """
    prepared = [_prepare_one(image, size) for image in images]
    if not prepared:
        raise BadIdentity("CLIP features were asked for without a photo. Give at least one.")
    return torch.from_numpy(np.stack(prepared))


def _prepare_one(image: np.ndarray, size: int) -> np.ndarray:
    """(3, size, size) float32."""
    _ensure_photo(image)
    pixels = np.asarray(_crop(_resize(Image.fromarray(np.ascontiguousarray(image)), size), size))
    scaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)  # rounded once, as the processor does
    return np.ascontiguousarray(((scaled - _MEAN) / _STD).transpose(2, 0, 1))


def _ensure_photo(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadIdentity(
            f"CLIP takes photos as uint8 RGB arrays (height, width, 3); found {image.dtype} of shape {image.shape}."
        )
    height, width = image.shape[:2]
    if max(height, width) > _LONGEST_STRIP * min(height, width):
        raise BadIdentity(f"A photo of {width} x {height} pixels is too narrow to show a face. Crop it.")


def _resize(photo: Image.Image, size: int) -> Image.Image:
    short, long = sorted(photo.size)
    new_long = int(size * long / short)  # cut off, not rounded: transformers image_transforms.py
    wide = photo.width >= photo.height
    return photo.resize((new_long, size) if wide else (size, new_long), Image.Resampling.BICUBIC)


def _crop(photo: Image.Image, size: int) -> Image.Image:
    left, top = (photo.width - size) // 2, (photo.height - size) // 2
    return photo.crop((left, top, left + size, top + size))
