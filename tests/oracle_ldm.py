"""The published formula on the original ldm UNet, written slowly and without the product's code.

attn2(x, text) = to_out(text attention + sum over identities of scale * mask * attention to that identity's tokens),
with keys and values from the file's ``{2n+1}.to_k_ip.weight`` and ``{2n+1}.to_v_ip.weight``; n counts the input, output
and middle blocks in this order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Person:
    """Tokens (T, X) of both sides, the adapter's tensors, and how the person acts."""

    cond: Tensor
    uncond: Tensor
    tensors: dict[str, Tensor]
    scale: float = 1.0
    mask: Callable[[int], Tensor] | None = None  # number of queries -> (N,)


def file_order(unet: nn.Module) -> list[nn.Module]:
    """The cross-attentions as the file counts them: input blocks, output blocks, middle block."""
    named = [(name, module) for name, module in unet.named_modules() if name.endswith("attn2")]
    parts = ("input_blocks", "output_blocks", "middle_block")
    return [module for part in parts for name, module in named if name.startswith(part)]


def attach(unet: nn.Module, rows: Sequence[Sequence[tuple[Person, str]]]) -> None:
    """Replace the forward of every cross-attention. ``rows`` lists for every row who acts on it, and on which side."""
    for n, attention in enumerate(file_order(unet)):
        attention.forward = _forward(attention, 2 * n + 1, rows)


def _forward(
    attention: nn.Module, key: int, rows: Sequence[Sequence[tuple[Person, str]]]
) -> Callable[[Tensor, Tensor], Tensor]:
    def forward(x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q = attention.to_q(x)
        k, v = attention.to_k(context), attention.to_v(context)
        result = torch.stack([_attend(q[row], k[row], v[row], attention.heads) for row in range(len(q))])
        for row, people in enumerate(rows):
            for person, side in people:
                tokens = getattr(person, side)
                keys = tokens @ person.tensors[f"ip_adapter.{key}.to_k_ip.weight"].T
                values = tokens @ person.tensors[f"ip_adapter.{key}.to_v_ip.weight"].T
                branch = person.scale * _attend(q[row], keys, values, attention.heads)
                result[row] += branch if person.mask is None else person.mask(len(branch))[:, None] * branch
        return attention.to_out(result)

    return forward


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """One row: q (N, C), k and v (T, C), head by head."""
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        parts.append(scores.softmax(dim=-1) @ v[:, part])
    return torch.cat(parts, dim=-1)
