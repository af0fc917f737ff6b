"""Where a host and the engine meet: what a host hands over, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from ..core.calls import CallSource
from ..core.patch import live_patches
from ..core.session import OnError
from ..core.unet_map import UNetLayers
from ..errors import warn_user
from ..weights.lora import Lora
from ..weights.merge import LoraMerge


@runtime_checkable
class HeldLora(Protocol):
    """A LoRA of ours in a UNet, installed with its first holder and removed with its last: a patch."""

    unet: nn.Module
    lora: Lora
    strength: float

    def hold(self) -> None: ...

    def release(self) -> None: ...


PlaceLora = Callable[[UNetLayers, nn.Module, Lora, float], HeldLora]


@dataclass(frozen=True)
class Target:
    """The UNet to act on, what the host knows about each call of it, and how the host tells a person something.

    ``place_lora`` chooses how a LoRA gets into the host's UNet; it touches nothing until the LoRA is held.
    ``on_error`` hears of what goes wrong while the UNet runs and may end the block; without it, it is raised.
    """

    unet: nn.Module
    source: CallSource
    tell: Callable[[str], None] = warn_user
    place_lora: PlaceLora = LoraMerge
    on_error: OnError | None = None


def held_loras(unet: nn.Module) -> list[HeldLora]:
    """The LoRAs of ours that are in the UNet now, however they got there."""
    return [patch for patch in live_patches() if isinstance(patch, HeldLora) and patch.unet is unet]
