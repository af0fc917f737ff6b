"""install.py adds and never moves, says what it could not do, and costs a start nothing when there is nothing to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import install
from install import Note, Package, Python

from .source_rules import find_imports

ROOT = Path(__file__).resolve().parent.parent
ONNXRUNTIME, OPENCV, INSIGHTFACE = install.WANTED
MODULES = {package.name: package.module for package in install.WANTED}
# What pip really writes, cut to the lines that matter.
CONFLICT = "ERROR: Cannot install onnx because\n\nERROR: ResolutionImpossible: for help visit https://pip.pypa.io"
NO_FIT = "ERROR: Could not find a version that satisfies the requirement x (from versions: 1.0, 1.1)\n"
NO_FIT += "ERROR: No matching distribution found for x"
OFFLINE = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n" + NO_FIT.replace(
    "1.0, 1.1", "none"
)
NO_PIP = "python: No module named pip\n"
FULL_DISK = "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n"
HOST_PACKAGES = {"numpy": "1.26.2", "pillow": "9.5.0", "protobuf": "3.20.0", "torch": "2.1.2+cu121"}

Answer = tuple[int, str]
ADDED: Answer = (0, "Successfully installed")


@dataclass
class FakePython(Python):
    """A Python with these packages; pip answers each requirement in turn, and adds or moves what it is told to."""

    packages: dict[str, str] = field(default_factory=lambda: dict(HOST_PACKAGES))
    modules: set[str] = field(default_factory=lambda: set(install.HOST))
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    moves: Mapping[str, str | None] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    constraints: list[list[str]] = field(default_factory=list)
    looked: int = 0

    def has(self, module: str) -> bool:
        return module in self.modules

    def snapshot(self) -> dict[str, str]:
        self.looked += 1
        return dict(self.packages)

    def pip(self, *arguments: str) -> Answer:
        self.calls.append(list(arguments))
        self.constraints.append(Path(arguments[arguments.index("-c") + 1]).read_text().splitlines())
        name = next(package.name for package in install.WANTED if package.name + package.least in arguments)
        earlier = sum(name in " ".join(call) for call in self.calls[:-1])
        code, said = self.answers.get(name, [ADDED])[earlier]
        if code == 0:
            self.modules.add(MODULES[name])
            self.packages[name] = "9.9"
            self.packages = {key: value for key, value in {**self.packages, **self.moves}.items() if value}
        return code, said

    def asked(self) -> list[str]:
        """The requirement of each pip command; "--no-deps" behind it where that was said."""
        return [" ".join(call[call.index("-c") + 2 :]) for call in self.calls]


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "cache" / "note.json", now=1_000_000.0)


def start(python: FakePython, note: Note, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """What was said and what pip was asked for."""
    python.calls.clear()
    install.complete(python, note)
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith("FaceID: ") for line in said)
    return [line.removeprefix("FaceID: ") for line in said], python.asked()


# Decisions.


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ([], "", False),
        ([], "--medvram --skip-install --ckpt 'a b'", True),
        ([], "--skip-torch-cuda-test --skip-install-of-nothing", False),
        ([], "'--skip-install'", True),
        (["install.py", "--skip-install"], "", True),
    ],
)
def test_skip_install_is_read_where_the_host_reads_it(words: list[str], text: str, expected: bool) -> None:
    assert install.is_skipped(words, {"COMMANDLINE_ARGS": text}) is expected
    assert not install.is_skipped([], {})


def names(packages: list[Package]) -> list[str]:
    return [package.name for package in packages]


def test_only_what_no_package_brings_is_planned() -> None:
    assert names(install.plan({}, set())) == ["onnxruntime", "opencv-python", "insightface"]
    assert names(install.plan({}, {"onnxruntime", "cv2"})) == ["insightface"]
    assert names(install.plan({"onnxruntime-gpu": "1.17.1", "opencv-contrib-python": "4.8"}, set())) == ["insightface"]
    assert names(install.plan({"insightface": "0.7.3", "onnxruntime-extensions": "1"}, {"cv2"})) == ["onnxruntime"]


def test_constraints_hold_what_is_there_and_keep_rivals_out() -> None:
    snapshot = {"torch": "2.1.2+cu121", "opencv-python-headless": "4.8.0.74", "onnxruntime-gpu": "1"}
    lines = install.make_constraints(snapshot, {"torch", "cv2", "onnxruntime"})
    assert lines[:3] == ["onnxruntime-gpu==1", "opencv-python-headless==4.8.0.74", "torch==2.1.2+cu121"]
    kept_out = {line.removesuffix("<0") for line in lines[3:] if line.endswith("<0")}
    assert len(kept_out) == len(lines) - 3
    assert {"onnxruntime", "opencv-python", "opencv-contrib-python", "numpy", "pillow", "safetensors"} < kept_out
    assert not kept_out & {"insightface", *snapshot}


@pytest.mark.parametrize("name", ["onnxruntime", "opencv-python", "insightface"])
def test_what_is_to_be_added_is_not_kept_out(name: str) -> None:
    lines = install.make_constraints({}, set())
    assert f"{name}<0" not in lines
    assert "onnxruntime-gpu<0" in lines


@pytest.mark.parametrize(
    ("name", "version", "kept"),
    [
        ("a", "1", True),
        ("a-b", "2!1.0.0rc1.post2.dev3+cu121.x-1", True),
        ("a", "2023.1-1", True),
        ("a", "1.0.dev0", True),
        ("a", "1.0-unknown", False),
        ("a", "unknown", False),
        ("a", "1.0 ; x", False),
        ("-umpy", "1.0", False),
        ("a b", "1.0", False),
    ],
)
def test_a_line_that_pip_cannot_read_is_left_out(name: str, version: str, kept: bool) -> None:
    assert (f"{name}=={version}" in install.make_constraints({name: version}, set())) is kept


@pytest.mark.parametrize(
    ("code", "said", "result", "words"),
    [
        (0, "ERROR: pip's dependency resolver does not take into account", "added", ""),
        (1, CONFLICT, "refused", "ready-made"),
        (1, NO_FIT, "refused", "ready-made"),
        (1, NO_FIT.replace("x (from versions: 1.0, 1.1", "y (from x) (from versions: none"), "refused", "ready-made"),
        (1, OFFLINE, "failed", "index could not be reached"),
        (1, OFFLINE.replace("requirement x", "requirement x>=1.0"), "failed", "index could not be reached"),
        (1, NO_PIP, "failed", "No module named pip"),
        (2, FULL_DISK, "failed", "Could not install packages due to an OSError: [Errno 28] No space left on device"),
        (3, " \n", "failed", "pip ended with code 3"),
    ],
)
def test_what_pip_says_is_told_apart(code: int, said: str, result: str, words: str) -> None:
    found, reason = install.judge(code, said)
    assert (found, words in reason) == (result, True)
    assert not reason.endswith((".", "\n"))


# The course of a start.


def test_nothing_missing_costs_no_look_at_any_package(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    python = FakePython(modules={*install.HOST, *MODULES.values()})
    assert start(python, note, capsys) == ([], [])
    assert python.looked == 0
    assert not note.file.exists()


def test_what_is_missing_is_added_and_named(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    python = FakePython(modules={*install.HOST, "cv2"})
    said, asked = start(python, note, capsys)
    assert asked == ["onnxruntime", "insightface>=1.0"]
    assert said == ["added insightface 9.9, onnxruntime 9.9. Nothing else has changed."]
    first, second = python.constraints
    assert first[:4] == [f"{name}=={version}" for name, version in sorted(HOST_PACKAGES.items())]
    assert "onnxruntime==9.9" in second  # what the first command brought is held by the second
    assert start(python, note, capsys) == ([], [])


def test_a_needed_package_is_tried_without_dependencies(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    python = FakePython(answers={"onnxruntime": [(1, CONFLICT), ADDED], "insightface": [(1, CONFLICT)]})
    said, asked = start(python, note, capsys)
    assert asked == ["onnxruntime", "onnxruntime --no-deps", "opencv-python", "insightface>=1.0"]
    assert [line.split()[0] for line in said] == ["insightface", "added"]
    assert "built-in runner" in said[0]
    assert start(python, note, capsys) == ([], [])  # the refusal is noted, and optional: no word about it


def test_a_refused_needed_package_is_told_at_every_start(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    python = FakePython(
        modules={*install.HOST, "cv2", "insightface"}, answers={"onnxruntime": [(1, NO_FIT), (1, CONFLICT)]}
    )
    for asked in (["onnxruntime", "onnxruntime --no-deps"], []):
        [said], commands = start(python, note, capsys)
        assert commands == asked
        assert said.startswith("onnxruntime is not installed: ")
        assert all(words in said for words in ("no face can be found", str(note.file), "pip install --no-deps onnx"))


@pytest.mark.parametrize("change", ["package", "week", "clock", "setting", "damaged", "strange", "deleted"])
def test_a_note_ends(
    note: Note, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    python = FakePython(modules={*install.HOST, "onnxruntime", "cv2"}, answers={"insightface": [(1, CONFLICT)]})
    assert len(start(python, note, capsys)[1]) == 1
    assert start(python, Note(note.file, note.now + install.WEEK - 1), capsys) == ([], [])
    now = note.now + {"week": install.WEEK, "clock": -1}.get(change, 0)
    if change == "package":
        python.packages["protobuf"] = "4.25.8"
    elif change == "setting":
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    elif change == "deleted":
        note.file.unlink()
    elif change in ("damaged", "strange"):
        note.file.write_text({"damaged": '{"state"', "strange": "[1]"}[change])
    assert start(python, Note(note.file, now), capsys)[1] == ["insightface>=1.0"]


def test_a_folder_that_cannot_be_written_costs_only_another_try(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    note.file.parent.write_text("a file where the folder would be")
    python = FakePython(modules={*install.HOST, "onnxruntime", "cv2"}, answers={"insightface": [(1, CONFLICT)]})
    for _ in range(2):
        assert len(start(python, note, capsys)[1]) == 1


@pytest.mark.parametrize(("seconds", "second"), [(1, ["onnxruntime"]), (60, [])])
def test_a_pip_that_fails_is_asked_once(
    note: Note, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: int, second: list[str]
) -> None:
    """A quick failure of a needed package is tried again at the next start; for a slow one no start should wait."""
    times = iter([0, seconds, 100, 100 + seconds])
    monkeypatch.setattr(install, "time", SimpleNamespace(monotonic=lambda: next(times)))
    python = FakePython(answers={"onnxruntime": [(1, OFFLINE)]})
    said, asked = start(python, note, capsys)
    assert asked == ["onnxruntime"]
    assert [line.split()[0] for line in said] == ["onnxruntime", "opencv-python", "insightface"]
    said, asked = start(python, note, capsys)
    assert asked == second
    assert [line.split()[0] for line in said] == ["onnxruntime", "opencv-python"]
    assert all(("at the next start" in line) is bool(second) for line in said)


def test_a_package_that_pip_moved_is_named_with_the_way_back(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    moves = {"numpy": "2.2.6", "torch": None}
    python = FakePython(modules={*install.HOST, "cv2", "insightface"}, moves=moves)
    added, moved = start(python, note, capsys)[0]
    assert added == "added onnxruntime 9.9."
    assert "numpy 1.26.2 -> 2.2.6, torch 2.1.2+cu121 -> removed. " in moved
    back = "--no-deps --extra-index-url=https://download.pytorch.org/whl/cu121 numpy==1.26.2 torch==2.1.2+cu121"
    assert moved.endswith(f"{sys.executable} -m pip install {back}")


def test_a_change_is_told_after_a_failure_too(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    class Half(FakePython):
        def pip(self, *arguments: str) -> Answer:
            self.packages["flatbuffers"] = "25.1"
            return 1, FULL_DISK

    said = start(Half(modules={*install.HOST, "cv2", "insightface"}), note, capsys)[0]
    assert "No space left on device. Until it is there, no face" in said[0]
    assert said[1] == "added flatbuffers 25.1. Nothing else has changed."


def test_a_recorded_package_without_its_module_is_not_touched(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    packages = {**HOST_PACKAGES, "onnxruntime": "1.18.0", "onnxruntime-gpu": "1.17.1"}
    [said], asked = start(FakePython(packages, {*install.HOST, "cv2", "insightface"}), note, capsys)
    assert asked == []
    assert said.startswith("onnxruntime and onnxruntime-gpu is recorded")
    assert said.endswith("--force-reinstall --no-deps onnxruntime==1.18.0 onnxruntime-gpu==1.17.1")


def test_packages_of_the_host_are_reported_and_never_asked_for(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    python = FakePython({}, {"PIL", *MODULES.values()})
    [said], asked = start(python, note, capsys)
    assert asked == []
    assert f"{sys.executable} lacks torch, numpy, safetensors, transformers, which come with the WebUI" in said


def test_success_without_the_module_is_no_success(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    class Elsewhere(FakePython):
        def pip(self, *arguments: str) -> Answer:
            return ADDED

    said, _ = start(Elsewhere(modules={*install.HOST, "cv2", "insightface"}), note, capsys)
    assert "pip reports success, but the module onnxruntime cannot be found" in said[0]


def test_no_room_for_a_constraints_file_is_a_failure_like_others(
    note: Note, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(install.tempfile, "TemporaryDirectory", refuse)
    said, asked = start(FakePython(modules={*install.HOST, "cv2", "insightface"}), note, capsys)
    assert asked == []
    assert "No usable temporary directory found" in said[0]


def test_what_failed_without_a_network_is_tried_once_there_is_one(
    note: Note, capsys: pytest.CaptureFixture[str]
) -> None:
    python = FakePython(modules={*install.HOST, "cv2"}, answers={"onnxruntime": [(1, OFFLINE)]})
    assert start(python, note, capsys)[1] == ["onnxruntime"]
    python.answers = {}
    assert start(python, note, capsys)[1] == ["onnxruntime"]
    assert start(python, note, capsys)[1] == ["insightface>=1.0"]
    assert start(python, note, capsys) == ([], [])


# The real Python.


def test_a_pip_that_hangs_or_cannot_be_started_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    forgotten: list[bool] = []
    monkeypatch.setattr(install.subprocess, "run", hang)
    monkeypatch.setattr(install.importlib, "invalidate_caches", lambda: forgotten.append(True))
    assert install.judge(*Python().pip("install", "x")) == ("failed", "pip did not finish within 10 minutes")
    assert forgotten  # it may have written before it was stopped
    monkeypatch.undo()
    monkeypatch.setattr(install.sys, "executable", str(ROOT / "no" / "python"))
    result, reason = install.install(Python(), ONNXRUNTIME, ())
    assert (result, "No such file" in reason or "cannot find" in reason) == ("failed", True)


def test_modules_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faceid_empty").mkdir()
    (tmp_path / "faceid_there.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert Python().has("faceid_there")
    assert not Python().has("faceid_empty")
    assert not Python().has("faceid_nowhere")


def record(folder: Path, name: str, version: str, place: str = "{}-{}.dist-info/METADATA") -> None:
    file = folder / place.format(name, version)
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 7 of the text\n")


def test_the_snapshot_is_what_pip_would_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    record(first, "Zope.Inter_face", "5.0")
    record(first, "numpy", "1.26.2")
    record(first, "gone", "1.0", "~one-1.0.dist-info/METADATA")
    record(first, "old", "3", "old-3.egg-info")
    record(first, "older", "4", "older-4.egg-info/PKG-INFO")
    record(second, "numpy", "2.2.6")
    (first / "empty-1.dist-info").mkdir()
    (first / "binary-1.dist-info").mkdir()
    (first / "binary-1.dist-info" / "METADATA").write_bytes(b"Name: \xff\xfe\nVersion: 1\n")
    monkeypatch.setattr(install.sys, "path", [str(first), str(second)])
    assert Python().snapshot() == {"zope-inter-face": "5.0", "numpy": "1.26.2", "old": "3", "older": "4"}


# The file as the host runs it: a process of its own, here with a pip that keeps what it was asked.

FAKE_PIP = """
import json, os, sys
from pathlib import Path
folder = Path(__file__).parent.parent
asked = sys.argv[1:]
constraints = Path(asked[asked.index("-c") + 1]).read_text().splitlines()
settings = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
with (folder / "asked.jsonl").open("a") as file:
    file.write(json.dumps([asked, constraints, settings, sys.executable]) + chr(10))
answer = json.loads((folder / "answers.json").read_text()).get(asked[-1])
if answer:
    sys.exit(answer)
name = asked[-1].partition(">")[0]
(folder / {"opencv-python": "cv2"}.get(name, name)).with_suffix(".py").write_text("raise AssertionError('imported')")
(folder / (name + "-9.9.dist-info")).mkdir()
(folder / (name + "-9.9.dist-info") / "METADATA").write_text(f"Name: {name}\\nVersion: 9.9\\n")
"""


@dataclass
class Host:
    """An extension folder with install.py in it, and a Python (-S: nothing else is installed) with ``packages``."""

    folder: Path
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("packages/pip", "webui", "extensions/face ïd"):
            (self.folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "install.py", self.folder / "extensions" / "face ïd")
        (self.folder / "packages" / "pip" / "__init__.py").touch()
        (self.folder / "packages" / "pip" / "__main__.py").write_text(FAKE_PIP)
        for name, version in HOST_PACKAGES.items():
            record(self.folder / "packages", name, version)
        for module in install.HOST:
            (self.folder / "packages" / f"{module}.py").write_text("raise AssertionError('imported')")

    def start(self, *words: str, **variables: str) -> str:
        """What the host would show. Anything on stderr, or an exit code, is a failure: the host would report it."""
        (self.folder / "packages" / "answers.json").write_text(json.dumps(self.answers))
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "COMMANDLINE"))}
        script = self.folder / "extensions" / "face ïd" / "install.py"
        paths = os.pathsep.join([str(self.folder / "webui"), str(self.folder / "packages")])
        result = subprocess.run(
            [sys.executable, "-S", str(script), *words],
            cwd=self.folder / "webui",
            env={**kept, "PYTHONPATH": paths, **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def asked(self) -> list[tuple[list[str], list[str], dict[str, str], str]]:
        """Since the last look: words, lines of the constraints file, pip's variables, and the Python of each call."""
        file = self.folder / "packages" / "asked.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


def test_the_host_gets_its_packages_once(tmp_path: Path) -> None:
    host = Host(tmp_path, {"insightface>=1.0": CONFLICT})
    said = host.start(INDEX_URL="https://mirror.example/simple", PIP_RETRIES="7").splitlines()
    assert said[0].startswith("FaceID: insightface is left out")
    assert said[1] == "FaceID: added onnxruntime 9.9, opencv-python 9.9. Nothing else has changed."
    calls = host.asked()
    for words, _, settings, python in calls:
        assert words[:4] == ["install", "--no-input", "--prefer-binary", "--only-binary=:all:"]
        assert words[4:6] == ["--index-url", "https://mirror.example/simple"]
        assert not {"-U", "--upgrade", "--no-deps", "--pre", "--force-reinstall"} & set(words)
        assert settings == {"PIP_RETRIES": "7", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        assert python == sys.executable
    assert [words[-1] for words, *_ in calls] == ["onnxruntime", "opencv-python", "insightface>=1.0"]
    packages = dict(HOST_PACKAGES)
    for words, constraints, *_ in calls:
        held = [line for line in constraints if not line.endswith("<0")]
        assert held == [f"{name}=={version}" for name, version in sorted(packages.items())]
        packages[words[-1]] = "9.9"
    assert not Path(calls[0][0][calls[0][0].index("-c") + 1]).exists()  # the constraints file is gone

    assert host.start(INDEX_URL="https://mirror.example/simple", PIP_RETRIES="7") == ""
    assert host.asked() == []
    assert [file.parent.name for file in host.folder.rglob("faceid-install-*")] == ["__pycache__"]


def test_sentences_reach_the_host_whatever_the_system_encodes(tmp_path: Path) -> None:
    host = Host(tmp_path, {"onnxruntime": CONFLICT, "--no-deps": NO_FIT})
    said = host.start(PYTHONIOENCODING="ascii")
    assert f"once {host.folder / 'extensions' / 'face ïd'}" in said
    assert "Nothing else has changed." in said
    assert [words[-1] for words, *_ in host.asked()][:2] == ["onnxruntime", "--no-deps"]


def test_skip_install_starts_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.start(COMMANDLINE_ARGS="--medvram --skip-install") == ""
    assert host.start("--skip-install") == ""
    assert host.asked() == []


def test_a_missing_pip_is_a_sentence(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "packages" / "pip" / "__main__.py").unlink()
    said = host.start()
    assert said.count("FaceID: ") == 3
    assert "No module named pip" in said
    assert "It is tried again at the next start" in said


def test_what_nobody_foresaw_is_a_sentence(tmp_path: Path) -> None:
    assert "FaceID: install.py could not finish (ValueError: " in Host(tmp_path).start(COMMANDLINE_ARGS="--ckpt 'a")


def test_the_standard_library_is_enough() -> None:
    imported = find_imports("install.py", (ROOT / "install.py").read_text(encoding="utf-8"))
    assert {item.top for item in imported} <= sys.stdlib_module_names
