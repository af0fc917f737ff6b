"""The file says what made it, and no file is overwritten."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from lib_faceid.__main__ import main
from lib_faceid.errors import FaceIDError
from lib_faceid.pictures import read_record, write_picture

from .. import pipelines
from .world import pixels


class TestRecord:
    def test_what_made_it(self, world, tmp_path, capsys):
        assert main(world.known(tmp_path, "--seed", "3", "--lora", "0.4", "--json")) == 0
        (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        record = read_record(tmp_path / "faceid-3.png")
        assert {key: value for key, value in told.items() if key != "file"} == record
        assert told["file"] == str(tmp_path / "faceid-3.png")
        sha256 = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in vars(world).items()
            if name in ("checkpoint", "person")
        }
        assert record["checkpoint"] == {"name": "model.safetensors", "base": "sd15", "sha256": sha256["checkpoint"]}
        assert record["identity"]["sources_sha256"] == [sha256["person"]]
        assert record["identity"]["adapter_sha256"] == world.made.load().digest
        expected = {"prompt": "an!", "negative": "bad", "seed": 3, "steps": 2, "size": [64, 64], "lora": 0.4}
        assert {key: record[key] for key in expected} == expected
        assert str(tmp_path) not in json.dumps(record)

    def test_is_a_plain_text_chunk_whatever_the_prompt(self, world, tmp_path):
        path = write_picture(tmp_path, Image.new("RGB", (8, 8)), {"seed": 1, "prompt": "Zoë 雨\0"})
        assert b"tEXtfaceid\0" in path.read_bytes()
        assert read_record(path) == {"seed": 1, "prompt": "Zoë 雨\0"}

    def test_a_folder_has_a_digest_as_well(self, world, tmp_path):
        folder = pipelines.save_folder(tmp_path)
        world_of_folder = [str(folder) if word == str(world.checkpoint) else word for word in world.known(tmp_path)]
        for name in ("a.png", "b.png"):
            assert main([*world_of_folder, "--seed", "1", "--out", str(tmp_path / name)]) == 0
        first, again = read_record(tmp_path / "a.png"), read_record(tmp_path / "b.png")
        assert len(first["checkpoint"]["sha256"]) == 64
        assert first == again
        assert main(world.known(tmp_path / "file.png", "--seed", "1")) == 0
        assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "file.png"))

    def test_a_picture_from_elsewhere(self, world):
        with pytest.raises(FaceIDError, match=r"init\.png does not say what made it"):
            read_record(world.init)

    def test_a_lora_that_is_missing_is_told(self, world, tmp_path, capsys):
        assert main(world.words(tmp_path / "a.png", "--identity", str(world.person), "--seed", "1")) == 0
        record = read_record(tmp_path / "a.png")
        assert "used without its LoRA" in capsys.readouterr().err
        assert "used without its LoRA" in record["warnings"][0]
        assert record["lora"] == 0.0


def test_nothing_is_overwritten(world, tmp_path):
    for _ in range(3):
        assert main(world.known(tmp_path, "--seed", "1", "--weight", "0")) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"faceid-1.png", "faceid-1-2.png", "faceid-1-3.png"}
