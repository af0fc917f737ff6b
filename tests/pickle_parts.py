"""Pickle programs by hand, one function for each thing a ``data.pkl`` says; parts are joined as bytes."""

from __future__ import annotations

import struct

MARK, TUPLE, REDUCE, BUILD, STOP, NONE = b"(", b"t", b"R", b"b", b".", b"N"


def program(body: bytes) -> bytes:
    """A whole protocol 2 pickle."""
    return b"\x80\x02" + body + STOP


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*parts: bytes) -> bytes:
    return MARK + b"".join(parts) + TUPLE


def numbers(*values: int) -> bytes:
    return tuple_of(*map(number, values))


def dict_of(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"


def named(module: str, attribute: str) -> bytes:
    """GLOBAL: the object of that name."""
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + REDUCE


def storage(key: str = "0", kind: str = "HalfStorage", count: int = 32) -> bytes:
    return tuple_of(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(data: bytes, shape: bytes, stride: bytes, offset: int = 0, rest: bytes = b"\x89N") -> bytes:
    """``rest``: requires_grad, backward hooks and what may follow."""
    return call(named("torch._utils", "_rebuild_tensor_v2"), data, number(offset), shape, stride, rest)


def small_tensor(data: bytes | None = None) -> bytes:
    """(2, 3) out of the 32 halves of ``data/0``."""
    return tensor(storage() if data is None else data, numbers(2, 3), numbers(3, 1))
