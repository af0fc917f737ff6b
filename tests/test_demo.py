"""The demo: runs offline, says what it compared, never overwrites, and reports failure when nothing is applied."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid import demo
from lib_faceid.__main__ import main
from lib_faceid.demo import story
from lib_faceid.demo.sheet import draw_sheet, save_sheet

from .layouts import NARROW, layout


@dataclass
class Run:
    """What one call of the verb left behind."""

    code: int
    out: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """The verb, once, beside a sheet that was there before."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "sheet.png").write_bytes(b"mine")
    words = ["demo", "--json", "--out", str(folder / "sheet.png"), "--keep", str(folder / "kept")]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(words)
    return Run(code, out.getvalue(), folder)


def test_every_promise_is_kept(finished):
    assert finished.code == 0
    assert finished.report["succeeded"] is True
    assert finished.report["stand_ins"] is True
    checks = finished.report["checks"]
    assert set(checks) >= {"weight_zero_is_off", "people_differ", "person_repeats", "nothing_stays"}
    assert all(checks.values())


def test_numbers_for_every_picture(finished):
    pictures = {(item["prompt"], item["setting"]): item for item in finished.report["pictures"]}
    assert len(pictures) == 14
    for prompt in ("prompt A", "prompt B"):
        assert pictures[prompt, "weight 0"]["difference"] == 0
        assert pictures[prompt, "weight 1"]["difference"] > 1
        assert pictures[prompt, "other person"]["difference"] > 1
        assert pictures[prompt, "weight 1"]["layers"] == {"calls": 5, "expected": 16, "fewest": 16}
        for item in pictures.values():
            assert (item["likeness"] is None) == (item["faces"] == 0)
            assert -1 <= item["frame_likeness_meaningless"] <= 1


def test_photos_show_who_is_who(finished):
    robin, evening, kim = finished.report["photos"]
    assert robin["box"] == pytest.approx([114, 90, 366, 342], abs=6)
    assert robin["likeness"] == pytest.approx(1.0, abs=1e-4)
    assert evening["likeness"] > 0.9 > kim["likeness"] + 0.1


def test_the_sheet_gets_a_free_name(finished):
    assert (finished.folder / "sheet.png").read_bytes() == b"mine"
    assert finished.report["sheet"] == str(finished.folder / "sheet-2.png")
    with Image.open(finished.folder / "sheet-2.png") as sheet:
        assert sheet.width > 1000
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1000


def test_the_adapter_has_the_published_layout(finished):
    kept = finished.folder / "kept" / "ip-adapter-faceid-plusv2_sd15.bin"
    nested = torch.load(kept, weights_only=True)
    found = {f"{part}.{name}": tuple(t.shape) for part, group in nested.items() for name, t in group.items()}
    assert found == layout("faceid-plusv2", "sd15", NARROW["sd15"], hidden=1024, clip=80, dim=64)
    assert lib_faceid.load_adapter(kept).title == "FaceID Plus v2 for SD1.5"


def test_what_is_kept_works_with_the_other_verbs(finished, monkeypatch, tmp_path, capsys):
    kept = finished.folder / "kept"
    monkeypatch.setenv("FACEID_MODELS", str(kept))
    assert main(["score", "--json", str(kept / "robin.png"), str(kept / "kim.png")]) == 0
    likeness = json.loads(capsys.readouterr().out)["likeness"]
    assert likeness == pytest.approx(finished.report["photos"][2]["likeness"], abs=1e-3)
    adapter = str(kept / "ip-adapter-faceid-plusv2_sd15.bin")
    assert main(["embed", str(kept / "robin.png"), "--adapter", adapter, "--out", str(tmp_path / "r.safetensors")]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "nowhere/sheet.png"], "There is no folder nowhere"),
        (["--out", "sheet.jpg"], "names a .png file"),
        (["--keep", "."], "exists already and is left as it is"),
    ],
)
def test_bad_places_are_told_before_anything_is_built(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "tell", None)
    assert main(["demo", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@contextmanager
def applied_to_nothing(*_: Any, **__: Any) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(calls=0, expected=16, fewest=None)


def test_failure_is_reported_when_nobody_is_applied(tmp_path, monkeypatch, capsys):
    """In words this time: the claims come from the pictures."""
    monkeypatch.setattr(story, "applied", applied_to_nothing)
    monkeypatch.setattr(story, "STEPS", 1)
    assert main(["demo", "--out", str(tmp_path / "sheet.png")]) == 1
    printed = capsys.readouterr().out
    assert "random weights" in printed
    assert "yes  Weight 0 is bit for bit the picture without FaceID." in printed
    assert "NO   Two people give different pictures." in printed
    assert "NO   A person at weight 1 changes the picture." in printed
    assert "NO   All 16 layers were reached in every UNet call." in printed
    assert "NOT kept" in printed
    assert (tmp_path / "sheet.png").is_file()


def drawn(**values: int) -> list[story.Drawn]:
    """Grey pictures of every setting; those not named are those of a demo that works."""
    usual = {"without": 0, "off": 0, "once": 1, "twice": 2, "again": 1, "other": 3, "after": 0} | values
    names = dict(zip(usual, story.SETTINGS, strict=True))
    return [
        story.Drawn(
            prompt, names[key], np.full((2, 2, 3), shade, np.uint8), (5, 16, 16) if story.SETTINGS[names[key]] else None
        )
        for prompt in story.PROMPTS
        for key, shade in usual.items()
    ]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, set()),
        ({"off": 9}, {"weight_zero_is_off"}),
        ({"once": 0, "again": 0}, {"person_changes_picture"}),
        ({"twice": 1}, {"weight_matters"}),
        ({"other": 1}, {"people_differ"}),
        ({"again": 9}, {"person_repeats"}),
        ({"after": 9}, {"nothing_stays"}),
    ],
)
def test_each_promise_is_a_comparison(change, broken):
    assert {check.name for check in story.check_promises(drawn(**change)) if not check.holds} == broken


def test_a_layer_that_was_missed():
    missed = [story.Drawn(item.prompt, item.setting, item.pixels, (5, 16, 15)) for item in drawn()]
    assert {check.name for check in story.check_promises(missed) if not check.holds} == {"all_layers_reached"}


def test_a_broken_promise_is_red_on_the_sheet(tmp_path):
    def colours(**change: int) -> set[tuple[int, ...]]:
        pictures = drawn(**change)
        told = story.Story((), tuple(pictures), story.check_promises(pictures))
        return {tuple(map(int, one)) for one in np.unique(np.asarray(draw_sheet(told)).reshape(-1, 3), axis=0)}

    red = (196, 52, 48)
    assert red not in colours()
    assert red in colours(off=9)
    pictures = drawn()
    told = story.Story((), tuple(pictures), story.check_promises(pictures))
    names = [save_sheet(tmp_path / "sheet.png", told).name for _ in range(3)]
    assert names == ["sheet.png", "sheet-2.png", "sheet-3.png"]


def test_its_arguments():
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    assert parser.parse_args([]).out == Path("faceid-demo.png")
