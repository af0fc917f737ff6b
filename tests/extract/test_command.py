"""``embed`` and ``score`` on the command line: which face, how much each photo counts, crops, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid.__main__ import main
from lib_faceid.errors import BadRequest
from lib_faceid.face.choice import LARGEST, FaceChoice
from lib_faceid.face_argument import read_face, read_faces

from ..adapters import make_adapter
from ..face_packs import draw_marker, make_pack, scene

BIG, SMALL = (320, 320, 544, 544), (96, 40, 208, 152)


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    make_pack(tmp_path / "models" / "insightface" / "buffalo_l")
    monkeypatch.setenv("FACEID_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Two faces in the first photo, one in the second."""
    for number, boxes in enumerate([(BIG, SMALL), (BIG,)], start=1):
        image = scene(640, 640, seed=number)
        for box in boxes:
            draw_marker(image, box)
        Image.fromarray(image).save(tmp_path / f"anna{number}.png")
    return ["anna1.png", "anna2.png"]


def report_of(capsys, *words):
    """What the verb says as JSON; it has to succeed."""
    assert main([words[0], "--json", *words[1:]]) == 0
    return json.loads(capsys.readouterr().out)


def refusal_of(capsys, *words):
    assert main(list(words)) == 2
    return capsys.readouterr().err


class TestWords:
    @pytest.mark.parametrize(
        ("text", "choice"),
        [
            ("largest", LARGEST),
            ("leftmost", FaceChoice("leftmost")),
            (" 3 ", FaceChoice("number", number=3)),
            ("box:10,20,110.5,140", FaceChoice("box", box=(10, 20, 110.5, 140))),
            ("box -5,20,110,140", FaceChoice("box", box=(-5, 20, 110, 140))),
        ],
    )
    def test_that_name_a_face(self, text, choice):
        assert read_face(text) == choice

    @pytest.mark.parametrize(
        "text",
        ["", "0", "-1", "²", "1.5", "biggest", "like:anna", "box", "box:", "box:1,2,3", "box:9,0,1,9", "box:a,b,c,d"],
    )
    def test_that_name_none(self, text):
        with pytest.raises(BadRequest, match="largest, leftmost, a number from 1"):
            read_face(text)

    def test_for_several_photos(self):
        two = FaceChoice("number", number=2)
        assert read_faces([], 3) == [LARGEST] * 3
        assert read_faces(["2"], 3) == [two] * 3
        assert read_faces(["2", "largest"], 2) == [two, LARGEST]
        with pytest.raises(BadRequest, match="There are 3 photos and --face 2 times"):
            read_faces(["2", "2"], 3)


class TestEmbed:
    def test_the_report_is_complete(self, photos, capsys):
        report = report_of(capsys, "embed", *photos)
        first, second = report["photos"]
        assert set(first) == {"file", "box", "points", "score", "number", "faces", "how", "likeness", "notes"}
        assert (first["number"], first["faces"], first["how"]) == (1, 2, "at 640 px")
        assert np.shape(first["points"]) == (5, 2)
        assert first["notes"] == ["shows 2 faces; the largest was taken."]
        assert first["likeness"] == second["likeness"] == pytest.approx(report["similarity"][0][1], abs=2e-3)
        assert second["notes"][0].startswith("looks like someone else than photo 1: likeness")

    def test_the_face_that_was_asked_for(self, photos, capsys):
        report = report_of(capsys, "embed", *photos, "--face", "2", "--face", "box:300,300,500,500")
        first, second = report["photos"]
        assert first["box"] == pytest.approx(SMALL, abs=0.1)
        assert (first["number"], first["notes"][0]) == (2, "shows 2 faces; number 2 was taken.")
        assert (second["box"], second["how"]) == ([300, 300, 500, 500], "in the box drawn by hand")
        again = report_of(capsys, "embed", photos[0], "--face", "leftmost")
        assert again["vectors"][0] == pytest.approx(report["vectors"][0], rel=1e-5)
        assert again["photos"][0]["likeness"] is None

    def test_in_words(self, photos, capsys):
        assert main(["embed", photos[0], "--face", "2"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "anna1.png: face of 112x112 px, found at 640 px",
            "anna1.png shows 2 faces; number 2 was taken.",
        ]

    def test_weights(self, tmp_path, photos, capsys):
        path = str(make_adapter(tmp_path, "faceid").path)
        out = tmp_path / "anna.safetensors"
        report = report_of(capsys, "embed", *photos, "--weights", "1, 0", "--adapter", path, "--out", str(out))
        assert report["weights"] == [1, 0]
        alone = lib_faceid.make_identity(lib_faceid.load_adapter(path), images=photos[:1])
        torch.testing.assert_close(lib_faceid.load_identity(out).tokens, alone.tokens)
        assert "numbers with commas" in refusal_of(capsys, "embed", *photos, "--weights", "1;2")
        assert "2 photos and 3 weights" in refusal_of(capsys, "embed", *photos, "--weights", "1,2,3")
        assert "from 0 up" in refusal_of(capsys, "embed", *photos, "--weights", "0,0", "--adapter", path)

    def test_crops(self, photos, capsys):
        report = report_of(capsys, "embed", *photos, "--crops", "faces/new")
        names = ["1-anna1-1.png", "1-anna1-2.png", "2-anna2-1.png"]
        assert [Path(path).name for path in report["crops"]] == names
        crop = np.asarray(Image.open(report["crops"][0]))
        photo = np.asarray(Image.open(photos[0]))
        assert crop.shape == (224, 224, 3)
        assert np.abs(crop.astype(int) - photo[320:544, 320:544]).max() <= 1

    def test_crops_overwrite_nothing(self, tmp_path, photos, capsys):
        (tmp_path / "faces").mkdir()
        mine = tmp_path / "faces" / "2-anna2-1.png"
        mine.write_bytes(b"mine")
        adapter, out = make_adapter(tmp_path, "faceid").path, tmp_path / "anna.safetensors"
        words = ["--crops", "faces", "--adapter", str(adapter), "--out", str(out)]
        assert "2-anna2-1.png exists already" in refusal_of(capsys, "embed", *photos, *words)
        assert [path.name for path in (tmp_path / "faces").iterdir()] == [mine.name]
        assert mine.read_bytes() == b"mine"
        assert not out.exists()
        (tmp_path / "file").write_bytes(b"")
        assert "cannot be written to" in refusal_of(capsys, "embed", *photos, "--crops", "file/faces")

    def test_bad_words_are_one_sentence(self, photos, capsys):
        assert "found 'biggest'" in refusal_of(capsys, "embed", *photos, "--face", "biggest")
        assert "anna2.png has 1 face; its number is 1" in refusal_of(capsys, "embed", *photos, "--face", "2")


class TestScore:
    def test_the_faces_that_were_asked_for(self, photos, capsys):
        same = report_of(capsys, "score", photos[0], photos[0], "--face-b", "1")
        other = report_of(capsys, "score", photos[0], photos[0], "--face-b", "2")
        both = report_of(capsys, "score", photos[0], photos[0], "--face-a", "leftmost", "--face-b", "2")
        assert [round(report["likeness"], 5) for report in (same, both)] == [1, 1]
        assert other["likeness"] < 0.9
        assert [(report["face_a"], report["face_b"]) for report in (same, other, both)] == [(1, 1), (1, 2), (2, 2)]
        assert other["notes_b"] == ["anna1.png shows 2 faces; number 2 was taken."]

    def test_in_words(self, photos, capsys):
        assert main(["score", *photos, "--face-a", "2"]) == 0
        first, *notes = capsys.readouterr().out.splitlines()
        assert first.endswith("  anna1.png and anna2.png")
        assert notes == ["anna1.png shows 2 faces; number 2 was taken."]

    def test_a_saved_person_has_no_faces_to_choose(self, tmp_path, photos, capsys):
        adapter, out = make_adapter(tmp_path, "faceid").path, tmp_path / "anna.safetensors"
        report_of(capsys, "embed", photos[1], "--adapter", str(adapter), "--out", str(out))
        report = report_of(capsys, "score", str(out), photos[1])
        assert report["likeness"] == pytest.approx(1, abs=1e-4)
        assert (report["face_a"], report["notes_a"]) == (None, [])
        assert "is a saved person" in refusal_of(capsys, "score", photos[1], str(out), "--face-b", "2")
