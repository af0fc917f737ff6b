"""Region masks: a picture-sized mask brought to the true size of each attention layer."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..errors import MaskMismatch

_LEVELS = 7  # a latent of 8192 px is 1024 wide: 7 halvings are more than any UNet makes


def layer_size(latent: tuple[int, int], queries: int) -> tuple[int, int]:
    """(height, width) of the layer that has ``queries`` positions, for a latent of (height, width).

    Every downsampling of these UNets is a convolution of stride 2 and padding 1, so a side s becomes ceil(s / 2).
    Raises MaskMismatch when no level has that many positions (a tiling or token-merging extension is at work).
    """
    height, width = latent
    for _ in range(_LEVELS):
        if height * width == queries:
            return height, width
        height, width = (height + 1) // 2, (width + 1) // 2
    raise MaskMismatch(
        f"A region mask cannot be used here: a layer has {queries} positions and no level of a {latent[0]}x{latent[1]} "
        "latent has that many. Tiling and token merging change the layers' size; switch them off or remove the mask."
    )


def check_mask(mask: Tensor) -> Tensor:
    """The mask as float32 (height, width) on the CPU with values in 0..1.

    Accepts (height, width) or (1, height, width) of bool, of floats, or of integers, which mean 0..255 as soon as one
    of them is above 1. Raises MaskMismatch for other shapes, an empty mask or values that are not numbers.
    """
    plane = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
    if plane.ndim != 2 or plane.numel() == 0:
        raise MaskMismatch(f"A region mask has the shape (height, width); found {tuple(mask.shape)}.")
    values = plane.detach().to("cpu", torch.float32)
    if not torch.isfinite(values).all():
        raise MaskMismatch("The region mask holds values that are not numbers; give 0 (not here) to 1 (here).")
    whole = not (plane.is_floating_point() or plane.dtype == torch.bool)
    return (values / 255.0 if whole and values.max() > 1 else values).clamp(0.0, 1.0)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average of a checked (H, W) mask to (height, width), flattened to (height * width,), clamped to 0..1."""
    resized = functional.interpolate(mask[None, None], size=size, mode="area")
    return resized.flatten().clamp(0.0, 1.0)
