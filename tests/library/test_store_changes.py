"""Saved people under other names, gone, copied, and what killed writes left."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from lib_faceid.errors import BadIdentity, FaceIDError
from lib_faceid.files import UNFINISHED_AGE, sweep
from lib_faceid.library.store import Store

from .people import contents, make_one, make_someone, same


class TestRenaming:
    def test_inside_the_file_as_well(self, store):
        store.save(make_someone("anna", "sd15", "sdxl", note="yes"))
        path = store.rename("anna", " Bea ")
        assert path == store.folder / "Bea.safetensors"
        assert store.names() == ["Bea"]
        assert (store.load("Bea").name, store.load("Bea").note) == ("Bea", "yes")
        assert all(same(identity, make_one(identity.base)) for identity in store.load("Bea").identities)
        assert b"anna" not in path.read_bytes()

    @pytest.mark.parametrize("new", ["bob", "BOB"])
    def test_not_onto_somebody(self, store, new):
        store.save(make_someone("anna"))
        store.save(make_someone("bob", seed=1))
        before = contents(store)
        with pytest.raises(BadIdentity, match="A person called bob is saved already"):
            store.rename("anna", new)
        assert contents(store) == before

    def test_upper_and_lower_case(self, store):
        store.save(make_someone("anna"))
        store.rename("anna", "ANNA")
        assert (store.names(), store.load("ANNA").name) == (["ANNA"], "ANNA")
        store.rename("ANNA", "ANNA")
        assert same(store.load("ANNA").identities[0], make_one())
        assert len(contents(store)) == 1

    def test_when_the_second_half_fails(self, store, monkeypatch):
        """Better twice than never."""
        store.save(make_someone("anna"))
        monkeypatch.setattr(Store, "_unlink", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.rename("anna", "bea")
        assert store.names() == ["anna", "bea"]

    def test_nobody(self, store):
        with pytest.raises(BadIdentity, match="There is no saved person anna"):
            store.rename("anna", "bea")


class TestDeleting:
    def test_really_gone(self, store):
        path = store.save(make_someone("anna"))
        store.save(make_someone("bob"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        removed = store.delete("anna")
        assert (removed.name, removed.digest) == ("anna", digest)
        assert same(removed.person.identities[0], make_one())
        assert [item.name for item in store.folder.iterdir()] == ["bob.safetensors"]
        with pytest.raises(BadIdentity, match="There is no saved person anna"):
            store.delete("anna")

    def test_a_damaged_one(self, store):
        store.folder.mkdir(parents=True)
        (store.folder / "anna.safetensors").write_bytes(b"x")
        removed = store.delete("anna")
        assert (removed.digest, removed.person) == (hashlib.sha256(b"x").hexdigest(), None)
        assert store.names() == []

    def test_a_disk_that_refuses(self, store, monkeypatch):
        store.save(make_someone("anna"))

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(FaceIDError, match=r"^anna\.safetensors cannot be removed \(Permission denied\)"):
            store.delete("anna")
        assert store.names() == ["anna"]


class TestExporting:
    def test_into_a_folder_and_to_a_name(self, store, tmp_path):
        path = store.save(make_someone("anna"))
        assert store.export("anna", tmp_path) == tmp_path / "anna.safetensors"
        for target in (tmp_path / "copy", tmp_path / "copy2.safetensors", tmp_path / "v1.5"):
            copy = store.export("anna", target)
            assert copy.suffix == ".safetensors"
            assert copy.read_bytes() == path.read_bytes()
        assert (tmp_path / "v1.5.safetensors").exists()

    def test_nothing_is_overwritten(self, store, tmp_path):
        store.save(make_someone("anna"))
        (tmp_path / "anna.safetensors").write_bytes(b"mine")
        with pytest.raises(FaceIDError, match="exists already and is left as it is"):
            store.export("anna", tmp_path)
        assert (tmp_path / "anna.safetensors").read_bytes() == b"mine"
        with pytest.raises(FaceIDError, match="there is no folder"):
            store.export("anna", tmp_path / "no" / "anna")


class TestSweeping:
    def leave(self, folder, name, age):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
        return path

    def test_only_ours_and_only_old_ones(self, store):
        ours, young = f".{'0a' * 16}.part", f".{'1b' * 16}.part"
        kept = [
            "x.part",
            ".part",
            f".{'0A' * 16}.part",
            f".{'0a' * 16}.part.bak",
            f"{'0a' * 16}.part",
            f".{'0a' * 15}.part",
        ]
        for name in (ours, *kept):
            self.leave(store.folder, name, UNFINISHED_AGE + 5)
        self.leave(store.folder, young, UNFINISHED_AGE - 30)
        (store.folder / f".{'2c' * 16}.part").mkdir()
        store.save(make_someone("anna"))
        assert {path.name for path in store.folder.iterdir()} == {
            *kept, young, f".{'2c' * 16}.part", "anna.safetensors"
        }  # fmt: skip

    def test_by_a_deletion_as_well(self, store):
        store.save(make_someone("anna"))
        old = self.leave(store.folder, f".{'0a' * 16}.part", UNFINISHED_AGE + 5)
        store.delete("anna")
        assert not old.exists()

    def test_the_target_of_a_link_is_left_alone(self, tmp_path):
        precious = self.leave(tmp_path / "else", "precious", 500)
        link = tmp_path / f".{'0a' * 16}.part"
        link.symlink_to(precious)
        os.utime(link, (1, 1), follow_symlinks=False)
        assert sweep(tmp_path) == 0
        assert precious.exists()

    def test_no_folder(self, tmp_path):
        assert sweep(tmp_path / "none") == 0
