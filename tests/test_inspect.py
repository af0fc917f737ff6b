"""The verb ``inspect``, as a person and as a program see it."""

from __future__ import annotations

import json

from lib_faceid.__main__ import main

from .adapters import make_adapter


def test_in_words(tmp_path, capsys):
    made = make_adapter(tmp_path, "faceid-plusv2", "sdxl")
    assert main(["inspect", str(made.path)]) == 0
    words = capsys.readouterr().out
    assert "FaceID Plus v2 for SDXL (context 128), recognised by its" in words
    assert "needs   face vector and CLIP features (penultimate)" in words
    assert "LoRA    inside, rank 4" in words


def test_one_bad_file_among_good_ones(tmp_path, capsys):
    made = make_adapter(tmp_path, "full-face")
    page = tmp_path / "page.bin"
    page.write_text("<!DOCTYPE html><html></html>")
    assert main(["inspect", "--json", str(made.path), str(page), str(tmp_path / "missing.bin")]) == 2
    good, html, missing = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (good["variant"], good["tokens"], good["sha256"]) == ("full-face", 0, made.load().digest)
    assert good["projection"] == {"kind": "FullMLP", "width": 64, "clip_width": 80}
    assert "page.bin" in html["error"]
    assert "missing.bin" in missing["error"]


def test_the_variant_of_a_renamed_file(tmp_path, capsys):
    path = make_adapter(tmp_path, "faceid-plus").path.rename(tmp_path / "anna.bin")
    assert main(["inspect", str(path)]) == 2
    assert "faceid-plusv2" in capsys.readouterr().out
    assert main(["inspect", "--variant", "faceid-plus", str(path)]) == 0
    assert "FaceID Plus v1 for SD1.5 (context 64), recognised as you chose" in capsys.readouterr().out
