"""People are made once from what decides them, and kept in memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import lib_faceid
from lib_faceid.engine.notes import Note
from lib_faceid.engine.people import People
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadIdentity, BadRequest, FaceIDError, NoFaceFound

from ..models_folder import LEFT, RIGHT, add_adapter, add_encoder, add_face_pack, photo
from .finding import ONE, VECTOR, find


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
        assert person.remarks == (Note(1, "shows 2 faces; the largest was taken."),)
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

    def test_an_adapter_that_was_renamed_or_taken_away(self, ready, made):
        people = People()
        first = find(people, ready, **ONE)
        first.adapter.path.rename(first.adapter.path.with_name("renamed.bin"))
        assert find(people, ready, **ONE).adapter.path.name == "renamed.bin"
        assert made == ["extract", "make_identity"]
        (ready / "ip-adapter" / "renamed.bin").rename(first.adapter.path)
        assert find(people, ready, identity=f"digest:{first.key}").adapter.path == first.adapter.path
        first.adapter.path.unlink()
        assert find(people, ready, identity=f"digest:{first.key}").lacks_lora

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
        assert find(people, ready, identity=f"digest:{person.key}") is person
        assert people.knows(person.key)
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
