"""The table of contents of a zip container whose members are stored as they are, so that tensors can be read in place.

Structures and field names follow the ZIP specification (PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import BrokenWeights

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_TAIL = _END.size + 0xFFFF  # the end record may be followed by a comment of this length
_DIRECTORY_LIMIT = 8 << 20  # bytes; the largest adapter needs 0.1 MB for 1316 tensors, 8 MB hold about 90,000
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the 64-bit field"
_ENCRYPTED, _SIZES_FOLLOW = 1, 8  # bits of the flags


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the central directory; sizes and offset in bytes."""

    name: str
    flags: int
    method: int
    packed: int
    size: int
    header: int


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's bytes lie in the file."""

    start: int
    size: int


def read_directory(file: BinaryIO, label: str) -> list[Entry]:
    """The central directory in its own order, duplicates included; BrokenWeights where missing, huge or damaged."""
    start, size, count = _find_directory(file, label)
    if size > _DIRECTORY_LIMIT:
        raise _damage(label, f"announces {size} bytes, at most {_DIRECTORY_LIMIT} expected")
    file.seek(start)
    data = file.read(size)
    entries: list[Entry] = []
    position = 0
    try:
        while position < len(data):
            entry, position = _parse_entry(data, position)
            entries.append(entry)
    except (struct.error, ValueError) as error:
        raise _damage(label, "has an unreadable line") from error
    if len(data) != size or len(entries) != count:
        raise _damage(label, f"lists {len(entries)} members where {count} are announced")
    return entries


def locate_members(file: BinaryIO, entries: list[Entry], label: str) -> dict[str, Member]:
    """Check every entry against its local header; BrokenWeights for a member that cannot be read in place."""
    end = file.seek(0, 2)
    members: dict[str, Member] = {}
    for entry in entries:
        if entry.name in members:
            raise _damage(label, f"lists '{entry.name}' twice")
        if entry.flags & _ENCRYPTED:
            raise BrokenWeights(f"{label} is protected by a password. Get the adapter as its author published it.")
        if entry.method != 0 or entry.packed != entry.size:
            found = f"{label} was compressed again ('{entry.name}'), and PyTorch stores tensors uncompressed"
            raise BrokenWeights(f"{found}. Get the adapter as its author published it.")
        members[entry.name] = _locate(file, entry, end, label)
    return members


def _locate(file: BinaryIO, entry: Entry, end: int, label: str) -> Member:
    if entry.header + _LOCAL.size > end:
        raise _damage(label, f"places '{entry.name}' outside the file")
    file.seek(entry.header)
    signature, _, flags, method, _, _, _, packed, _, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    name = file.read(name_length).decode("utf-8", "replace")
    sizes_agree = bool(flags & _SIZES_FOLLOW) or packed in {entry.packed, _FULL32}
    if signature != b"PK\3\4" or (name, method, flags) != (entry.name, entry.method, entry.flags) or not sizes_agree:
        raise _damage(label, f"does not agree with the member '{entry.name}' itself")
    start = entry.header + _LOCAL.size + name_length + extra_length
    if start + entry.size > end:
        raise _damage(label, f"lets '{entry.name}' reach past the end of the file")
    return Member(start, entry.size)


def _find_directory(file: BinaryIO, label: str) -> tuple[int, int, int]:
    """Start, bytes and number of entries of the central directory."""
    end = file.seek(0, 2)
    tail_start = max(0, end - _TAIL)
    file.seek(tail_start)
    tail = file.read()
    position = tail.rfind(b"PK\5\6")
    if position < 0 or len(tail) - position < _END.size:
        found = f"{label} is a PyTorch or zip file without its last part: the download stopped after {end} bytes"
        raise BrokenWeights(f"{found}. The download is incomplete, start it again.")
    _, _, _, _, count, size, start, _ = _END.unpack_from(tail, position)
    at = tail_start + position
    if count == _FULL16 or _FULL32 in {size, start}:
        at, start, size, count = _read_end64(file, at, label)
    if start + size > at:
        raise _damage(label, "lies outside the file")
    return start, size, count


def _read_end64(file: BinaryIO, end: int, label: str) -> tuple[int, int, int, int]:
    """Position of the 64-bit end record, then start, bytes and number of entries of the directory."""
    missing = _damage(label, "has no 64-bit end although it announces one")
    if end < _END64.size + _LOCATOR64.size:
        raise missing
    file.seek(end - _LOCATOR64.size)
    signature, _, at, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if signature != b"PK\6\7" or at > end - _END64.size:
        raise missing
    file.seek(at)
    record, _, _, _, _, _, _, count, size, start = _END64.unpack(file.read(_END64.size))
    if record != b"PK\6\6":
        raise missing
    return at, start, size, count


def _parse_entry(data: bytes, position: int) -> tuple[Entry, int]:
    """The entry at ``position`` and the position behind it; struct.error or ValueError where it is cut off."""
    fields = _CENTRAL.unpack_from(data, position)
    flags, method = fields[3:5]
    packed, size, name_length, extra_length, comment_length = fields[8:13]
    if fields[0] != b"PK\1\2":
        raise ValueError("no central directory entry")
    name_start = position + _CENTRAL.size
    extra_start = name_start + name_length
    name = data[name_start:extra_start].decode("utf-8", "replace")
    extra = data[extra_start : extra_start + extra_length]
    size, packed, header = _widen(extra, (size, packed, fields[16]))
    return Entry(name, flags, method, packed, size, header), extra_start + extra_length + comment_length


def _widen(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset; those that do not fit 32 bits are taken from extra field 1, in that order."""
    if _FULL32 not in values:
        return values
    position = 0
    while position < len(extra):
        field, length = struct.unpack_from("<2H", extra, position)
        if field == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position + 4))
            size, packed, header = (next(wide, value) if value == _FULL32 else value for value in values)
            return size, packed, header
        position += 4 + length
    return values


def _damage(label: str, what: str) -> BrokenWeights:
    return BrokenWeights(f"{label} is damaged: its zip directory {what}. Download it again.")
