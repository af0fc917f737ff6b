"""Where a tensor's bytes lie in a file, and how they become a tensor."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

_MAPPED_FROM = 64 << 10  # bytes; below, a copy is cheaper than a mapping, of which a process has only some 65,000


@dataclass(frozen=True, slots=True)
class Place:
    """A strided tensor at byte ``start`` of a file; ``count`` elements lie from its first to its last one."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    count: int


def read_place(file: BinaryIO, place: Place) -> torch.Tensor:
    """The tensor, contiguous and on the CPU, in memory or in a private file mapping that lives as long as it does.

    Mapping the tensor's own bytes, instead of the whole file as the libraries do, returns its memory to the system with
    it. Raises OSError where the file is shorter than it was.
    """
    if place.count == 0:
        return torch.empty(place.shape, dtype=place.dtype)
    buffer, skipped = _read_buffer(file, place)
    flat = torch.frombuffer(buffer, dtype=place.dtype, count=place.count, offset=skipped)
    return flat.as_strided(place.shape, place.stride).contiguous()


def _read_buffer(file: BinaryIO, place: Place) -> tuple[Any, int]:
    """The bytes, and how many of them to skip."""
    length = place.count * place.dtype.itemsize
    if place.start + length > file.seek(0, 2):
        raise OSError("the file became shorter")
    if length < _MAPPED_FROM or place.start % place.dtype.itemsize:  # in memory of its own every element is aligned
        file.seek(place.start)
        return bytearray(file.read(length)), 0
    skipped = place.start % mmap.ALLOCATIONGRANULARITY
    return mmap.mmap(file.fileno(), skipped + length, access=mmap.ACCESS_COPY, offset=place.start - skipped), skipped
