"""What made a picture, as plain values with digests: enough to draw it again, and no photo and no path."""

from __future__ import annotations

import argparse
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__
from .engine.run import DEFAULT_LORA
from .hosts.checkpoint_parts import Checkpoint
from .library.identity import Identity
from .weights.digest import file_digest

_PACKAGES = ("torch", "diffusers", "transformers")  # other versions may round differently
_WEIGHT_FILES = (".json", ".safetensors", ".txt")


def describe(args: argparse.Namespace, identity: Identity, checkpoint: Checkpoint, pipe: Any) -> dict[str, Any]:
    """The part of the record that all pictures of a run share. Seed and size differ from picture to picture."""
    return {
        "lib_faceid": __version__,
        "prompt": args.prompt,
        "negative": args.negative,
        "steps": args.steps,
        "guidance": args.guidance,
        **_describe_start(args),
        "checkpoint": {
            "name": checkpoint.path.name,
            "base": checkpoint.base,
            "sha256": checkpoint_digest(checkpoint.path),
        },
        "scheduler": type(pipe.scheduler).__name__,
        "device": pipe.device.type,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "identity": _describe_identity(args, identity),
        "weight": args.weight,
        "lora": _lora_strength(args, identity),
        "start": args.start,
        "end": args.end,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def checkpoint_digest(path: Path) -> str:
    """Hex sha256 of a file; of a folder, that of the names and digests of all its weights and settings."""
    if path.is_file():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.suffix in _WEIGHT_FILES and item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {file_digest(file)}\n".encode())
    return digest.hexdigest()


def _describe_start(args: argparse.Namespace) -> dict[str, Any]:
    """How it began: from noise, or from a picture, of which only the digest is told."""
    if args.init is None:
        return {"task": "txt2img"}
    start = {"task": "img2img", "denoise": args.denoise, "init_sha256": file_digest(args.init.expanduser())}
    if args.mask is None:
        return start
    return {**start, "task": "inpaint", "mask_sha256": file_digest(args.mask.expanduser())}


def _describe_identity(args: argparse.Namespace, identity: Identity) -> dict[str, Any]:
    origin = identity.origin
    return {
        "name": identity.name,
        "sources_sha256": [file_digest(path.expanduser()) for path in args.face or [args.identity or args.embeddings]],
        "photos": origin.photos,
        "variant": origin.variant,
        "adapter": origin.adapter_name,
        "adapter_sha256": origin.adapter_sha256,
        "structure": identity.structure if identity.has_structure else None,
    }


def _lora_strength(args: argparse.Namespace, identity: Identity) -> float:
    """What acted: nothing at weight 0 or where the file was not at hand."""
    if args.weight == 0 or args.adapter is None or not identity.origin.has_lora:
        return 0.0
    return DEFAULT_LORA if args.lora is None else args.lora


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
