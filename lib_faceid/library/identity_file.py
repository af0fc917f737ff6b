"""The file of a saved person: a .safetensors with text metadata, checked by its header before anything is read.

Only tensors that are asked for are read, so a file costs no more memory than the person in it, whatever else it holds.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from ..errors import BadIdentity, FaceIDError
from ..files import write_file

FORMAT = "faceid-identity-2"
OLD_FORMAT = "faceid-identity-1"  # one base, its tensors and values without the base before their names
# An SD1.5 person of Full Face from 16 photos side by side (4112 tokens) takes 820 MB; nobody has a larger one.
MAX_BYTES = 1 << 30
# A person of FaceID Plus v2 for both bases has 354 tensors, about 90 bytes each in the header.
MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Stored:
    """Type, shape and place of a tensor; ``start`` and ``end`` are bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class PersonFile:
    """An open file whose header is sound: every tensor lies inside the file and is as long as its shape says."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    handle: BinaryIO

    @property
    def is_old(self) -> bool:
        """True for format 1."""
        return self.metadata["format"] == OLD_FORMAT

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises KeyError when there is no such tensor."""
        return self.tensors[name].shape

    def floats(self, names: Sequence[str]) -> dict[str, Tensor]:
        """float32 tensors by name, in one block of memory; KeyError or ValueError for what is not there or no number.

        Read in file order and checked in one go: hundreds of small tensors cost milliseconds that way, not tens.
        """
        places = [self.tensors[name] for name in names]
        if any(place.dtype != "F32" for place in places):
            raise ValueError("it holds values that are not float32 numbers")
        block = torch.empty(sum(math.prod(place.shape) for place in places), dtype=torch.float32, device="cpu")
        window, found, position = memoryview(cast(Any, block.numpy())).cast("B"), dict[str, Tensor](), 0
        for name, place in sorted(zip(names, places, strict=True), key=lambda pair: pair[1].start):
            count = math.prod(place.shape)
            self._read_into(window[4 * position : 4 * (position + count)], place)
            found[name] = block[position : position + count].view(place.shape)
            position += count
        if position and not all(math.isfinite(float(value)) for value in torch.aminmax(block)):
            raise ValueError("it holds values that are not float32 numbers")
        return found

    def picture(self, name: str, side: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 of at most ``side`` px, or None where there is none. Raises ValueError for anything else."""
        place = self.tensors.get(name)
        if place is None:
            return None
        if place.dtype != "U8" or len(place.shape) != 3 or place.shape[2] != 3 or not 0 < max(place.shape) <= side:
            raise ValueError(f"{name} is {place.dtype} {place.shape}, expected a picture of at most {side} px")
        pixels = np.empty(place.shape, np.uint8)
        self._read_into(memoryview(cast(Any, pixels)).cast("B"), place)
        return pixels

    def _read_into(self, window: memoryview, place: Stored) -> None:
        self.handle.seek(place.start)
        if cast(Any, self.handle).readinto(window) != len(window):
            raise ValueError("it became shorter while it was read")


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, overwrite: bool
) -> Path:
    """Write the tensors and the metadata. Raises FaceIDError when the name is taken, or the disk refuses."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size + MAX_HEADER > MAX_BYTES:
        raise BadIdentity(
            f"{Path(path).name} would take {size >> 20} MB; a person of at most {MAX_BYTES >> 20} MB can be saved. Use "
            "fewer photos, or combine them by mean."
        )
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": FORMAT, **metadata})
    try:
        return write_file(path, data, overwrite=overwrite, durable=True)
    except OSError as error:
        reason = error.strerror or error
        raise FaceIDError(f"{Path(path).name} cannot be written ({reason}). Check the disk and its rights.") from error


@contextmanager
def opened(path: Path) -> Generator[PersonFile, None, None]:
    """The file, open. Raises BadIdentity when it is missing, unreadable, damaged or of another format, and for every
    KeyError, ValueError and the like that reading its parts raises.
    """
    try:
        with path.open("rb") as handle:
            yield _checked(path, handle)
    except FileNotFoundError as error:
        raise BadIdentity(f"There is no saved person at {path}.") from error
    except OSError as error:
        reason = error.strerror or error
        raise BadIdentity(f"{path.name} cannot be read ({reason}). Choose another file.") from error
    except BadIdentity:
        raise
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BadIdentity(f"{path.name} is damaged: {reason}. Save the person again from the photos.") from error


def _checked(path: Path, handle: BinaryIO) -> PersonFile:
    size = os.fstat(handle.fileno()).st_size
    if size > MAX_BYTES:
        raise BadIdentity(
            f"{path.name} has {size >> 20} MB; a saved person has at most {MAX_BYTES >> 20}. Choose another file."
        )
    length = int.from_bytes(handle.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise _unreadable(path, f"{size} bytes that begin with a header of {length}")
    try:
        header: object = json.loads(handle.read(length).decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "its header is no JSON") from error
    if not isinstance(header, dict):
        raise _unreadable(path, "its header is no list of tensors")
    entries = cast("dict[str, Any]", header)
    metadata = _text_only(entries.pop("__metadata__", None))
    if metadata.get("format") not in (FORMAT, OLD_FORMAT):
        raise BadIdentity(
            f"{path.name} is not a saved person: its format is {metadata.get('format', 'not given')[:60]!r}, expected "
            f"{FORMAT!r}. Choose a file that was saved from the FaceID panel or with Identity.save."
        )
    tensors = {name: _stored(name, entry, 8 + length, size) for name, entry in entries.items()}
    return PersonFile(tensors, metadata, handle)


def _unreadable(path: Path, found: str) -> BadIdentity:
    return BadIdentity(f"{path.name} is not a readable .safetensors file ({found}). Choose another file.")


def _text_only(found: object) -> dict[str, str]:
    items = cast("dict[str, object]", found).items() if isinstance(found, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def _stored(name: str, entry: Any, data: int, size: int) -> Stored:
    """Raises KeyError, TypeError or ValueError for an entry that is none; ``data`` is where tensors begin."""
    shape = tuple(int(side) for side in entry["shape"])
    start, end = (data + int(offset) for offset in entry["data_offsets"])
    width = {"F32": 4, "U8": 1}.get(entry["dtype"])
    if not data <= start <= end <= size:
        raise ValueError(f"{name[:60]} lies outside the file, which is cut off")
    if any(side < 0 for side in shape) or (width is not None and end - start != width * math.prod(shape)):
        raise ValueError(f"{name[:60]} has {end - start} bytes and the shape {shape[:8]}")
    return Stored(str(entry["dtype"]), shape, start, end)
