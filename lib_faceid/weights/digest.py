"""sha256 of weight files, computed once for each state of a file: a gigabyte takes seconds.

They are remembered for this process and, where a host says in which file, for the next ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ..errors import FaceIDError
from ..files import sha256_of, write_file

_MOST = 256  # files; more adapters, encoders and face packs than anybody has
_SHA256 = re.compile(r"[0-9a-f]{64}")
State = tuple[int, int]  # size in bytes, modification time in nanoseconds
Known = OrderedDict[str, tuple[State, str]]


def file_digest(path: Path) -> str:
    """Hex sha256 of the file's bytes; remembered by path, size and modification time. Raises OSError."""
    return _digests.of(path)


def remember_digests(file: Path, root: Path) -> None:
    """Keep digests in this JSON file from now on, and take those that are in it.

    Files in ``root`` are named in it by their path from there, others by a digest of their path. A file that is damaged
    or may not be written is as good as none.
    """
    _digests.remember(file, root)


class _Digests:
    def __init__(self) -> None:
        self._known: Known = OrderedDict()  # by absolute path
        self._file: Path | None = None
        self._root = Path()
        self._one_at_a_time = threading.Lock()  # a panel and a job may ask for the same gigabyte at once

    def remember(self, file: Path, root: Path) -> None:
        with self._one_at_a_time:
            if (file, root) != (self._file, self._root):
                self._file, self._root = file, root
                if self._known:
                    self._write()

    def of(self, path: Path) -> str:
        found = path.resolve()
        with self._one_at_a_time:
            state = _state(found)
            digest = self._recall(found, state)
            if digest is None:
                digest = sha256_of(found)
                self._learn(str(found), state, digest)
                self._write()
            return digest

    def _recall(self, path: Path, state: State) -> str | None:
        """What is known of the file in this state, here or in the JSON file."""
        known = self._known.get(str(path))
        if known is None or known[0] != state:
            known = self._read().get(self._name(str(path)))
        if known is None or known[0] != state:
            return None
        self._learn(str(path), *known)
        return known[1]

    def _learn(self, path: str, state: State, digest: str) -> None:
        self._known[path] = state, digest
        self._known.move_to_end(path)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _name(self, path: str) -> str:
        """Paths name their owner, and the file may be handed on with the models."""
        with suppress(ValueError, OSError):
            return Path(path).relative_to(self._root.resolve()).as_posix()
        return f"sha256:{hashlib.sha256(os.fsencode(path)).hexdigest()}"

    def _read(self) -> Known:
        try:
            content: Any = json.loads(self._file.read_bytes()) if self._file is not None else {}
            rows = cast("dict[str, Any]", content["files"]).items() if content else ()
            return OrderedDict((name, _entry(row)) for name, row in rows)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return OrderedDict()

    def _write(self) -> None:
        """What other processes have learned meanwhile stays; what is known here is newer."""
        if self._file is None:
            return
        merged = self._read()
        for path, known in self._known.items():
            merged[self._name(path)] = known
            merged.move_to_end(self._name(path))
        last = list(merged.items())[-_MOST:]
        content = {"version": 1, "files": {name: [*state, digest] for name, (state, digest) in last}}
        with suppress(OSError, FaceIDError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._file, json.dumps(content, indent=0).encode(), overwrite=True)


def _entry(row: Any) -> tuple[State, str]:
    """Raises ValueError or TypeError."""
    size, mtime_ns, digest = row
    if not isinstance(size, int) or not isinstance(mtime_ns, int) or not _SHA256.fullmatch(digest):
        raise ValueError("no size, time and digest")
    return (size, mtime_ns), digest


def _state(path: Path) -> State:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


_digests = _Digests()
