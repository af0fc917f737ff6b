"""From a checkpoint on this disk to a diffusers pipeline. Nothing is ever downloaded, and no pickle is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch

from ..core.unet_map import BASE_TITLES, Base
from ..errors import FaceIDError, WrongBase, WrongWeights
from ..weights.read import open_tensors
from .checkpoint_layout import recognise_checkpoint
from .checkpoint_parts import INPAINT_CHANNELS, Checkpoint, Task, load_file, load_folder, plain_failures

_INDEX = "model_index.json"


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Recognise a diffusers folder or a .safetensors or .ckpt file; reads its description only.

    Raises WrongWeights (with WrongBase for another base) when it is missing, damaged or something else.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        return _open_folder(found)
    file = open_tensors(found)
    layout = recognise_checkpoint(file)
    _ensure_channels(found, layout.channels)
    return Checkpoint(found, layout.base, layout.context_width, layout.channels, layout, file)


def load_pipeline(
    path: str | Path | Checkpoint,
    task: Task,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> Any:
    """The diffusers pipeline for a task, on its device.

    path: a diffusers folder (with model_index.json), a single file, or what ``open_checkpoint`` made of one.
    device: None is cuda, else mps, else cpu, as found. dtype: None is float16 on cuda and float32 elsewhere.
    tokenizer: folder of CLIP's tokenizer for a single file, which holds none; None looks where it may be.
    Raises FaceIDError.
    """
    checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
    checkpoint.ensure_task(task)
    where = choose_device(device)
    kind = choose_dtype(where) if dtype is None else dtype
    with plain_failures(checkpoint.path):
        if checkpoint.layout is None:
            pipe = load_folder(checkpoint, task, kind)
        else:
            pipe = load_file(checkpoint, task, kind, None if tokenizer is None else Path(tokenizer).expanduser())
        return pipe.to(where)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best one there is. Raises FaceIDError for one that is not there."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        return torch.device(next(name for name, there in found.items() if there))
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise FaceIDError(f"There is no device called {str(device)!r}; choose cuda, mps or cpu.") from error
    if not found.get(wanted.type, False):
        raise FaceIDError(f"This machine offers no {wanted.type} device to PyTorch; choose another, such as cpu.")
    return wanted


def choose_dtype(device: torch.device) -> torch.dtype:
    """Half precision where it is fast and safe."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _ensure_channels(path: Path, channels: int) -> None:
    if channels not in (4, INPAINT_CHANNELS):
        raise WrongBase(
            f"The UNet of {path.name} takes {channels} channels; expected 4, or {INPAINT_CHANNELS} for inpainting. "
            "Choose another checkpoint."
        )


def _open_folder(folder: Path) -> Checkpoint:
    index, unet = _read_json(folder / _INDEX), _read_json(folder / "unet" / "config.json")
    name = str(index.get("_class_name"))
    base: Base = "sdxl" if "XL" in name else "sd15"
    if not name.startswith("StableDiffusion") or not isinstance(unet.get("cross_attention_dim"), int):
        raise WrongBase(
            f"{folder} is a diffusers folder for {name}; expected one for {' or '.join(BASE_TITLES.values())}. Choose "
            "another checkpoint."
        )
    channels = cast(int, unet.get("in_channels", 4))
    _ensure_channels(folder, channels)
    return Checkpoint(folder, base, cast(int, unet["cross_attention_dim"]), channels)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data: object = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WrongWeights(f"{file.parent} is no diffusers folder: {file.name} is missing from it.") from error
    except (OSError, ValueError) as error:
        raise WrongWeights(f"{file} cannot be read ({error}). Get the checkpoint again.") from error
    if not isinstance(data, dict):
        raise WrongWeights(f"{file} holds no settings. Get the checkpoint again.")
    return cast("dict[str, Any]", data)
