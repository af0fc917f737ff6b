"""The image branch of one layer: softmax(q Kᵀ / √d) V for groups of identity tokens, each group with its own softmax.

Three forms of the same formula. Letters in shapes: B rows, N queries, C = h * d channels in h heads, G groups of T
tokens, R kinds of row (a row picks its keys and values by kind).

- ``BlockForm``: K and V as block-diagonal matrices, so that all heads and groups are two plain matrix products, the
  second one added straight onto the attention result. Costs h times the arithmetic and none of the rearranging.
- ``StackedForm``: per head, all groups in one product for the scores and one for the values.
- ``FusedForm``: torch's own fused attention, one group.

Which is fastest depends on T and C more than on the machine (``python -m lib_faceid bench --forms`` measures it);
``choose_form`` holds the outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

# Medians on two CPU cores, float32, 2 rows, 512x512 and 1024x1024 pictures: with 4 tokens the block form takes 0.4 to
# 1.1 of the better other's time at 320 and 640 channels and 1.2 to 1.9 of it at 1280, where it also holds the most
# memory; with 16 tokens it takes 2.4 to 10 of it.
BLOCK_MAX_TOKENS = 8
BLOCK_MAX_CHANNELS = 1024
# Stacked scores take B * h * N * G * T numbers; beyond this many tokens (full-face has 257) each group is left to fused
# attention.
STACK_MAX_TOKENS = 64

Gain = float | Tensor  # one factor, or float32 (N or 1, G): strength times region mask


@dataclass(frozen=True)
class Pick:
    """Kind of every row: an index (B,) on the device, or ``only`` when all rows are of one kind."""

    index: Tensor
    only: int | None

    def take(self, table: Tensor) -> Tensor:
        """(R, ...) -> (B, ...), or (...) when one kind serves all rows."""
        return table.index_select(0, self.index) if self.only is None else table[self.only]


class Form(Protocol):
    """Keys and values of one layer, ready for use."""

    k: Tensor
    v: Tensor

    def __init__(self, k: Tensor, v: Tensor, heads: int) -> None: ...

    def attend(self, q: Tensor, pick: Pick, gain: Gain) -> Tensor:
        """q (B, N, C) -> what ``add`` needs, computed while q is at hand."""
        ...

    def add(self, x: Tensor, pending: Tensor, pick: Pick, gain: Gain) -> Tensor:
        """x (B, N, C), the host's attention result before ``to_out`` -> x plus the image branch, in x's dtype."""
        ...


def choose_form(tokens: int, groups: int, channels: int) -> type[BlockForm] | type[StackedForm] | type[FusedForm]:
    """The form for G groups of T tokens on a layer of C channels."""
    if tokens <= BLOCK_MAX_TOKENS and channels <= BLOCK_MAX_CHANNELS:
        return BlockForm
    return FusedForm if groups == 1 else StackedForm


class BlockForm:
    """Block-diagonal matrices: k (R, C, T*G*h) with 1/√d folded in, v (R, T*G*h, C); built from (R, G, T, C)."""

    def __init__(self, k: Tensor, v: Tensor, heads: int) -> None:
        self.groups, self.tokens, self.heads = k.shape[1], k.shape[2], heads
        width = k.shape[-1] // heads
        self.k = self._spread(k / math.sqrt(width)).permute(0, 4, 3, 1, 2, 5).flatten(3).flatten(1, 2).contiguous()
        self.v = self._spread(v).permute(0, 1, 2, 5, 4, 3).flatten(4).flatten(1, 3).contiguous()

    def _spread(self, x: Tensor) -> Tensor:
        """(R, G, T, C) -> (R, T, G, d, h, h), zero where the two heads differ."""
        return torch.diag_embed(x.reshape(*x.shape[:3], self.heads, -1).permute(0, 2, 1, 4, 3))

    def attend(self, q: Tensor, pick: Pick, gain: Gain) -> Tensor:
        """(B, N, C) -> probabilities (B, N, T*G*h), with a tensor gain multiplied in.

        Tokens come before heads in the columns because a softmax over an inner dimension runs vectorised across the
        heads.
        """
        scores = torch.matmul(q, pick.take(self.k)).reshape(*q.shape[:2], self.tokens, self.groups, self.heads)
        weights = torch.softmax(scores, dim=2, dtype=torch.float32)
        if isinstance(gain, Tensor):
            weights = weights * gain[:, None, :, None]
        return weights.flatten(2).to(q.dtype)

    def add(self, x: Tensor, pending: Tensor, pick: Pick, gain: Gain) -> Tensor:
        alpha = 1.0 if isinstance(gain, Tensor) else gain
        v = pick.take(self.v)
        if x.dtype != pending.dtype:
            return x + (alpha * torch.matmul(pending, v)).to(x.dtype)
        if v.ndim == 3:
            return torch.baddbmm(x, pending, v, alpha=alpha)
        return torch.addmm(x.flatten(0, 1), pending.flatten(0, 1), v, alpha=alpha).view_as(x)


class StackedForm:
    """Per head, the tokens of all groups side by side: k, v (R, h, G*T, d), k with 1/√d folded in."""

    def __init__(self, k: Tensor, v: Tensor, heads: int) -> None:
        self.groups = k.shape[1]
        width = k.shape[-1] // heads
        self.k = _split_heads((k / math.sqrt(width)).flatten(1, 2), heads).contiguous()
        self.v = _split_heads(v.flatten(1, 2), heads).contiguous()

    def attend(self, q: Tensor, pick: Pick, gain: Gain) -> Tensor:
        """(B, N, C) -> the image branch (B, N, C)."""
        heads = self.k.shape[1]
        scores = torch.matmul(_split_heads(q, heads), pick.take(self.k).transpose(-1, -2))  # (B, h, N, G*T)
        weights = torch.softmax(scores.reshape(*scores.shape[:3], self.groups, -1), dim=-1, dtype=torch.float32)
        weights = weights * (gain[:, :, None] if isinstance(gain, Tensor) else gain)
        return _join_heads(torch.matmul(weights.flatten(-2).to(q.dtype), pick.take(self.v)))

    def add(self, x: Tensor, pending: Tensor, pick: Pick, gain: Gain) -> Tensor:
        return x + pending.to(x.dtype)


class FusedForm:
    """torch's scaled_dot_product_attention over one group: k, v (R, h, T, d)."""

    def __init__(self, k: Tensor, v: Tensor, heads: int) -> None:
        self.k = _split_heads(k[:, 0], heads).contiguous()
        self.v = _split_heads(v[:, 0], heads).contiguous()

    def attend(self, q: Tensor, pick: Pick, gain: Gain) -> Tensor:
        """(B, N, C) -> the image branch (B, N, C)."""
        rows = (q.shape[0], -1, -1, -1)
        k, v = pick.take(self.k).expand(rows), pick.take(self.v).expand(rows)
        branch = _join_heads(functional.scaled_dot_product_attention(_split_heads(q, k.shape[1]), k, v))
        return branch * (gain.to(q.dtype) if isinstance(gain, Tensor) else gain)

    def add(self, x: Tensor, pending: Tensor, pick: Pick, gain: Gain) -> Tensor:
        return x + pending.to(x.dtype)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, h * d) -> (B, h, n, d)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """(B, h, n, d) -> (B, n, h * d)."""
    return x.transpose(1, 2).flatten(2)
