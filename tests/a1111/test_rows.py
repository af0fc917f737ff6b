"""Whose rows a UNet call of A1111 works on, for every way in which it slices a batch, and which steps act."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import lib_faceid
from lib_faceid.core.tokens import Row
from lib_faceid.errors import RowsMismatch
from lib_faceid.hosts.a1111.denoising import Denoising, label_rows, pictures_of, progress_of, rows_in

from ..models_folder import add_adapter, add_person
from .checks import ANNA_THROUGHOUT, acts
from .fake_webui import sent

EQUAL = 1e-5  # largest difference of a row in a batch to the same row alone
OTHER = 1e-3  # the two sides differ by far more
ANNA = {**ANNA_THROUGHOUT, "weight": 0.7}


def alone(call, row, identity, side, weight):
    with torch.no_grad(), lib_faceid.applied(call.unet, identity, rows=[side], weight=weight, lora=0.0):
        return call.unet(call.x[row : row + 1], call.timestep[:1], context=call.context[row : row + 1])[0]


def assert_rows(host, *people, weight=0.7):
    """Every row of every UNet call equals that row alone; with the other side it would not."""
    assert host.reported == []
    for call in host.calls:
        assert len(call.rows) == len(call.output)
        for row, label in enumerate(call.rows):
            expected = alone(call, row, list(people), label.side, weight)
            assert (call.output[row] - expected).abs().max() <= EQUAL, (call.step, row, label)
    call, side = host.calls[0], {"cond": "uncond", "uncond": "cond"}[host.calls[0].rows[0].side]
    assert (call.output[0] - alone(call, 0, list(people), side, weight)).abs().max() > OTHER


# prompts of each picture, rules, and the rows of the UNet calls of each of two steps: picture and side. As seen in
# A1111, except for tiles (known of tiling extensions) and different numbers of prompts.
PATTERNS = {
    "plain": ((1, 1), {}, ["0c 1c 0u 1u"] * 2),
    "one picture": ((1,), {}, ["0c 0u"] * 2),
    "a AND b": ((2, 2), {}, ["0c 0c 1c 1c 0u 1u"] * 2),
    "a AND b AND c, and d": ((3, 1), {}, ["0c 0c 0c 1c 0u 1u"] * 2),
    "a, and b AND c, apart": ((1, 2), {"batch_cond_uncond": False}, ["0c 1c | 1c 0u | 1u"] * 2),
    "skips uncond": ((1, 1), {"skips_uncond": lambda step: True}, ["0c 1c"] * 2),
    "skips uncond in every other step": (
        (1, 1),
        {"skips_uncond": lambda step: step % 2 == 0},
        ["0c 1c", "0c 1c 0u 1u"],
    ),
    "skips uncond of a AND b": ((2, 2), {"skips_uncond": lambda step: True}, ["0c 0c 1c 1c"] * 2),
    "long prompt": ((1, 1), {"cond_tokens": 14}, ["0c 1c | 0u 1u"] * 2),
    "long negative prompt": ((1,), {"uncond_tokens": 14}, ["0c | 0u"] * 2),
    "long a AND b AND c": ((3, 3), {"cond_tokens": 14}, ["0c 0c 0c 1c | 1c 1c | 0u 1u"] * 2),
    "long, skips uncond": ((1, 1), {"cond_tokens": 14, "skips_uncond": lambda step: True}, ["0c 1c"] * 2),
    "apart": ((1, 1), {"batch_cond_uncond": False}, ["0c 1c | 0u 1u"] * 2),
    "a AND b AND c apart": ((3, 3), {"batch_cond_uncond": False}, ["0c 0c | 0c 1c | 1c 1c | 0u 1u"] * 2),
    "long a AND b apart": ((2,), {"batch_cond_uncond": False, "cond_tokens": 14}, ["0c | 0c | 0u"] * 2),
    "instruct-pix2pix": ((1, 1), {"edit": True}, ["0c 1c 0u 1u 0u 1u"] * 2),
    "tiles": ((1, 1), {"tiles": 2}, ["0c 1c 0u 1u | 0c 1c 0u 1u"] * 2),
    "two tiles at a time": ((1,), {"tiles": 4, "together": 2}, ["0c 0u 0c 0u | 0c 0u 0c 0u"] * 2),
    "tiles of a long prompt": ((1, 1), {"tiles": 2, "cond_tokens": 14}, ["0c 1c | 0c 1c | 0u 1u | 0u 1u"] * 2),
}
SIDES = {"c": "cond", "u": "uncond"}


def spelt(calls):
    return " | ".join(" ".join(f"{row.image}{row.side[0]}" for row in call.rows) for call in calls)


@pytest.mark.parametrize(("prompts", "rules", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_every_row_gets_the_tokens_of_its_own_side(host, anna, prompts, rules, expected):
    vars(host.rules).update(rules)
    host.run(*sent(ANNA), prompts=prompts)
    assert [spelt(call for call in host.calls if call.step == step) for step in range(2)] == expected
    assert_rows(host, anna)


@pytest.mark.parametrize("settings", [{"solver": "heun"}, {"enable_hr": True}, {"n_iter": 2}], ids=str)
def test_rows_in_other_jobs(host, anna, settings):
    host.rules.batch_cond_uncond = False
    host.run(*sent(ANNA), prompts=(2, 1), **settings)
    assert {call.pass_number for call in host.calls} == ({0} if "solver" in settings else {0, 1})
    assert_rows(host, anna)


def test_rows_of_two_people(host, root, anna):
    bert = add_person(root, add_adapter(root, text=768, seed=1, name="other.bin"), "bert")
    host.rules.batch_cond_uncond = False
    host.run(*sent(ANNA, {**ANNA, "identity": "bert"}), prompts=(2, 1))
    assert_rows(host, anna, bert)


def test_interrupted_in_one_job_and_right_in_the_next(host, anna):
    """The slice of a call that never came does not shift those of the next job."""
    host.rules.batch_cond_uncond = False
    host.during = lambda denoiser: setattr(host.state, "interrupted", denoiser.step == 1)
    host.run(*sent(ANNA), prompts=(1, 1))
    assert len(host.calls) == 2
    host.during = None
    host.run(*sent(ANNA), prompts=(1, 1))
    assert_rows(host, anna)


@pytest.mark.parametrize(
    ("prompts", "total", "expected"),
    [
        ((1, 1), 4, "0c 1c 0u 1u"),
        ((2, 2), 6, "0c 0c 1c 1c 0u 1u"),
        ((1, 3), 6, "0c 1c 1c 1c 0u 1u"),
        ((2, 0, 1), 6, "0c 0c 2c 0u 1u 2u"),
        ((1, 1), 6, "0c 1c 0u 1u 0u 1u"),
        ((1, 1), 2, "0c 1c"),
        ((), 2, "0c 0c"),
    ],
)
def test_labels(prompts, total, expected):
    positive = sum(prompts) or 2
    labels = [Row(SIDES[word[1]], int(word[0])) for word in expected.split()]
    assert list(label_rows(positive, total, prompts)) == labels


def test_labels_where_the_prompts_are_another_number():
    """Six positive rows of two pictures: three each; uncond alternates."""
    rows = label_rows(6, 8, (1, 1))
    assert [row.image for row in rows] == [0, 0, 0, 1, 1, 1, 0, 1]


def test_slices_one_after_the_other_and_anew_in_the_next_step():
    inner = torch.nn.Identity()
    sampler = SimpleNamespace(sampler_extra_args={"cond": SimpleNamespace(batch=[["a", "b"], ["c"]])})
    denoiser = SimpleNamespace(sampler=sampler, inner_model=inner, steps=2, total_steps=2, step=0)
    shown = SimpleNamespace(x=torch.zeros(5, 4), text_cond=torch.zeros(3, 7, 8), denoiser=denoiser)
    begun = []
    denoising = Denoising(begun.append)
    for _ in range(2):
        denoising.announce(shown)
        with pytest.raises(RowsMismatch, match="called with 2 rows where 0 of this step's 0 rows"):
            denoising.rows(2)
        inner(torch.zeros(2, 4))
        assert denoising.rows(2) == (Row("cond", 0), Row("cond", 0))
        assert denoising.rows(6) == (Row("cond", 0), Row("cond", 0))  # repeated three times by the caller
        with pytest.raises(RowsMismatch, match="called with 3 rows where 2 of this step's 5 rows"):
            denoising.rows(3)
        inner(torch.zeros(3, 4))
        assert denoising.rows(3) == (Row("cond", 1), Row("uncond", 0), Row("uncond", 1))
        inner(torch.zeros(1, 4))  # more than there are
        with pytest.raises(RowsMismatch):
            denoising.rows(1)
    denoising.end()
    assert begun == [denoiser, denoiser]
    assert not inner._forward_pre_hooks


def test_what_is_read_of_the_denoiser():
    assert rows_in(torch.zeros(3, 77, 768)) == 3
    assert rows_in({"crossattn": torch.zeros(2, 77, 2048), "vector": torch.zeros(2, 2816)}) == 2
    for extra in (None, {}, {"cond": torch.zeros(2, 77, 768)}):
        assert pictures_of(SimpleNamespace(sampler=SimpleNamespace(sampler_extra_args=extra))) == []


@pytest.mark.parametrize(
    ("steps", "total", "step", "expected"),
    [
        (4, 4, 0, 0.0),
        (4, 4, 3, 0.75),
        (4, 8, 1, 0.0),
        (4, 8, 2, 0.25),
        (4, 8, 6, 0.75),
        (4, 4, 9, 1.0),
        (20, None, 5, 0.25),
        (None, None, 1, 0.0),
    ],
)
def test_progress(steps, total, step, expected):
    assert progress_of(SimpleNamespace(steps=steps, total_steps=total, step=step)) == expected


def steps_that_acted(host):
    """(pass, step) of the UNet calls whose output is not the bare UNet's."""
    return [(call.pass_number, call.step) for call in host.calls if acts(call)]


@pytest.mark.parametrize(("solver", "expected"), [("euler", [2, 3, 4]), ("heun", [4, 5, 6, 7, 8])])
def test_the_same_solver_steps_act(host, solver, expected):
    """Progress 0, 0.2, 0.4, 0.6, 0.8: both ends of the window belong to it. Heun calls twice but in the last step."""
    host.run(*sent({**ANNA, "start": 0.4, "end": 0.8}), steps=5, solver=solver)
    assert steps_that_acted(host) == [(0, step) for step in expected]


def test_the_end_of_the_window(host):
    host.run(*sent({**ANNA, "end": 0.5}), steps=4, solver="heun")
    assert steps_that_acted(host) == [(0, step) for step in range(6)]


def test_both_passes_of_hires_fix_begin_at_0(host):
    host.run(*sent({**ANNA, "start": 0.5}), steps=4, enable_hr=True)
    assert steps_that_acted(host) == [(0, 2), (0, 3), (1, 2), (1, 3)]


@pytest.mark.parametrize(("weights", "expected"), [((0.7, 0), [0]), ((0, 0.7), [1]), ((0.7, None), [0, 1])])
def test_passes_with_weights_of_their_own(host, weights, expected):
    host.run(*sent({**ANNA, "weight": weights[0], "hires_weight": weights[1]}), steps=1, enable_hr=True)
    assert steps_that_acted(host) == [(number, 0) for number in expected]


def test_the_weight_of_the_second_pass(host, anna):
    host.run(*sent({**ANNA, "hires_weight": 0.2}), enable_hr=True)
    first = [call for call in host.calls if call.pass_number == 0]
    second = [call for call in host.calls if call.pass_number == 1]
    host.calls = first
    assert_rows(host, anna, weight=0.7)
    host.calls = second
    assert_rows(host, anna, weight=0.2)
