"""People on disk: the next process runs no model and reads no weights, and who is to be gone is gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_faceid.engine import people as people_module
from lib_faceid.engine import readers
from lib_faceid.engine.extract import ModelFolder
from lib_faceid.engine.people import People
from lib_faceid.engine.readers import Runs
from lib_faceid.errors import BadIdentity
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.library.cache import DiskCache
from lib_faceid.library.identity import load_identity
from lib_faceid.vision.clip import Encoder
from lib_faceid.weights import digest
from lib_faceid.weights.tensor_file import TensorFile

from ..fresh_python import run_code
from ..models_folder import LEFT, RIGHT, add_adapter, add_encoder, photo
from .finding import ONE, VECTOR, find, photo_data

NOTHING = Runs()


def kept(root: Path) -> People:
    """Somebody who knows the folder's cache and nothing else, as a new process does."""
    people = People()
    people.keep_on_disk(ModelFolder(root))
    return people


def entries(root: Path) -> list[Path]:
    return sorted((root / "ip-adapter" / "identities" / ".cache").glob("*.safetensors"))


@pytest.fixture(autouse=True)
def own_digests(monkeypatch):
    """What this process knows of weight files is for this test alone."""
    monkeypatch.setattr(digest, "_digests", digest._Digests())


@pytest.fixture
def full(ready):
    """With an adapter that needs everything there is: face pack, CLIP and LoRA."""
    add_adapter(ready, "faceid-plusv2")
    add_encoder(ready)
    return ready


@pytest.fixture
def closed(monkeypatch):
    """Called, it makes everything raise that reads weights or opens a model."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was opened, or weights were read")

    def close():
        monkeypatch.setattr(readers, "load_backend", refuse)
        monkeypatch.setattr(FaceFinder, "of_pack", refuse)
        monkeypatch.setattr(Encoder, "load", refuse)
        monkeypatch.setattr(TensorFile, "_opened", refuse)
        monkeypatch.setattr(people_module, "extract", refuse)
        monkeypatch.setattr(people_module, "make_identity", refuse)

    return close


def assert_same(one, other):
    """Bit for bit, with all that is said about it."""
    assert (one.key, one.photos, one.remarks, one.likeness) == (other.key, other.photos, other.remarks, other.likeness)
    assert (one.identity.origin, one.identity.structure) == (other.identity.origin, other.identity.structure)
    assert one.adapter.path == other.adapter.path == one.identity.adapter_path == other.identity.adapter_path
    for name in ("tokens", "uncond_tokens", "vectors"):
        assert torch.equal(getattr(one.identity, name), getattr(other.identity, name))
    for part in ("main", "clip"):
        ours, theirs = getattr(one.identity, part), getattr(other.identity, part)
        assert (ours is None) == (theirs is None)
        for n in ours.kv if ours else ():
            assert torch.equal(ours.kv[n].k, theirs.kv[n].k)
            assert torch.equal(ours.kv[n].v, theirs.kv[n].v)


class TestTheSecondTime:
    def test_in_the_same_process(self, full, closed):
        people = kept(full)
        first = find(people, full, **ONE)
        assert people.readers.runs == Runs(detections=1, embeddings=1, encodings=2, weight_files=2)
        closed()
        assert find(people, full, **ONE) is first
        assert people.readers.runs == Runs(detections=1, embeddings=1, encodings=2, weight_files=2)

    def test_in_the_next_one(self, full, closed):
        first = find(kept(full), full, **ONE)
        closed()
        people = kept(full)
        assert_same(find(people, full, **ONE), first)
        assert people.readers.runs == NOTHING

    @pytest.mark.parametrize("kind", ["faceid", "portrait", "plus-face"])
    def test_with_other_adapters(self, ready, closed, kind):
        add_encoder(ready)
        adapter = add_adapter(ready, kind).path.name
        first = find(kept(ready), ready, **ONE, adapter=adapter)
        closed()
        second = find(kept(ready), ready, **ONE, adapter=adapter)
        assert torch.equal(second.identity.tokens, first.identity.tokens)
        assert (second.identity.vectors is None) == (kind == "plus-face")

    def test_in_a_process_of_its_own(self, full):
        """It does not even read files for their digests; the first reads adapter, detector, recogniser, encoder and its
        configuration.
        """
        code = """
import sys
from lib_faceid.weights import digest
hashed = []
real = digest.sha256_of
digest.sha256_of = lambda path: hashed.append(path.name) or real(path)
from pathlib import Path
from lib_faceid.engine.extract import ModelFolder
from tests.people.finding import ONE, People, find
people, root = People(), Path(sys.argv[1])
people.keep_on_disk(ModelFolder(root))
person = find(people, root, **ONE)
loaded = sorted({"onnxruntime", "insightface"} & set(sys.modules))
print(person.key, float(person.identity.tokens.sum()), len(hashed), people.readers.runs, loaded)
"""
        first = run_code(code, str(full)).strip()
        second = run_code(code, str(full)).strip()
        key, total, *_ = first.split()
        assert " 5 Runs(detections=1, embeddings=1, encodings=2, weight_files=2)" in first
        assert second == f"{key} {total} 0 {NOTHING} []"

    def test_what_is_said_about_the_photos(self, ready):
        photos = [photo(1, (LEFT, RIGHT)), photo(2)]
        first = find(kept(ready), ready, images=photos)
        assert [remark.photo for remark in first.remarks][:1] == [1]
        assert len(first.likeness) == 2
        assert_same(find(kept(ready), ready, images=photos), first)

    def test_by_the_digest_of_a_pasted_picture(self, full, closed):
        first = find(kept(full), full, **ONE)
        closed()
        people = kept(full)
        assert people.knows(first.key)
        again = find(people, full, identity=f"digest:{first.key}")
        assert torch.equal(again.identity.tokens, first.identity.tokens)
        assert again.photos == first.photos
        assert again.adapter.path == first.adapter.path
        assert not people.knows("0000")

    def test_without_a_cache_nothing_is_written(self, ready):
        find(People(), ready, **ONE)
        assert entries(ready) == []

    def test_from_vectors(self, root, closed):
        add_adapter(root)
        people = kept(root)
        first = find(people, root, embeddings=VECTOR)
        assert people.readers.runs == Runs(weight_files=1)
        closed()
        assert torch.equal(find(kept(root), root, embeddings=VECTOR).identity.tokens, first.identity.tokens)


class TestTheFolder:
    def test_is_not_a_list_of_people(self, ready):
        people = kept(ready)
        find(people, ready, **ONE)
        with pytest.raises(BadIdentity, match="no saved person anna"):
            find(people, ready, identity="anna")
        assert len(entries(ready)) == 1

    def test_holds_no_names_and_no_photos(self, full):
        named = replace(photo_data(photo(1, (LEFT, RIGHT))), label="Aunt Ida.png")
        find(kept(full), full, images=[named])
        contents = [path.read_bytes() for path in (full / "ip-adapter" / "identities" / ".cache").iterdir()]
        assert len(contents) == 3  # the entry, the digests, and what says that it is a cache
        for content in contents:
            assert b"Ida" not in content
            assert str(full.parent).encode() not in content
            assert named.data[100:200] not in content
        assert b"2 faces" in b"".join(contents)

    def test_may_be_deleted_at_any_time(self, ready, made):
        people = kept(ready)
        find(people, ready, **ONE)
        for path in entries(ready):
            path.unlink()
        find(people, ready, **ONE)
        assert made.count("extract") == 1
        find(kept(ready), ready, **ONE)
        assert made.count("extract") == 2

    @pytest.mark.parametrize("damage", ["text", "photos", "tensor"])
    def test_an_entry_of_another_version_is_made_anew(self, ready, made, damage):
        first = find(kept(ready), ready, **ONE)
        cache = DiskCache(entries(ready)[0].parent)
        entry = cache.get(first.key)
        text = json.loads(entry.metadata["person"])
        tensors = dict(entry.tensors)
        if damage == "tensor":
            tensors.pop("main.1.k")
        if damage == "photos":
            text.pop("photos")
        cache.put(first.key, tensors, {"person": "{" if damage == "text" else json.dumps(text)})
        assert torch.equal(find(kept(ready), ready, **ONE).identity.tokens, first.identity.tokens)
        assert made.count("extract") == 2

    def test_another_models_folder(self, ready, tmp_path):
        people = kept(ready)
        people.keep_on_disk(ModelFolder(tmp_path / "elsewhere"))
        find(people, ready, **ONE)
        assert entries(ready) == []
        assert len(entries(tmp_path / "elsewhere")) == 1


class TestForgetting:
    def test_everybody(self, ready, made):
        people = kept(ready)
        for number in (1, 2):
            find(people, ready, images=[photo(number)])
        finder = people.readers.finder(ready / "insightface" / "buffalo_l")
        people.forget()
        assert entries(ready) == []
        assert people.readers.finder(ready / "insightface" / "buffalo_l") is not finder
        find(people, ready, images=[photo(1)])
        assert made.count("extract") == 3

    def test_one_by_digest(self, ready):
        people = kept(ready)
        anna, ben = (find(people, ready, images=[photo(number)]) for number in (1, 2))
        people.forget_person(f"digest:{anna.key}")
        assert (people.knows(anna.key), people.knows(ben.key)) == (False, True)
        assert [path.stem for path in entries(ready)] == [ben.key]

    def test_one_by_digest_who_is_on_disk_only(self, ready):
        anna, both = find(kept(ready), ready, **ONE), find(kept(ready), ready, images=[photo(1), photo(2)])
        people = kept(ready)
        people.forget_person(f"digest:{anna.key}")
        assert not people.knows(anna.key)
        assert not people.knows(both.key)  # made of that photo as well

    @pytest.mark.parametrize("who", ["", "digest:", "a", "digest:zz", "stranger"])
    def test_nobody(self, ready, who):
        people = kept(ready)
        anna = find(people, ready, **ONE)
        people.forget_person(who)
        assert people.knows(anna.key)
        assert len(entries(ready)) == 1

    @pytest.mark.parametrize("kind", ["faceid-plusv2", "plus-face"])
    def test_a_saved_person_and_what_was_made_from_the_same_photos(self, full, kind):
        """By another process, with another adapter, and together with other photos; not other people."""
        saved = full / "ip-adapter" / "identities" / "anna.safetensors"
        adapter = add_adapter(full, kind).path.name
        one = find(kept(full), full, **ONE, adapter=adapter)
        one.identity.save(saved)
        several = find(kept(full), full, images=[photo(2), photo(1)], adapter="ip-adapter-faceid_sd15.bin")
        other = find(kept(full), full, images=[photo(2)], adapter=adapter)
        identity = load_identity(saved)
        saved.unlink()
        people = kept(full)
        people.forget_person("anna", [identity])
        expected = {other.key} if kind == "faceid-plusv2" else {other.key, several.key}
        assert {path.stem for path in entries(full)} == expected
        assert not people.knows(one.key)

    def test_a_saved_person_is_gone_from_memory(self, ready):
        people = kept(ready)
        saved = ready / "ip-adapter" / "identities" / "anna.safetensors"
        made = find(people, ready, **ONE)
        made.identity.save(saved)
        find(people, ready, identity="anna")
        saved.unlink()
        people.forget_person("anna")  # who is in memory, so that the photos are known without a file
        assert not people.knows(made.key)
        assert entries(ready) == []

    def test_what_cannot_be_read_is_removed(self, ready):
        people = kept(ready)
        anna = find(people, ready, **ONE)
        entries(ready)[0].with_name("0123456789abcdef.safetensors").write_bytes(b"damaged")
        cache = DiskCache(entries(ready)[0].parent)
        cache.put("fedcba9876543210", {"x": torch.zeros(2)}, {})  # another version's
        people.forget_person("digest:nobody")
        assert [path.stem for path in entries(ready)] == [anna.key]
