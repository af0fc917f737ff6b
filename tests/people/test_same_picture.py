"""A saved person makes the same picture as its photos did, bit for bit, without adapter, CLIP and face pack."""

from __future__ import annotations

import shutil

import pytest
import torch

from lib_faceid.engine.extract import ModelFolder
from lib_faceid.engine.people import People
from lib_faceid.engine.place import Place
from lib_faceid.engine.request import read_unit
from lib_faceid.hosts.detect import PEOPLE
from lib_faceid.library.identity import load_identity

from ..a1111.fake_webui import Host, sent
from ..models_folder import add_adapter, add_encoder, add_face_pack, make_models, photo
from .finding import ONE, find

KINDS = ["faceid", "faceid-plus", "faceid-plusv2", "portrait", "plus-face", "base"]


def take_away(root):
    """Everything but the people."""
    for path in [*(root / "ip-adapter").glob("*.bin"), root / "insightface", root / "clip_vision"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def save(identity, root, name="anna"):
    return identity.save(root / "ip-adapter" / "identities" / f"{name}.safetensors")


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_have_equal_bits(root, kind, base):
    if (kind, base) == ("faceid-plus", "sdxl"):
        pytest.skip("there is no FaceID Plus for SDXL")
    add_face_pack(root)
    add_encoder(root)
    name = add_adapter(root, kind, base).path.name
    made = find(People(), root, base, images=[photo(1), photo(2)], adapter=name).identity
    path = save(made, root)
    take_away(root)
    saved = find(People(), root, base, identity="anna").identity
    assert torch.equal(saved.tokens, made.tokens)
    for structure in (0.0, 0.3, 1.0):
        ours, theirs = (each.with_structure(structure).kv for each in (saved, made))
        for n in theirs:
            assert torch.equal(ours[n].k.view(torch.int32), theirs[n].k.view(torch.int32))
            assert torch.equal(ours[n].v.view(torch.int32), theirs[n].v.view(torch.int32))
    assert torch.equal(load_identity(path, base).tokens, made.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_in_the_webui(tmp_path, monkeypatch, kind):
    root = make_models(tmp_path / "models")
    add_face_pack(root)
    add_encoder(root)
    unit = {**ONE, "adapter": add_adapter(root, kind, text=768).path.name}
    host = Host(root, monkeypatch)
    asked = {"lora": 0, "structure": 0.6, "start": 0}
    from_photo = host.run(*sent({**unit, **asked})).pictures[0]
    save(People().find(read_unit(unit), Place("sd15", 768, ModelFolder(root))).identity, root)
    take_away(root)
    PEOPLE.forget()
    assert torch.equal(host.run(*sent({"identity": "anna", **asked})).pictures[0], from_photo)
    assert not torch.equal(host.run().pictures[0], from_photo)
