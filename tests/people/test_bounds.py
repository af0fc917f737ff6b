"""What a stranger sends, or a busy WebUI asks meanwhile, stays within bounds."""

from __future__ import annotations

import json
import threading

import pytest
from PIL import EpsImagePlugin

from lib_faceid.engine.people import People
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadIdentity, BadPhoto, BadRequest
from lib_faceid.library import identity_file
from lib_faceid.library.identity import load_identity
from lib_faceid.library.parts import read_origin
from lib_faceid.library.photos import PhotoData, read_photo

from ..models_folder import LEFT, RIGHT, add_adapter, add_person, make_models, photo, place_of
from .finding import ONE, find

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%EOF\n"


def test_a_program_in_a_photo_is_never_run(monkeypatch):
    """Pillow would hand it to Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(BadPhoto, match=r"x\.jpg is not a picture"):
        read_photo(PhotoData(EPS, "x.jpg"))


def test_a_person_too_large_to_be_read_again_replaces_nobody(root, monkeypatch):
    anna = add_person(root, add_adapter(root))
    path = root / "ip-adapter" / "identities" / "anna.safetensors"
    before = path.read_bytes()
    monkeypatch.setattr(identity_file, "MAX_BYTES", len(before) // 2)
    with pytest.raises(BadIdentity, match=r"anna\.safetensors would take .* MB; a person of at most"):
        anna.save(path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x" * 256, "a\x1b[2Jb", "a\nb"])
def test_a_name_in_a_file_that_would_spoil_a_picture_s_text(root, name):
    anna = add_person(root, add_adapter(root))
    values = json.loads(json.dumps({**vars(anna.origin), "adapter_name": name}))
    with pytest.raises(ValueError, match="adapter_name is too long or cannot be shown"):
        read_origin(values)


@pytest.mark.parametrize("face", ["9" * 5000, "10000", "²", "٣"])
def test_a_number_of_a_face_that_is_none(face):
    with pytest.raises(BadRequest, match="Face in the photo"):
        read_unit({"face": face})


def test_the_status_line_does_not_wait_for_a_face_that_is_being_read(root):
    people = People()
    place = place_of(root)
    people.keep_on_disk(place.models)
    with people._lock:
        asking = threading.Thread(target=people.keep_on_disk, args=(place.models,))
        asking.start()
        asking.join(timeout=20)
        assert not asking.is_alive()


def test_nobody_like_the_saved_person_is_said(ready):
    """The faces of the stand-in pack are alike or not at all; a made-up saved person is like none of them."""
    add_person(ready, add_adapter(ready), name="ben", seed=9)
    person = find(People(), ready, images=[photo(1, (LEFT, RIGHT))], face="like:ben")
    assert any("shows nobody like that saved person: likeness" in remark.words for remark in person.remarks)
    assert not any("nobody like" in remark.words for remark in find(People(), ready, **ONE).remarks)


def test_names_of_others_are_not_told(tmp_path):
    root = make_models(tmp_path / "models")
    add_person(root, add_adapter(root), name="my neighbour")
    with pytest.raises(BadIdentity) as caught:
        find(People(), root, identity="ana")
    assert "neighbour" not in str(caught.value)
    assert load_identity(root / "ip-adapter" / "identities" / "my neighbour.safetensors")
