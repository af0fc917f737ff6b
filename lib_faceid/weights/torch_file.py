"""PyTorch zip files, as ``torch.save`` writes them since 1.6.

``<archive>/data.pkl`` describes the tensors, ``<archive>/data/<key>`` holds their bytes, uncompressed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

from ..errors import BrokenWeights, NotAnAdapter, WrongWeights
from .tensor_bytes import Place
from .tensor_refs import TensorRef, walk_tensors
from .torch_pickle import read_pickle
from .zip_members import Entry, Member, locate_members, read_directory

_PICKLE_LIMIT = 4 << 20  # bytes; 1316 tensors take 0.2 MB, a checkpoint of UNet, adapter and optimiser about 2 MB
_EXPANDED_LIMIT = 16 << 20  # bytes; a view that repeats its data may become this large, however small the data


def read_torch(path: Path) -> dict[str, Place]:
    """Names and places of the tensors in a file that starts as a zip container.

    Raises BrokenWeights for a damaged or unsafe file, NotAnAdapter for another kind of zip.
    """
    with path.open("rb") as file:
        return _read_places(file, f"'{path.name}'")


def _read_places(file: BinaryIO, label: str) -> dict[str, Place]:
    entries = read_directory(file, label)
    root = _find_root(entries, label)
    members = locate_members(file, entries, label)
    _ensure_little_endian(file, members.get(f"{root}/byteorder"), label)
    tree = read_pickle(_read_description(file, members[f"{root}/data.pkl"], label), label)
    found = {
        name: _place(ref, members.get(f"{root}/data/{ref.storage.key}"), f"{label}: tensor '{name[:120]}'")
        for name, ref in walk_tensors(tree, label)
    }
    if not found:
        raise NotAnAdapter(f"{label} is a PyTorch file without a single named tensor. Choose an IP-Adapter file.")
    return found


def _find_root(entries: list[Entry], label: str) -> str:
    """The archive's own folder, the one that holds ``data.pkl``."""
    names = {entry.name for entry in entries}
    roots = sorted(root for root, _, rest in (name.partition("/") for name in names) if rest == "data.pkl")
    if not roots:
        raise _explain_zip(names, label)
    if len(roots) > 1:
        raise BrokenWeights(f"{label} holds {len(roots)} PyTorch archives, one expected. Get the original file.")
    if f"{roots[0]}/constants.pkl" in names:
        raise NotAnAdapter(f"{label} is a TorchScript program, not a file of tensors. Choose an IP-Adapter file.")
    return roots[0]


def _explain_zip(names: set[str], label: str) -> WrongWeights:
    inside = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pth", ".pt", ".ckpt")))
    if inside:
        return NotAnAdapter(f"{label} is a zip archive with '{inside[0]}' inside. Unpack it and choose that file.")
    if names and all(name.endswith(".npy") for name in names):
        return NotAnAdapter(f"{label} is a NumPy archive (.npz). Choose an IP-Adapter file, .safetensors or .bin.")
    return NotAnAdapter(f"{label} is a zip archive of {len(names)} files, not PyTorch. Choose an IP-Adapter file.")


def _ensure_little_endian(file: BinaryIO, member: Member | None, label: str) -> None:
    if member is None:  # files of before PyTorch 2.1 do not say
        return
    order = _read_start(file, member, 8)
    if order == b"big":
        raise BrokenWeights(f"{label} was written on a big-endian machine. Get the adapter as .safetensors.")
    if order != b"little":
        found = order.decode("ascii", "backslashreplace")
        raise BrokenWeights(f"{label} is damaged: its byte order is '{found}', 'little' expected. Download it again.")


def _read_description(file: BinaryIO, member: Member, label: str) -> bytes:
    if member.size > _PICKLE_LIMIT:
        found = f"{label} needs {member.size} bytes to describe its tensors, at most {_PICKLE_LIMIT} expected"
        raise BrokenWeights(f"{found}. Get the adapter from its author.")
    return _read_start(file, member, _PICKLE_LIMIT)


def _read_start(file: BinaryIO, member: Member, limit: int) -> bytes:
    file.seek(member.start)
    return file.read(min(member.size, limit))


def _place(ref: TensorRef, member: Member | None, label: str) -> Place:
    """Check a tensor against the bytes that are there; Python's integers cannot overflow on the way."""
    storage, width = ref.storage, ref.storage.dtype.itemsize
    if member is None:
        raise _misplaced(label, f"has no data in the file ({storage.key[:40]!r} expected)")
    if storage.count * width > member.size:
        raise _misplaced(label, f"needs {storage.count * width} bytes of data, {member.size} found")
    reach = 1 + sum((size - 1) * step for size, step in zip(ref.shape, ref.stride, strict=True))
    count = 0 if 0 in ref.shape else reach
    if ref.offset + count > storage.count:
        raise _misplaced(label, f"uses {ref.offset + count} elements, {storage.count} found")
    unfolded = math.prod(ref.shape) * width
    if unfolded > max(member.size, _EXPANDED_LIMIT):
        raise _misplaced(label, f"unfolds {member.size} bytes of data to {unfolded}")
    return Place(storage.dtype, ref.shape, ref.stride, member.start + ref.offset * width, count)


def _misplaced(label: str, what: str) -> BrokenWeights:
    return BrokenWeights(f"{label} {what}: the file is damaged. Download it again.")
