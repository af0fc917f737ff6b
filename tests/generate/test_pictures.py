"""The same pictures as the Python interface makes, from photos, vectors and saved people, with and without a start."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid.__main__ import main
from lib_faceid.core.patch import live_patches
from lib_faceid.engine.acts import Together
from lib_faceid.hosts.checkpoints import load_pipeline
from lib_faceid.hosts.drawing import Drawing, draw
from lib_faceid.pictures import read_picture, read_record

from ..face_packs import draw_marker, make_pack, scene
from ..unets import assert_same_state, state
from ..user_loras import add_user_lora
from .world import pixels


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
