"""The file of a saved person: both formats, several bases in one, and files somebody made to harm."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lib_faceid
from lib_faceid.errors import BadIdentity
from lib_faceid.library import identity_file
from lib_faceid.library.identity import load_identity
from lib_faceid.library.person import SavedPerson, load_person, make_thumbnail, read_card

from .people import ORIGIN, make_one, make_part, make_someone, old_file, rewrite_header, same

PICTURE = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)


class TestFormats:
    @pytest.mark.parametrize("clip", [False, True])
    def test_format_1_still_loads(self, tmp_path, clip):
        identity = make_one(clip=clip)
        path = old_file(tmp_path / "anna.safetensors", identity)
        loaded = load_identity(path)
        assert same(loaded, identity)
        assert loaded.origin == replace(ORIGIN, lora_sha256="")
        person = load_person(path)
        assert (person.name, person.bases, person.note, person.thumbnail) == ("old anna", ("sd15",), "", None)
        assert person.created == ORIGIN.created
        assert same(person.for_base("sd15"), identity)
        assert read_card(path).origins == {"sd15": loaded.origin}

    def test_format_1_saved_again_is_format_2(self, tmp_path):
        person = load_person(old_file(tmp_path / "anna.safetensors", make_one(clip=True)))
        again = load_person(person.write(tmp_path / "new.safetensors"))
        assert same(again.identities[0], person.identities[0])
        assert (again.name, again.created) == ("old anna", ORIGIN.created)
        with safe_open(tmp_path / "new.safetensors", "pt") as file:
            assert file.metadata()["format"] == "faceid-identity-2"

    def test_both_bases_in_one_file(self, tmp_path):
        small, large = make_one("sd15", 1, clip=True), make_one("sdxl", 2, structure=0.9)
        person = SavedPerson("Änna 👩", (small, large), PICTURE, "She said yes.\nTwice.", "2024-06-01T00:00:00+00:00")
        path = person.write(tmp_path / "anna.safetensors")
        loaded = load_person(path)
        assert (loaded.name, loaded.note, loaded.created) == (person.name, person.note, person.created)
        assert np.array_equal(loaded.thumbnail, PICTURE)
        assert loaded.bases == ("sd15", "sdxl")
        for identity in (small, large):
            assert same(loaded.for_base(identity.base), identity)
            assert same(load_identity(path, identity.base), identity)
            assert load_identity(path, identity.base).name == person.name
        assert loaded.for_base("sd15").origin == ORIGIN

    def test_structure_stays_adjustable(self, tmp_path):
        identity = make_one(clip=True)
        loaded = load_identity(identity.save(tmp_path / "anna.safetensors")).with_structure(0.25)
        expected = identity.main.kv[5].k + 0.25 * identity.clip.kv[5].k
        assert torch.equal(loaded.kv[5].k, expected)
        assert torch.equal(loaded.tokens, identity.main.tokens.cond + 0.25 * identity.clip.tokens.cond)

    def test_one_identity_alone(self, tmp_path):
        path = make_one(name="anna").save(tmp_path / "x.safetensors")
        assert load_identity(path).name == "anna"
        assert (load_person(path).name, load_person(path).created) == ("anna", ORIGIN.created)

    def test_without_vectors(self, tmp_path):
        identity = make_one(vectors=None)
        assert load_identity(identity.save(tmp_path / "anna.safetensors")).vectors is None

    def test_half_precision_and_strides_become_plain_float32(self, tmp_path):
        wide = torch.randn(2, 1024)[:, ::2]
        path = make_one(vectors=wide.half()).save(tmp_path / "anna.safetensors")
        assert torch.equal(load_identity(path).vectors, wide.half().float())

    def test_a_card_reads_no_identity(self, tmp_path, monkeypatch):
        path = make_someone("anna", "sd15", "sdxl", thumbnail=PICTURE, note="yes").write(tmp_path / "a.safetensors")
        monkeypatch.setattr(identity_file.PersonFile, "floats", lambda *_: 1 / 0)
        card = read_card(path)
        assert (card.name, list(card.origins), card.note) == ("anna", ["sd15", "sdxl"], "yes")
        assert np.array_equal(card.thumbnail, PICTURE)
        assert card.size == path.stat().st_size

    def test_one_base_reads_nothing_of_the_other(self, tmp_path):
        path = make_someone("anna", "sd15", "sdxl").write(tmp_path / "anna.safetensors")
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors["sdxl.main.3.k"].fill_(float("nan"))
        save_file(tensors, path, metadata)
        assert load_identity(path, "sd15")
        with pytest.raises(BadIdentity, match="not float32 numbers"):
            load_identity(path, "sdxl")

    def test_it_is_recognised_where_an_adapter_is_expected(self, tmp_path):
        path = make_someone("anna", "sdxl").write(tmp_path / "anna.safetensors")
        with pytest.raises(lib_faceid.FaceIDError, match="a saved person"):
            lib_faceid.load_adapter(path)


class TestAsking:
    def test_several_bases_and_none_asked_for(self, tmp_path):
        path = make_someone("anna", "sd15", "sdxl").write(tmp_path / "anna.safetensors")
        sentence = (
            r"^anna\.safetensors holds a person for SD1\.5 and SDXL\. Say for which: base='sd15' or base='sdxl'\.$"
        )
        with pytest.raises(BadIdentity, match=sentence):
            load_identity(path)

    def test_a_base_that_is_not_held(self, tmp_path):
        path = make_someone("anna").write(tmp_path / "anna.safetensors")
        assert load_identity(path).base == "sd15"
        for ask in (lambda: load_identity(path, "sdxl"), lambda: load_person(path).for_base("sdxl")):
            with pytest.raises(BadIdentity, match=r"is saved for SD1\.5, not for SDXL\. Add that base"):
                ask()

    def test_what_a_person_cannot_be_made_of(self):
        with pytest.raises(BadIdentity, match="one identity for each base; found none"):
            SavedPerson("anna", ())
        with pytest.raises(BadIdentity, match=r"found SD1\.5, SD1\.5"):
            SavedPerson("anna", (make_one(), make_one()))
        with pytest.raises(BadIdentity, match="The note has 2001 characters, at most 2000"):
            make_someone(note="x" * 2001)

    @pytest.mark.parametrize("shape", [(161, 10, 3), (10, 161, 3), (10, 10), (10, 10, 4), (0, 10, 3)])
    def test_thumbnails_that_are_none(self, shape):
        with pytest.raises(BadIdentity, match=r"at most 160 px; found uint8"):
            make_someone(thumbnail=np.zeros(shape, np.uint8))

    def test_making_a_thumbnail(self):
        assert make_thumbnail(np.full((400, 800, 3), 7, np.uint8)).shape == (80, 160, 3)
        assert make_thumbnail(PICTURE).shape == PICTURE.shape
        assert (make_thumbnail(np.full((400, 800, 3), 7, np.uint8)) == 7).all()

    def test_another_base_is_added_in_one_order(self):
        person = make_someone("anna", "sdxl").with_identity(make_one("sd15", 5))
        assert person.bases == ("sd15", "sdxl")
        replaced = person.with_identity(make_one("sd15", 6))
        assert same(replaced.for_base("sd15"), make_one("sd15", 6))
        assert len(replaced.identities) == 2


def saved(tmp_path, **values):
    return make_someone("anna", thumbnail=PICTURE, **values).write(tmp_path / "anna.safetensors")


class TestHostileFiles:
    def test_unknown_tensors_and_values_are_ignored_and_not_read(self, tmp_path):
        path = saved(tmp_path)

        def change(header):
            header["extra"] = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
            header["sd15.main.16.k"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
            header["__metadata__"] |= {"more": "x", "sd3": "{}"}
            header["__metadata__"]["sd15"] = json.dumps({**json.loads(header["__metadata__"]["sd15"]), "new": [1]})

        assert same(load_identity(rewrite_header(path, change)), make_one())

    @pytest.mark.parametrize(
        ("name", "shape", "sentence"),
        [
            ("sd15.main.cond", [40], r"sd15\.main needs tokens of both sides in one shape \(T, X\), found \(40,\)"),
            ("sd15.main.uncond", [2, 20], r"one shape \(T, X\), found \(4, 10\) and \(2, 20\)"),
            ("sd15.main.3.k", [4, 2, 6], r"sd15\.main\.3 has keys \(4, 2, 6\) and values \(2, 4, 6\) for 4 tokens"),
            ("sd15.main.3.v", [2, 24], r"sd15\.main\.3 has keys \(2, 4, 6\) and values \(2, 24\)"),
            ("sd15.vectors", [512, 2], r"sd15\.vectors has the shape \(512, 2\), expected \(photos, 512\)"),
            ("thumbnail", [600, 1, 3], r"thumbnail is U8 \(600, 1, 3\), expected a picture of at most 160 px"),
            ("thumbnail", [30, 60], "expected a picture"),
        ],
    )
    def test_wrong_shapes_are_named(self, tmp_path, name, shape, sentence):
        path = rewrite_header(saved(tmp_path), lambda header: header[name].update(shape=shape))
        with pytest.raises(BadIdentity, match=rf"^anna\.safetensors is damaged: .*{sentence}"):
            load_person(path)

    @pytest.mark.parametrize(
        ("entry", "sentence"),
        [
            ({"data_offsets": [0, 1 << 62]}, "lies outside the file"),
            ({"data_offsets": [-8, 0]}, "lies outside the file"),
            ({"data_offsets": [8, 0]}, "lies outside the file"),
            ({"data_offsets": [0, 8]}, "has 8 bytes and the shape"),
            ({"shape": [1 << 40, 1 << 40]}, "bytes and the shape"),
            ({"shape": [-4, -10]}, "bytes and the shape"),
            ({"shape": "many"}, "damaged"),
            ({"shape": None}, "damaged"),
            ({"data_offsets": [0]}, "damaged"),
            ({"dtype": None}, "not float32 numbers"),
            ({"dtype": "F16"}, "not float32 numbers"),
            ({"dtype": "I32"}, "not float32 numbers"),
        ],
    )
    def test_entries_that_lie(self, tmp_path, entry, sentence):
        path = rewrite_header(saved(tmp_path), lambda header: header["sd15.main.cond"].update(entry))
        with pytest.raises(BadIdentity, match=sentence):
            load_identity(path)

    def test_no_tokens_at_all(self, tmp_path):
        def change(header):
            for name, entry in header.items():
                if name.endswith(("cond", ".k", ".v")):
                    entry["shape"][-2], entry["data_offsets"] = 0, [0, 0]

        with pytest.raises(BadIdentity, match=r"one shape \(T, X\), found \(0, 10\)"):
            load_identity(rewrite_header(saved(tmp_path), change))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_values_that_are_no_numbers(self, tmp_path, value):
        identity = make_one(clip=True)
        identity.clip.kv[15].v[1, 3, -1] = value
        with pytest.raises(BadIdentity, match="not float32 numbers"):
            load_identity(identity.save(tmp_path / "anna.safetensors"))

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda m: m.pop("name"), "'name' is missing"),
            (lambda m: m.pop("sd15"), "it holds no base, expected one of sd15, sdxl"),
            (lambda m: m.update(sd15="[]"), r"says about SD1\.5 is no list of values"),
            (lambda m: m.update(sd15="{"), "damaged"),
            (lambda m: m.update(sd15="[" * 100_000), "damaged"),
            (lambda m: m.update(sd15=m["sd15"].replace("0.4", "NaN")), "not float32 numbers"),
            (lambda m: m.update(sd15=m["sd15"].replace("0.4", '"much"')), "could not convert string"),
            (lambda m: m.update(sd15=m["sd15"].replace("0.4", "null")), "damaged"),
            (lambda m: m.update(sd15=m["sd15"].replace('"photos": 2', '"photos": true')), "photos is True"),
            (lambda m: m.update(sd15=m["sd15"].replace('"has_lora": true', '"has_lora": 1')), "has_lora is 1"),
            (lambda m: m.update(sd15=m["sd15"].replace('"photos": 2, ', "")), "'photos' is missing"),
            (lambda m: m.update(sdxl="{}"), "damaged"),
            (lambda m: m.update(format="faceid-identity-9"), "its format is 'faceid-identity-9', expected"),
            (lambda m: m.update(format=2), "its format is 'not given'"),
        ],
    )
    def test_metadata(self, tmp_path, change, sentence):
        path = rewrite_header(saved(tmp_path), lambda header: change(header["__metadata__"]) and None)
        with pytest.raises(BadIdentity, match=sentence):
            load_person(path)

    @pytest.mark.parametrize(
        "content",
        [
            b"", b"x", b"\0" * 8, b"\0" * 100, b"\xff" * 100, struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 4) + b"null",
            struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 3) + b"\xff{}",
            struct.pack("<Q", 100_000) + b"[" * 100_000, struct.pack("<Q", (1 << 20) + 1) + b" " * ((1 << 20) + 1),
        ],
    )  # fmt: skip
    def test_files_that_are_none(self, tmp_path, content):
        path = tmp_path / "anna.safetensors"
        path.write_bytes(content)
        for load in (load_identity, load_person, read_card):
            with pytest.raises(BadIdentity, match=r"anna\.safetensors is not a"):
                load(path)

    def test_a_header_larger_than_any_person_has_is_not_parsed(self, tmp_path):
        path = rewrite_header(saved(tmp_path), lambda header: header["__metadata__"].update(x="y" * (1 << 20)))
        with pytest.raises(
            BadIdentity, match=r"anna\.safetensors is not a readable \.safetensors file \(\d+ bytes that"
        ):
            load_identity(path)

    def test_a_file_larger_than_any_person_is_not_read(self, tmp_path):
        path = saved(tmp_path)
        with path.open("ab") as file:
            file.truncate(identity_file.MAX_BYTES + 1)  # sparse
        with pytest.raises(BadIdentity, match="has 1024 MB; a saved person has at most 1024"):
            load_identity(path)

    def test_cut_off_at_every_length(self, tmp_path):
        """A tensor that ends behind the file is found in the header, before anything is read."""
        path = saved(tmp_path)
        content = path.read_bytes()
        for length in [*range(0, len(content), 997), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(BadIdentity, match=r"anna\.safetensors is (damaged|not a readable)"):
                load_person(path)

    def test_a_folder_and_nobody(self, tmp_path):
        with pytest.raises(BadIdentity, match="cannot be read"):
            load_identity(tmp_path)
        with pytest.raises(BadIdentity, match="There is no saved person at"):
            load_identity(tmp_path / "nobody.safetensors")


def test_parts_of_different_sizes(tmp_path):
    identity = replace(make_one(), clip=make_part("sd15", 9, tokens=2))
    with pytest.raises(BadIdentity, match="its two parts have different sizes"):
        load_identity(identity.save(tmp_path / "anna.safetensors"))
