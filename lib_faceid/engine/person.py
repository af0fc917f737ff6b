"""Somebody ready to be in pictures: an identity, and what has to be said about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.strength import Strength, factors_by_turn
from ..core.unet_map import BASE_TITLES, Base, layers
from ..errors import BadRequest
from ..library.identity import Identity
from ..library.photos import read_photo
from ..weights.adapter import Adapter
from .acts import Act
from .notes import Note
from .request import Unit


@dataclass(frozen=True, eq=False)
class Person:
    """An identity with what is to be told about it: its key, the digests of its photos, and remarks on them.

    ``name`` is a saved person's, otherwise empty; ``adapter`` the file it was made with, where that is at hand.
    ``likeness``: of several photos, how much each is like the others, as a cosine.
    """

    identity: Identity
    key: str
    adapter: Adapter | None
    name: str = ""
    photos: tuple[str, ...] = ()
    remarks: tuple[Note, ...] = ()
    likeness: tuple[float, ...] = ()

    @property
    def lacks_lora(self) -> bool:
        """True when the LoRA it was made with is not at hand."""
        return self.identity.origin.has_lora and self.adapter is None

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        parts = [part for part in (self.identity.main, self.identity.clip) if part is not None]
        return sum(kv.k.nbytes + kv.v.nbytes for part in parts for kv in part.kv.values())

    def lora(self, unit: Unit) -> float | None:
        """Strength of the LoRA in a picture; None where there is none."""
        return unit.lora if self.identity.origin.has_lora and self.adapter is not None else None

    def act(self, unit: Unit, *, hires_pass: bool = False) -> Act:
        """The person's part in a sampling pass. Raises BadRequest, BadPhoto or MaskMismatch."""
        identity = self.identity
        by_layer = None if unit.layers is None else _by_layer(identity.base, unit.layers)
        return Act(
            identity.with_structure(unit.structure) if identity.has_structure else identity,
            Strength(unit.weight_in(hires_pass), unit.start, unit.end, by_layer),
            mask=None if unit.mask is None else _read_mask(unit),
            lora=self.lora(unit) or 0.0,
            adapter=self.adapter,
        )


def _by_layer(base: Base, factors: tuple[float, ...]) -> tuple[float, ...]:
    """Factors by layer from factors by attention in the order of execution. Raises BadRequest for a wrong number."""
    expected = 1 + max(layer.turn for layer in layers(base))
    if len(factors) != expected:
        raise BadRequest(f"Layer factors (layers) has {len(factors)} numbers; {BASE_TITLES[base]} needs {expected}.")
    return factors_by_turn(base, dict(enumerate(factors)))


def _read_mask(unit: Unit) -> NDArray[np.uint8]:
    return read_photo(unit.mask).pixels.mean(axis=2).astype(np.uint8)
