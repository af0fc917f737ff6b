"""Reading and writing the file of a saved identity: a .safetensors with text metadata, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import BadIdentity
from ..files import write_file

FORMAT = "faceid-identity-1"


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, overwrite: bool
) -> Path:
    """Write float32 copies of the tensors and the metadata. Raises FaceIDError when the name is taken."""
    ready = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    return write_file(path, save(ready, metadata={"format": FORMAT, **metadata}), overwrite=overwrite)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. Raises BadIdentity when the file is missing, unreadable or of another format."""
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise BadIdentity(
            f"{path.name} is not a saved person: its format is {metadata.get('format', 'not given')!r}, expected "
            f"{FORMAT!r}. Choose a file that was saved from the FaceID panel or with Identity.save."
        )
    return tensors, metadata


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:  # safetensors ships no types
            names: list[str] = list(file.keys())
            return {name: file.get_tensor(name).clone() for name in names}, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise BadIdentity(f"There is no saved person at {path}.") from error
    except (SafetensorError, OSError) as error:
        raise BadIdentity(f"{path.name} is not a readable .safetensors file ({error}). Choose another file.") from error
