"""Which cross-attention a number in an adapter file means, in ldm and in diffusers names.

Published files number attention processors the way diffusers lists them: down blocks, up blocks, then the middle block,
self-attention before cross-attention (diffusers ``UNet2DConditionModel.attn_processors``). Cross-attention ``n``
therefore has key ``2n + 1`` and its self-attention ``2n``. This is *not* the order of execution: the middle block is
last here and runs between the two halves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from torch import nn

from ..errors import UnsupportedUNet

Base = Literal["sd15", "sdxl"]
BASE_TITLES: dict[Base, str] = {"sd15": "SD1.5", "sdxl": "SDXL"}
CONTEXT_WIDTHS: dict[Base, int] = {"sd15": 768, "sdxl": 2048}
_SD2_CONTEXT = 1024  # configs/stable-diffusion/v2-inference.yaml

# (ldm attention, diffusers attention, transformer blocks in it), in the order of the files.
# SD1.5: configs/stable-diffusion/v1-inference.yaml (channel_mult 1 2 4 4, attention at the first three levels);
# SDXL: configs/inference/sd_xl_base.yaml (channel_mult 1 2 4, transformer_depth 0 2 10).
_SD15 = (
    ("input_blocks.1.1", "down_blocks.0.attentions.0", 1),
    ("input_blocks.2.1", "down_blocks.0.attentions.1", 1),
    ("input_blocks.4.1", "down_blocks.1.attentions.0", 1),
    ("input_blocks.5.1", "down_blocks.1.attentions.1", 1),
    ("input_blocks.7.1", "down_blocks.2.attentions.0", 1),
    ("input_blocks.8.1", "down_blocks.2.attentions.1", 1),
    ("output_blocks.3.1", "up_blocks.1.attentions.0", 1),
    ("output_blocks.4.1", "up_blocks.1.attentions.1", 1),
    ("output_blocks.5.1", "up_blocks.1.attentions.2", 1),
    ("output_blocks.6.1", "up_blocks.2.attentions.0", 1),
    ("output_blocks.7.1", "up_blocks.2.attentions.1", 1),
    ("output_blocks.8.1", "up_blocks.2.attentions.2", 1),
    ("output_blocks.9.1", "up_blocks.3.attentions.0", 1),
    ("output_blocks.10.1", "up_blocks.3.attentions.1", 1),
    ("output_blocks.11.1", "up_blocks.3.attentions.2", 1),
    ("middle_block.1", "mid_block.attentions.0", 1),
)
_SDXL = (
    ("input_blocks.4.1", "down_blocks.1.attentions.0", 2),
    ("input_blocks.5.1", "down_blocks.1.attentions.1", 2),
    ("input_blocks.7.1", "down_blocks.2.attentions.0", 10),
    ("input_blocks.8.1", "down_blocks.2.attentions.1", 10),
    ("output_blocks.0.1", "up_blocks.0.attentions.0", 10),
    ("output_blocks.1.1", "up_blocks.0.attentions.1", 10),
    ("output_blocks.2.1", "up_blocks.0.attentions.2", 10),
    ("output_blocks.3.1", "up_blocks.1.attentions.0", 2),
    ("output_blocks.4.1", "up_blocks.1.attentions.1", 2),
    ("output_blocks.5.1", "up_blocks.1.attentions.2", 2),
    ("middle_block.1", "mid_block.attentions.0", 10),
)
_TABLES: dict[Base, tuple[tuple[str, str, int], ...]] = {"sd15": _SD15, "sdxl": _SDXL}


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer block: ``n`` in file order, its two names (without ``.attn1`` / ``.attn2``), its place in
    execution.

    ``turn`` counts the attentions (not the blocks in them) in the order the UNet runs them: 0..15 for SD1.5, 0..10 for
    SDXL. The weight curves of ComfyUI_IPAdapter_plus and of ControlNet are written in it.
    """

    n: int
    ldm: str
    diffusers: str
    turn: int

    @property
    def key(self) -> int:
        """Number of the cross-attention in the file; the self-attention of the block has ``key - 1``."""
        return 2 * self.n + 1


@cache
def layers(base: Base) -> tuple[Layer, ...]:
    """All blocks of a base in file order: 16 for SD1.5, 70 for SDXL."""
    return tuple(_enumerate(base))


def _enumerate(base: Base) -> Iterator[Layer]:
    names = [ldm for ldm, _, _ in _TABLES[base]]
    turns = {name: turn for turn, name in enumerate(sorted(names, key=_execution_rank))}
    n = 0
    for ldm, diffusers, depth in _TABLES[base]:
        for block in range(depth):
            suffix = f".transformer_blocks.{block}"
            yield Layer(n, ldm + suffix, diffusers + suffix, turns[ldm])
            n += 1


def _execution_rank(ldm: str) -> tuple[int, int]:
    part, number, *_ = ldm.split(".")
    return ("input_blocks", "middle_block", "output_blocks").index(part), int(number)


def base_of_count(count: int) -> Base | None:
    """The base whose UNet has ``count`` cross-attentions, or None."""
    return next((base for base in _TABLES if len(layers(base)) == count), None)


@cache
def numbers_by_name(base: Base) -> dict[str, int]:
    """Block name, ldm or diffusers, to n: the tables read in the other direction."""
    return {name: layer.n for layer in layers(base) for name in (layer.ldm, layer.diffusers)}


@dataclass(frozen=True, slots=True)
class UNetLayers:
    """The cross-attentions of one live UNet by n, with the name each has there (``….attn2``)."""

    base: Base
    attentions: tuple[nn.Module, ...]
    names: tuple[str, ...]
    context_width: int

    @property
    def title(self) -> str:
        """What people call the model: SD2 has the layers of SD1.5 and wider text."""
        is_sd2 = (self.base, self.context_width) == ("sd15", _SD2_CONTEXT)
        return "Stable Diffusion 2" if is_sd2 else BASE_TITLES[self.base]


def find_layers(unet: nn.Module) -> UNetLayers:
    """The UNet's ``attn2`` modules in file order.

    ``unet`` may be an ldm or sgm ``UNetModel``, a diffusers ``UNet2DConditionModel`` or a module that holds one under a
    prefix. Raises UnsupportedUNet when the names are not those of SD1.5 or SDXL (SD2 has SD1.5's names and is told by
    its context width).
    """
    modules = cast("Iterator[tuple[str, nn.Module]]", unet.named_modules())
    found = {name: module for name, module in modules if name.endswith(".attn2")}
    base = base_of_count(len(found))
    numbered = _number(found, base) if base else {}
    if base is None or len(numbered) != len(found):
        raise UnsupportedUNet(_describe(unet, found))
    names = tuple(numbered[n] for n in range(len(numbered)))
    attentions = tuple(found[name] for name in names)
    return UNetLayers(base, attentions, names, linear_sizes(attentions[0], "to_k")[0])


def _number(found: dict[str, nn.Module], base: Base) -> dict[int, str]:
    known = numbers_by_name(base)
    numbered: dict[int, str] = {}
    for name in found:
        block = name.removesuffix(".attn2")
        n = next((known[tail] for tail in _tails(block) if tail in known), None)
        if n is not None:
            numbered[n] = name
    return numbered


def _tails(name: str) -> Iterator[str]:
    """The name, then the name without its first part, and so on."""
    while name:
        yield name
        _, _, name = name.partition(".")


def linear_sizes(attention: nn.Module, projection: str) -> tuple[int, int]:
    """(in_features, out_features) of ``attention.<projection>``, through any wrapper that keeps these attributes."""
    linear = getattr(attention, projection)
    return int(linear.in_features), int(linear.out_features)


def _describe(unet: nn.Module, found: dict[str, nn.Module]) -> str:
    sample = ", ".join(list(found)[:2]) or "none"
    return (
        f"This model ({type(unet).__name__}) has {len(found)} cross-attention layers (for example {sample}); FaceID "
        "works with the 16 of Stable Diffusion 1.x and the 70 of SDXL. Load an SD1.5 or SDXL checkpoint."
    )
