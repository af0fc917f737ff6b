"""Who opens the models: kept open by readers, shared by threads, and memory that does not grow."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lib_faceid.engine.extract import extract
from lib_faceid.errors import NoFaceFound
from lib_faceid.face.backend import load_backend
from lib_faceid.face.choice import LARGEST, FaceChoice
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Attempt

from ..adapters import make_adapter
from ..face_packs import draw_marker, scene
from .world import BIG, LEFT, SMALL, THREE, OnePack, photo


class TestReaders:
    def test_they_are_asked_and_stay_open(self, tmp_path, models):
        plus, readers = make_adapter(tmp_path, "faceid-plusv2").load(), OnePack(models)
        for _ in range(2):
            extract(plus, [THREE], models, readers=readers)
        assert readers.asked == [models.pack("faceid")] * 2
        assert readers.counts == {"encodings": 4, "weight_files": 2}  # the photo and the empty picture, each time
        assert readers.shared.backend._detector._thing is not None

    def test_without_them_the_pack_is_closed_again_even_after_an_error(self, adapter, models, monkeypatch):
        closed = []
        monkeypatch.setattr(FaceFinder, "close", lambda finder: closed.append(finder))
        extract(adapter, [THREE], models)
        with pytest.raises(NoFaceFound):
            extract(adapter, [photo()], models)
        assert len(closed) == 2
        with pytest.raises(NoFaceFound):
            extract(adapter, [photo()], models, readers=OnePack(models))
        assert len(closed) == 2

    def test_two_threads_embed_at_once(self, tmp_path, models):
        """Bit for bit what one thread gives, CLIP included, whoever shares the detector and the recogniser."""
        plus = make_adapter(tmp_path, "faceid-plusv2").load()
        jobs = [
            ([photo(BIG, seed=n), photo(SMALL, LEFT, seed=n + 9)], [LARGEST, FaceChoice("leftmost")]) for n in range(4)
        ]

        def work(job, readers=None):
            return extract(plus, job[0], models, choices=job[1], readers=readers)

        alone = [work(job, OnePack(models)) for job in jobs]
        shared = OnePack(models)
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda job: work(job, shared), jobs * 2))
        for expected, got in zip(alone * 2, together, strict=True):
            assert np.array_equal(expected.raw.embeddings, got.raw.embeddings)
            assert torch.equal(expected.raw.clip_hidden, got.raw.clip_hidden)
            assert expected.notes == got.notes


def test_a_thousand_embeddings_do_not_grow_memory(adapter, models):
    """A photo that stayed would be 48 kB, 48 MB in all; a session's buffers come and go within the bound."""
    psutil = pytest.importorskip("psutil")
    image = scene(128, 128)
    draw_marker(image, (16, 16, 112, 112))
    readers = OnePack(models)
    readers.shared = FaceFinder(load_backend(models.pack("faceid"), "builtin"), [Attempt(128)])

    def embed(times: int) -> int:
        for _ in range(times):
            extract(adapter, [image.copy()], models, readers=readers)
        gc.collect()
        return psutil.Process().memory_info().rss

    before = embed(100)
    assert embed(1000) - before < 16 << 20
