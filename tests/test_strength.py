"""Strength over layers and time."""

from __future__ import annotations

import pytest

from lib_faceid.core.strength import Strength, factors_by_turn


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.24, 0.0), (0.25, 0.8), (0.5, 0.8), (0.75, 0.8), (0.76, 0.0), (1.6, 0.0)]
)
def test_both_ends_belong_to_the_window(progress, expected):
    assert Strength(0.8, start=0.25, end=0.75).at(3, progress) == expected


def test_progress_past_one_counts_as_one():
    assert Strength(0.8).at(0, 1.67) == 0.8


def test_layers_multiply():
    strength = Strength(0.5, by_layer=(0.0, 2.0))
    assert (strength.at(0, 0.0), strength.at(1, 0.0)) == (0.0, 1.0)


def test_what_is_off():
    assert Strength(0.0).is_off
    assert Strength(1.0, by_layer=(0.0, 0.0)).is_off
    assert not Strength(1.0, by_layer=(0.0, 0.1)).is_off
    assert not Strength(-0.5).is_off


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_windows_that_are_none(start, end):
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        Strength(1.0, start, end)


def test_factors_by_execution_turn():
    """The middle block runs seventh of 16 (turn 6) and stands last in the file."""
    factors = factors_by_turn("sd15", {6: 5.0, 0: 2.0})
    assert len(factors) == 16
    assert (factors[15], factors[0], factors[6]) == (5.0, 2.0, 1.0)
    style = factors_by_turn("sdxl", {6: 1.0}, default=0.0)
    assert [n for n, factor in enumerate(style) if factor] == list(range(34, 44))  # up_blocks.0.attentions.1


def test_a_turn_the_base_does_not_have():
    with pytest.raises(ValueError, match="attentions 0 to 10; there is no 11"):
        factors_by_turn("sdxl", {11: 1.0})


def test_weights_that_are_no_numbers():
    with pytest.raises(ValueError, match="finite number; found nan"):
        Strength(float("nan"))
