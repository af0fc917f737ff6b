"""The sizes of ``ip_adapter``, read from its tensors' names and shapes, and the names and shapes that follow from them.

The base is told by the number of layers and every width by majority, so any UNet of the two topologies will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..core.unet_map import BASE_TITLES, Base, Layer, base_of_count, layers
from ..errors import BrokenWeights
from .inventory import Inventory, Shape

# UNet levels counted from the outside: SD1.5 has four blocks on each side, SDXL three. Attention ends at level 2, and
# the middle block is as wide as that (channel_mult 1 2 4 4 and 1 2 4).
_BLOCKS: dict[Base, int] = {"sd15": 4, "sdxl": 3}
_DEEPEST = 2


@dataclass(frozen=True)
class LayerSizes:
    """Of the K, V and LoRA part: channels by UNet level, context width X, LoRA rank (0: no LoRA)."""

    base: Base
    channels: dict[int, int]
    context: int
    rank: int


def read_layers(inventory: Inventory) -> LayerSizes:
    """Sizes of ``ip_adapter``, each by majority, so that the odd tensor out is the one that is reported.

    Raises BrokenWeights when the numbers of the layers are those of no base.
    """
    base = _read_base(inventory)
    channels: dict[int, list[int]] = {}
    contexts: list[int] = []
    for layer in layers(base):
        for name in _kv_names(layer):
            if name in inventory.shapes:
                channels.setdefault(_level(base, layer), []).append(inventory.size(name, 0))
                contexts.append(inventory.size(name, 1))
    widths = {level: _most_common(found) for level, found in channels.items()}
    return LayerSizes(base, widths, _most_common(contexts), _read_rank(inventory))


def _read_rank(inventory: Inventory) -> int:
    """0 without a LoRA; any half of a pair makes the whole LoRA expected."""
    halves = inventory.find(r"ip_adapter\.\d+\.to_\w+_lora\.(down|up)\.weight$")
    return _most_common([inventory.size(half[0], 0 if half[1] == "down" else 1) for half in halves])


def _read_base(inventory: Inventory) -> Base:
    numbers = {int(match[1]) for match in inventory.find(r"ip_adapter\.(0|[1-9]\d{0,3})\.to_[kv]_ip\.weight$")}
    base = base_of_count(len(numbers))
    if base is None:
        raise BrokenWeights(
            f"{inventory.title} has keys and values (to_k_ip, to_v_ip) for {len(numbers)} layers{_absent(numbers)}; an "
            f"adapter for SD1.5 has {len(layers('sd15'))} and one for SDXL {len(layers('sdxl'))}. Get the file again."
        )
    strange = sorted(numbers - {layer.key for layer in layers(base)})
    if strange:
        raise BrokenWeights(
            f"{inventory.title} numbers one of its {len(numbers)} layers {strange[0]}; in an adapter for "
            f"{BASE_TITLES[base]} they are the odd numbers from 1 to {layers(base)[-1].key}. Get the file again."
        )
    return base


def _absent(numbers: set[int]) -> str:
    """Which number is absent, where that is clear: one layer is missing from a base's."""
    for base in _BLOCKS:
        absent = {layer.key for layer in layers(base)} - numbers
        if len(absent) == 1:
            return f" (number {absent.pop()} is missing)"
    return ""


def expected_layers(sizes: LayerSizes) -> dict[str, Shape]:
    """Names and shapes of ``ip_adapter``: K and V (C, X); LoRA pairs of q, k, v, out on both attentions of a block."""
    expected: dict[str, Shape] = {}
    for layer in layers(sizes.base):
        channels = sizes.channels[_level(sizes.base, layer)]
        expected |= dict.fromkeys(_kv_names(layer), (channels, sizes.context))
        if sizes.rank:
            expected |= _lora_shapes(layer.key - 1, channels, channels, sizes.rank)
            expected |= _lora_shapes(layer.key, channels, sizes.context, sizes.rank)
    return expected


def _lora_shapes(number: int, channels: int, context: int, rank: int) -> Iterator[tuple[str, Shape]]:
    for part, width in (("q", channels), ("k", context), ("v", context), ("out", channels)):
        yield f"ip_adapter.{number}.to_{part}_lora.down.weight", (rank, width)
        yield f"ip_adapter.{number}.to_{part}_lora.up.weight", (channels, rank)


def _kv_names(layer: Layer) -> tuple[str, str]:
    return f"ip_adapter.{layer.key}.to_k_ip.weight", f"ip_adapter.{layer.key}.to_v_ip.weight"


def _level(base: Base, layer: Layer) -> int:
    part, number, *_ = layer.diffusers.split(".")
    if part == "mid_block":
        return _DEEPEST
    return int(number) if part == "down_blocks" else _BLOCKS[base] - 1 - int(number)


def _most_common(sizes: list[int]) -> int:
    return Counter(sizes).most_common(1)[0][0] if sizes else 0
