"""A WebUI's models folder with small random files: adapters, saved people, a face pack and a CLIP encoder.

Everything is narrow as in layouts.NARROW. Where a UNet's base is asked for, its text has to be as wide as real text: a
``text`` of 768 makes an SD1.5 adapter for ``sd15_checkpoint``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torch import nn

from lib_faceid.engine.extract import ModelFolder
from lib_faceid.engine.place import Place
from lib_faceid.library.identity import Identity

from . import unets
from .adapters import NAMES, Made
from .clip_files import Tower, hf_layout
from .containers import save_nested_bin, save_safetensors
from .face_packs import draw_marker, make_pack, scene
from .layouts import NARROW, layout, random_tensors

TOWER = Tower(hidden=80, mlp=96, layers=3, heads=5, patch=28, image=224, projection=80)
LEFT, RIGHT = (40, 160, 200, 320), (400, 120, 600, 320)  # boxes of faces: the right one is larger


def make_models(root: Path) -> Path:
    """The folder with a place for adapters and saved people, both empty."""
    (root / "ip-adapter" / "identities").mkdir(parents=True)
    return root


def add_adapter(
    root: Path, kind: str = "faceid", base: str = "sd15", *, seed: int = 0, name: str = "", text: int = 0
) -> Made:
    """A random adapter, under its published name unless another is given; ``text`` 0 is narrow."""
    path = root / "ip-adapter" / (name or NAMES[kind].format(base=base))
    path.write_bytes(_adapter_bytes(kind, base, seed, text))
    return Made(kind, base, _tensors(kind, base, seed, text), path)


def add_person(root: Path, made: Made, name: str = "anna", seed: int = 3) -> Identity:
    """Somebody saved from the adapter's features; returned as made, with everything in memory."""
    identity = made.identity(seed=seed)
    identity.save(root / "ip-adapter" / "identities" / f"{name}.safetensors", overwrite=True)
    return identity


def add_face_pack(root: Path, name: str = "buffalo_l") -> Path:
    """A detector and a recogniser that find the drawn marker of ``photo``."""
    return make_pack(root / "insightface" / name)


def add_encoder(root: Path) -> Path:
    """A CLIP encoder as wide as the adapters want."""
    folder = root / "clip_vision"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TOWER.config()))
    return save_safetensors(folder / "model.safetensors", random_tensors(hf_layout(TOWER)))


def place_of(root: Path, base: str = "sd15") -> Place:
    """Where pictures are made with a narrow checkpoint of the base."""
    return Place(base, NARROW[base].context, ModelFolder(root))  # type: ignore[arg-type]


def sd15_checkpoint(seed: int = 0, text: int = 768) -> nn.Module:
    """A thin original UNet of SD1.5 that takes real text; SD2 is the same with a text of 1024."""
    with mock.patch.dict(unets.CONTEXT, sd15=text):
        return unets.ldm_unet(seed)


@cache
def photo(seed: int = 0, boxes: Sequence[tuple[int, int, int, int]] = (LEFT,)) -> str:
    """A PNG with a face in each box, as base64."""
    image = scene(640, 480, seed)
    for box in boxes:
        draw_marker(image, box)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


@cache
def _tensors(kind: str, base: str, seed: int, text: int) -> dict[str, torch.Tensor]:
    scale = replace(NARROW[base], context=text or NARROW[base].context)
    return random_tensors(layout(kind, base, scale), seed)


@cache
def _adapter_bytes(kind: str, base: str, seed: int, text: int) -> bytes:
    file = io.BytesIO()
    save_nested_bin(file, _tensors(kind, base, seed, text))  # type: ignore[arg-type]
    return file.getvalue()
