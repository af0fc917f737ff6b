"""Face packs kept open: opened once, shared, at most two, and given back; what ran is counted."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lib_faceid.engine import readers as readers_module
from lib_faceid.engine.readers import Readers, Runs
from lib_faceid.errors import WrongWeights
from lib_faceid.face.backend import load_backend
from lib_faceid.face.opened import Opened
from lib_faceid.face.pipeline import FaceFinder

from .face_packs import draw_marker, make_pack, recogniser, save, scene

BOX = (40, 160, 200, 320)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("packs") / "buffalo_l")


@pytest.fixture
def opened(monkeypatch):
    """Names of the packs that were opened, in order."""
    names = []
    real = readers_module.load_backend
    monkeypatch.setattr(readers_module, "load_backend", lambda folder: names.append(folder.name) or real(folder))
    return names


def face(seed=0):
    image = scene(640, 480, seed)
    draw_marker(image, BOX)
    return image


def sessions(finder):
    """How many of a finder's models are open."""
    values = vars(finder.backend._backend).values()
    return sum(value._thing is not None for value in values if isinstance(value, Opened))


class TestFinders:
    def test_opened_once_and_on_first_use(self, pack, opened):
        readers = Readers()
        assert opened == []
        finder = readers.finder(pack)
        assert sessions(finder) == 0
        finder.find(face())
        assert sessions(finder) == 2
        assert readers.finder(pack) is finder
        assert opened == ["buffalo_l"]

    def test_finds_what_a_finder_of_its_own_finds(self, pack):
        finder, alone = Readers().finder(pack), FaceFinder(load_backend(pack))
        assert (finder.backend.name, finder.backend.note) == (alone.backend.name, alone.backend.note)
        ours, theirs = finder.find(face()).faces, alone.find(face()).faces
        assert finder.backend.providers == alone.backend.providers
        assert len(ours) == len(theirs) == 1
        assert np.array_equal(ours[0].vector, theirs[0].vector)
        assert np.array_equal(ours[0].points, theirs[0].points)

    def test_a_path_by_another_way(self, pack, monkeypatch):
        readers = Readers()
        monkeypatch.chdir(pack.parent)
        assert readers.finder(type(pack)(pack.name)) is readers.finder(pack)

    def test_another_file_under_the_name_of_one(self, tmp_path):
        pack, readers = make_pack(tmp_path / "pack"), Readers()
        first = readers.finder(pack)
        first.find(face())
        save(recogniser(normalises=True), pack / "w600k_r50.onnx")
        assert readers.finder(pack) is not first
        assert sessions(first) == 0
        second = readers.finder(pack)
        os.utime(pack / "det_10g.onnx", ns=(1, 1))
        assert readers.finder(pack) is not second

    def test_a_pack_that_was_damaged_meanwhile(self, tmp_path):
        pack, readers = make_pack(tmp_path / "pack"), Readers()
        first = readers.finder(pack)
        first.find(face())
        data = (pack / "w600k_r50.onnx").read_bytes()
        (pack / "w600k_r50.onnx").unlink()
        with pytest.raises(WrongWeights, match="no recogniser"):
            readers.finder(pack)
        assert sessions(first) == 0
        (pack / "w600k_r50.onnx").write_bytes(data)
        assert len(readers.finder(pack).find(face()).faces) == 1

    def test_no_folder(self, tmp_path):
        with pytest.raises(WrongWeights, match="does not exist"):
            Readers().finder(tmp_path / "gone")

    def test_two_packs_stay_open(self, tmp_path, opened):
        packs = [make_pack(tmp_path / name) for name in ("a", "b", "c")]
        readers = Readers()
        finders = [readers.finder(pack) for pack in packs[:2]]
        for finder in finders:
            finder.find(face())
        assert readers.finder(packs[0]) is finders[0]  # so that b is the one not used for longest
        readers.finder(packs[2])
        assert [sessions(finder) for finder in finders] == [2, 0]
        assert readers.finder(packs[0]) is finders[0]
        readers.finder(packs[1])
        assert opened == ["a", "b", "c", "b"]

    def test_release(self, pack, opened):
        readers = Readers()
        finder = readers.finder(pack)
        finder.find(face())
        readers.release()
        assert sessions(finder) == 0
        gone = weakref.ref(finder)
        del finder
        gc.collect()
        assert gone() is None
        assert len(readers.finder(pack).find(face()).faces) == 1
        assert opened == ["buffalo_l"] * 2
        assert readers.runs.detections == 2
        readers.release()
        readers.release()


class TestThreads:
    def test_open_one(self, pack, opened):
        readers, start = Readers(), threading.Barrier(6)

        def ask(_):
            start.wait()
            return readers.finder(pack)

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(ask, range(6)))) == 1
        assert opened == ["buffalo_l"]

    def test_find_while_another_gives_back(self, pack):
        readers = Readers()
        expected = [FaceFinder(load_backend(pack)).find(face(seed)).faces[0].vector for seed in range(4)]

        def look(number):
            if number % 5 == 4:
                readers.release()
            return readers.finder(pack).find(face(number % 4)).faces[0].vector

        with ThreadPoolExecutor(4) as pool:
            for number, vector in enumerate(pool.map(look, range(24))):
                np.testing.assert_allclose(vector, expected[number % 4], atol=1e-4)
        assert readers.runs.embeddings == 24


class TestCounting:
    def test_what_ran(self, pack):
        readers = Readers()
        assert readers.runs == Runs(0, 0, 0, 0)
        two = face()
        draw_marker(two, (400, 120, 600, 320))
        readers.finder(pack).find(two)
        assert readers.runs == Runs(detections=1, embeddings=2)
        readers.count("encodings", 2)
        readers.count("weight_files")
        assert readers.runs == Runs(1, 2, 2, 1)

    def test_a_box_needs_no_detector(self, pack):
        readers = Readers()
        readers.finder(pack).in_box(face(), BOX)
        assert readers.runs == Runs(embeddings=1)

    def test_what_was_handed_out_does_not_change(self, pack):
        readers = Readers()
        before = readers.runs
        readers.count("encodings")
        assert before == Runs()

    def test_threads(self):
        readers = Readers()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: readers.count("detections"), range(2000)))
        assert readers.runs.detections == 2000
