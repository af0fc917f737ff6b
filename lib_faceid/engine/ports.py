"""Where a host and the engine meet: what a host hands over, and nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..core.calls import CallSource


@dataclass(frozen=True)
class Target:
    """The UNet to act on, and what the host knows about each call of it."""

    unet: nn.Module
    source: CallSource
