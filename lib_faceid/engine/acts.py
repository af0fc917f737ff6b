"""Who takes part in a picture, and how: the arguments of a caller as one list of acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TypeVar

from torch import Tensor

from ..core.entries import Entry
from ..core.masks import check_mask
from ..core.strength import Strength
from ..library.identity import Identity
from ..weights.adapter import Adapter

People = Identity | Sequence[Identity]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Act:
    """One identity's part in a picture. ``lora`` None means the default strength where the adapter has a LoRA.

    ``adapter`` is where the LoRA is read from; None is the file the identity was made with, if this process made it.
    ``images`` are the pictures of the batch it acts on, None for all.
    """

    identity: Identity
    strength: Strength = field(default_factory=Strength)
    mask: Tensor | None = None
    images: frozenset[int] | None = None
    lora: float | None = None
    adapter: Adapter | None = None

    def entry(self) -> Entry:
        """What the tap needs. Raises MaskMismatch for a mask that is none."""
        mask = None if self.mask is None else check_mask(self.mask)
        return Entry(self.identity.kv, self.strength, mask, self.images)


@dataclass(frozen=True)
class Together:
    """Several identities with one window, one LoRA strength and one adapter; weights and masks may differ."""

    people: People
    weight: float | Sequence[float] = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    mask: Tensor | Sequence[Tensor | None] | None = None
    lora: float | None = None
    adapter: Adapter | None = None

    def acts(self) -> list[Act]:
        """One act for each identity. Raises ValueError when the numbers of weights or masks do not match."""
        people = [self.people] if isinstance(self.people, Identity) else list(self.people)
        weights = (
            _spread(self.weight, len(people), "weight") if isinstance(self.weight, Sequence) else repeat(self.weight)
        )
        masks = _spread(self.mask, len(people), "mask") if isinstance(self.mask, Sequence) else repeat(self.mask)
        return [
            Act(person, Strength(float(weight), *self.window), mask, lora=self.lora, adapter=self.adapter)
            for person, weight, mask in zip(people, weights, masks, strict=False)  # repeat() has no end
        ]


def _spread(values: Sequence[Value], count: int, name: str) -> Sequence[Value]:
    if len(values) != count:
        raise ValueError(f"{count} identities need one {name}, or one for each; found {len(values)}.")
    return values
