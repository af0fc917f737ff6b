"""Several processes and threads with one cache: an entry is whole or not there."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import torch

from lib_faceid.library.cache import DiskCache


def numbers(seed):
    return torch.randn(1000, generator=torch.Generator().manual_seed(seed))


def work(folder, start):
    """Puts, gets and forgets, in a cache that is always too full."""
    cache = DiskCache(Path(folder), limit=30_000)
    for number in range(60):
        key = f"{(start + number) % 7:08x}"
        cache.put(key, {"x": numbers(int(key, 16))}, {})
        for other in range(7):
            entry = cache.get(f"{other:08x}")
            assert entry is None or torch.equal(entry.tensors["x"], numbers(other))
        if number % 20 == start:
            cache.forget(lambda entry: entry.key.endswith("3"))


def test_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(str(tmp_path), start)) for start in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.glob(".*.part"))


def test_threads(tmp_path, caplog):
    errors = []

    def guarded(start):
        try:
            work(tmp_path, start)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert caplog.records == []
