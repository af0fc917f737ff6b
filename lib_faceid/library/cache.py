"""Results on disk, so that the next process need not make them again: a folder of its own, bounded, free to be deleted.

An entry is one .safetensors file under its key, with text beside the tensors. Vectors, tokens, keys and values belong
here; photos, features of photos and names of files do not. Several processes may share the folder.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import FaceIDError
from ..files import sweep, write_file

LIMIT = 256 * 1024 * 1024  # bytes: some 20 people of 4 tokens for SDXL, or 120 for SD1.5
_FORMAT = "faceid-cache-1"
_OURS = re.compile(r"[0-9a-f]{8,64}\.safetensors")
# https://bford.info/cachedir/: backup programs leave folders with this file out.
_TAG_NAME = "CACHEDIR.TAG"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by FaceID to save time. This folder may be deleted.\n"
logger = logging.getLogger("faceid")


class _DamagedError(Exception):
    """A file of ours is not, or no longer, an entry."""


@dataclass(frozen=True, eq=False)
class Entry:
    """``tensors`` in memory of their own, on the CPU, bit for bit as they were put; ``metadata`` is text by name."""

    key: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


class DiskCache:
    """Entries in a folder, which is made when the first is put; those not used for longest go when it is full.

    A disk that is full or may not be written to costs time and nothing else: it is logged once. Threads may share it.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:  # bytes
        self.folder, self._limit, self._is_said = folder, limit, False

    def get(self, key: str) -> Entry | None:
        """The entry, used just now; None where there is none. A damaged one is removed."""
        path = self._path(key)
        try:
            entry = _read(path)
        except _DamagedError:
            _discard(path)
            return None
        if entry is not None:
            with suppress(OSError):
                os.utime(path)
        return entry

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Keep an entry, in place of another one with its key. One larger than the whole cache is not kept."""
        ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
        words = {**metadata, "format": _FORMAT, "key": key}
        words["checksum"] = _checksum(ready, words)
        if sum(tensor.nbytes for tensor in ready.values()) <= self._limit:
            self._try(lambda: self._write(self._path(key), save(ready, metadata=words)))

    def find(self, start: str) -> str | None:
        """The key that begins with these digits."""
        return next((path.stem for path in self._files() if path.stem.startswith(start)), None) if start else None

    def forget(self, match: Callable[[Entry], bool] | None = None) -> None:
        """Remove the entries that match, or all; those that cannot be read are removed as well.

        Raises FaceIDError when one is still there: somebody wants to be sure that it is gone.
        """
        for path in self._files():
            try:
                entry = _read(path) if match is not None else None
            except _DamagedError:
                entry = None
            if match is None or entry is None or match(entry):
                _remove(path)

    def _path(self, key: str) -> Path:
        name = f"{key}.safetensors"
        if not _OURS.fullmatch(name):
            raise ValueError(f"a key is 8 to 64 digits of a digest, found {key!r}")
        return self.folder / name

    def _files(self) -> list[Path]:
        """Our entries, by name. Whatever else lies in the folder is somebody else's."""
        try:
            return sorted(path for path in self.folder.iterdir() if _OURS.fullmatch(path.name) and path.is_file())
        except OSError:
            return []

    def _write(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _TAG_NAME).exists():
            write_file(self.folder / _TAG_NAME, _TAG.encode(), overwrite=True)
        write_file(path, data, overwrite=True)
        self._trim()

    def _trim(self) -> None:
        """Remove what was not used for longest until the rest fits, and what killed processes left behind."""
        states = [(path, state) for path in self._files() if (state := _stat(path)) is not None]
        total = sum(state.st_size for _, state in states)
        for path, state in sorted(states, key=lambda item: item[1].st_mtime_ns):
            if total <= self._limit:
                break
            _discard(path)
            total -= state.st_size
        sweep(self.folder)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, FaceIDError) as error:  # FaceIDError: another process removed the folder just now
            if not self._is_said:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                logger.warning("FaceID: people are not kept in %s (%s); they are made again.", self.folder, reason)
            self._is_said = True


def _read(path: Path) -> Entry | None:
    """None for a file that is missing or may not be read just now; _DamagedError for one that will never be."""
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:  # safetensors ships no types
            metadata: dict[str, str] = dict(file.metadata() or {})
            names: list[str] = list(file.keys())
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in names}
    except OSError:
        return None
    except SafetensorError as error:
        raise _DamagedError(str(error)) from error
    if metadata.get("format") != _FORMAT or metadata.pop("checksum", "") != _checksum(tensors, metadata):
        raise _DamagedError("it is not as it was written")
    if metadata.pop("key", "") != path.stem:
        raise _DamagedError("it was written under another key")
    return Entry(path.stem, tensors, metadata)


def _checksum(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> str:
    """CRC-32 of everything: a power cut can leave a file of the right length with holes in it."""
    total = zlib.crc32(repr(sorted(words.items())).encode())
    for name, tensor in sorted(tensors.items()):
        data = cast(Any, tensor.reshape(-1).view(torch.uint8).numpy())
        total = zlib.crc32(data, zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total))
    return f"{total:08x}"


def _discard(path: Path) -> None:
    """Another process may have removed it, or be reading it; then it goes next time."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FaceIDError(
            f"{path} cannot be removed ({error.strerror}), and it holds what was made of a person's photos. Close "
            "other programs that use the folder, check its rights, or delete it by hand."
        ) from error


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
