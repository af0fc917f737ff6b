"""The environment is made once, repaired when cut short, and entered without a loop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lib_faceid import environment
from lib_faceid.environment import Environment


class Calls:
    """Stands in for ``subprocess.call``: keeps the commands, makes the venv's python, fails where it is told to."""

    def __init__(self, folder: Path, failing: str = "") -> None:
        self.folder, self.failing = folder, failing
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **options: object) -> int:
        self.commands.append(command)
        if "venv" in command:
            python = Environment(self.folder, ()).python
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        return 1 if self.failing and self.failing in command else 0

    def verbs(self) -> list[str]:
        """``venv`` and ``pip``, in the order they were called."""
        return [command[command.index("-m") + 1] for command in self.commands]


@pytest.fixture
def wanted(tmp_path: Path) -> Environment:
    """An environment that is not there yet, with an included requirement file and one without dependencies."""
    (tmp_path / "base.txt").write_text("a==1\n")
    (tmp_path / "all.txt").write_text("# more\n-r base.txt\nb==2\n")
    (tmp_path / "alone.txt").write_text("c==3\n")
    return Environment(tmp_path / ".venv", (tmp_path / "all.txt",), (tmp_path / "alone.txt",))


def make(wanted: Environment, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Calls:
    calls = Calls(wanted.folder, failing)
    monkeypatch.setattr(environment.subprocess, "call", calls)
    wanted.make()
    return calls


def test_a_missing_environment_is_made_filled_and_stamped(wanted: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = make(wanted, monkeypatch)
    assert calls.verbs() == ["venv", "pip", "pip"]
    assert calls.commands[0][0] == sys.executable
    assert calls.commands[1][0] == str(wanted.python)
    assert calls.commands[1][-2:] == ["-r", str(wanted.requirements[0])]
    assert calls.commands[2][-3:] == ["--no-deps", "-r", str(wanted.no_deps[0])]
    assert wanted.is_complete()
    assert sorted(json.loads(wanted.stamp.read_text())) == ["all.txt", "alone.txt", "base.txt"]
    assert not wanted.unfinished.exists()


@pytest.mark.parametrize("changed", ["base.txt", "all.txt", "alone.txt"])
def test_a_changed_requirement_is_installed_into_what_is_there(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    make(wanted, monkeypatch)
    file = wanted.folder.parent / changed
    file.write_text(file.read_text() + "d==4\n")
    assert not wanted.is_complete()
    assert make(wanted, monkeypatch).verbs() == ["pip", "pip"]
    assert wanted.is_complete()


def test_a_smaller_need_is_met_by_a_fuller_environment(wanted: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    make(wanted, monkeypatch)
    small = Environment(wanted.folder, (wanted.folder.parent / "base.txt",))
    assert small.is_complete()
    (wanted.folder.parent / "base.txt").write_text("a==2\n")
    make(small, monkeypatch)
    assert small.is_complete()
    assert wanted.is_complete()  # what it adds to the smaller one is still installed


@pytest.mark.parametrize("step", ["venv", "pip", "--no-deps"])
def test_a_failure_leaves_no_stamp_and_the_next_start_begins_again(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        make(wanted, monkeypatch, failing=step)
    assert isinstance(stopped.value.code, str)  # a sentence: Python writes it to stderr and exits with 1
    assert str(wanted.folder) in stopped.value.code
    assert not wanted.stamp.exists()
    assert not wanted.is_complete()
    assert make(wanted, monkeypatch).verbs() == ["venv", "pip", "pip"]
    assert wanted.is_complete()


def test_a_failed_update_is_repaired_from_empty(wanted: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    make(wanted, monkeypatch)
    half_installed = wanted.folder / "half"
    half_installed.touch()
    wanted.requirements[0].write_text("b==3\n")
    with pytest.raises(SystemExit):
        make(wanted, monkeypatch, failing="pip")
    assert not wanted.stamp.exists()
    assert make(wanted, monkeypatch).verbs() == ["venv", "pip", "pip"]
    assert not half_installed.exists()


def test_an_environment_somebody_else_made_is_never_emptied(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted.python.parent.mkdir(parents=True)
    wanted.python.touch()
    for _ in range(2):
        with pytest.raises(SystemExit):
            make(wanted, monkeypatch, failing="pip")
    assert make(wanted, monkeypatch).verbs() == ["pip", "pip"]
    assert wanted.is_complete()


def test_an_environment_whose_python_is_gone_is_made_again(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of the Python it was made with: its link points nowhere."""
    make(wanted, monkeypatch)
    wanted.python.unlink()
    assert not wanted.is_complete()
    assert make(wanted, monkeypatch).verbs() == ["venv", "pip", "pip"]
    assert wanted.is_complete()


@pytest.mark.parametrize("content", ["", "[1]", "{", "{}"])
def test_a_damaged_stamp_covers_nothing(wanted: Environment, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    make(wanted, monkeypatch)
    wanted.stamp.write_text(content)
    assert not wanted.is_complete()


def test_inside_the_environment_nothing_is_started_again(wanted: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"started again: {arguments}")

    make(wanted, monkeypatch)
    monkeypatch.setattr(environment.os, "execve", refuse)
    monkeypatch.setattr(environment.sys, "prefix", str(wanted.folder))
    calls = Calls(wanted.folder)
    monkeypatch.setattr(environment.subprocess, "call", calls)
    environment.ensure_environment(*wanted.requirements, no_deps=wanted.no_deps, folder=wanted.folder)
    assert calls.commands == []


@pytest.mark.skipif(os.name == "nt", reason="Windows waits for a child instead of replacing the process")
def test_outside_the_same_command_line_goes_to_the_environment(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, list[str], Mapping[str, str]]] = []
    make(wanted, monkeypatch)
    monkeypatch.setattr(environment.os, "execve", lambda *call: started.append(call))
    monkeypatch.setattr(environment.sys, "orig_argv", ["python3", "-X", "utf8", "-m", "lib_faceid", "a b"])
    monkeypatch.setenv("PYTHONHOME", "elsewhere")
    environment.ensure_environment(*wanted.requirements, no_deps=wanted.no_deps, folder=wanted.folder)
    [(program, command, variables)] = started
    assert program == str(wanted.python)
    assert command == [str(wanted.python), "-X", "utf8", "-m", "lib_faceid", "a b"]
    assert "PYTHONHOME" not in variables


def test_packages_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faceid_plain_folder").mkdir()
    (tmp_path / "faceid_explodes.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.has_packages()
    assert environment.has_packages(("faceid_explodes",))
    assert not environment.has_packages(("json", "faceid_is_nowhere"))
    assert not environment.has_packages(("faceid_plain_folder",))
