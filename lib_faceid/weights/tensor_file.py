"""Named tensors in a file, whatever the container, and the sentences for a file that cannot be opened at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import BrokenWeights
from .tensor_bytes import Place, read_place


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and stored dtype of one tensor, known from the file's index alone."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes and last change in nanoseconds: tells whether a file is still the one that was indexed."""

    size: int
    changed: int


class TensorFile:
    """A file of named tensors. It holds the index only: no open file and no tensor between calls.

    ``tensors`` maps flat names to shapes and dtypes; nested dicts of a ``.bin`` are joined by dots
    (``image_proj.proj.0.weight``). ``metadata`` holds the text pairs of a safetensors header, else nothing.
    """

    def __init__(self, path: Path, stamp: Stamp, places: Mapping[str, Place], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(place.shape, place.dtype) for name, place in places.items()
        }
        self.metadata = metadata
        self._stamp = stamp
        self._places = places

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor: stored dtype, contiguous, on the CPU, in memory (or a private file mapping) of its own.

        Raises KeyError for a name that is not in ``tensors`` and BrokenWeights when the file vanished or changed.
        """
        place = self._places[name]
        with self._opened() as file:
            return self._read(file, place)

    def load_many(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) as ``load`` would, opening the file once; no tensor is kept after it was handed out."""
        with self._opened() as file:
            for name in names:
                yield name, self._read(file, self._places[name])

    @contextmanager
    def _opened(self) -> Generator[BinaryIO]:
        with plain_errors(self.path):
            file = self.path.open("rb")
        with file:
            if stamp_file(self.path) != self._stamp:
                raise BrokenWeights(f"'{self.path.name}' was replaced or changed while in use. Load the adapter again.")
            yield file

    def _read(self, file: BinaryIO, place: Place) -> torch.Tensor:
        with plain_errors(self.path):
            return read_place(file, place)


def stamp_file(path: Path) -> Stamp:
    """Size and change time of a regular file; BrokenWeights for anything else, such as a folder or a pipe."""
    with plain_errors(path):
        found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise BrokenWeights(f"'{path}' is a folder. Choose the weight file inside it.")
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        raise BrokenWeights(f"'{path}' is a device or pipe. Choose an ordinary weight file.")
    return Stamp(found.st_size, found.st_mtime_ns)


@contextmanager
def plain_errors(path: Path) -> Generator[None]:
    """Turn what the operating system says about ``path`` into one sentence (BrokenWeights)."""
    try:
        yield
    except FileNotFoundError as error:
        raise BrokenWeights(f"There is no file '{path}'. Check the path, or download the file again.") from error
    except PermissionError as error:
        raise BrokenWeights(f"'{path}' may not be read by this program. Change the permissions of the file.") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise BrokenWeights(f"'{path}' cannot be read: {reason}. Check the disk or copy the file elsewhere.") from error
