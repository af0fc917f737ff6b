"""From photos to an identity, by the library and on the command line, with a synthetic face pack and a tiny CLIP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid.__main__ import main
from lib_faceid.errors import BadIdentity, WrongEncoder
from lib_faceid.face.align import norm_crop
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.vision.clip import Encoder
from lib_faceid.vision.pixels import prepare
from lib_faceid.vision.recognise import recognise_encoder
from lib_faceid.weights.read import open_tensors

from .adapters import make_adapter
from .clip_files import Tower, hf_layout
from .containers import save_safetensors
from .face_packs import draw_marker, make_pack, scene
from .layouts import random_tensors

TOWER = Tower(hidden=80, mlp=96, layers=3, heads=5, patch=28, image=224, projection=80)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A models folder with one face pack and one CLIP encoder, named by the environment variable."""
    root = tmp_path / "models"
    make_pack(root / "insightface" / "buffalo_l")
    (root / "clip_vision").mkdir()
    save_safetensors(root / "clip_vision" / "model.safetensors", random_tensors(hf_layout(TOWER)))
    (root / "clip_vision" / "config.json").write_text(json.dumps(TOWER.config()))
    monkeypatch.setenv("FACEID_MODELS", str(root))
    return root


@pytest.fixture
def photos(tmp_path):
    """Two photos with a marker where the face is, in other places."""
    paths = []
    for number, box in enumerate([(200, 160, 360, 320), (80, 240, 304, 464)]):
        image = scene(640, 640, seed=number)
        draw_marker(image, box)
        paths.append(tmp_path / f"anna{number}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def by_hand(models, photos):
    """The same path step by step: vectors (k, 512), hidden (k, n, 80), uncond (n, 80)."""
    finder = FaceFinder.of_pack(models / "insightface" / "buffalo_l")
    images = [np.asarray(Image.open(path).convert("RGB")) for path in photos]
    faces = [finder.find(image).faces[0] for image in images]
    file = open_tensors(models / "clip_vision" / "model.safetensors")
    with Encoder.load(file, recognise_encoder(file, TOWER.config()), "cpu") as encoder:
        crops = [norm_crop(image, face.points, 224) for image, face in zip(images, faces, strict=True)]
        found, empty = encoder.features(prepare(crops, 224)), encoder.uncond()
    return np.stack([face.vector for face in faces]), found, empty


@pytest.mark.parametrize("kind", ["faceid", "faceid-plusv2", "portrait", "plus-face"])
def test_photos_equal_features_by_hand(tmp_path, models, photos, kind):
    made = make_adapter(tmp_path, kind)
    vectors, found, empty = by_hand(models, photos)
    fed = {"embeddings": vectors, "clip_hidden": found.hidden, "clip_uncond": empty.hidden}
    expected = lib_faceid.make_identity(made.load(), **{name: fed[name] for name in made.features()})
    identity = lib_faceid.make_identity(made.load(), images=photos)
    assert torch.equal(identity.tokens, expected.tokens)
    assert torch.equal(identity.uncond_tokens, expected.uncond_tokens)
    assert identity.origin.photos == 2


def test_kinds_of_image(tmp_path, models, photos):
    made = make_adapter(tmp_path, "faceid")
    expected = lib_faceid.make_identity(made.load(), images=photos[0])
    image = Image.open(photos[0])
    for given in (str(photos[0]), image, np.asarray(image.convert("RGB")), [image]):
        assert torch.equal(lib_faceid.make_identity(made.load(), images=given).tokens, expected.tokens)


def test_the_whole_picture_for_adapters_without_a_face(tmp_path, models):
    """No face is looked for: a picture without one is fine."""
    made = make_adapter(tmp_path, "plus")
    picture = scene(300, 200)
    file = open_tensors(models / "clip_vision" / "model.safetensors")
    with Encoder.load(file, recognise_encoder(file, TOWER.config()), "cpu") as encoder:
        hidden, empty = encoder.features(prepare([picture], 224)).hidden, encoder.uncond().hidden
    expected = lib_faceid.make_identity(made.load(), clip_hidden=hidden, clip_uncond=empty)
    found = lib_faceid.make_identity(made.load(), images=picture)
    assert torch.equal(found.tokens, expected.tokens)


def test_photos_or_features(tmp_path, models, photos):
    made = make_adapter(tmp_path, "faceid")
    with pytest.raises(BadIdentity, match="not both"):
        lib_faceid.make_identity(made.load(), images=photos, embeddings=torch.ones(1, 512))
    with pytest.raises(BadIdentity, match="No photo was given"):
        lib_faceid.make_identity(made.load(), images=[])


def test_the_encoder_is_known_by_its_width(tmp_path, models, photos):
    other = Tower(hidden=64, mlp=96, layers=3, heads=4, patch=28, image=224, projection=80)
    path = save_safetensors(models / "clip_vision" / "a-first.safetensors", random_tensors(hf_layout(other)))
    made = make_adapter(tmp_path, "faceid-plusv2")
    lib_faceid.make_identity(made.load(), images=photos)  # the other one is passed over
    (models / "clip_vision" / "config.json").unlink()
    with pytest.raises(WrongEncoder, match=r"features 64 wide; FaceID Plus v2 for SD1\.5 needs 80"):
        lib_faceid.make_identity(made.load(), images=photos, clip_encoder=path)
    (models / "clip_vision" / "model.safetensors").unlink()
    with pytest.raises(WrongEncoder, match=r"features 80 wide, and .*clip_vision has none"):
        lib_faceid.make_identity(made.load(), images=photos)


class TestCommandLine:
    def test_embed_saves_a_person(self, tmp_path, models, photos, capsys):
        made = make_adapter(tmp_path, "faceid-plusv2")
        out = tmp_path / "anna.safetensors"
        words = [*map(str, photos), "--adapter", str(made.path), "--structure", "0.5", "--out", str(out)]
        assert main(["embed", *words]) == 0
        printed = capsys.readouterr().out
        assert "anna0.png: face of 160x160 px, found at 640 px, likeness to the others" in printed
        assert "anna1.png looks like someone else than photo 1: likeness" in printed
        assert "4 tokens of FaceID Plus v2 for SD1.5" in printed
        saved = lib_faceid.load_identity(out)
        assert torch.equal(saved.tokens, lib_faceid.make_identity(made.load(), images=photos, structure=0.5).tokens)
        assert main(["embed", *words]) == 2
        assert "exists already" in capsys.readouterr().err

    def test_embed_as_json(self, models, photos, capsys):
        assert main(["embed", "--json", *map(str, photos)]) == 0
        report = json.loads(capsys.readouterr().out)
        assert np.shape(report["vectors"]) == (2, 512)
        assert report["photos"][0]["box"] == pytest.approx([200, 160, 360, 320], abs=8)
        assert report["similarity"][0][0] == 1.0

    def test_score(self, tmp_path, models, photos, capsys):
        assert main(["score", "--json", str(photos[0]), str(photos[0])]) == 0
        assert json.loads(capsys.readouterr().out)["likeness"] == pytest.approx(1.0, abs=1e-6)
        assert main(["score", *map(str, photos)]) == 0
        assert float(capsys.readouterr().out.split()[0]) < 0.6
        person = make_adapter(tmp_path, "faceid").path
        out = tmp_path / "anna.safetensors"
        assert main(["embed", str(photos[0]), "--adapter", str(person), "--out", str(out)]) == 0
        capsys.readouterr()
        assert main(["score", "--json", str(out), str(photos[0])]) == 0
        assert json.loads(capsys.readouterr().out)["likeness"] == pytest.approx(1.0, abs=1e-4)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"photo": "nobody.png"}, "There is no photo"),
            ({"photo": "empty"}, "shows no face"),
            ({"pack": "elsewhere"}, "does not exist"),
            ({"adapter": "missing.bin"}, "There is no file"),
        ],
    )
    def test_bad_input_is_one_sentence_and_exit_code_2(self, tmp_path, models, photos, capsys, change, sentence):
        photo = change.get("photo", str(photos[0]))
        if photo == "empty":
            photo = str(tmp_path / "empty.png")
            Image.fromarray(scene(256, 256)).save(photo)
        adapter = change.get("adapter", str(make_adapter(tmp_path, "faceid").path))
        words = ["embed", photo, "--adapter", adapter, "--out", str(tmp_path / "out.safetensors")]
        assert main([*words, *(["--face-pack", str(tmp_path / "elsewhere")] if "pack" in change else [])]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error
        assert not (tmp_path / "out.safetensors").exists()

    def test_out_needs_an_adapter(self, models, photos, capsys):
        assert main(["embed", str(photos[0]), "--out", "anna.safetensors"]) == 2
        assert "--out needs --adapter" in capsys.readouterr().err
