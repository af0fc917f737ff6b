"""The verb ``generate``: the same pictures as the Python interface, files that say what made them, plain refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid.__main__ import main
from lib_faceid.core.patch import live_patches
from lib_faceid.engine.acts import Together
from lib_faceid.errors import FaceIDError
from lib_faceid.hosts.checkpoints import load_pipeline
from lib_faceid.hosts.drawing import Drawing, draw
from lib_faceid.pictures import read_picture, read_record, write_picture

from . import pipelines
from .adapters import make_adapter
from .face_packs import draw_marker, make_pack, scene
from .test_tap import add_user_lora
from .unets import assert_same_state, state

SMALL = ["--prompt", "an!", "--negative", "bad", "--steps", "2", "--size", "64x64", "--device", "cpu"]


class World:
    """One checkpoint, one adapter and one saved person of a base, in a folder."""

    def __init__(self, folder: Path, base: str) -> None:
        folder.mkdir()
        self.checkpoint = pipelines.save_file(folder, base)
        self.made = make_adapter(folder, "faceid-plusv2" if base == "sdxl" else "faceid", base)
        self.person = self.made.identity().save(folder / "anna.safetensors")
        self.init, self.mask = folder / "init.png", folder / "mask.png"
        noise = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
        Image.fromarray(noise).save(self.init)
        half = np.zeros((70, 66), dtype=np.uint8)
        half[:, 33:] = 255
        Image.fromarray(half).save(self.mask)

    def words(self, out: Path, *more: str) -> list[str]:
        return ["generate", "--checkpoint", str(self.checkpoint), "--out", str(out), *SMALL, *more]

    def known(self, out: Path, *more: str) -> list[str]:
        return self.words(out, "--identity", str(self.person), "--adapter", str(self.made.path), *more)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    return {base: World(tmp_path_factory.mktemp("world") / base, base) for base in ("sd15", "sdxl")}


@pytest.fixture
def world(worlds):
    return worlds["sd15"]


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_equal_to_the_python_interface(worlds, base, tmp_path):
    """Bit for bit what the README's lines give, LoRA included."""
    world = worlds[base]
    assert main(world.known(tmp_path, "--seed", "5", "--weight", "0.8", "--end", "0.4", "--structure", "0.5")) == 0
    pipe = load_pipeline(world.checkpoint, "txt2img", "cpu")
    pipe.set_progress_bar_config(disable=True)
    person = lib_faceid.load_identity(world.person).with_structure(0.5)

    def picture():
        generator = torch.Generator().manual_seed(5)
        call = {"num_inference_steps": 2, "guidance_scale": 7.0, "width": 64, "height": 64, "generator": generator}
        return np.asarray(pipe("an!", negative_prompt="bad", **call).images[0])

    with lib_faceid.applied(pipe, person, adapter=world.made.load(), weight=0.8, end=0.4):
        expected = picture()
    found = pixels(tmp_path / "faceid-5.png")
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, picture())


def test_face_vectors_instead_of_a_saved_person(world, tmp_path):
    vectors = world.made.features()["embeddings"].numpy()
    np.save(tmp_path / "anna.npy", vectors)
    (tmp_path / "anna.json").write_text(json.dumps(vectors[0].tolist()))
    assert main(world.known(tmp_path / "saved.png", "--seed", "1")) == 0
    for name in ("anna.npy", "anna.json"):
        words = ["--embeddings", str(tmp_path / name), "--adapter", str(world.made.path), "--seed", "1"]
        assert main(world.words(tmp_path / f"{name}.png", *words)) == 0
        assert np.array_equal(pixels(tmp_path / f"{name}.png"), pixels(tmp_path / "saved.png"))


def test_photos_instead_of_a_saved_person(world, tmp_path, monkeypatch):
    """From the photo to the picture in one command; the PNG carries the photo's digest and not its name."""
    make_pack(tmp_path / "models" / "insightface" / "buffalo_l")
    monkeypatch.setenv("FACEID_MODELS", str(tmp_path / "models"))
    photo = scene(320, 320)
    draw_marker(photo, (80, 80, 240, 240))
    path = tmp_path / "me at the lake.png"
    Image.fromarray(photo).save(path)
    words = ["--adapter", str(world.made.path), "--seed", "1"]
    assert main(world.words(tmp_path / "a.png", "--face", str(path), *words)) == 0
    saved = lib_faceid.make_identity(world.made.load(), images=path).save(tmp_path / "anna.safetensors")
    assert main(world.words(tmp_path / "b.png", "--identity", str(saved), *words)) == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    text = Image.open(tmp_path / "a.png").text["faceid"]
    assert json.loads(text)["identity"]["sources_sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest()]
    assert "lake" not in text


def test_every_picture_of_a_batch_is_what_its_seed_gives_alone(world, tmp_path):
    assert main(world.known(tmp_path, "--seed", "7", "--batch", "3")) == 0
    assert main(world.known(tmp_path / "alone.png", "--seed", "8")) == 0
    batch = [pixels(tmp_path / f"faceid-{seed}.png") for seed in (7, 8, 9)]
    assert np.array_equal(batch[1], pixels(tmp_path / "alone.png"))
    assert not np.array_equal(batch[0], batch[1])


def test_seeds_begin_again_after_the_highest():
    assert Drawing(seed=2**32 - 1, batch=2).seeds == [2**32 - 1, 0]


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_img2img(worlds, base, tmp_path):
    """The size is that of the picture, down to a multiple of 8; a small strength stays near it."""
    world = worlds[base]
    words = world.known(tmp_path / "a.png", "--seed", "1", "--init", str(world.init), "--denoise", "1", "--steps", "4")
    words = [word for word in words if word not in ("--size", "64x64")]
    assert main(words) == 0
    assert Image.open(tmp_path / "a.png").size == (64, 64)
    assert read_record(tmp_path / "a.png")["task"] == "img2img"
    assert main(world.known(tmp_path / "b.png", "--seed", "1", "--init", str(world.init), "--denoise", "0.5")) == 0
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_inpaint_leaves_the_rest_alone(worlds, base, tmp_path):
    world = worlds[base]
    pictures = ["--init", str(world.init), "--mask", str(world.mask), "--denoise", "1"]
    assert main(world.known(tmp_path / "a.png", "--seed", "1", *pictures)) == 0
    init = np.asarray(read_picture(world.init).resize((64, 64), Image.Resampling.LANCZOS))
    found = pixels(tmp_path / "a.png")
    assert np.array_equal(found[:, :30], init[:, :30])
    assert not np.array_equal(found[:, 34:], init[:, 34:])


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


def test_a_users_lora_stays(world):
    """Their adapter acts while ours does, and the UNet is afterwards what it was."""
    pipe = load_pipeline(world.checkpoint, "txt2img", "cpu")
    pipe.set_progress_bar_config(disable=True)
    add_user_lora(pipe.unet)
    before, drawing = state(pipe.unet), Drawing("an!", steps=2, size=(64, 64))
    likeness = Together(world.made.identity(), lora=1.0)
    bare, face, again = [np.asarray(next(draw(pipe, drawing, who)).image) for who in (None, likeness, None)]
    assert_same_state(before, state(pipe.unet))
    assert np.array_equal(bare, again)
    assert not np.array_equal(bare, face)
    assert live_patches() == []


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
        assert "The identity is for SDXL (context 128) and model.safetensors is SD1.5" in self.refusal(words, capsys)

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
