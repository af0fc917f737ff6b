"""The index of a safetensors file: eight bytes of header length, a JSON header, the tensors.

The library's ``safe_open`` checks the file and says what is in it. Only the positions are taken from the header itself:
reading through the library would map the whole file, and every page touched stays resident as long as that mapping.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from ..errors import BrokenWeights, NotAnAdapter
from .tensor_bytes import Place

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_HEADER_LIMIT = 100_000_000  # bytes; the library refuses longer ones


def read_safetensors(path: Path, size: int) -> tuple[dict[str, Place], dict[str, str]]:
    """Names and places of the tensors, and the metadata, of a file of ``size`` bytes.

    Raises BrokenWeights for a damaged file, NotAnAdapter for one without usable tensors.
    """
    label = f"'{path.name}'"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _HEADER_LIMIT))
    spans = _find_spans(header) if len(header) == length else {}
    try:
        with cast(Any, safe_open)(path, framework="pt") as handle:  # its stubs have no types
            names: list[str] = handle.keys()
            places = {
                name: _place(f"{label}: tensor '{name[:120]}'", handle.get_slice(name), spans.get(name))
                for name in names
            }
            metadata: dict[str, str] = handle.metadata() or {}
    except SafetensorError as error:
        raise _explain_damage(label, (size, length), spans, error) from error
    if not places:
        raise NotAnAdapter(f"{label} is a safetensors file without a single tensor. Choose another file.")
    return places, metadata


def _find_spans(header: bytes) -> dict[str, tuple[int, int]]:
    """Where in the file each tensor starts and ends, in bytes; nothing where the header cannot be read."""
    data = 8 + len(header)
    try:
        entries = json.loads(header.decode())
        entries.pop("__metadata__", None)
        pairs = {name: entry["data_offsets"] for name, entry in entries.items()}
        return {name: (data + int(start), data + int(end)) for name, (start, end) in pairs.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}


def _place(label: str, piece: Any, span: tuple[int, int] | None) -> Place:
    """``piece`` is the library's view of the tensor, ``span`` what the header says to the same question."""
    stored, shape = str(piece.get_dtype()), tuple(map(int, piece.get_shape()))
    if stored not in _DTYPES:
        raise NotAnAdapter(f"{label} is stored as {stored}, which is not supported. Get the 16-bit or 32-bit version.")
    dtype, count = _DTYPES[stored], math.prod(shape)
    if span is None or span[1] - span[0] != count * dtype.itemsize:
        raise BrokenWeights(f"{label} is described twice and differently in the header. Get the file from its author.")
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return Place(dtype, shape, stride, span[0], count)


def _explain_damage(
    label: str, lengths: tuple[int, int], spans: dict[str, tuple[int, int]], error: SafetensorError
) -> BrokenWeights:
    """Say how many bytes were found and expected, where length and header still tell; ``lengths``: file, header."""
    size, length = lengths
    if length > _HEADER_LIMIT:
        return _damaged(label, f"it announces a header of {length} bytes, at most {_HEADER_LIMIT} are allowed")
    if size < 8 + length:
        return _incomplete(f"{label} ends inside its header: {size} bytes found, more than {8 + length} expected")
    if not spans:
        return _damaged(label, f"its header cannot be read ({error})")
    expected = max(end for _, end in spans.values())
    if size < expected:
        return _incomplete(f"{label} is cut off: {size} bytes found, {expected} expected")
    if size > expected:
        return _damaged(label, f"{expected} bytes expected, {size} found")
    return _damaged(label, f"its header contradicts itself ({error})")


def _incomplete(found: str) -> BrokenWeights:
    return BrokenWeights(f"{found}. The download is incomplete, start it again.")


def _damaged(label: str, what: str) -> BrokenWeights:
    return BrokenWeights(f"{label} is a damaged safetensors file: {what}. Download it again.")
