"""What the ``data.pkl`` of a PyTorch file builds: references to tensors in nested dicts, and nothing that can act."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from ..errors import BrokenWeights, NotAnAdapter

_RANK_LIMIT = 8  # the largest rank in any adapter is 4
_DEPTH_LIMIT = 16  # nested dicts; published files have two levels, optimiser states five
_NAME_LIMIT = 512  # characters of one key; the longest published one has about 90
_VISIT_LIMIT = 200_000  # values in all dicts together, a shared dict counted as often as it is reached

STORAGE_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """The ``count`` elements of ``dtype`` that the container keeps under ``data/<key>``."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A strided view of a storage; offset and stride count elements and are not negative."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _build_dict() -> dict[str | int, object]:
    return {}


def _build_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorRef | None:
    """``rest``: requires_grad, hooks and, in newer files, metadata (conjugate, negative), which would change values."""
    fits = isinstance(storage, StorageRef) and _is_count(offset) and _is_counts(shape) and _is_counts(stride)
    if not fits or len(shape) != len(stride) or (len(rest) > 2 and rest[2]):
        return None
    return TensorRef(storage, offset, shape, stride)


def _build_parameter(tensor: Any, *_: Any) -> TensorRef | None:
    return tensor if isinstance(tensor, TensorRef) else None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_counts(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    numbers = cast("tuple[object, ...]", value)
    return len(numbers) <= _RANK_LIMIT and all(map(_is_count, numbers))


# What a pickle may call, and with how many values; a builder gives None for values that it does not take.
BUILDERS: dict[str, tuple[Callable[..., object], frozenset[int]]] = {
    "collections.OrderedDict": (_build_dict, frozenset({0})),
    "torch._utils._rebuild_tensor_v2": (_build_tensor, frozenset({6, 7})),
    "torch._utils._rebuild_parameter": (_build_parameter, frozenset({3})),
}


def walk_tensors(tree: object, label: str) -> Iterator[tuple[str, TensorRef]]:
    """Flat names, joined with dots, and tensors of nested dicts in file order.

    Plain values and lists, as training checkpoints hold them, are passed over. Raises BrokenWeights for a tree without
    end or with two tensors of one name, NotAnAdapter for something else than a dict.
    """
    if not isinstance(tree, dict):
        kind = type(tree).__name__.removesuffix("Ref").lower()
        raise NotAnAdapter(f"{label} holds a single {kind} instead of named tensors. Choose an IP-Adapter file.")
    pending: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen: set[str] = set()
    visited = 0
    while pending:
        path, node = pending.pop()
        if isinstance(node, TensorRef):
            name = ".".join(path)
            if name in seen:
                raise BrokenWeights(f"{label} holds two tensors that are both called '{name}'. Download it again.")
            seen.add(name)
            yield name, node
        elif isinstance(node, dict):
            children = cast("dict[str | int, object]", node)
            visited += len(children)
            _ensure_bounded(len(path), visited, children, label)
            pending.extend(((*path, str(key)), value) for key, value in reversed(children.items()))


def _ensure_bounded(depth: int, visited: int, children: dict[str | int, object], label: str) -> None:
    problem = None
    if depth >= _DEPTH_LIMIT:
        problem = f"nests its tensors deeper than {_DEPTH_LIMIT} levels or inside themselves"
    elif visited > _VISIT_LIMIT:
        problem = f"names more than {_VISIT_LIMIT:,} values"
    elif any(len(key) > _NAME_LIMIT if isinstance(key, str) else key.bit_length() > 64 for key in children):
        problem = f"uses a name longer than {_NAME_LIMIT} characters or 64 bits"
    if problem:
        raise BrokenWeights(f"{label} {problem}, which no adapter does. Get the adapter from its author.")
