"""The benchmark compares things that compute the same, in turns, and reports every case. No time is asserted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lib_faceid import bench
from lib_faceid.__main__ import main
from lib_faceid.bench.measures import CASES, CaseTimes, measure_case
from lib_faceid.bench.peers import CANDIDATES, candidates
from lib_faceid.bench.report import Budget, Machine, Report, align, as_json, format_text
from lib_faceid.bench.times import WARMUPS, Part, Stopwatch, take_turns
from lib_faceid.bench.unet import MODELS, Case, LayerShape, Material, Model, StandIn, make_people
from lib_faceid.core.patch import live_patches
from lib_faceid.core.unet_map import find_layers, linear_sizes
from lib_faceid.errors import FaceIDError

from .unets import CONTEXT, sd15_unet

CPU = torch.device("cpu")
MACHINE = Machine("a processor", 2, "2.1", "float32", 9, quick=False)
# 32x32 latents: the deepest level is 4 wide, one column for each of four strips.
TINY = {
    "sd15": Model("sd15", (32, 32), (16, 32, 48, 48), (2, 2, 2, 2), context=24, text=7),
    "sdxl": Model("sdxl", (32, 32), (8, 16, 32), (1, 2, 4), context=24, text=7),
}
LAYERS = 4  # distinct shapes of TINY["sd15"]


def ticking(step: Callable[[int], float]) -> Stopwatch:
    """A watch whose reading number k comes step(k) after the one before."""
    now, reads = 0.0, 0

    def clock() -> float:
        nonlocal now, reads
        now, reads = now + step(reads), reads + 1
        return now

    return Stopwatch(CPU, clock)


def test_true_shapes_and_how_many_layers_have_each():
    counts = {base: {shape: len(ns) for shape, ns in model.shapes().items()} for base, model in MODELS.items()}
    assert counts["sd15"] == {
        LayerShape(320, 8, (64, 64)): 5,
        LayerShape(640, 8, (32, 32)): 5,
        LayerShape(1280, 8, (16, 16)): 5,
        LayerShape(1280, 8, (8, 8)): 1,
    }
    assert counts["sdxl"] == {LayerShape(640, 10, (64, 64)): 10, LayerShape(1280, 20, (32, 32)): 60}


def test_channels_belong_to_the_layers_a_real_unet_has_there():
    model = Model("sd15", (32, 32), (32, 64, 128, 128), (8,) * 4, CONTEXT["sd15"])
    found = find_layers(sd15_unet())
    expected = [linear_sizes(attention, "to_q")[1] for attention in found.attentions]
    assert [model.shape(n).channels for n in range(16)] == expected


@pytest.mark.parametrize("base", TINY)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_all_candidates_give_what_the_tap_gives(base, case):
    material = Material(TINY[base], CPU, torch.float32)
    with candidates(material, make_people(material.model, case), Stopwatch(CPU)) as unets, torch.inference_mode():
        laps = {name: unet(material.sample) for name, unet in unets.items()}
    assert tuple(laps) == CANDIDATES
    for bare, tap, *peers in zip(*laps.values(), strict=True):
        effect = (tap.result - bare.result).abs().max()
        assert effect > 1e-3
        for peer in peers:
            assert (peer.result - tap.result).abs().max() <= 1e-4 * effect


def test_strips_cover_the_picture_once():
    people = make_people(TINY["sd15"], Case(4, 4, masked=True))
    masks = torch.stack([person.mask for person in people if person.mask is not None])
    assert masks.shape == (4, 256, 256)
    assert masks.sum(dim=0).eq(1).all()
    assert masks.sum(dim=(1, 2)).eq(256 * 64).all()


def test_the_tap_is_the_products_own_and_is_taken_away():
    material = Material(TINY["sd15"], CPU, torch.float32)
    with candidates(material, make_people(material.model, Case(1, 4)), Stopwatch(CPU)) as unets:
        assert len(live_patches()) == 2 + 2 * 16  # two around the call, two on every layer
        hooked = {name: len(unet.attention(0).to_q._forward_hooks) for name, unet in unets.items()}
        assert hooked == {"bare": 0, "tap": 1, "diffusers": 0, "own": 0}
    assert live_patches() == []


def test_candidates_take_turns_and_warm_up_first():
    order: list[str] = []

    def log(name: str) -> tuple[float, ...]:
        order.append(name)
        return (float(len(order)),)

    kept = take_turns({name: lambda name=name: log(name) for name in "ABCD"}, rounds=2, warmups=1)
    assert "".join(order) == "ABCD" * 3
    assert kept == {"A": [(5.0,), (9.0,)], "B": [(6.0,), (10.0,)], "C": [(7.0,), (11.0,)], "D": [(8.0,), (12.0,)]}


def test_a_case_runs_bare_tap_diffusers_own_in_turns(monkeypatch):
    seen: list[StandIn] = []
    forward = StandIn.forward
    monkeypatch.setattr(StandIn, "forward", lambda self, *args: seen.append(self) or forward(self, *args))
    material = Material(TINY["sd15"], CPU, torch.float32)
    measure_case(material, Case(1, 4), Stopwatch(CPU), rounds=2)
    turns = [seen[start : start + 4] for start in range(0, len(seen), 4)]
    assert len(turns) == WARMUPS + 2
    assert all(one == other for one, other in pairwise(turns))
    processors = [type(unet.attention(0).processor).__name__ for unet in turns[0]]
    assert processors == ["AttnProcessor2_0", "AttnProcessor2_0", "IPAdapterAttnProcessor2_0", "OwnAttention"]


def test_medians_and_minima_of_a_scripted_clock():
    """Each call reads the clock twice, each layer in it twice; a reading takes 99 s in warm-ups, then 5, 1 and 3."""
    reads = len(CANDIDATES) * (2 + 2 * LAYERS)
    steps = [99.0] * WARMUPS + [5.0, 1.0, 3.0]
    material = Material(TINY["sd15"], CPU, torch.float32)
    times = measure_case(material, Case(1, 4), ticking(lambda k: steps[k // reads]), rounds=3)
    *parts, call = times.parts
    assert [part.count for part in times.parts] == [5, 5, 5, 1, 1]
    assert {part.median(name) for part in parts for name in CANDIDATES} == {3.0}
    assert {part.minimum(name) for part in parts for name in CANDIDATES} == {1.0}
    assert call.median("tap") == 3.0 * (LAYERS + 1)  # the gaps between the laps
    assert times.bare() == 16 * 3.0 + 15.0
    assert times.added("tap") == 0.0
    assert times.ratio("tap") == 1.0


def test_what_is_added_is_the_median_of_differences_within_a_round():
    part = Part("layer", 5, {"bare": (3.0, 10.0, 2.0), "tap": (4.0, 12.5, 2.0)})
    assert (part.median("tap"), part.minimum("tap")) == (4.0, 2.0)
    assert part.added("tap", "bare") == 1.0  # of 1.0, 2.5 and 0.0
    times = CaseTimes(TINY["sd15"], Case(1, 4), (part, Part("call", 1, {"bare": (5.0,), "tap": (6.0,)})))
    assert (times.bare(), times.added("tap")) == (20.0, 6.0)
    assert times.ratio("tap") == 1.3


def test_the_share_of_a_step_is_held_against_its_budget():
    def times(case: Case, added: float, base: str = "sd15") -> CaseTimes:
        part = Part("layer", 5, {"bare": (1.0,), "tap": (1.0 + added,)})
        return CaseTimes(TINY[base], case, (part,))

    cases = [times(Case(1, 4), 0.01), times(Case(4, 4), 9.0), times(Case(4, 4, masked=True), 0.06)]
    budgets = bench.check_step([*cases, times(Case(1, 4), 9.0, "sdxl")], step=10.0)
    assert [(budget.found, budget.limit) for budget in budgets] == [
        (pytest.approx(0.5), 1.0),
        (pytest.approx(3.0), 2.0),
    ]
    kept, broken = (budget.sentence() for budget in budgets)
    assert kept == "1 identity, 4 tokens, of a bare SD1.5 step: 0.50 %, budget 1 %, kept."
    assert broken.endswith("3.00 %, budget 2 %, NOT kept: 1.00 too much.")
    assert bench.check_step(cases, step=None) == []


def test_text_and_json_hold_every_case():
    report = bench.Plan(list(TINY.values()), CPU, torch.float32, rounds=1).compare_peers(with_step=False)
    text = format_text(report)
    assert [text.count(f"\n{case.title} ") for case in CASES] == [2] * 6
    assert text.count("Memory of the tap") == 2
    assert "--step does" in text
    found = as_json(report)["cases"]
    assert {(c["base"], c["identities"], c["tokens"], c["masked"]) for c in found} == {
        (base, identities, tokens, masked)
        for base in TINY
        for identities, tokens, masked in (
            (1, 4, False), (1, 16, False), (4, 4, False), (4, 16, False), (4, 4, True), (4, 16, True),
        )
    }  # fmt: skip
    assert all(
        part["median_s"].keys() == part["minimum_s"].keys() == set(CANDIDATES) for c in found for part in c["parts"]
    )


def test_a_busy_machine_is_told():
    def text(*bare: float) -> str:
        parts = [Part("layer", 1, dict.fromkeys(CANDIDATES, (seconds,))) for seconds in bare]
        return format_text(Report(MACHINE, [CaseTimes(TINY["sd15"], Case(1, 4), (part,)) for part in parts]))

    assert "differ by a factor of 1.5" in text(1.0, 1.5)
    assert "differ" not in text(1.0, 1.2)


def test_columns_are_aligned():
    rows = [("case", "bare", "+tap"), ("a long title", "1.0", "+10.0")]
    assert align(rows) == "case          bare   +tap\na long title   1.0  +10.0"


def test_a_step_measured_is_said_in_the_report():
    report = Report(MACHINE, budgets=[Budget("share", 0.5, 1.0, "%")], step=12.5)
    assert "A bare SD1.5 UNet step took 12.500 s." in format_text(report)
    assert as_json(report)["step_s"] == 12.5
    assert as_json(report)["budgets"] == [{"title": "share", "found": 0.5, "limit": 1.0, "unit": "%", "kept": True}]


def test_quick_json_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(bench, "MODELS", TINY)
    assert main(["bench", "--quick", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["machine"]["quick"], found["machine"]["rounds"], found["machine"]["dtype"]) == (True, 1, "float32")
    assert len(found["cases"]) == 12
    assert {tuple(case["picture"]) for case in found["cases"]} == {(128, 128)}


def test_forms_from_the_command_line_need_no_diffusers(monkeypatch, capsys):
    monkeypatch.setattr(bench, "MODELS", TINY)
    monkeypatch.setitem(sys.modules, "diffusers.models.attention_processor", None)
    assert main(["bench", "--quick", "--forms", "--base", "sd15", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("SD1.5 16 channels") == 6


def test_without_diffusers_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.attention_processor", None)
    with pytest.raises(FaceIDError, match="has no diffusers"):
        Material(TINY["sd15"], CPU, torch.float32)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--device", "cuda"], "no CUDA device"), (["--step", "--base", "sdxl"], "leaves SD1.5 out")],
)
def test_what_cannot_be_measured_is_bad_input(monkeypatch, capsys, words, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5"])
def test_rounds_are_a_whole_number_from_one_on(word):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--rounds", word])
    assert stopped.value.code == 2


def test_half_precision_runs(monkeypatch, capsys):
    monkeypatch.setattr(bench, "MODELS", {"sd15": replace(TINY["sd15"], latent=(8, 8))})
    assert main(["bench", "--rounds", "1", "--dtype", "bfloat16", "--device", "cpu"]) == 0
    assert "bfloat16, 1 rounds" in capsys.readouterr().out
