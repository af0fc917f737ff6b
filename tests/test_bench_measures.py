"""The other measurements of the benchmark: forms, memory, a whole step. No time is asserted."""

from __future__ import annotations

import pytest
import torch

from lib_faceid.bench.measures import (
    FORMS,
    FormTimes,
    add_forms,
    count_bytes,
    make_forms,
    measure_forms,
    measure_memory,
    measure_step,
)
from lib_faceid.bench.report import Report, as_json, format_text
from lib_faceid.bench.times import Part, Stopwatch
from lib_faceid.bench.unet import Model
from lib_faceid.core.attend import Pick

from .test_bench import CPU, LAYERS, MACHINE, TINY, ticking
from .unets import CONTEXT, sd15_unet

PLACE = {"device": CPU, "dtype": torch.float32}


@pytest.mark.parametrize("groups", [1, 4])
def test_all_forms_of_the_table_compute_the_same(groups):
    kv = torch.randn(2, 2, groups, 4, 32)
    q, x = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    pick = Pick(torch.tensor([0, 1]), None)
    results = [add_forms(make_forms(name, kv, 4, PLACE), q, x, pick) for name in FORMS]
    assert len(results) == 3
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)


def test_forms_cover_every_layer_group_and_token_count():
    rows = list(measure_forms(TINY["sd15"], PLACE, Stopwatch(CPU), rounds=1))
    cases = {(row.shape, row.groups, row.tokens) for row in rows}
    assert len(rows) == len(cases) == LAYERS * 2 * 3
    assert {row.chosen for row in rows if row.tokens == 4} == {"block"}
    assert {row.chosen for row in rows if row.tokens == 16} == {"fused", "stacked"}
    assert all(set(row.part.seconds) == {"block", "stacked", "fused"} for row in rows)


def form_times(chosen: str, block: float, fused: float) -> FormTimes:
    part = Part("", 1, {"block": (block,), "stacked": (9.0,), "fused": (fused,)})
    return FormTimes(TINY["sd15"], TINY["sd15"].shape(0), 1, 4, chosen, part)


def test_a_choice_that_is_much_slower_is_pointed_out():
    rows = [form_times("block", 1.5, 1.0), form_times("block", 1.6, 1.0), form_times("fused", 1.6, 1.0)]
    assert [row.is_slow for row in rows] == [False, True, False]
    text = format_text(Report(MACHINE, forms=rows))
    assert text.count("SLOW") == 1
    assert "in 1 of 3 rows" in text
    assert "1600.00*" in text
    assert [row["slow"] for row in as_json(Report(MACHINE, forms=rows))["forms"]] == [False, True, False]


class Holder:
    def __init__(self, **held: object) -> None:
        vars(self).update(held)


def test_bytes_are_counted_once_and_not_in_modules():
    shared = torch.zeros(10)
    inner = Holder(views=(shared[:2], shared), table={3: torch.zeros(4, dtype=torch.float64)})
    vars(inner)["back"] = inner  # a circle
    held = Holder(inner=[inner], unet=torch.nn.Linear(100, 100), name="weights")
    assert count_bytes(held) == 10 * 4 + 4 * 8


def test_memory_by_hand():
    """Per channel: K and V of both sides, 4 tokens, float32; block-diagonal ones for 2 heads in half precision; and one
    index of two rows."""
    channels = 5 * 16 + 5 * 32 + 6 * 48
    held, tables = channels * 2 * 2 * 4 * 4, channels * 2 * 2 * (4 * 2) * 2
    assert measure_memory(TINY["sd15"], CPU, torch.bfloat16) == held + tables + 2 * 8


def test_a_step_is_the_median_of_whole_unet_calls():
    model = Model("sd15", (16, 16), (32, 64, 128, 128), (8,) * 4, CONTEXT["sd15"])
    steps = [0.0, 99.0, 0.0, 7.0, 0.0, 2.0, 0.0, 4.0]  # the first pair is the call that wakes everything up
    assert measure_step(sd15_unet(), model, ticking(lambda k: steps[k]), rounds=3) == 4.0
