"""What decides a person's key, and what does not."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch

from lib_faceid.engine import person_key
from lib_faceid.engine.people import People

from ..clip_files import hf_layout
from ..containers import save_safetensors
from ..layouts import random_tensors
from ..models_folder import LEFT, RIGHT, TOWER, add_adapter, add_encoder, add_face_pack, photo
from .finding import ONE, VECTOR, find, photo_data, retrain

TWO_FACES = photo(1, (LEFT, RIGHT))


@pytest.mark.parametrize(
    "changed",
    [
        {"images": [photo(2)]},
        {"images": [TWO_FACES, photo(2)]},
        {"images": [TWO_FACES, TWO_FACES]},
        {"images": [replace(photo_data(TWO_FACES), weight=0.5)]},
        {"images": [replace(photo_data(TWO_FACES), face="leftmost")]},
        {"face": "2"},
        {"face": "leftmost"},
        {"face": "box:40,160,200,320"},
        {"pack": "auraface"},
        {"combine": "concat"},
        {"combine": "mean"},
        {"adapter": "other.bin"},
        {"adapter": "same.bin", "variant": "portrait"},
        {"images": None, "embeddings": VECTOR},
    ],
)
def test_anew_for_what_decides(ready, changed):
    people = People()
    asked = {"images": [TWO_FACES]}
    first = find(people, ready, **asked)
    add_adapter(ready, seed=1, name="other.bin")
    add_adapter(ready, "portrait", name="same.bin")
    retrain(add_face_pack(ready, "auraface"))
    assert find(people, ready, **{**asked, **changed}).key != first.key


def test_each_way_to_choose_a_face_is_another(ready):
    faces = ["1", "2", "leftmost", "box:40,160,200,320", "box:40,160,200,321"]
    people = People()
    assert len({find(people, ready, images=[TWO_FACES], face=face).key for face in faces}) == len(faces)


def test_the_choice_of_one_photo_is_before_the_units(ready):
    people = People()
    both = photo_data(TWO_FACES)
    left = find(people, ready, images=[replace(both, face="leftmost")])
    assert find(people, ready, images=[replace(both, face="leftmost")], face="1") is left
    assert find(people, ready, images=[both], face="leftmost") is left
    assert find(people, ready, images=[both]) is not left


def test_how_a_photo_is_called_does_not_decide(ready):
    people, called = People(), photo_data()
    assert find(people, ready, images=[called]) is find(people, ready, images=[replace(called, label="anna.png")])


def test_vectors_decide(root):
    add_adapter(root)
    people = People()
    keys = {find(people, root, embeddings=vectors).key for vectors in (VECTOR, VECTOR[::-1], [VECTOR, VECTOR])}
    assert len(keys) == 3


def test_the_order_of_photos_decides(ready):
    people = People()
    pair = [photo(1), photo(2)]
    assert find(people, ready, images=pair).key != find(people, ready, images=pair[::-1]).key


def test_another_file_under_the_name_of_an_adapter(ready, made):
    people = People()
    first = find(people, ready, **ONE)
    add_adapter(ready, seed=1)
    second = find(people, ready, **ONE)
    assert second.key != first.key
    assert not torch.equal(second.identity.tokens, first.identity.tokens)
    assert second.identity.origin.adapter_sha256 != first.identity.origin.adapter_sha256


def test_another_pack_under_the_name_of_one(ready, made):
    people = People()
    find(people, ready, **ONE)
    pack = ready / "insightface" / "buffalo_l"
    os.utime(pack / "w600k_r50.onnx", ns=(1, 1))
    find(people, ready, **ONE)
    assert made.count("extract") == 1
    retrain(pack)
    find(people, ready, **ONE)
    assert made.count("extract") == 2


def test_another_encoder_under_the_name_of_one(ready, made):
    add_adapter(ready, "faceid-plusv2")
    encoder, people = add_encoder(ready), People()
    find(people, ready, **ONE)
    os.utime(encoder, ns=(1, 1))
    find(people, ready, **ONE)
    assert made.count("extract") == 1
    save_safetensors(encoder, random_tensors(hf_layout(TOWER), 1))
    find(people, ready, **ONE)
    assert made.count("extract") == 2
    (encoder.parent / "config.json").write_text(json.dumps({**TOWER.config(), "hidden_act": "quick_gelu"}))
    find(people, ready, **ONE)
    assert made.count("extract") == 3


def test_another_version_makes_people_anew(ready, monkeypatch):
    people = People()
    first = find(people, ready, **ONE)
    monkeypatch.setattr(person_key, "__version__", "another")
    assert find(people, ready, **ONE).key != first.key


def test_what_the_same_file_is_used_as(ready):
    """Tensors do not tell FaceID Plus from Plus v2 for SD1.5, and the name neither."""
    add_encoder(ready)
    people, file = People(), {"adapter": add_adapter(ready, "faceid-plus", name="model.bin").path.name}
    keys = {find(people, ready, **ONE, **file, variant=variant).key for variant in ("faceid-plus", "faceid-plusv2")}
    assert len(keys) == 2
