"""What an identity gives to the layers: tokens for both prompt sides, and the keys and values made of them.

Shapes: T identity tokens, X context width, C channels of a layer. Everything here is float32 on the CPU; the tap moves
and casts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Side = Literal["cond", "uncond"]
SIDES: tuple[Side, Side] = ("uncond", "cond")


class Row(NamedTuple):
    """Whose prompt a UNet row works on: its side, and which picture of the batch it belongs to."""

    side: Side
    image: int = 0


@dataclass(frozen=True)
class Tokens:
    """Identity tokens (T, X) of the positive side, and those of the projected zero input for the negative side."""

    cond: Tensor
    uncond: Tensor

    def __post_init__(self) -> None:
        if self.cond.ndim != 2 or self.cond.shape != self.uncond.shape:
            raise ValueError(
                f"Tokens of both sides have one shape (T, X); found {tuple(self.cond.shape)} and "
                f"{tuple(self.uncond.shape)}."
            )

    def plus(self, factor: float, other: Tokens) -> Tokens:
        """self + factor * other, on both sides."""
        return Tokens(self.cond + factor * other.cond, self.uncond + factor * other.uncond)

    def stacked(self) -> Tensor:
        """(2, T, X), the uncond side first, as in SIDES."""
        return torch.stack((self.uncond, self.cond))


@dataclass(frozen=True)
class LayerKV:
    """Keys and values (2, T, C) of one layer, the uncond side first, as in SIDES."""

    k: Tensor
    v: Tensor

    def plus(self, factor: float, other: LayerKV) -> LayerKV:
        """self + factor * other; keys and values are linear in the tokens."""
        return LayerKV(self.k + factor * other.k, self.v + factor * other.v)


KV = Mapping[int, LayerKV]  # by layer number n
LayerWeights = tuple[int, Tensor, Tensor]  # n, to_k_ip (C, X), to_v_ip (C, X)


def project_kv(tokens: Iterable[Tokens], weights: Iterable[LayerWeights]) -> list[dict[int, LayerKV]]:
    """K = tokens @ to_k_ip.T and V = tokens @ to_v_ip.T for every layer and every set of tokens, in float32.

    ``weights`` is consumed once, a layer at a time, so that a file of 1.5 GB passes through memory two matrices at a
    time.
    """
    stacks = [item.stacked() for item in tokens]
    results: list[dict[int, LayerKV]] = [{} for _ in stacks]
    scratch = _Scratch()
    for n, to_k, to_v in weights:
        keys = _project(stacks, scratch.float32(to_k))
        values = _project(stacks, scratch.float32(to_v))
        for result, k, v in zip(results, keys, values, strict=True):
            result[n] = LayerKV(k, v)
    return results


def _project(stacks: list[Tensor], weight: Tensor) -> list[Tensor]:
    """(2, T, X) @ (C, X)ᵀ for every stack."""
    return [stack @ weight.T for stack in stacks]


class _Scratch:
    """One float32 buffer for all layers.

    Fresh ones are not reused by the allocator once small results lie between them: the process would grow by the size
    of the file.
    """

    def __init__(self) -> None:
        self._buffer = _empty(0)

    def float32(self, weight: Tensor) -> Tensor:
        """The weight's values in the buffer; valid until the next call."""
        if self._buffer.numel() < weight.numel():
            self._buffer = _empty(weight.numel())
        return self._buffer[: weight.numel()].view(weight.shape).copy_(weight)


def _empty(count: int) -> Tensor:
    """Float32 on the CPU whatever torch's defaults are; hosts change them."""
    return torch.empty(count, dtype=torch.float32, device="cpu")
