"""Where a host and the engine meet: what a host hands over, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..core.calls import CallSource
from ..errors import warn_user


@dataclass(frozen=True)
class Target:
    """The UNet to act on, what the host knows about each call of it, and how the host tells a person something."""

    unet: nn.Module
    source: CallSource
    tell: Callable[[str], None] = warn_user
