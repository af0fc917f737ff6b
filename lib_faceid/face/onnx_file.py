"""Inputs, outputs and first node names of an .onnx file, without the onnx package and without reading the weights.

ONNX files are one protobuf message (onnx.proto3): fields are a key (number << 3 | wire type) and a value; weights are
length-prefixed and skipped, so a file of 260 MB costs a few milliseconds. A file that was cut off shows itself because
a length points behind its end.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BrokenWeights

FIRST_NODES = 8  # insightface's model_zoo looks at as many for the names Sub and Mul

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_NAME, _TENSOR_NAME, _VALUE_NAME = 3, 8, 1
_SHAPE_PATH = (2, 1, 2)  # ValueInfoProto.type, TypeProto.tensor_type, Tensor.shape
_SHAPE_DIM, _DIM_VALUE = 1, 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_AGAIN = "Download the face pack again."


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output; a dimension that is not fixed is None."""

    name: str
    dims: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What tells models apart. Weights that old files also list as inputs are left out of ``inputs``."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    first_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes ``start`` to ``end`` of the file: a message, a text or packed numbers."""

    start: int
    end: int


class _MalformedError(ValueError):
    """The bytes are not protobuf; the text says where it stops being it."""


def read_model_shape(path: Path) -> ModelShape:
    """Raises BrokenWeights, naming the file, when it is empty, cut off, a web page, or not ONNX."""
    try:
        if path.stat().st_size == 0:
            raise BrokenWeights(f"{path} is empty: it has 0 bytes. {_AGAIN}")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _ensure_no_text(path, data[:64])
            return _read_model(data)
    except OSError as error:
        raise BrokenWeights(f"{path} cannot be read: {error.strerror or error}.") from error
    except _MalformedError as error:
        raise BrokenWeights(f"{path} is damaged or was cut off: {error}. {_AGAIN}") from error


def _ensure_no_text(path: Path, head: bytes) -> None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        raise BrokenWeights(
            f"{path} is a web page, not an ONNX model. Download the file itself, not the page about it."
        )
    if start.startswith(b"version https://git-lfs"):
        raise BrokenWeights(
            f"{path} is a git-lfs pointer, not an ONNX model. Run 'git lfs pull', or download the file."
        )


def _read_model(data: mmap.mmap) -> ModelShape:
    graphs = [value for number, value in _fields(data, _Span(0, len(data))) if number == _MODEL_GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], _Span):
        raise _MalformedError("it holds no ONNX graph")
    inputs: list[Port] = []
    outputs: list[Port] = []
    nodes: list[str] = []
    weights: set[str] = set()
    for number, value in _fields(data, graphs[0]):
        if not isinstance(value, _Span):
            continue
        if number == _GRAPH_NODE and len(nodes) < FIRST_NODES:
            nodes.append(_text(data, value, _NODE_NAME))
        elif number == _GRAPH_INITIALIZER:
            weights.add(_text(data, value, _TENSOR_NAME))
        elif number == _GRAPH_INPUT:
            inputs.append(_read_port(data, value))
        elif number == _GRAPH_OUTPUT:
            outputs.append(_read_port(data, value))
    return ModelShape(tuple(port for port in inputs if port.name not in weights), tuple(outputs), tuple(nodes))


def _read_port(data: mmap.mmap, span: _Span) -> Port:
    shape: _Span | None = span
    for wanted in _SHAPE_PATH:
        shape = _child(data, shape, wanted) if shape else None
    dims = [value for number, value in _fields(data, shape) if number == _SHAPE_DIM] if shape else []
    return Port(_text(data, span, _VALUE_NAME), tuple(_dim(data, dim) for dim in dims if isinstance(dim, _Span)))


def _dim(data: mmap.mmap, span: _Span) -> int | None:
    values = [value for number, value in _fields(data, span) if number == _DIM_VALUE and isinstance(value, int)]
    return values[-1] if values and 0 < values[-1] < 1 << 31 else None


def _child(data: mmap.mmap, span: _Span, wanted: int) -> _Span | None:
    for number, value in _fields(data, span):
        if number == wanted and isinstance(value, _Span):
            return value
    return None


def _text(data: mmap.mmap, span: _Span, wanted: int) -> str:
    child = _child(data, span, wanted)
    return data[child.start : child.end].decode("utf-8", "replace") if child else ""


def _fields(data: mmap.mmap, span: _Span) -> Iterator[tuple[int, int | _Span]]:
    """(field number, number or span) of one message. Raises _MalformedError where the bytes stop making sense."""
    at = span.start
    while at < span.end:
        key, at = _varint(data, at, span.end)
        number, kind = key >> 3, key & 7
        if not number:
            raise _MalformedError(f"byte {at - 1} begins no field")
        if kind == _VARINT:
            value, at = _varint(data, at, span.end)
            yield number, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _BYTES:
            length, at = _varint(data, at, span.end)
        elif not length:
            raise _MalformedError(f"byte {at - 1} begins no field")
        if at + length > span.end:
            raise _MalformedError(f"at byte {at} it announces {length} more bytes and has {span.end - at}")
        yield number, _Span(at, at + length)
        at += length


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # 64 bits in groups of 7
        if at >= end:
            raise _MalformedError(f"it ends inside a number at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _MalformedError(f"a number before byte {at} has more than 64 bits")
