"""What this part asks of an opened weight file; ``weights.read.TensorFile`` is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch


class StoredInfo(Protocol):
    """Shape and stored dtype of a tensor, known without reading it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...


class WeightFile(Protocol):
    """Named tensors in a file. ``load_many`` yields (name, tensor on the CPU, contiguous, as stored) one by one."""

    @property
    def path(self) -> Path: ...

    @property
    def tensors(self) -> Mapping[str, StoredInfo]: ...

    def load_many(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]: ...
