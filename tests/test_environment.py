"""The environment is made once, repaired when cut short, and entered without a loop; the command line waits for it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lib_faceid import __main__ as command_line
from lib_faceid import environment
from lib_faceid.environment import Environment
from lib_faceid.errors import BrokenWeights

from . import __main__ as checks

ROOT = Path(__file__).resolve().parent.parent


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


# A whole start from nothing, with the real venv and pip and a wheel made by hand.

PROBE = """
import sys
from pathlib import Path
from lib_faceid.environment import ensure_environment
ensure_environment(Path("needs.txt"))
import faceid_probe
sys.stdout.write(repr((faceid_probe.VERSION, Path(sys.prefix).name, sys.argv[1:])))
sys.exit(7)
"""


def write_wheel(folder: Path) -> None:
    """The smallest thing pip installs: a module and three metadata files (PEP 427)."""
    info = "faceid_probe-1.0.dist-info"
    files = {
        "faceid_probe.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: faceid-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "faceid_probe-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


def start(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "probe", *words]
    return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)


def test_a_start_from_nothing_fails_clearly_is_repaired_and_then_costs_nothing(tmp_path: Path) -> None:
    for folder in ("lib_faceid", "wheels"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "lib_faceid" / "environment.py", tmp_path / "lib_faceid")
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "needs.txt").write_text("faceid-probe==1.0\n")

    failed = start(tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith(str(tmp_path / ".venv"))

    write_wheel(tmp_path / "wheels")
    made = start(tmp_path, "a", "b c")
    assert (made.returncode, made.stdout) == (7, "('1.0', '.venv', ['a', 'b c'])"), made.stderr

    shutil.rmtree(tmp_path / "wheels")
    again = start(tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (7, "('1.0', '.venv', [])", "")


# Requirement files.


@pytest.mark.parametrize("name", ["lib_faceid/requirements.txt", "tests/requirements.txt"])
@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 13)])
def test_every_requirement_has_one_exact_version_for_each_python(name: str, version: tuple[int, int]) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith(("#", "-r "))]
    chosen: list[str] = []
    for line in lines:
        match = re.fullmatch(r"([\w.\[\]-]+)==[\d.]+(?:; python_version (>=|<) \"3\.11\")?", line)
        assert match, line
        if match[2] is None or (match[2] == ">=") == (version >= (3, 11)):
            chosen.append(match[1])
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == {line.partition("==")[0] for line in lines}


def test_the_tests_need_what_the_product_needs() -> None:
    needs = Environment(ROOT / ".venv", (ROOT / "tests" / "requirements.txt",)).digests()
    assert set(needs) == {"lib_faceid/requirements.txt", "tests/requirements.txt"}


# The command line.


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
    command = [sys.executable, "-S", "-m", "lib_faceid", "-h"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in command_line.VERBS)


# python -m tests.


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
