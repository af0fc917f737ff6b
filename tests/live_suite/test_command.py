"""The command: what is said when something is missing, and its exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .. import __main__ as checks
from ..live import command
from ..live.stand_in import StandIn


def main(*words: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return command.main(words, said.append), said


def test_the_command_tells_what_is_missing(stand_in: StandIn, address: str) -> None:
    assert main("--live", "http://127.0.0.1:9")[1][0].startswith("No WebUI with --api answers")
    assert main("--live", address, "--only", "no such case") == (1, ["Nothing was tried: no case has this name."])
    stand_in.adapters = ()
    code, said = main("--live", address)
    assert code == 1
    assert "python -m tests --fixtures MODELS" in said[0]
    stand_in.scripts.remove("faceid")
    assert "no script FaceID" in main("--live", address)[1][0]
    assert main("--live", address, "--size", "100")[0] == 1


def test_the_command_runs_cases(address: str) -> None:
    code, said = main("--live", address, "--only", "rows/plain", "--size", "64")
    assert (code, said[-1]) == (0, "Done: 1 ok, 0 failed, 0 skipped.")
    assert said[0] == f"{address}: a1111, a.safetensors [0a1b] (sd15); 1 cases"
    code, said = main("--live", address, "--only", "rows/plain", "--size", "64", "--json")
    told = json.loads("\n".join(said))
    assert (code, told["exit"], told["cases"][0]["outcome"]) == (0, 0, "ok")


def test_cases_are_listed_without_a_webui() -> None:
    code, said = main("--live", "--list", "--only", "rows/plain")
    assert (code, said) == (0, ["rows/plain"])


def test_the_tests_command_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(checks, "ensure_environment", lambda *files, no_deps: None)
    monkeypatch.setattr(command, "main", lambda words: ran.append(words) or 7)
    assert checks.main(["--live", "http://x", "--list"]) == 7
    assert checks.main(["--fixtures=models"]) == 7
    assert ran == [["--live", "http://x", "--list"], ["--fixtures=models"]]
