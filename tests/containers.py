"""Writers for every container in which adapters are published, all from one flat dict of tensors.

The dict's names start with ``image_proj.`` or ``ip_adapter.``, as in a safetensors file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]
_TRAINING_NAMES = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}


def save_nested_bin(path: Path, tensors: Tensors) -> Path:
    """A published ``.bin``: {"image_proj": {...}, "ip_adapter": {...}}."""
    nested: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        nested.setdefault(part, {})[inner] = tensor
    torch.save(nested, path)
    return path


def save_flat_bin(path: Path, tensors: Tensors) -> Path:
    """A ``.bin`` whose one dict has the dotted names."""
    torch.save(dict(tensors), path)
    return path


def save_training_bin(path: Path, tensors: Tensors) -> Path:
    """What training scripts leave: ``image_proj_model.*`` and ``adapter_modules.*`` beside parts of the UNet."""
    renamed: dict[str, object] = {"unet.conv_in.weight": torch.zeros(4, 4), "unet.conv_in.bias": torch.zeros(4)}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        renamed[f"{_TRAINING_NAMES[part]}.{inner}"] = tensor
    torch.save(renamed, path)
    return path


def save_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    """A published ``.safetensors``; views are made contiguous and unshared, which the library asks for."""
    plain = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_file(plain, path, metadata)
    return path


def save_torch_zip(path: Path, description: bytes, members: Mapping[str, bytes] | None = None) -> Path:
    """A PyTorch zip file with a ``data.pkl`` made by hand; ``members`` (else 64 zero bytes as data/0) add the rest."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", description)
        for name, data in ({"data/0": bytes(64)} if members is None else members).items():
            archive.writestr(f"archive/{name}", data)
    return path
