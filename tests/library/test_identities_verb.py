"""``python -m lib_faceid identities``: a person's whole life on the command line."""

from __future__ import annotations

import base64
import json
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lib_faceid
from lib_faceid import identities_add
from lib_faceid.__main__ import main
from lib_faceid.face.types import Face
from lib_faceid.identities_add import crop_portrait
from lib_faceid.library.identity import load_identity
from lib_faceid.library.store import Store

from ..models_folder import LEFT, RIGHT, add_adapter, add_encoder, add_face_pack, make_models, photo
from .people import make_someone, same


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = make_models(tmp_path / "models")
    add_face_pack(root)
    monkeypatch.setenv("FACEID_MODELS", str(root))
    return root


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / "anna1.png", tmp_path / "anna2.png"]
    for number, path in enumerate(paths):
        path.write_bytes(base64.b64decode(photo(number)))
    return [str(path) for path in paths]


@pytest.fixture
def store(root):
    return Store(root / "ip-adapter" / "identities")


@pytest.fixture
def say(capsys):
    """Run the verb with --json: the exit code, and what it said."""

    def run(*words):
        code = main(["identities", *map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def in_words(capsys, *words):
    code = main(["identities", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


class TestAdding:
    def test_from_photos(self, root, store, photos, say):
        adapter = add_adapter(root)
        code, report = say("add", "Änna", *photos, "--adapter", adapter.path, "--note", "She agreed.")
        path = store.path("Änna")
        assert (code, report["file"], report["bases"], report["bytes"]) == (0, str(path), ["sd15"], path.stat().st_size)
        person = store.load("Änna")
        expected = lib_faceid.make_identity(adapter.load(), images=photos)
        assert same(person.for_base("sd15"), expected)
        assert person.note == "She agreed."
        assert person.for_base("sd15").origin.photos == 2
        assert person.for_base("sd15").origin.lora_sha256 == adapter.load().digest
        assert max(person.thumbnail.shape[:2]) == 160

    def test_for_both_bases_at_once(self, root, store, photos, say):
        small, large = add_adapter(root, "portrait"), add_adapter(root, "faceid", "sdxl")
        code, report = say("add", "anna", *photos, "--adapter", large.path, "--adapter", small.path)
        assert (code, report["bases"]) == (0, ["sd15", "sdxl"])
        for made in (small, large):
            expected = lib_faceid.make_identity(made.load(), images=photos)
            assert same(load_identity(store.path("anna"), made.base), expected)
        assert load_identity(store.path("anna"), "sd15").origin.lora_sha256 == ""  # portrait has none

    def test_options_reach_the_identity(self, root, store, photos, say):
        adapter = add_adapter(root, "faceid-plusv2")
        add_encoder(root)
        words = ["--structure", "0.3", "--combine", "concat", "--no-thumbnail"]
        assert say("add", "anna", *photos, "--adapter", adapter.path, *words)[0] == 0
        person = store.load("anna")
        expected = lib_faceid.make_identity(adapter.load(), images=photos, structure=0.3, combine="concat")
        assert same(person.for_base("sd15"), expected)
        assert person.thumbnail is None

    def test_the_second_base_later(self, root, store, photos, say):
        assert say("add", "anna", *photos, "--adapter", add_adapter(root).path, "--note", "yes")[0] == 0
        before = store.load("anna")
        large = add_adapter(root, "faceid", "sdxl").path
        assert say("add", "anna", *photos, "--adapter", large, "--add-base") [0] == 0  # fmt: skip
        after = store.load("anna")
        assert after.bases == ("sd15", "sdxl")
        assert same(after.for_base("sd15"), before.for_base("sd15"))
        assert (after.note, after.created) == (before.note, before.created)
        code, report = say("add", "anna", *photos, "--adapter", large, "--add-base")
        assert code == 2
        assert report["error"].startswith("anna is saved for SDXL already and is left as it is.")
        assert "Say --overwrite as well to replace that base alone" in report["error"]
        before = store.load("anna")
        assert say("add", "anna", *photos[:1], "--adapter", large, "--add-base", "--overwrite")[0] == 0
        after = store.load("anna")
        assert (after.bases, after.note) == (("sd15", "sdxl"), before.note)
        assert same(after.for_base("sd15"), before.for_base("sd15"))
        assert not same(after.for_base("sdxl"), before.for_base("sdxl"))
        code, report = say("add", "bob", *photos, "--adapter", large, "--add-base")
        assert (code, report["error"]) == (2, "There is no saved person bob. Saved are: anna.")

    def test_from_a_zip(self, root, store, photos, say, tmp_path):
        with zipfile.ZipFile(tmp_path / "anna.zip", "w") as archive:
            for path in photos:
                archive.write(path, f"x/{path[-9:]}")
            archive.writestr("notes.txt", "hello")
        adapter = add_adapter(root)
        code, report = say("add", "anna", "--zip", tmp_path / "anna.zip", "--adapter", adapter.path)
        assert code == 0
        assert "notes.txt is not a photo by its name, so it was left out." in report["remarks"]
        assert same(store.load("anna").for_base("sd15"), lib_faceid.make_identity(adapter.load(), images=photos))

    def test_from_a_face_file(self, root, store, say, tmp_path):
        vector = torch.randn(512)
        save_file({"embedding": vector, "gender": torch.tensor(0), "age": torch.tensor(9)}, tmp_path / "a.safetensors")
        adapter = add_adapter(root)
        words = ["--face-file", tmp_path / "a.safetensors", "--adapter", adapter.path]
        assert say("add", "anna", *words)[0] == 0
        person = store.load("anna")
        assert same(person.for_base("sd15"), lib_faceid.make_identity(adapter.load(), embeddings=vector[None]))
        assert person.note == "Imported from a face file of FaceSwapLab (its estimate: female, age 9)."
        assert person.thumbnail is None
        assert say("add", "bea", *words, "--note", "mine")[0] == 0
        assert store.load("bea").note == "mine"
        plus = add_adapter(root, "faceid-plusv2").path
        code, report = say("add", "carl", "--face-file", tmp_path / "a.safetensors", "--adapter", plus)
        assert code == 2
        assert "looks at the photo as well, and a face file has only the face vector" in report["error"]
        assert store.names() == ["anna", "bea"]

    def test_the_face_that_is_meant(self, root, store, say, tmp_path):
        (tmp_path / "two.png").write_bytes(base64.b64decode(photo(1, (LEFT, RIGHT))))
        (tmp_path / "left.png").write_bytes(base64.b64decode(photo(1, (LEFT,))))
        adapter = add_adapter(root)
        assert say("add", "anna", tmp_path / "two.png", "--face", "2", "--adapter", adapter.path)[0] == 0
        found = store.load("anna").for_base("sd15").vectors
        expected = lib_faceid.make_identity(adapter.load(), images=tmp_path / "left.png").vectors
        assert float(found @ expected.T) > 0.99
        words = ["--face", "2", "--face-file", tmp_path / "a.safetensors"]
        code, report = say("add", "bea", *words, "--adapter", adapter.path)
        assert (code, report["error"].startswith("--face chooses among the faces")) == (2, True)

    def test_an_adapter_for_the_whole_picture(self, root, store, photos, say):
        add_encoder(root)
        adapter = add_adapter(root, "base")
        assert say("add", "anna", photos[0], "--adapter", adapter.path)[0] == 0
        assert store.load("anna").thumbnail.shape == (120, 160, 3)  # of 640x480

    def test_several_faces_are_told(self, root, say, tmp_path):
        (tmp_path / "two.png").write_bytes(base64.b64decode(photo(1, (LEFT, RIGHT))))
        code, report = say("add", "anna", tmp_path / "two.png", "--adapter", add_adapter(root).path)
        assert code == 0
        assert any(remark.startswith("two.png shows 2 faces; ") for remark in report["remarks"])

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ([], r"A person is made from photos, from --zip or from --face-file; none of them was given\. Give one\."),
            (["a.png", "--zip", "a.zip"], "several were given"),
            (["a.png", "--add-base", "--note", "x"], "--note belongs to a person who is saved anew"),
        ],
    )
    def test_sources(self, root, say, words, sentence):
        code, report = say("add", "anna", *words, "--adapter", add_adapter(root).path)
        assert code == 2
        assert re.search(sentence, report["error"])

    def test_nothing_is_read_for_a_name_that_cannot_be(self, root, store, photos, say, monkeypatch):
        adapter = add_adapter(root).path
        assert say("add", "anna", *photos, "--adapter", adapter)[0] == 0
        before = store.path("anna").read_bytes()
        monkeypatch.setattr(identities_add, "extract", lambda *_, **__: pytest.fail("photos were read"))
        for name, words in (("anna", "A person called anna is saved already"), ("ANNA", "anna is saved already")):
            code, report = say("add", name, *photos, "--adapter", adapter)
            assert code == 2
            assert words in report["error"]
        code, report = say("add", "../anna", *photos, "--adapter", adapter)
        assert (code, "path separator" in report["error"]) == (2, True)
        code, report = say("add", "bea", *photos, "--adapter", adapter, "--adapter", adapter)
        assert code == 2
        assert report["error"].endswith("are for SD1.5. Give one adapter for each base.")
        assert store.path("anna").read_bytes() == before

    def test_overwriting(self, root, store, photos, say):
        adapter = add_adapter(root)
        for path in photos:
            assert say("add", "anna", path, "--adapter", adapter.path, "--overwrite")[0] == 0
        expected = lib_faceid.make_identity(adapter.load(), images=photos[1])
        assert same(store.load("anna").for_base("sd15"), expected)

    def test_a_photo_without_a_face(self, root, store, say, tmp_path):
        (tmp_path / "empty.png").write_bytes(base64.b64decode(photo(1, ())))
        code, report = say("add", "anna", tmp_path / "empty.png", "--adapter", add_adapter(root).path)
        assert (code, "empty.png" in report["error"]) == (2, True)
        assert store.names() == []


class TestTheRest:
    def test_list(self, store, say, capsys):
        code, report = say("list")
        assert (code, report) == (0, {"folder": str(store.folder), "people": []})
        store.save(make_someone("anna", "sd15", "sdxl", note="yes"))
        store.save(make_someone("bob"))
        (store.folder / "damaged.safetensors").write_bytes(b"x")
        people = say("list")[1]["people"]
        assert [person["name"] for person in people] == ["anna", "bob", "damaged"]
        assert (people[0]["bases"], people[0]["note"]) == (["sd15", "sdxl"], "yes")
        assert people[0]["bytes"] == store.path("anna").stat().st_size
        assert "is not a readable" in people[2]["error"]
        code, out, _ = in_words(capsys, "list")
        assert out.splitlines()[0] == "anna: SD1.5 and SDXL, 0.2 MB, 2024-06-01T00:00:00+00:00"
        assert out.splitlines()[2].startswith("damaged: damaged.safetensors is not")

    def test_another_folder(self, tmp_path, say):
        Store(tmp_path / "else").save(make_someone("eve"))
        assert [person["name"] for person in say("list", "--folder", tmp_path / "else")[1]["people"]] == ["eve"]

    def test_show(self, store, say, capsys):
        picture = np.zeros((30, 20, 3), np.uint8)
        store.save(make_someone("anna", "sd15", "sdxl", note="She agreed.", thumbnail=picture))
        code, report = say("show", "anna")
        assert (code, report["thumbnail"], report["note"]) == (0, [30, 20], "She agreed.")
        assert [item["base"] for item in report["identities"]] == ["sd15", "sdxl"]
        assert report["identities"][0]["adapter_sha256"] == "ab" * 32
        code, out, _ = in_words(capsys, "show", "anna")
        for words in ("a.bin (sha256 abababababab)", "LoRA sha256 cdcdcdcdcdcd", "2 photos", "She agreed.", "SDXL"):
            assert words in out
        assert in_words(capsys, "show", "bob")[0] == 2

    def test_rename(self, store, capsys):
        store.save(make_someone("anna"))
        assert in_words(capsys, "rename", "anna", "bea") == (0, "anna is now called bea.\n", "")
        assert store.names() == ["bea"]
        assert in_words(capsys, "rename", "anna", "bea")[0] == 2

    def test_delete_needs_a_yes(self, store, capsys, say):
        path = store.save(make_someone("anna"))
        code, out, err = in_words(capsys, "delete", "anna")
        assert (code, out) == (2, "")
        assert "was not deleted: nothing brings it back. Say --yes to delete it." in err
        assert path.exists()
        code, report = say("delete", "anna", "--yes")
        assert (code, report["deleted"]) == (0, "anna")
        assert not path.exists()
        assert in_words(capsys, "delete", "anna", "--yes")[0] == 2

    def test_export(self, store, tmp_path, capsys):
        path = store.save(make_someone("anna"))
        code, out, _ = in_words(capsys, "export", "anna", tmp_path)
        assert (code, out) == (0, f"anna was copied to {tmp_path / 'anna.safetensors'}.\n")
        assert (tmp_path / "anna.safetensors").read_bytes() == path.read_bytes()
        assert in_words(capsys, "export", "anna", tmp_path)[0] == 2

    @pytest.mark.parametrize("words", ["", "fly", "show", "rename a", "add a b.png", "delete a --y"])
    def test_words_nobody_knows(self, words, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["identities", *words.split()])
        assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 40, 60, 60), (slice(32, 69), slice(32, 69))),
        ((0, 0, 20, 20), (slice(0, 29), slice(0, 29))),
        ((70, 70, 130, 130), (slice(46, 100), slice(46, 100))),
        ((-10, 50, 10, 60), (slice(37, 74), slice(0, 19))),
        ((-40, 40, -30, 60), (slice(0, 100), slice(0, 100))),
        ((200, 200, 210, 210), (slice(0, 100), slice(0, 100))),  # outside: the whole photo
    ],
)
def test_the_square_around_a_face(box, expected):
    """1.8 times the longer side, cut at the photo's edge."""
    pixels = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    face = Face(np.array(box, np.float32), np.zeros((5, 2), np.float32), 1.0, np.ones(512, np.float32), 1)
    assert np.array_equal(crop_portrait(pixels, face), pixels[expected])
