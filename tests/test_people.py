"""People: made once from what decides them, kept, saved and remembered."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

import lib_faceid
from lib_faceid.engine import people as people_module
from lib_faceid.engine.people import People, Remark
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadIdentity, BadRequest, FaceIDError, NoFaceFound

from .models_folder import (
    LEFT,
    RIGHT,
    add_adapter,
    add_encoder,
    add_face_pack,
    add_person,
    make_models,
    photo,
    place_of,
)

ONE = {"images": [photo(1)]}
VECTOR = [float(n % 7) for n in range(512)]


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


@pytest.fixture
def ready(root):
    """With an adapter and a face pack."""
    add_adapter(root)
    add_face_pack(root)
    return root


@pytest.fixture
def made(monkeypatch):
    """Names of the adapters for which photos were read, and identities made."""
    calls = []
    for name in ("extract", "make_identity"):
        real = getattr(people_module, name)

        def counted(adapter, *args, name=name, real=real, **kwargs):
            calls.append(name)
            return real(adapter, *args, **kwargs)

        monkeypatch.setattr(people_module, name, counted)
    return calls


def find(people, root, base="sd15", **values):
    return people.find(read_unit(values), place_of(root, base))


class TestMaking:
    def test_the_same_as_by_the_library(self, ready, tmp_path):
        person = find(People(), ready, **ONE)
        file = tmp_path / "anna.png"
        file.write_bytes(read_unit(ONE).images[0].data)
        adapter = lib_faceid.load_adapter(person.adapter.path)
        pack = ready / "insightface" / "buffalo_l"
        expected = lib_faceid.make_identity(adapter, images=[file], face_pack=pack)
        assert torch.equal(person.identity.tokens, expected.tokens)
        assert person.photos == (read_unit(ONE).images[0].digest,)
        assert person.remarks == ()

    def test_from_vectors(self, root, made):
        add_adapter(root)
        person = find(People(), root, embeddings=VECTOR)
        expected = lib_faceid.make_identity(person.adapter, embeddings=np.array([VECTOR], np.float32))
        assert torch.equal(person.identity.tokens, expected.tokens)
        assert (person.photos, made) == ((), ["make_identity"])

    def test_several_photos_combined_as_asked_for(self, ready):
        photos = [photo(1), photo(2, (RIGHT,))]
        found = {how: find(People(), ready, images=photos, combine=how).identity for how in ("auto", "mean", "concat")}
        assert torch.equal(found["auto"].tokens, found["mean"].tokens)
        assert len(found["concat"].tokens) == 2 * len(found["mean"].tokens)

    def test_of_two_faces_the_largest_and_a_remark(self, ready):
        two, one = photo(1, (LEFT, RIGHT)), photo(1, (RIGHT,))
        person = find(People(), ready, images=[two])
        assert person.remarks == (Remark(1, "shows 2 faces; the largest was taken."),)
        assert find(People(), ready, images=[one]).remarks == ()
        assert [remark.photo for remark in find(People(), ready, images=[one, two, two]).remarks] == [2, 3]

    def test_the_pack_that_is_asked_for(self, ready):
        with pytest.raises(FaceIDError, match=r"insightface/auraface does not exist"):
            find(People(), ready, **ONE, pack="auraface")
        add_face_pack(ready, "auraface")
        assert find(People(), ready, **ONE, pack="auraface").identity.vectors is not None

    def test_an_encoder_where_one_is_needed(self, ready):
        add_adapter(ready, "faceid-plusv2")
        add_encoder(ready)
        person = find(People(), ready, **ONE)
        assert person.identity.has_structure
        with pytest.raises(BadRequest, match="looks at the photo as well, and only face vectors were sent"):
            find(People(), ready, embeddings=VECTOR, adapter=person.adapter.path.name)

    def test_no_face_is_not_remembered_as_one(self, ready, made):
        people = People()
        for _ in range(2):
            with pytest.raises(NoFaceFound):
                find(people, ready, images=[photo(1, ())])
        assert made == ["extract", "extract"]
        assert find(people, ready, **ONE)


class TestKeeping:
    def test_once_for_the_same(self, ready, made):
        people = People()
        first = find(people, ready, **ONE)
        changed = {"weight": 2, "structure": 0.5, "lora": 0, "start": 0.1, "end": 0.5, "hires_weight": 1}
        changed |= {"layers": [1] * 16, "mask": photo(3), "on_fail": "warn"}
        for name, value in changed.items():
            assert find(people, ready, **ONE, **{name: value}) is first
        assert find(people, ready, **ONE, adapter=first.adapter.path.name) is first
        assert made == ["extract", "make_identity"]

    @pytest.mark.parametrize(
        "values",
        [
            {"images": [photo(2)]},
            {"images": [photo(1), photo(2)]},
            {"images": [photo(1), photo(1)]},
            {**ONE, "pack": "auraface"},
            {**ONE, "combine": "concat"},
            {**ONE, "combine": "mean"},
            {**ONE, "adapter": "other.bin"},
            {**ONE, "adapter": "same.bin", "variant": "portrait"},
            {"embeddings": VECTOR},
        ],
    )
    def test_anew_for_what_decides(self, ready, values):
        people = People()
        first = find(people, ready, **ONE)
        add_adapter(ready, seed=1, name="other.bin")
        add_adapter(ready, "portrait", name="same.bin")
        add_face_pack(ready, "auraface")
        assert find(people, ready, **values).key != first.key

    def test_vectors_decide(self, root):
        add_adapter(root)
        people = People()
        keys = {find(people, root, embeddings=vectors).key for vectors in (VECTOR, VECTOR[::-1], [VECTOR, VECTOR])}
        assert len(keys) == 3

    def test_the_order_of_photos_decides(self, ready):
        people = People()
        pair = [photo(1), photo(2)]
        assert find(people, ready, images=pair).key != find(people, ready, images=pair[::-1]).key

    def test_another_file_under_the_name_of_an_adapter(self, ready, made):
        people = People()
        first = find(people, ready, **ONE)
        add_adapter(ready, seed=1)
        second = find(people, ready, **ONE)
        assert second.key != first.key
        assert not torch.equal(second.identity.tokens, first.identity.tokens)
        assert second.identity.origin.adapter_sha256 != first.identity.origin.adapter_sha256

    def test_another_pack_under_the_name_of_one(self, ready, made):
        people = People()
        find(people, ready, **ONE)
        file = ready / "insightface" / "buffalo_l" / "w600k_r50.onnx"
        os.utime(file, ns=(1, 1))
        find(people, ready, **ONE)
        assert made.count("extract") == 2

    def test_the_last_ones_used(self, root, made):
        add_adapter(root)
        kv = find(People(), root, embeddings=VECTOR).identity.main.kv.values()
        made.clear()
        people = People(kept=2 * sum(layer.k.nbytes + layer.v.nbytes for layer in kv))
        sent = [{"embeddings": [float(n), *VECTOR[1:]]} for n in range(10, 13)]
        for number in (0, 1, 0, 2, 0, 1):  # 1 is the one not used for longest when 2 comes
            find(people, root, **sent[number])
        assert made == ["make_identity"] * 4
        people.forget()
        find(people, root, **sent[1])
        assert len(made) == 5

    def test_two_threads_make_one(self, ready, made):
        people = People()
        found = []
        threads = [threading.Thread(target=lambda: found.append(find(people, ready, **ONE))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(person) for person in found}) == 1
        assert made == ["extract", "make_identity"]


class TestRemembering:
    def test_by_key(self, ready, made):
        people = People()
        person = find(people, ready, **ONE)
        for digits in (person.key, person.key[:8]):
            assert find(people, ready, identity=f"digest:{digits}") is person
            assert people.knows(digits)
        assert find(people, ready, identity=f"digest:{person.key}", **ONE) is person
        assert made == ["extract", "make_identity"]

    def test_unknown(self, ready):
        people = People()
        find(people, ready, **ONE)
        with pytest.raises(BadIdentity, match=r"^The person 0000 of the pasted picture was made from photos"):
            find(people, ready, identity="digest:0000")
        assert not people.knows("0000")
        assert not people.knows("")

    @pytest.mark.parametrize("values", [{}, {"identity": "digest:"}])
    def test_nobody(self, ready, values):
        people = People()
        find(people, ready, **ONE)
        with pytest.raises(BadRequest, match="nobody to show"):
            find(people, ready, **values)


class TestSaved:
    def test_with_the_adapter_it_was_made_with(self, root, made):
        file = add_adapter(root, name="first.bin")
        anna = add_person(root, file)
        file.path.rename(file.path.with_name("renamed.bin"))
        add_adapter(root, seed=1, name="first.bin")
        people = People()
        person = find(people, root, identity="anna")
        assert torch.equal(person.identity.tokens, anna.tokens)
        assert (person.name, person.adapter.path.name, person.photos) == ("anna", "renamed.bin", ())
        assert find(people, root, identity="anna").identity is person.identity
        assert made == []

    def test_saved_again_under_the_name(self, root):
        file = add_adapter(root)
        add_person(root, file)
        people = People()
        first = find(people, root, identity="anna")
        add_person(root, file, seed=4)
        assert not torch.equal(find(people, root, identity="anna").identity.tokens, first.identity.tokens)

    def test_a_copy_under_another_name(self, root):
        file = add_adapter(root)
        for name in ("anna", "anna copy"):
            add_person(root, file, name)
        saved = root / "ip-adapter" / "identities"
        (saved / "anna copy.safetensors").write_bytes((saved / "anna.safetensors").read_bytes())
        people = People()
        assert [find(people, root, identity=name).name for name in ("anna", "anna copy")] == ["anna", "anna copy"]

    @pytest.mark.parametrize("name", ["../anna", "a/b", "a\\b", ".anna", "."])
    def test_only_by_name(self, root, name):
        with pytest.raises(BadIdentity, match="A saved person is chosen by name"):
            find(People(), root, identity=name)

    def test_not_together_with_photos(self, root):
        for more, words in ((ONE, "photos"), ({"embeddings": VECTOR}, "face vectors")):
            with pytest.raises(BadRequest, match=f"was given the saved person anna and {words} as well"):
                find(People(), root, identity="anna", **more)
        with pytest.raises(BadRequest, match="was given photos and face vectors as well"):
            find(People(), root, **ONE, embeddings=VECTOR)
