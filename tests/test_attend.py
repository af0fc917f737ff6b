"""The forms of the image branch against an independent slow formula, and which is chosen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lib_faceid.core.attend import BlockForm, FusedForm, Pick, StackedForm, choose_form

HEADS = 4


def slow(q: Tensor, k: Tensor, v: Tensor, kinds: list[int], gain: Tensor) -> Tensor:
    """Row by row, group by group, head by head, query by query, in float64. gain (N, G)."""
    out = torch.zeros_like(q, dtype=torch.float64)
    width = q.shape[-1] // HEADS
    for row, kind in enumerate(kinds):
        for group in range(k.shape[1]):
            for head in range(HEADS):
                part = slice(head * width, (head + 1) * width)
                keys, values = k[kind, group, :, part].double(), v[kind, group, :, part].double()
                for n in range(q.shape[1]):
                    scores = [float(q[row, n, part].double() @ key) / math.sqrt(width) for key in keys]
                    weights = [math.exp(score - max(scores)) for score in scores]
                    mixed = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
                    out[row, n, part] += float(gain[n, group]) * mixed
    return out


def tensors(groups: int, tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, x = torch.randn(3, 5, 32), torch.randn(3, 5, 32)
    return q.to(dtype), x.to(dtype), torch.randn(2, groups, tokens, 32), torch.randn(2, groups, tokens, 32)


@pytest.mark.parametrize("form", [BlockForm, StackedForm, FusedForm])
@pytest.mark.parametrize("kinds", [[1, 0, 1], [0, 0, 0]])
@pytest.mark.parametrize("masked", [False, True])
def test_every_form_is_the_published_formula(form, kinds, masked):
    groups = 1 if form is FusedForm else 3
    q, x, k, v = tensors(groups, tokens=4)
    gain = torch.rand(5, groups) if masked else 0.7
    pick = Pick(torch.tensor(kinds), kinds[0] if len(set(kinds)) == 1 else None)
    made = form(k, v, HEADS)
    found = made.add(x, made.attend(q, pick, gain), pick, gain)
    expected = x + slow(q, k, v, kinds, gain if masked else torch.full((5, groups), 0.7))
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [BlockForm, StackedForm, FusedForm])
def test_what_is_added_takes_the_dtype_of_what_it_is_added_to(form):
    q, x, k, v = tensors(1, tokens=4, dtype=torch.bfloat16)
    pick = Pick(torch.tensor([0, 1, 0]), None)
    made = form(k, v, HEADS)
    made.k, made.v = made.k.to(q.dtype), made.v.to(q.dtype)
    upcast = x.float()
    found = made.add(upcast, made.attend(q, pick, 1.0), pick, 1.0)
    assert found.dtype == torch.float32
    expected = upcast + slow(q, k, v, [0, 1, 0], torch.ones(5, 1))
    assert (found - expected).abs().max() < 0.05  # bfloat16 keeps 8 bits; the branch is of size 1


def test_a_large_score_does_not_overflow():
    q, x, k, v = tensors(1, tokens=4)
    made = BlockForm(k * 1e4, v, HEADS)
    pick = Pick(torch.tensor([0, 0, 0]), 0)
    assert torch.isfinite(made.add(x, made.attend(q, pick, 1.0), pick, 1.0)).all()


@pytest.mark.parametrize(
    ("tokens", "groups", "channels", "expected"),
    [
        (4, 1, 320, BlockForm),
        (4, 4, 640, BlockForm),
        (4, 1, 1280, FusedForm),
        (4, 4, 1280, StackedForm),
        (16, 1, 320, FusedForm),
        (16, 4, 320, StackedForm),
        (257, 1, 640, FusedForm),
    ],
)
def test_choice_of_form(tokens, groups, channels, expected):
    assert choose_form(tokens, groups, channels) is expected


def test_block_matrices_by_hand():
    """Two heads of one channel, one group of two tokens: K = [[a, b], [c, d]] spread over the heads."""
    k = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # (R, G, T, C)
    form = BlockForm(k, k * 10, heads=2)
    # columns: token 0 head 0, token 0 head 1, token 1 head 0, token 1 head 1
    assert form.k[0].tolist() == [[1.0, 0.0, 3.0, 0.0], [0.0, 2.0, 0.0, 4.0]]
    assert form.v[0].tolist() == [[10.0, 0.0], [0.0, 20.0], [30.0, 0.0], [0.0, 40.0]]
