"""sha256 of weight files, computed once for each state of a file."""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 20
_one_at_a_time = threading.Lock()  # a panel and a job may ask for the same gigabyte at once


def file_digest(path: Path) -> str:
    """Hex sha256 of the file's bytes; remembered for this process by path, size and modification time."""
    state = path.stat()
    with _one_at_a_time:
        return _digest(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
