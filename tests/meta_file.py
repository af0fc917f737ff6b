"""A weight file with names, shapes and dtypes alone: published sizes cost nothing, and there is no tensor to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from lib_faceid.weights.detect import Recognised, recognise
from lib_faceid.weights.read import TensorFile, TensorInfo

from .layouts import NARROW, Layout, layout

UNKNOWN = "0" * 64  # the digest of no published file


@dataclass(frozen=True)
class MetaFile:
    """The half of TensorFile that recognition may use."""

    path: Path
    tensors: Mapping[str, TensorInfo]


def meta_file(
    shapes: Mapping[str, tuple[int, ...]],
    path: str = "models/adapter.bin",
    dtype: torch.dtype | Callable[[str], torch.dtype] = torch.float16,
) -> TensorFile:
    """A file with these tensors; ``dtype`` is one for all, or a function of the name."""
    infos = {
        name: TensorInfo(shape, dtype if isinstance(dtype, torch.dtype) else dtype(name))
        for name, shape in shapes.items()
    }
    return cast(TensorFile, MetaFile(Path(path), infos))


def unasked() -> str:
    """A digest that must not be read."""
    raise AssertionError("the digest was read although the tensors leave no question")


def narrow(kind: str, base: str = "sd15", **changes: Any) -> Layout:
    """A layout at the narrow size."""
    return layout(kind, base, NARROW[base], **changes)


def find(shapes: Layout, name: str = "file.bin", digest: str = UNKNOWN, **more: Any) -> Recognised:
    """What a file of this layout, name and digest is recognised as; ``more``: ``variant`` and ``dtype``."""
    variant = more.pop("variant", None)
    return recognise(meta_file(shapes, name, **more), variant=variant, digest=lambda: digest)
