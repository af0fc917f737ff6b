"""sha256 of files: read once for each state of a file, by this process and by the next."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from lib_faceid.weights import digest


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    (root / "ip-adapter").mkdir(parents=True)
    return root


@pytest.fixture
def store(root):
    return root / "ip-adapter" / ".cache" / "digests.json"


@pytest.fixture
def read(monkeypatch):
    """Names of the files that were read, in order."""
    names = []
    real = digest.sha256_of
    monkeypatch.setattr(digest, "sha256_of", lambda path: names.append(path.name) or real(path))
    return names


@pytest.fixture
def new_process(monkeypatch, store, root):
    """Called, it forgets what is in memory, and remembers digests in the file."""

    def start(remember=True):
        monkeypatch.setattr(digest, "_digests", digest._Digests())
        if remember:
            digest.remember_digests(store, root)

    start(remember=False)
    return start


def add(root, name="a.bin", data=b"weights"):
    path = root / name
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


class TestMemory:
    def test_once_for_each_state(self, root, read, new_process):
        path, expected = add(root)
        assert [digest.file_digest(path) for _ in range(3)] == [expected] * 3
        assert read == ["a.bin"]
        os.utime(path, ns=(1, 1))
        assert digest.file_digest(path) == expected
        _, other = add(root, data=b"WEIGHTS")
        assert digest.file_digest(path) == other
        assert read == ["a.bin"] * 3

    def test_by_whatever_path(self, root, read, new_process, monkeypatch):
        path, expected = add(root)
        monkeypatch.chdir(root)
        assert digest.file_digest(Path("a.bin")) == expected == digest.file_digest(root / "ip-adapter" / ".." / "a.bin")
        assert len(read) == 1
        assert digest.file_digest(path) == expected

    def test_more_than_a_block(self, root, new_process):
        path, expected = add(root, data=bytes(range(256)) * 10_000)
        assert digest.file_digest(path) == expected

    def test_no_file(self, root, new_process):
        with pytest.raises(FileNotFoundError):
            digest.file_digest(root / "gone.bin")

    def test_threads_read_one_file_once(self, root, monkeypatch, new_process):
        path, expected = add(root)
        together, reading, go_on = threading.Barrier(6), [], threading.Event()

        def read(path):
            reading.append(path)
            go_on.wait()
            return expected

        def ask():
            together.wait()
            found.append(digest.file_digest(path))
            go_on.set()

        monkeypatch.setattr(digest, "sha256_of", read)
        found = []
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        while not reading:
            threads[0].join(0.01)
        go_on.set()
        for thread in threads:
            thread.join()
        assert found == [expected] * 6
        assert len(reading) == 1

    def test_a_file_that_is_being_written(self, root, monkeypatch, new_process):
        """What is read while it grows is the digest of no state."""
        path, _ = add(root)
        real = digest.sha256_of

        def grow(path):
            found = real(path)
            with path.open("ab") as file:
                file.write(b"more")
            return found

        monkeypatch.setattr(digest, "sha256_of", grow)
        digest.file_digest(path)
        monkeypatch.setattr(digest, "sha256_of", real)
        assert digest.file_digest(path) == hashlib.sha256(b"weightsmore").hexdigest()


class TestDisk:
    def test_the_next_process_reads_nothing(self, root, read, new_process):
        new_process()
        paths = [add(root, name)[0] for name in ("a.bin", "ip-adapter/b.bin", "../c.bin")]
        expected = [digest.file_digest(path) for path in paths]
        new_process()
        assert [digest.file_digest(path) for path in paths] == expected
        assert read == ["a.bin", "b.bin", "c.bin"]

    @pytest.mark.parametrize("change", ["size", "time", "name"])
    def test_another_state_is_another_file(self, root, read, new_process, change):
        new_process()
        path, _ = add(root)
        digest.file_digest(path)
        state = path.stat()
        if change == "size":
            path.write_bytes(b"weights and more")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        if change == "time":
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        if change == "name":
            path = path.rename(root / "b.bin")
        new_process()
        digest.file_digest(path)
        assert len(read) == 2

    def test_the_models_may_be_moved(self, root, read, new_process, store, monkeypatch):
        new_process()
        path, expected = add(root)
        digest.file_digest(path)
        moved = root.rename(root.with_name("elsewhere"))
        monkeypatch.setattr(digest, "_digests", digest._Digests())
        digest.remember_digests(moved / store.relative_to(root), moved)
        assert digest.file_digest(moved / "a.bin") == expected
        assert len(read) == 1

    def test_paths_of_the_owner_are_not_written(self, root, store, new_process):
        new_process()
        for name in ("a.bin", "../outside.bin"):
            digest.file_digest(add(root, name)[0])
        names = list(json.loads(store.read_text())["files"])
        assert names[0] == "a.bin"
        assert names[1].startswith("sha256:")
        assert "outside" not in store.read_text()
        assert str(root.parent) not in store.read_text()

    def test_what_was_known_before_is_written_as_well(self, root, store, read, new_process):
        path, _ = add(root)
        digest.file_digest(path)
        assert not store.exists()
        digest.remember_digests(store, root)
        new_process()
        digest.file_digest(path)
        assert len(read) == 1

    def test_two_processes_do_not_erase_each_other(self, root, store, read, new_process):
        new_process()
        first = digest._digests
        a, b = add(root, "a.bin")[0], add(root, "b.bin")[0]
        digest.file_digest(a)
        new_process()
        digest.file_digest(b)
        first.of(add(root, "c.bin")[0])
        assert set(json.loads(store.read_text())["files"]) == {"a.bin", "b.bin", "c.bin"}
        assert read == ["a.bin", "b.bin", "c.bin"]

    def test_the_oldest_go(self, root, store, new_process, monkeypatch):
        monkeypatch.setattr(digest, "_MOST", 3)
        new_process()
        for name in "abcd":
            digest.file_digest(add(root, name)[0])
        assert list(json.loads(store.read_text())["files"]) == ["b", "c", "d"]
        assert len(digest._digests._known) == 3

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b"[]",
            b"7",
            b'{"files": []}',
            b'{"files": {"a.bin": 5}}',
            b'{"files": {"a.bin": [7, 1, "x"]}}',
            b'{"files": {"a.bin": ["7", 1, "' + b"0" * 64 + b'"]}}',
            b'{"files": {"a.bin": [7, 1, 5]}}',
            b'{"files": {"a.bin": [7, 1, "' + b"0" * 65 + b'"]}}',
            b'{"files": {"a.bin": [7, 1]}}',
            b"[" * 100_000,
        ],
    )
    def test_damage_is_as_good_as_nothing(self, root, store, read, new_process, content):
        store.parent.mkdir()
        store.write_bytes(content)
        path, expected = add(root)
        os.utime(path, ns=(1, 1))
        new_process()
        assert digest.file_digest(path) == expected
        new_process()
        assert digest.file_digest(path) == expected
        assert len(read) == 1

    def test_a_disk_that_refuses(self, root, store, new_process):
        store.parent.write_bytes(b"a file where the folder should be")
        new_process()
        path, expected = add(root)
        assert digest.file_digest(path) == expected

    def test_no_part_is_left_behind(self, root, store, new_process):
        new_process()
        for name in "abc":
            digest.file_digest(add(root, name)[0])
        assert [path.name for path in store.parent.iterdir()] == ["digests.json"]
