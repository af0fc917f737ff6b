"""The LoRA of an adapter, to be merged into a UNet."""

from __future__ import annotations

from torch import nn

from lib_faceid.core.unet_map import find_layers
from lib_faceid.weights.merge import LoraMerge

from ..adapters import Made


def merge_of(unet: nn.Module, made: Made, strength: float = 1.0) -> LoraMerge:
    return LoraMerge(find_layers(unet), unet, made.load().lora(), strength)


def to_q(unet: nn.Module) -> nn.Linear:
    """One of the weights that a merge changes."""
    return unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
