"""On the original ldm UNet: equal to a slow formula, for rows in every order and mixture, and several identities."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import lib_faceid
from lib_faceid.core.calls import Calls
from lib_faceid.core.entries import Entry
from lib_faceid.core.strength import Strength
from lib_faceid.core.tap import Taps
from lib_faceid.core.tokens import Row
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import MaskMismatch, RowsMismatch

from .adapters import Made, make_adapter
from .oracle_ldm import Person, attach
from .unets import inputs, ldm_unet, relative_error, run_ldm

TOLERANCE = 1e-4


def person(made: Made, identity: lib_faceid.Identity, scale: float = 1.0, mask=None) -> Person:
    return Person(identity.tokens, identity.uncond_tokens, made.tensors, scale, mask)


def slow(call, rows):
    unet = ldm_unet()
    attach(unet, rows)
    return run_ldm(unet, call)


class Fixed:
    """A host that knows its rows; progress is set by the test."""

    def __init__(self, rows, progress=0.0):
        self.list, self.now = rows, progress

    def rows(self, batch):
        return self.list

    def progress(self, timestep):
        return self.now


@pytest.mark.parametrize("kind", ["faceid", "faceid-plus", "faceid-plusv2", "portrait", "plus", "base", "full-face"])
def test_variants(tmp_path, kind):
    made = make_adapter(tmp_path, kind)
    identity = made.identity(structure=0.5)
    call = inputs(2)
    unet = ldm_unet()
    bare = run_ldm(unet, call)
    with lib_faceid.applied(unet, identity, rows=["cond", "uncond"], weight=0.7, lora=0.0):
        found = run_ldm(unet, call)
    who = person(made, identity, 0.7)
    expected = slow(call, [[(who, "cond")], [(who, "uncond")]])
    assert relative_error(found, expected, bare) <= TOLERANCE
    assert torch.equal(run_ldm(unet, call), bare)


@pytest.mark.parametrize("sides", list(product(["cond", "uncond"], repeat=3)))
def test_rows_in_any_order_and_mixture(tmp_path, sides):
    made = make_adapter(tmp_path, "faceid")
    identity = made.identity()
    call = inputs(3)
    unet = ldm_unet()
    bare = run_ldm(unet, call)
    with lib_faceid.applied(unet, identity, rows=sides, lora=0.0):
        found = run_ldm(unet, call)
    who = person(made, identity)
    assert relative_error(found, slow(call, [[(who, side)] for side in sides]), bare) <= TOLERANCE


def test_rows_repeated_by_a_tiling_caller(tmp_path):
    """Two known rows, six in the call: cond, uncond, cond, uncond, cond, uncond."""
    made = make_adapter(tmp_path, "faceid")
    identity = made.identity()
    call = inputs(6)
    unet = ldm_unet()
    bare = run_ldm(unet, call)
    with lib_faceid.applied(unet, identity, rows=["cond", "uncond"], lora=0.0):
        found = run_ldm(unet, call)
    who = person(made, identity)
    expected = slow(call, [[(who, side)] for side in ["cond", "uncond"] * 3])
    assert relative_error(found, expected, bare) <= TOLERANCE


def test_rows_that_do_not_divide_are_an_error(tmp_path):
    unet = ldm_unet()
    identity = make_adapter(tmp_path, "faceid").identity()
    with (
        pytest.raises(RowsMismatch, match="called with 3 rows, which is not a multiple of the 2 rows"),
        lib_faceid.applied(unet, identity, rows=["cond", "uncond"], lora=0.0),
    ):
        run_ldm(unet, inputs(3))


def test_rows_must_be_given_for_more_than_one(tmp_path):
    unet = ldm_unet()
    identity = make_adapter(tmp_path, "faceid").identity()
    with pytest.raises(ValueError, match="called with 2 rows; say which"), lib_faceid.applied(unet, identity, lora=0.0):
        run_ldm(unet, inputs(2))


def test_one_row_is_positive_without_being_told(tmp_path):
    made = make_adapter(tmp_path, "faceid")
    identity = made.identity()
    unet = ldm_unet()
    bare = run_ldm(unet, inputs(1))
    with lib_faceid.applied(unet, identity, lora=0.0):
        found = run_ldm(unet, inputs(1))
    assert relative_error(found, slow(inputs(1), [[(person(made, identity), "cond")]]), bare) <= TOLERANCE


def test_different_identities_on_different_rows(tmp_path):
    """Pictures 0 and 1 have one person each (4 tokens, sharing a place), picture 2 nobody, 16 tokens of style
    everywhere.
    """
    anna, bert = make_adapter(tmp_path, "faceid"), make_adapter(tmp_path, "faceid", seed=1)
    style = make_adapter(tmp_path, "plus", seed=2)
    people = [made.identity() for made in (anna, bert, style)]
    rows = [Row(side, image) for side in ("uncond", "cond") for image in range(3)]
    entries = [
        Entry(people[0].kv, Strength(0.9), images=frozenset({0})),
        Entry(people[1].kv, Strength(0.9), images=frozenset({1})),
        Entry(people[2].kv, Strength(0.4)),
    ]
    unet, call = ldm_unet(), inputs(6)
    bare = run_ldm(unet, call)
    with Taps(unet, find_layers(unet), entries, Fixed(rows)):
        found = run_ldm(unet, call)
    who = [
        person(made, one, scale) for made, one, scale in zip((anna, bert, style), people, (0.9, 0.9, 0.4), strict=True)
    ]
    acting = [
        [(who[row.image], row.side), (who[2], row.side)] if row.image < 2 else [(who[2], row.side)] for row in rows
    ]
    assert relative_error(found, slow(call, acting), bare) <= TOLERANCE


def test_people_of_one_picture_each_are_computed_in_one_place(tmp_path):
    people = [make_adapter(tmp_path, "faceid", seed=seed).identity() for seed in range(3)]
    from lib_faceid.core.entries import Arrangement

    entries = tuple(Entry(one.kv, Strength(), images=frozenset({image})) for image, one in enumerate(people))
    assert [len(run.groups) for run in Arrangement(entries).runs] == [1]
    everywhere = tuple(Entry(one.kv, Strength()) for one in people)
    assert [len(run.groups) for run in Arrangement(everywhere).runs] == [3]


def test_four_identities_with_masks_and_strengths_of_their_own(tmp_path):
    """Quarters of the picture; the latent is 16x16, so that every level but the last (2x2) cuts them cleanly."""
    made = [make_adapter(tmp_path, "faceid", seed=seed) for seed in range(4)]
    people = [one.identity() for one in made]
    regions = torch.zeros(4, 16, 16)
    for i in range(4):
        regions[i, 8 * (i // 2) : 8 * (i // 2) + 8, 8 * (i % 2) : 8 * (i % 2) + 8] = 1
    weights = [0.3, 0.6, 0.9, 1.2]
    call, unet = inputs(2, size=(16, 16)), ldm_unet()
    bare = run_ldm(unet, call)
    with lib_faceid.applied(unet, people, rows=["uncond", "cond"], weight=weights, mask=list(regions), lora=0.0):
        found = run_ldm(unet, call)

    def at(region):
        return lambda queries: torch.nn.functional.adaptive_avg_pool2d(region[None], int(queries**0.5)).flatten()

    who = [
        person(*pair, weight, at(region)) for *pair, weight, region in zip(made, people, weights, regions, strict=True)
    ]
    expected = slow(call, [[(one, "uncond") for one in who], [(one, "cond") for one in who]])
    assert relative_error(found, expected, bare) <= TOLERANCE


def test_masks_are_refused_under_tiling(tmp_path):
    unet = ldm_unet()
    identity = make_adapter(tmp_path, "faceid").identity()
    with (
        pytest.raises(MaskMismatch, match="works on 4 rows where 2 are known"),
        lib_faceid.applied(unet, identity, rows=["cond", "uncond"], mask=torch.ones(8, 8), lora=0.0),
    ):
        run_ldm(unet, inputs(4))


def test_strength_of_each_layer(tmp_path):
    """Only layer 15, the last in the file, is on: the middle block."""
    made = make_adapter(tmp_path, "faceid")
    identity = made.identity()
    unet, call = ldm_unet(), inputs(1)
    bare = run_ldm(unet, call)
    only = Strength(1.0, by_layer=(0.0,) * 15 + (1.0,))
    with Taps(unet, find_layers(unet), [Entry(identity.kv, only)], Fixed([Row("cond")])) as taps:
        found = run_ldm(unet, call)
    assert taps.firing.expected == 1
    reference = ldm_unet()
    who = person(made, identity)
    silent = dict(made.tensors)
    for n in range(15):
        silent[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"] = torch.zeros_like(
            silent[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"]
        )
    who.tensors = silent
    attach(reference, [[(who, "cond")]])
    assert relative_error(found, run_ldm(reference, call), bare) <= TOLERANCE


def test_strength_over_time(tmp_path):
    """On from 0.25 to 0.5; outside the window bit for bit the bare UNet."""
    identity = make_adapter(tmp_path, "faceid").identity()
    unet, call = ldm_unet(), inputs(1)
    bare = run_ldm(unet, call)
    clock = [0.0]
    with lib_faceid.applied(unet, identity, start=0.25, end=0.5, lora=0.0, progress=lambda: clock[0]):
        for clock[0], inside in ((0.0, False), (0.25, True), (0.4, True), (0.5, True), (0.75, False), (0.3, True)):
            assert torch.equal(run_ldm(unet, call), bare) is not inside


def test_a_window_needs_progress(tmp_path):
    identity = make_adapter(tmp_path, "faceid").identity()
    with pytest.raises(ValueError, match="need progress"), lib_faceid.applied(ldm_unet(), identity, end=0.5):
        pass


def test_answers_of_a_call_are_kept_and_let_go(tmp_path):
    identity = make_adapter(tmp_path, "faceid").identity()
    unet = ldm_unet()
    taps = Taps(unet, find_layers(unet), [Entry(identity.kv, Strength())], Fixed([Row("cond")]))
    with taps:
        run_ldm(unet, inputs(1))
        run_ldm(unet, inputs(1))
        assert len(vars(taps.session.calls)["_picks"]) == 1
    assert isinstance(taps.session.calls, Calls)
    assert not vars(taps.session.calls)["_picks"]
