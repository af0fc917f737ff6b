"""The folder of saved people: who is there, what may replace what, and what is left when something fails."""

from __future__ import annotations

import os
import threading
import unicodedata

import numpy as np
import pytest

from lib_faceid.errors import BadIdentity, FaceIDError
from lib_faceid.files import write_file
from lib_faceid.library.store import Store

from .people import contents, make_one, make_someone, old_file, same

PICTURE = np.full((8, 6, 3), 9, np.uint8)


def by_tool(store, name):
    """A person's file under any file name, put there past the store."""
    store.folder.mkdir(parents=True, exist_ok=True)
    return make_someone(name).write(store.folder / f"{name}.safetensors")


class TestSaving:
    def test_saved_and_loaded(self, store):
        person = make_someone("Änna", "sd15", "sdxl", thumbnail=PICTURE, note="yes")
        assert store.save(person) == store.folder / "Änna.safetensors"
        loaded = store.load("Änna")
        assert (loaded.name, loaded.note, loaded.created, loaded.bases) == ("Änna", "yes", person.created, person.bases)
        assert all(same(a, b) for a, b in zip(loaded.identities, person.identities, strict=True))
        assert (loaded.thumbnail == PICTURE).all()
        assert store.names() == ["Änna"]
        assert store.card("Änna").name == "Änna"

    def test_nobody(self, store):
        assert store.names() == []
        with pytest.raises(BadIdentity, match=r"^There is no saved person anna\. Saved are: nobody yet\.$"):
            store.load("anna")
        store.save(make_someone("bob"))
        with pytest.raises(BadIdentity, match=r"Saved are: bob\."):
            store.path("anna")

    def test_never_over_another_unless_asked(self, store):
        store.save(make_someone("anna"))
        before = contents(store)
        with pytest.raises(BadIdentity, match="A person called anna is saved already and is left as it is"):
            store.save(make_someone("anna", seed=1))
        assert contents(store) == before
        store.save(make_someone("anna", seed=1), overwrite=True)
        assert same(store.load("anna").identities[0], make_one(seed=1))

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_upper_and_lower_case_are_one_name(self, store, overwrite):
        store.save(make_someone("anna"))
        with pytest.raises(BadIdentity, match="A person called anna is saved already"):
            store.save(make_someone("Anna"), overwrite=overwrite)
        assert store.names() == ["anna"]

    def test_composed_names_are_one_name(self, store):
        """macOS and zip files give decomposed names; people type composed ones."""
        path = by_tool(store, unicodedata.normalize("NFD", "Zoë"))
        assert store.names() == ["Zoë"]
        assert store.path("Zoë") == path
        assert store.load(unicodedata.normalize("NFD", "Zoë")).name == "Zoë"
        store.save(make_someone("Zoë", seed=1), overwrite=True)
        assert same(store.load("Zoë").identities[0], make_one(seed=1))
        assert len(contents(store)) == 1

    @pytest.mark.parametrize("name", ["../anna", "a/b", "a\\b", "..", "con", "", "anna\u202e"])
    def test_names_that_lead_elsewhere(self, store, tmp_path, name):
        store.save(make_someone("bob"))
        outside = make_someone("anna").write(tmp_path / "models" / "anna.safetensors")
        for act in (store.path, store.load, store.card, store.delete, store.taken):
            with pytest.raises(BadIdentity, match="cannot be the name of a saved person"):
                act(name)
        for act in (
            lambda: store.save(make_someone(name)),
            lambda: store.rename("bob", name),
            lambda: store.rename(name, "eve"),
            lambda: store.export(name, tmp_path),
            lambda: store.add_base(name, make_one("sdxl")),
        ):
            with pytest.raises(BadIdentity, match="cannot be the name of a saved person"):
                act()
        assert outside.exists()
        assert store.names() == ["bob"]

    def test_what_cannot_be_chosen_is_not_listed(self, store):
        store.save(make_someone("anna"))
        for name in ("CON.safetensors", ".hidden.safetensors", "notes.txt", "a..b.safetensors"):
            (store.folder / name).write_bytes(b"x")
        assert store.names() == ["anna"]

    def test_a_disk_that_refuses(self, store, tmp_path, monkeypatch):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(FaceIDError, match=r"^The folder identities cannot be made \(Not a directory\)\. "):
            Store(tmp_path / "file" / "identities").save(make_someone())
        store.save(make_someone("anna"))
        before = contents(store)

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FaceIDError, match=r"^anna\.safetensors cannot be written \(No space left on device\)"):
            store.save(make_someone("anna", seed=1), overwrite=True)
        assert contents(store) == before

    def test_two_threads_and_one_name(self, store):
        """One of them saves; nobody is lost and nothing is half written."""
        outcomes = []

        def save(seed):
            try:
                store.save(make_someone("anna", seed=seed))
                outcomes.append(seed)
            except BadIdentity:
                outcomes.append(None)

        threads = [threading.Thread(target=save, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [seed for seed in outcomes if seed is not None]
        assert same(store.load("anna").identities[0], make_one(seed=winner))

    def test_another_process_that_was_faster(self, tmp_path, monkeypatch):
        """Its file appears between the look and the write, and stays."""
        target = tmp_path / "anna.safetensors"
        target.write_bytes(b"theirs")
        monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
        with pytest.raises(FaceIDError, match="exists already and is left as it is"):
            write_file(target, b"ours")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]

    def test_a_disk_without_links(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
        assert write_file(tmp_path / "a", b"x").read_bytes() == b"x"
        with pytest.raises(FaceIDError, match="exists already"):
            write_file(tmp_path / "a", b"y")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


class TestBases:
    def test_a_second_base(self, store):
        store.save(make_someone("anna", thumbnail=PICTURE, note="yes"))
        store.add_base("anna", make_one("sdxl", 7))
        person = store.load("anna")
        assert person.bases == ("sd15", "sdxl")
        assert same(person.for_base("sd15"), make_one("sd15"))
        assert same(person.for_base("sdxl"), make_one("sdxl", 7))
        assert (person.note, person.thumbnail.shape) == ("yes", PICTURE.shape)

    def test_the_same_base_only_when_asked(self, store):
        store.save(make_someone("anna", "sd15", "sdxl"))
        with pytest.raises(BadIdentity, match=r"^anna is saved for SDXL already and is left as it is"):
            store.add_base("anna", make_one("sdxl", 7))
        store.add_base("anna", make_one("sdxl", 7), overwrite=True)
        assert same(store.load("anna").for_base("sdxl"), make_one("sdxl", 7))
        assert same(store.load("anna").for_base("sd15"), make_one("sd15"))

    def test_to_a_person_of_format_1(self, store):
        store.folder.mkdir(parents=True)
        old_file(store.folder / "anna.safetensors", make_one(clip=True))
        store.add_base("anna", make_one("sdxl"))
        assert same(store.load("anna").for_base("sd15"), make_one(clip=True))

    def test_nobody_to_add_to(self, store):
        with pytest.raises(BadIdentity, match="There is no saved person anna"):
            store.add_base("anna", make_one())
