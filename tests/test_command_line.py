"""The command lines: a verb's exit codes and refusals, what it waits for, and ``python -m tests``."""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import pytest

from lib_faceid import __main__ as command_line
from lib_faceid import environment
from lib_faceid.errors import BrokenWeights

from . import __main__ as checks
from .fresh_python import run_python


class Verb(types.ModuleType):
    """A verb's module, put where the command line looks for it."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__("faceid_fake_verb")
        self.error = error

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--code", type=int, default=0)

    def run(self, args: argparse.Namespace) -> int:
        if self.error is not None:
            raise self.error
        return int(args.code)


def run_verb(monkeypatch: pytest.MonkeyPatch, words: list[str], error: BaseException | None = None) -> int:
    monkeypatch.setitem(sys.modules, "faceid_fake_verb", Verb(error))
    return command_line.main(words, {"try": command_line.Verb("faceid_fake_verb", "try it")})


def test_a_verb_gets_its_words_and_gives_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_verb(monkeypatch, ["try"]) == 0
    assert run_verb(monkeypatch, ["try", "--code", "5"]) == 5


def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = BrokenWeights("a.bin is empty; get it again.")
    assert run_verb(monkeypatch, ["try"], error) == 2
    assert capsys.readouterr() == ("", "a.bin is empty; get it again.\n")
    assert run_verb(monkeypatch, ["try", "--json"], error) == 2
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ({"error": "a.bin is empty; get it again."}, "")


@pytest.mark.parametrize("words", [[], ["fly"], ["try", "--fly"], ["try", "--js"]])
def test_words_nobody_knows_are_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_verb(monkeypatch, words)
    assert stopped.value.code == 2
    assert "usage: python -m lib_faceid" in capsys.readouterr().err


def test_an_interruption_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(monkeypatch, ["try"], KeyboardInterrupt()) == 1
    assert capsys.readouterr().err == "Stopped before it was done.\n"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_verb(monkeypatch, ["try"], ZeroDivisionError())


@pytest.mark.parametrize(("there", "expected"), [(True, []), (False, [environment.RUNTIME_REQUIREMENTS])])
def test_an_environment_is_made_only_where_packages_are_missing(
    monkeypatch: pytest.MonkeyPatch, there: bool, expected: list[Path]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(environment, "has_packages", lambda: there)
    monkeypatch.setattr(environment, "ensure_environment", asked.append)
    assert run_verb(monkeypatch, ["try"]) == 0
    assert asked == expected


def test_help_needs_nothing_but_python() -> None:
    """-S hides every installed package, so a bare Python it is."""
    result = run_python("-S", "-m", "lib_faceid", "-h")
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in command_line.VERBS)


def test_every_check_runs_and_the_failed_ones_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    ok, bad = ("timeit", "-n1", "-r1", "pass"), ("timeit", "-n1", "-r1", "1/0")
    assert checks.run_checks({"one": ok}) == 0
    assert "Failed" not in capfd.readouterr().out
    assert checks.run_checks({"one": bad, "two": ok, "three": bad}) == 1
    said = capfd.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("==")] == ["== one", "== two", "== three"]
    assert said.splitlines()[-1] == "Failed: one, three."


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], checks.CHECKS), (["-k", "tap"], {"pytest": ("pytest", "-k", "tap")})],
)
def test_arguments_go_to_pytest_alone(
    monkeypatch: pytest.MonkeyPatch, words: list[str], expected: Mapping[str, tuple[str, ...]]
) -> None:
    ran: list[Mapping[str, object]] = []
    monkeypatch.setattr(checks, "ensure_environment", lambda *files, no_deps: None)
    monkeypatch.setattr(checks, "run_checks", lambda wanted: ran.append(wanted) or 0)
    assert checks.main(words) == 0
    assert ran == [expected]
    assert list(checks.CHECKS)[-1] == "pytest"
