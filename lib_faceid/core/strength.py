"""How strongly an identity acts: on which layer, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .unet_map import Base, layers


@dataclass(frozen=True)
class Strength:
    """Factor on the image branch before ``to_out`` (the official meaning of scale), optionally shaped by layer and
    limited in time.

    ``start`` and ``end`` are fractions of a sampling pass, 0 its first step; both ends belong to the window.
    ``by_layer`` multiplies ``weight`` for each layer n, in file order (16 numbers for SD1.5, 70 for SDXL); None is 1
    everywhere.
    """

    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    by_layer: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"A weight is a finite number; found {self.weight}.")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(f"0 <= start <= end <= 1 must hold; found start {self.start} and end {self.end}.")

    def at(self, n: int, progress: float) -> float:
        """Factor for layer n at ``progress`` (0 to 1) of the pass; 0.0 outside the window."""
        if not self.start <= min(1.0, progress) <= self.end:
            return 0.0
        return self.weight * (1.0 if self.by_layer is None else self.by_layer[n])

    def acts_on(self, n: int) -> bool:
        """Whether layer n ever receives anything."""
        return self.weight != 0.0 and (self.by_layer is None or self.by_layer[n] != 0.0)

    @property
    def is_timed(self) -> bool:
        """True when the strength depends on progress."""
        return self.start > 0.0 or self.end < 1.0

    @property
    def is_off(self) -> bool:
        """True when no layer ever receives anything."""
        return self.weight == 0.0 or (self.by_layer is not None and not any(self.by_layer))


def factors_by_turn(base: Base, factors: Mapping[int, float], default: float = 1.0) -> tuple[float, ...]:
    """Layer factors in file order from factors by execution turn t (``Layer.turn``: 0..15 for SD1.5, 0..10 for SDXL).

    Turns that are not named get ``default``. Raises ValueError for a turn the base does not have.
    """
    known = {layer.turn for layer in layers(base)}
    unknown = sorted(set(factors) - known)
    if unknown:
        raise ValueError(f"{base} has attentions 0 to {max(known)}; there is no {', '.join(map(str, unknown))}.")
    return tuple(factors.get(layer.turn, default) for layer in layers(base))
