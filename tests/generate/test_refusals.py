"""Every bad input is refused in one sentence, before anything is written; and help teaches."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import numpy as np
import pytest

from lib_faceid.__main__ import main


class TestRefused:
    """Every bad input: exit code 2, one sentence on stderr (or as JSON), no picture, no traceback."""

    def refusal(self, words, capsys):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        return captured.err

    @pytest.mark.parametrize(
        ("more", "sentence"),
        [
            (["--size", "60x64"], "Width and height are multiples of 8; found 60x64"),
            (["--steps", "0"], "At least 1 step"),
            (["--batch", "0"], "0 pictures"),
            (["--seed", "-1"], "A seed is a whole number from 0"),
            (["--guidance", "nan"], "Guidance is a number"),
            (["--weight", "inf"], "A weight is a finite number"),
            (["--start", "0.7", "--end", "0.2"], "0 <= start <= end <= 1"),
            (["--mask", "{init}"], "give that picture as init"),
            (["--init", "{init}", "--denoise", "0"], "above 0 and at most 1"),
            (["--init", "{init}", "--denoise", "0.1"], "less than one step"),
            (["--init", "{person}"], "anna.safetensors is not a readable picture"),
            (["--init", "gone.png"], "There is no picture at gone.png"),
            (["--adapter", "gone.bin"], "There is no file 'gone.bin'"),
            (["--adapter", "{person}"], "anna.safetensors"),
            (["--identity", "gone.safetensors"], "There is no saved person at gone.safetensors"),
            (["--checkpoint", "gone.safetensors"], "There is no file 'gone.safetensors'"),
            (["--checkpoint", "{person}"], "anna.safetensors is no Stable Diffusion checkpoint"),
            (["--tokenizer", "gone"], "gone has no tokenizer"),
            (["--device", "gpu"], "There is no device called 'gpu'"),
            (["--out", "gone/picture.png"], "There is no folder gone"),
        ],
    )
    def test_sentence(self, world, tmp_path, capsys, more, sentence):
        files = {"{init}": str(world.init), "{person}": str(world.person)}
        words = world.known(tmp_path, "--seed", "1", *[files.get(word, word) for word in more])
        assert sentence in self.refusal(words, capsys)
        assert not list(tmp_path.iterdir())

    def test_a_person_of_another_base(self, worlds, tmp_path, capsys):
        words = worlds["sd15"].words(tmp_path, "--identity", str(worlds["sdxl"].person))
        assert "is saved for SDXL, not for SD1.5." in self.refusal(words, capsys)

    def test_face_vectors_without_an_adapter(self, world, tmp_path, capsys):
        words = world.words(tmp_path, "--embeddings", "anna.npy")
        assert "name its file with --adapter" in self.refusal(words, capsys)

    @pytest.mark.parametrize("content", [b"", b"[[1, 2", b'"words"', b"[]"])
    def test_no_face_vectors(self, world, tmp_path, capsys, content):
        for name in ("a.json", "a.npy"):
            (tmp_path / name).write_bytes(content)
            words = ["--adapter", str(world.made.path), "--embeddings", str(tmp_path / name)]
            assert self.refusal(world.words(tmp_path, *words), capsys)

    def test_a_pickle_among_the_face_vectors(self, world, tmp_path, capsys):
        np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
        words = ["--adapter", str(world.made.path), "--embeddings", str(tmp_path / "a.npy")]
        assert "a.npy holds no face vectors" in self.refusal(world.words(tmp_path, *words), capsys)

    def test_a_full_disk(self, world, tmp_path, capsys, monkeypatch):
        usage = namedtuple("usage", "total used free")(1 << 30, 1 << 30, 1 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        assert "has 1 MB free" in self.refusal(world.known(tmp_path), capsys)

    def test_a_folder_that_may_not_be_written(self, world, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("os.access", lambda path, mode: False)
        assert "may not be written to" in self.refusal(world.known(tmp_path), capsys)

    def test_as_json(self, world, tmp_path, capsys):
        assert main(world.known(tmp_path, "--steps", "0", "--json")) == 2
        assert json.loads(capsys.readouterr().out)["error"].startswith("At least 1 step")

    @pytest.mark.parametrize("more", [["--size", "64"], ["--seed", "x"], ["--identity", "a", "--embeddings", "b"]])
    def test_words_that_cannot_be_read(self, world, tmp_path, more):
        with pytest.raises(SystemExit) as stopped:
            main(world.words(tmp_path, *more))
        assert stopped.value.code == 2


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "-h"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "python -m lib_faceid generate --checkpoint photon.safetensors" in text
    assert "Nothing is downloaded" in text
