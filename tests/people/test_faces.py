"""Which face of a photo a person is made from, how much each photo counts, and how alike the photos are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_faceid.engine.people import People
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadIdentity, BadRequest, NoFaceFound

from ..models_folder import LEFT, RIGHT, add_adapter, add_face_pack, add_person, make_models, photo, place_of

BOTH = photo(1, (LEFT, RIGHT))


@pytest.fixture
def root(tmp_path):
    root = make_models(tmp_path / "models")
    add_adapter(root)
    add_face_pack(root)
    return root


def find(root, **values):
    return People().find(read_unit(values), place_of(root))


def one_photo(data=BOTH, **changes):
    return replace(read_unit({"images": [data]}).images[0], **changes)


class TestChoice:
    @pytest.mark.parametrize("face", ["leftmost", "2", "like:anna"])
    def test_the_face_that_is_meant(self, root, face):
        left = find(root, images=[photo(1, (LEFT,))]).identity
        left.save(root / "ip-adapter" / "identities" / "anna.safetensors")
        found = find(root, images=[BOTH], face=face).identity.vectors
        assert torch.allclose(found, left.vectors, atol=1e-5)
        assert torch.equal(find(root, images=[one_photo(face=face)], face="1").identity.vectors, found)
        assert not torch.allclose(find(root, images=[BOTH]).identity.vectors, left.vectors, atol=0.1)

    def test_a_box_where_no_face_is_found(self, root):
        assert find(root, images=[photo(1, ())], face="box:40,160,200,320").identity.vectors.shape == (1, 512)

    def test_a_number_nobody_has(self, root):
        with pytest.raises(NoFaceFound, match="Face number 3 was asked for"):
            find(root, images=[BOTH], face="3")

    @pytest.mark.parametrize(("face", "sentence"), [("like:bob", "no saved person bob"), ("like:eve", "without face")])
    def test_nobody_to_compare_with(self, root, face, sentence):
        add_person(root, add_adapter(root, "plus-face"), "eve")
        with pytest.raises(BadIdentity, match=sentence):
            find(root, images=[BOTH], face=face)

    @pytest.mark.parametrize("face", ["nose", "box:1,2,3", "box:", "largest one"])
    def test_none(self, root, face):
        with pytest.raises(BadRequest, match=f"found '{face}'"):
            find(root, images=[one_photo(face=face)])

    def test_like_somebody_who_was_saved_anew(self, root):
        """The name is the same, and the face that is meant is another one."""
        people, saved = People(), root / "ip-adapter" / "identities" / "anna.safetensors"
        vectors = []
        for box in (LEFT, RIGHT):
            find(root, images=[photo(1, (box,))]).identity.save(saved, overwrite=True)
            unit = read_unit({"images": [BOTH], "face": "like:anna"})
            vectors.append(people.find(unit, place_of(root)).identity.vectors)
        assert not torch.allclose(*vectors, atol=0.1)


class TestSeveral:
    def test_a_photo_that_does_not_count(self, root):
        alone = find(root, images=[photo(1)]).identity.tokens
        weighed = find(root, images=[photo(1), one_photo(photo(2, (RIGHT,)), weight=0.0)]).identity.tokens
        assert torch.allclose(weighed, alone, atol=1e-5)

    def test_likeness(self, root):
        assert find(root, images=[photo(1), photo(1)]).likeness == pytest.approx((1.0, 1.0), abs=1e-6)
        assert find(root, images=[photo(1)]).likeness == ()
