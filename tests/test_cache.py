"""A cache on disk: what was put comes back bit for bit or not at all, whatever happens to its folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from lib_faceid.errors import FaceIDError
from lib_faceid.library import cache as cache_module
from lib_faceid.library.cache import DiskCache

A, B, C, D = ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "identities" / ".cache"


@pytest.fixture
def cache(folder):
    return DiskCache(folder)


def numbers(seed=0, count=1000):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def put(cache, key, seed=0, count=1000):
    cache.put(key, {"x": numbers(seed, count)}, {"who": key})


def entries(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


def age(folder, key, seconds):
    """As if the entry was last used then."""
    os.utime(folder / f"{key}.safetensors", (seconds, seconds))


class TestEntries:
    def test_bit_for_bit(self, cache):
        tensors = {
            "floats": torch.tensor([0.0, -0.0, 1e-45, float("nan"), float("inf")]),
            "halves": numbers().to(torch.float16),
            "brains": numbers().to(torch.bfloat16),
            "matrix": numbers().view(10, 100).T,
            "none": torch.zeros(0, 3),
            "one": torch.tensor(3.0),
        }
        cache.put(A, tensors, {"who": "ä\n"})
        entry = cache.get(A)
        assert (entry.key, entry.metadata["who"]) == (A, "ä\n")
        assert set(entry.tensors) == set(tensors)
        for name, tensor in tensors.items():
            found = entry.tensors[name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert found.numpy(force=True).tobytes() == tensor.numpy(force=True).tobytes() if name != "brains" else True
            assert torch.equal(found.nan_to_num(), tensor.nan_to_num())

    def test_none(self, cache):
        assert cache.get(A) is None
        assert cache.find("a") is None
        cache.forget()

    def test_in_place_of_another(self, cache, folder):
        put(cache, A, 1)
        put(cache, A, 2)
        assert torch.equal(cache.get(A).tensors["x"], numbers(2))
        assert entries(folder) == [f"{A}.safetensors"]

    def test_memory_of_its_own(self, cache, folder):
        """Neither the tensors nor the file are held."""
        put(cache, A)
        entry = cache.get(A)
        (folder / f"{A}.safetensors").write_bytes(b"")
        entry.tensors["x"].zero_()
        assert cache.get(A) is None

    def test_by_the_beginning_of_a_key(self, cache):
        put(cache, A)
        assert [cache.find(start) for start in ("aa", A, "b", "", f"{A}a")] == [A, A, None, None, None]

    @pytest.mark.parametrize("key", ["", "../aaaaaaaa", "anna", "AAAAAAAA", "a" * 65, "aaaaaaa"])
    def test_keys_are_digests(self, cache, key):
        with pytest.raises(ValueError, match="digits of a digest"):
            cache.get(key)
        with pytest.raises(ValueError, match="digits of a digest"):
            put(cache, key)

    def test_backups_leave_it_out(self, cache, folder):
        put(cache, A)
        first_line = (folder / "CACHEDIR.TAG").read_text().splitlines()[0]
        assert first_line == "Signature: 8a477f597d28d172789f06886806bc55"


class TestDamage:
    @pytest.mark.parametrize("length", [0, 1, 7, 8, 50, -1])
    def test_cut_off(self, cache, folder, length):
        put(cache, A)
        path = folder / f"{A}.safetensors"
        path.write_bytes(path.read_bytes()[:length])
        assert cache.get(A) is None
        assert not path.exists()

    def test_one_bit(self, cache, folder):
        """Wherever it is: in the text, in a name, in a number. What comes back is what was put, or nothing."""
        words = {"who": "anna", "text": "one face"}
        cache.put(A, {"k": numbers(1, 4), "v": numbers(2, 4).view(2, 2)}, words)
        path = folder / f"{A}.safetensors"
        data, found = path.read_bytes(), 0
        for place in range(len(data)):
            for bit in (0, 5):  # 5 makes other letters of letters, so that the header stays a header
                path.write_bytes(data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :])
                entry = cache.get(A)
                if entry is not None:
                    found += 1
                    assert torch.equal(entry.tensors["k"], numbers(1, 4))
                    assert torch.equal(entry.tensors["v"], numbers(2, 4).view(2, 2))
                    assert {name: entry.metadata[name] for name in words} == words
        assert found < 20  # bits that change nothing, such as a space in the header

    def test_of_another_format(self, cache, folder, monkeypatch):
        monkeypatch.setattr(cache_module, "_FORMAT", "faceid-cache-0")
        put(cache, A)
        monkeypatch.undo()
        assert cache.get(A) is None
        assert entries(folder) == []

    def test_other_files_are_somebody_elses(self, cache, folder):
        put(cache, A)
        for name in ("anna.safetensors", "notes.txt", "AAAAAAAA.safetensors.bak"):
            (folder / name).write_bytes(b"mine")
        (folder / "eeeeeeee.safetensors").mkdir()
        assert cache.get("e" * 8) is None
        DiskCache(folder, limit=1)._trim()
        assert entries(folder) == ["anna.safetensors", "eeeeeeee.safetensors"]
        cache.forget()
        assert {path.name for path in folder.iterdir()} == {
            "CACHEDIR.TAG", "anna.safetensors", "notes.txt", "AAAAAAAA.safetensors.bak", "eeeeeeee.safetensors",
        }  # fmt: skip


class TestLimit:
    def test_what_was_not_used_for_longest_goes(self, folder):
        cache = DiskCache(folder, limit=3 * 4800)  # an entry has 4000 bytes of numbers and a header
        for seconds, key in enumerate((A, B, C), start=1000):
            put(cache, key)
            age(folder, key, seconds)
        assert cache.get(A) is not None  # the oldest, and now the last used
        put(cache, D)
        assert [cache.find(key) for key in (A, B, C, D)] == [A, None, C, D]

    def test_the_sum_stays_below(self, folder):
        cache = DiskCache(folder, limit=20_000)
        for number in range(20):
            put(cache, f"{number:08x}", count=100 * (number + 1))
            assert sum((folder / name).stat().st_size for name in entries(folder)) <= 20_000
        assert f"{19:08x}.safetensors" in entries(folder)

    def test_one_that_is_too_large_drives_nobody_out(self, folder):
        cache = DiskCache(folder, limit=10_000)
        put(cache, A)
        put(cache, B, count=2501)
        assert entries(folder) == [f"{A}.safetensors"]

    def test_what_a_killed_process_left_goes(self, cache, folder):
        put(cache, A)
        old, young = folder / f".{'0' * 32}.part", folder / f".{'1' * 32}.part"
        for path in (old, young):
            path.write_bytes(b"half")
        os.utime(old, (1000, 1000))
        put(cache, B)
        assert (old.exists(), young.exists()) == (False, True)


class TestForgetting:
    def test_all(self, cache, folder):
        for key in (A, B):
            put(cache, key)
        cache.forget()
        assert entries(folder) == []

    def test_those_that_match(self, cache, folder):
        for key in (A, B):
            put(cache, key)
        cache.forget(lambda entry: entry.metadata["who"] == A and torch.equal(entry.tensors["x"], numbers()))
        assert entries(folder) == [f"{B}.safetensors"]

    def test_those_that_cannot_be_read(self, cache, folder):
        put(cache, B)
        (folder / f"{A}.safetensors").write_bytes(b"damaged")
        cache.forget(lambda entry: False)
        assert entries(folder) == [f"{B}.safetensors"]

    def test_looking_is_not_using(self, folder):
        cache = DiskCache(folder)
        put(cache, A)
        age(folder, A, 1000)
        cache.forget(lambda entry: False)
        assert (folder / f"{A}.safetensors").stat().st_mtime == 1000

    def test_one_that_stays_is_said(self, cache, folder, monkeypatch):
        put(cache, A)
        monkeypatch.setattr(Path, "unlink", refuse(PermissionError(13, "Permission denied")))
        with pytest.raises(FaceIDError, match=r"aaaaaaaa\.safetensors cannot be removed \(Permission denied\)"):
            cache.forget()


def refuse(error):
    def raising(*args, **kwargs):
        raise error

    return raising


class TestADiskThatRefuses:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), FaceIDError("no folder")])
    def test_writing_is_said_once(self, cache, folder, monkeypatch, caplog, error):
        put(cache, A)
        monkeypatch.setattr(cache_module, "write_file", refuse(error))
        with caplog.at_level(logging.WARNING, "faceid"):
            put(cache, B)
            put(cache, C)
        reason = getattr(error, "strerror", None) or "no folder"
        assert [record.message for record in caplog.records] == [
            f"FaceID: people are not kept in {folder} ({reason}); they are made again."
        ]
        assert cache.get(A) is not None
        assert cache.get(B) is None

    def test_a_file_where_the_folder_should_be(self, cache, folder, caplog):
        folder.parent.mkdir()
        folder.write_bytes(b"")
        put(cache, A)
        assert cache.get(A) is None
        assert len(caplog.records) == 1
        cache.forget()

    def test_time_of_use_cannot_be_written(self, cache, monkeypatch, caplog):
        put(cache, A)
        monkeypatch.setattr(os, "utime", refuse(OSError(30, "Read-only file system")))
        assert cache.get(A) is not None
        assert caplog.records == []

    def test_an_entry_that_cannot_be_read_just_now_stays(self, cache, folder, monkeypatch):
        put(cache, A)
        monkeypatch.setattr(cache_module, "safe_open", refuse(PermissionError(13, "Permission denied")))
        assert cache.get(A) is None
        monkeypatch.undo()
        assert cache.get(A) is not None

    def test_one_that_cannot_be_removed_is_passed_over(self, folder, monkeypatch, caplog):
        """As on Windows while another process reads it."""
        cache, real = DiskCache(folder, limit=2 * 4800), Path.unlink
        for seconds, key in enumerate((A, B), start=1000):
            put(cache, key)
            age(folder, key, seconds)

        def unlink(path, missing_ok=False):
            if path.stem == A:
                raise PermissionError(13, "Permission denied")
            real(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink)
        put(cache, C)
        (folder / f"{A}.safetensors").write_bytes(b"damaged")
        assert [cache.get(key) is None for key in (A, C)] == [True, False]
        assert caplog.records == []
