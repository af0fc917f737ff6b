"""How cases are chosen, run, counted and reported."""

from __future__ import annotations

import pytest

from ..live import command
from ..live.case import Case, checkpoint, sampler, select, setting
from ..live.client import Refused, Unreachable
from ..live.compare import Failed, Skipped
from ..live.report import Report
from ..live.runner import run_cases
from ..live.webui import WebUI


def ok(webui: WebUI) -> str:
    return "numbers"


def bad(webui: WebUI) -> str:
    raise Failed("3.00; expected 2.00")


def refused(webui: WebUI) -> str:
    raise Refused("/x", 500, "boom")


def skipping(webui: WebUI) -> str:
    raise Skipped("not here")


def gone(webui: WebUI) -> str:
    raise Unreachable("No WebUI answers.")


def run(webui: WebUI, *cases: Case) -> tuple[int, list[str]]:
    said: list[str] = []
    return run_cases(webui, cases, Report(said.append, as_json=False), clock=lambda: 0.0), said


@pytest.mark.parametrize(
    ("case", "code", "line"),
    [
        (Case("s", "n", ok), 0, "ok      s/n  (0.0 s)  numbers"),
        (Case("s", "n", bad), 1, "FAILED  s/n  (0.0 s)  3.00; expected 2.00"),
        (Case("s", "n", bad, optional=True), 1, "FAILED  s/n  (0.0 s)  3.00; expected 2.00"),
        (Case("s", "n", refused), 1, "FAILED  s/n  (0.0 s)  /x answered 500: boom"),
        (Case("s", "n", skipping), 1, "skipped s/n  (0.0 s)  not here"),
        (Case("s", "n", skipping, optional=True), 0, "skipped s/n  (0.0 s)  not here"),
        (Case("s", "n", bad, (sampler("Heun"),)), 1, "skipped s/n  (0.0 s)  this WebUI has no sampler Heun"),
        (Case("s", "n", bad, (setting("x"),), optional=True), 0, "skipped s/n  (0.0 s)  this WebUI has no setting x"),
        (Case("s", "n", bad, hosts=frozenset({"forge"})), 0, "skipped s/n  (0.0 s)  not a thing of"),
    ],
)
def test_how_a_case_went_decides_the_exit_code(webui: WebUI, case: Case, code: int, line: str) -> None:
    found, said = run(webui, Case("s", "first", ok), case)
    assert (found, len(said)) == (code, 3)
    assert said[1].startswith(line)


def test_the_summary_counts(webui: WebUI) -> None:
    code, said = run(webui, Case("s", "a", ok), Case("s", "b", bad), Case("s", "c", skipping), Case("s", "d", ok))
    assert (code, said[-1]) == (1, "Done: 2 ok, 1 failed, 1 skipped (1 of them had to be run).")
    assert run(webui) == (1, ["Done: 0 ok, 0 failed, 0 skipped."])


def test_a_webui_that_dies_ends_the_run(webui: WebUI) -> None:
    code, said = run(webui, Case("s", "a", ok), Case("s", "b", gone), Case("s", "c", ok))
    assert code == 1
    assert said[-1] == (
        "Stopped: No WebUI answers. 2 cases from s/b on were not completed. Until then 1 ok, 0 failed, 0 skipped."
    )


def test_checkpoints_are_found_by_title_file_or_name(webui: WebUI) -> None:
    for name in ("b", "b.safetensors", "b.safetensors [2c3d]", "models/Stable-diffusion/b.safetensors"):
        assert webui.checkpoint_title(name) == "b.safetensors [2c3d]"
    assert webui.checkpoint_title("c") == ""
    assert checkpoint("sdxl")(webui) == "no checkpoint was named; add --checkpoint-sdxl NAME"


def test_patterns_choose_cases() -> None:
    cases = [Case("rows", "plain", ok), Case("rows", "AND with 2", ok), Case("errors", "plain photo", ok)]
    assert [case.title for case in select(cases, "rows/and")] == ["rows/AND with 2"]
    assert [case.title for case in select(cases, "*plain")] == ["rows/plain"]
    assert len(select(cases, "")) == 3
    titles = [case.title for case in command.all_cases()]
    assert len(titles) == len(set(titles)) > 100
