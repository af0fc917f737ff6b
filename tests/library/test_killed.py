"""A save that is killed, at every step and at any moment, leaves the old person or the new one."""

from __future__ import annotations

import os
import select
import signal
from itertools import count
from pathlib import Path

import pytest

from lib_faceid.files import UNFINISHED, UNFINISHED_AGE
from lib_faceid.library.person import SavedPerson
from lib_faceid.library.store import Store

from .people import make_one, make_someone, same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
ROUNDS = 20


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


class Half:
    """A file that takes half of what it is given, and the process is gone."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        die()


def kill_in(step):
    """Make this process die in a step of writing."""
    opened, linked = Path.open, Path.hardlink_to

    def open_half(self, mode="r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        return Half(file) if mode == "xb" else file

    def link_and_die(self, target):
        linked(self, target)
        die()

    changes = {
        "write": (Path, "open", open_half),
        "sync": (os, "fsync", die),
        "replace": (Path, "replace", die),
        "link": (Path, "hardlink_to", die),
        "linked": (Path, "hardlink_to", link_and_die),
        "unlink": (Path, "unlink", die),
    }
    setattr(*changes[step])


def in_child(act):
    """Run in a process of its own, which must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)  # reached only when nothing killed it
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.save(make_someone("anna", seed=0))
    store.save(make_someone("bob", seed=1))
    return store


def leftovers(store):
    return [path for path in store.folder.iterdir() if UNFINISHED.fullmatch(path.name)]


def check_sweep(store):
    """Leftovers go with the next save, once they are old enough to be nobody's."""
    left = leftovers(store)
    store.save(make_someone("carl"), overwrite=True)
    assert leftovers(store) == left
    for path in left:
        os.utime(path, (path.stat().st_mtime - UNFINISHED_AGE - 1,) * 2)
    store.save(make_someone("carl"), overwrite=True)
    assert leftovers(store) == []


@pytest.mark.parametrize("step", ["write", "sync", "replace", "unlink"])
def test_in_a_step_of_saving_over_somebody(store, step):
    def act():
        kill_in(step)
        store.save(make_someone("anna", seed=9), overwrite=True)

    in_child(act)
    assert store.names() == ["anna", "bob"]
    assert same(store.load("anna").identities[0], make_one(seed=9 if step == "unlink" else 0))
    assert len(leftovers(store)) == (step != "unlink")
    check_sweep(store)


@pytest.mark.parametrize("step", ["write", "sync", "link", "linked", "unlink"])
def test_in_a_step_of_saving_somebody_new(store, step):
    def act():
        kill_in(step)
        store.save(make_someone("dora", seed=9))

    in_child(act)
    arrived = step in ("linked", "unlink")
    assert store.names() == (["anna", "bob", "dora"] if arrived else ["anna", "bob"])
    if arrived:
        assert same(store.load("dora").identities[0], make_one(seed=9))
    assert len(leftovers(store)) == 1
    check_sweep(store)
    assert not arrived or same(store.load("dora").identities[0], make_one(seed=9))


@pytest.mark.parametrize("step", ["write", "link", "unlink"])
def test_in_a_step_of_renaming(store, step):
    def act():
        kill_in(step)
        store.rename("anna", "dora")

    in_child(act)
    assert "bob" in store.names()
    here = [name for name in store.names() if name != "bob"]
    assert here in (["anna"], ["anna", "dora"], ["dora"])
    assert all(same(store.load(name).identities[0], make_one(seed=0)) for name in here)


def test_at_any_moment(store):
    """A process that saves without pause is killed again and again, each time a little later in its work."""
    versions = [make_one(seed=seed) for seed in range(3)]
    for number in range(ROUNDS):
        said, saying = os.pipe()
        child = os.fork()
        if child == 0:
            for seed in count(number):
                store.save(SavedPerson("anna", (versions[seed % 3],)), overwrite=True)
                os.write(saying, b".")
        assert os.read(said, 1) == b"."  # it is at work
        select.select([], [], [], number % 20 * 0.0003)  # up to 6 ms, more than one save takes
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        os.close(said)
        os.close(saying)
        assert store.names() == ["anna", "bob"]
        assert any(same(store.load("anna").identities[0], version) for version in versions)
        assert same(store.load("bob").identities[0], make_one(seed=1))
    check_sweep(store)
