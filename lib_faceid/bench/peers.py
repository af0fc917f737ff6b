"""What ``bench`` compares: cross-attentions bare, with the tap, and with the identities added as others add them.

All candidates share weights, inputs and identities and therefore compute the same result. Letters in shapes as in
unet.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..core.entries import Entry
from ..core.masks import resize_mask
from ..core.tap import Taps
from ..core.tokens import Row
from ..core.unet_map import find_layers
from .times import Stopwatch
from .unet import ROWS, WEIGHT, Feed, Material, Person, StandIn

CANDIDATES = ("bare", "tap", "diffusers", "own")  # in the order they take turns


class TwoRows:
    """Calls of the stand-in: one picture, the negative row first."""

    def rows(self, batch: int) -> Sequence[Row]:
        return ROWS

    def progress(self, timestep: object) -> float:
        return 0.0


def new_taps(unet: StandIn, entries: Sequence[Entry]) -> Taps:
    return Taps(unet, find_layers(unet), entries, TwoRows())


@contextmanager
def candidates(material: Material, people: Sequence[Person], watch: Stopwatch) -> Iterator[dict[str, StandIn]]:
    """Bare and the PEERS, in the order they take turns in; the taps are in place for the time of the block."""
    tapped = StandIn(material, watch)
    with new_taps(tapped, material.entries(people)):
        yield {
            "bare": StandIn(material, watch),
            "tap": tapped,
            "diffusers": diffusers_unet(material, people, watch),
            "own": own_unet(material, people, watch),
        }


def diffusers_unet(material: Material, people: Sequence[Person], watch: Stopwatch) -> StandIn:
    """One IP-Adapter for each identity; all share their projections, which favours diffusers' use of the caches."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    unet = StandIn(material, watch)
    tokens = [material.cast(person.tokens.stacked())[:, None] for person in people]  # (B, photos, T, X)
    unet.feed = Feed((material.text, tokens))
    masks = [person.mask.to(material.text.device)[None, None] for person in people if person.mask is not None]
    if masks:
        unet.feed.kwargs["ip_adapter_masks"] = masks  # each (1, photos, H, W)
    for shape, (n, *_) in material.shapes.items():
        counts = [person.tokens.cond.shape[0] for person in people]
        with torch.device("meta"):
            processor = IPAdapterAttnProcessor2_0(shape.channels, material.model.context, counts)
        processor.scale[:] = [WEIGHT] * len(people)
        to_k, to_v = (_linear(material.cast(weight)) for weight in material.projections[shape])
        processor.to_k_ip, processor.to_v_ip = (nn.ModuleList([linear] * len(people)) for linear in (to_k, to_v))
        unet.attention(n).set_processor(processor)  # type: ignore[arg-type]
    return unet


def _linear(weight: Tensor) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.load_state_dict({"weight": weight}, assign=True)
    return linear


def own_unet(material: Material, people: Sequence[Person], watch: Stopwatch) -> StandIn:
    """The first layer of each shape replaced by OwnAttention."""
    unet = StandIn(material, watch)
    for shape, (n, *_) in material.shapes.items():
        branches: list[Branch] = []
        for tokens, mask in people:
            k, v = (
                _split_heads(material.cast(tokens.stacked() @ weight.T), shape.heads).contiguous()
                for weight in material.projections[shape]
            )
            gain = WEIGHT if mask is None else material.cast(resize_mask(mask, shape.size))[:, None] * WEIGHT
            branches.append(Branch(k, v, gain))
        unet.attention(n).set_processor(OwnAttention(branches))  # type: ignore[arg-type]
    return unet


class Branch(NamedTuple):
    """Keys and values (B, h, T, d) of one identity, and its weight, times its mask (N, 1) where it has one."""

    k: Tensor
    v: Tensor
    gain: float | Tensor


class OwnAttention:
    """Replaces the host's attention: text first, then the identities one by one, all by torch's fused attention."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._branches = tuple(branches)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object) -> Tensor:
        q = _split_heads(attn.to_q(hidden_states), attn.heads)
        k, v = (_split_heads(project(encoder_hidden_states), attn.heads) for project in (attn.to_k, attn.to_v))
        x = _attend(q, k, v)
        for branch in self._branches:
            x = x + _attend(q, branch.k, branch.v) * branch.gain
        return attn.to_out[1](attn.to_out[0](x))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, C) -> (B, h, n, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
