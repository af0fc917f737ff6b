"""Threads share what was opened, it is given back, and nothing global is changed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lib_faceid.face.backend import Backend, Prefer, load_backend
from lib_faceid.face.opened import Opened
from lib_faceid.face.pipeline import FaceFinder

from ..face_packs import draw_marker, scene
from ..fresh_python import run_python
from .finders import BOTH
from .scenes import busy_scene


@pytest.mark.parametrize("prefer", BOTH)
def test_threads_share_a_finder(pack: Path, prefer: Prefer) -> None:
    photos = [busy_scene(seed) for seed in range(6)]
    alone = [FaceFinder(load_backend(pack, prefer)).find(photo).faces for photo in photos]
    shared = FaceFinder(load_backend(pack, prefer))
    with ThreadPoolExecutor(6) as pool:
        together = [found.faces for found in pool.map(shared.find, photos * 3)]
    for expected, got in zip(alone * 3, together, strict=True):
        assert len(expected) == len(got)
        for a, b in zip(expected, got, strict=True):
            assert np.array_equal(a.box, b.box)
            np.testing.assert_allclose(a.vector, b.vector, atol=1e-4)


@pytest.mark.parametrize("prefer", BOTH)
def test_a_threshold_of_one_thread_is_not_another_threads(pack: Path, prefer: Prefer) -> None:
    backend, photo = load_backend(pack, prefer), scene(320, 320)
    draw_marker(photo, (64, 64, 224, 224), score=0.6)
    with ThreadPoolExecutor(4) as pool:
        thresholds = [0.3, 0.9] * 20
        counts = [len(found.scores) for found in pool.map(lambda at: backend.detect(photo, 320, at), thresholds)]
    assert counts == [1, 0] * 20


def test_a_thing_is_opened_once_however_many_threads_ask() -> None:
    opened: list[object] = []
    ready = threading.Barrier(8)

    def open_slowly() -> object:
        opened.append(object())
        return opened[-1]

    def ask(thing: Opened[object]) -> object:
        ready.wait()
        return thing.get()

    thing = Opened(open_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, [thing] * 8)) == {opened[0]}
    thing.close()
    assert thing.get() is opened[1]
    assert len(opened) == 2


def test_a_failure_to_open_is_not_remembered() -> None:
    answers = iter([OSError("disk"), "model"])

    def open_thing() -> object:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    thing = Opened(open_thing)
    with pytest.raises(OSError, match="disk"):
        thing.get()
    assert thing.get() == "model"


@pytest.mark.parametrize("prefer", BOTH)
def test_models_are_opened_on_first_use_and_given_back(pack: Path, tmp_path: Path, prefer: Prefer) -> None:
    backend = load_backend(pack, prefer)
    assert _open_models(backend) == []
    FaceFinder(backend).find(busy_scene(0))
    assert len(_open_models(backend)) == 2
    backend.close()
    assert _open_models(backend) == []
    assert len(backend.detect(busy_scene(0), 640, 0.5).scores) > 2


def _open_models(backend: Backend) -> list[object]:
    things = [value for value in vars(backend).values() if isinstance(value, Opened)]
    return [thing._thing for thing in things if thing._thing is not None]


USE = """
import sys, warnings
from pathlib import Path
from lib_faceid.face.backend import load_backend
import cv2, numpy as np
backend = load_backend(Path(sys.argv[1]), sys.argv[2])
before = sys.stdout, list(warnings.filters), cv2.getNumThreads()
photo = np.zeros((320, 320, 3), np.uint8)
photo[64:224, 64:224] = (229, 26, 229)
found = backend.detect(photo, 320, 0.5)
backend.embed(photo, found.points[0])
backend.close()
assert (sys.stdout, list(warnings.filters), cv2.getNumThreads()) == before
assert sys.stdout is sys.__stdout__
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("prefer", BOTH)
def test_nothing_is_printed_and_nothing_global_is_changed(pack: Path, prefer: Prefer) -> None:
    result = run_python("-c", USE, str(pack), prefer)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
