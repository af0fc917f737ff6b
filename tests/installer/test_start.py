"""A start adds and never moves, says what it could not do, and costs nothing when there is nothing to do."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import install
from install import Note

from .fake_python import ADDED, CONFLICT, FULL_DISK, HOST_PACKAGES, MODULES, NO_FIT, OFFLINE, Answer, FakePython


def start(python: FakePython, note: Note, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """What was said and what pip was asked for."""
    python.calls.clear()
    install.complete(python, note)
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith("FaceID: ") for line in said)
    return [line.removeprefix("FaceID: ") for line in said], python.asked()


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
