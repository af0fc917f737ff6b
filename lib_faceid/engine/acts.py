"""Who takes part in a picture, and how: the arguments of a caller as one list of acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core.entries import Entry
from ..core.masks import check_mask
from ..core.strength import Strength
from ..library.identity import Identity
from ..weights.adapter import Adapter

People = Identity | Sequence[Identity]
Mask = Any  # a tensor, a numpy array or a PIL image


@dataclass(frozen=True)
class Act:
    """One identity's part in a picture. ``lora`` None means the default strength where the adapter has a LoRA.

    ``adapter`` is where the LoRA is read from; None is the file the identity was made with, if this process made it.
    ``images`` are the pictures of the batch it acts on, None for all.
    """

    identity: Identity
    strength: Strength = field(default_factory=Strength)
    mask: Mask | None = None
    images: frozenset[int] | None = None
    lora: float | None = None
    adapter: Adapter | None = None

    def entry(self) -> Entry:
        """What the tap needs. Raises MaskMismatch for a mask that is none."""
        mask = None if self.mask is None else check_mask(_as_tensor(self.mask))
        return Entry(self.identity.kv, self.strength, mask, self.images)


@dataclass(frozen=True)
class Together:
    """Several identities with one window, one LoRA strength and one adapter; weights and masks may differ."""

    people: People
    weight: float | Sequence[float] = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    mask: Mask | Sequence[Mask | None] | None = None
    lora: float | None = None
    adapter: Adapter | None = None

    def acts(self) -> list[Act]:
        """One act for each identity. Raises ValueError when there is none, or weights or masks do not match in
        number.
        """
        people = [self.people] if isinstance(self.people, Identity) else list(self.people)
        if not people:
            raise ValueError("No identity was given; make one with make_identity or load one with load_identity.")
        weights = _spread(self.weight, len(people), "weight")
        masks = _spread(self.mask, len(people), "mask")
        return [
            Act(person, Strength(float(weight), *self.window), mask, lora=self.lora, adapter=self.adapter)
            for person, weight, mask in zip(people, weights, masks, strict=True)
        ]


def _spread(value: Any, count: int, name: str) -> list[Any]:
    """One value for everybody, or a list or tuple of one for each."""
    values = list(cast("Sequence[Any]", value)) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{count} identities need one {name}, or one for each; found {len(values)}.")
    return values


def _as_tensor(mask: Mask) -> Tensor:
    return mask if isinstance(mask, Tensor) else torch.as_tensor(np.array(mask))
