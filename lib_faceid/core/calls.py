"""What one UNet call means for the taps: whose rows, how far the pass, how strong and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..errors import MaskMismatch, RowsMismatch
from .attend import Gain, Pick
from .entries import Arrangement, Entry, Run
from .masks import layer_size, resize_mask
from .tokens import Row


class CallSource(Protocol):
    """What a host knows about the UNet call that begins."""

    def rows(self, batch: int) -> Sequence[Row]:
        """Rows of a call with ``batch`` rows; a shorter sequence is repeated as a whole (tiling callers)."""
        ...

    def progress(self, timestep: object) -> float:
        """Fraction of the sampling pass, 0 at its first step. Asked only when a strength is limited in time.

        ``timestep`` is what the UNet was called with (a number, a tensor or None), for hosts that know their steps by
        it.
        """
        ...


@dataclass
class Call:
    """One UNet call: its rows, its progress, latent (height, width) where known, and what has been reached so far."""

    rows: tuple[Row, ...]
    progress: float
    latent: tuple[int, int] | None
    reached: set[int] = field(default_factory=set[int])
    acted: bool = False


class Calls:
    """Answers the taps' questions about a call; answers that repeat are kept until ``clear``."""

    def __init__(self, arrangement: Arrangement, source: CallSource) -> None:
        self._arrangement, self._source = arrangement, source
        self._timed = any(entry.strength.is_timed for entry in arrangement.entries)
        self._picks: dict[tuple[tuple[Row, ...], int, torch.device], Pick] = {}
        self._gains: dict[tuple[tuple[float, ...], tuple[int, ...], tuple[int, int] | None, torch.device], Tensor] = {}

    def begin(self, batch: int, latent: tuple[int, int] | None, timestep: object = None) -> Call:
        """A call with ``batch`` rows. Raises RowsMismatch when the source has no rows for it."""
        rows = tuple(self._source.rows(batch))
        if not rows:
            raise RowsMismatch(
                f"The UNet was called with {batch} rows and it is not known which prompt side they belong to."
            )
        return Call(rows, float(self._source.progress(timestep)) if self._timed else 0.0, latent)

    def clear(self) -> None:
        """Let go of every tensor."""
        self._picks.clear()
        self._gains.clear()

    def pick(self, call: Call, q: Tensor) -> Pick:
        """Kinds of q's rows (B, N, C). Raises RowsMismatch when B is not a multiple of the call's rows."""
        key = (call.rows, q.shape[0], q.device)
        if key not in self._picks:
            with torch.inference_mode(False):  # kept for later calls, which may want gradients
                self._picks[key] = self._new_pick(call.rows, q.shape[0], q.device)
        return self._picks[key]

    def _new_pick(self, rows: tuple[Row, ...], batch: int, device: torch.device) -> Pick:
        if batch % len(rows):
            raise RowsMismatch(
                f"The UNet was called with {batch} rows, which is not a multiple of the {len(rows)} rows known for "
                "this call, so it cannot be told which of them are positive and which negative."
            )
        kinds = [self._arrangement.kind_of(row) for row in rows] * (batch // len(rows))
        only = kinds[0] if len(set(kinds)) == 1 else None
        return Pick(torch.tensor(kinds, device=device), only)

    def gain(self, run: Run, n: int, call: Call, q: Tensor) -> Gain:
        """Strength and mask of a run's groups on layer n: one float when they agree, float32 (N or 1, G) otherwise."""
        leaders = [group[0] for group in run.groups]
        factors = tuple(entry.strength.at(n, call.progress) for entry in leaders)
        if not any(factors):
            return 0.0
        masked = any(entry.mask is not None for entry in leaders)
        if not masked and len(set(factors)) == 1:
            return factors[0]
        size = self._size_of(call, q) if masked else None
        key = (factors, tuple(id(entry.mask) for entry in leaders), size, q.device)
        if key not in self._gains:
            with torch.inference_mode(False):
                columns = [self._column(entry, factor, size) for entry, factor in zip(leaders, factors, strict=True)]
                self._gains[key] = torch.stack(columns, dim=-1).to(q.device)
        return self._gains[key]

    def _column(self, entry: Entry, factor: float, size: tuple[int, int] | None) -> Tensor:
        """factor times the mask at ``size``, flattened; (1,) where no mask takes part."""
        if size is None:
            return torch.full((1,), factor, dtype=torch.float32, device="cpu")
        if entry.mask is None:
            return torch.full((size[0] * size[1],), factor, dtype=torch.float32, device="cpu")
        return resize_mask(entry.mask, size) * factor

    def _size_of(self, call: Call, q: Tensor) -> tuple[int, int]:
        if call.latent is None:
            raise MaskMismatch(
                "A region mask cannot be used here: the size of the picture is not known, because the UNet was "
                "entered in an unusual way (gradient checkpointing, a replaced call). Undo that or remove the mask."
            )
        if q.shape[0] != len(call.rows):
            raise MaskMismatch(
                f"A region mask cannot be used here: the UNet works on {q.shape[0]} rows where {len(call.rows)} are "
                "known, as tiling extensions do. Switch tiling off or remove the mask."
            )
        return layer_size(call.latent, q.shape[1])
