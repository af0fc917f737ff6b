"""What the live cases need in a WebUI's ``models`` folder: random adapters, saved people, a face pack, a CLIP tower.

Everything has a fixed seed and a name that begins with "faceid-live". Nothing that exists is overwritten, so a second
run adds what is missing. The adapters have the published layouts; ``channels`` makes them for a small test checkpoint,
whose levels are 1, 2 and 4 times as wide as its ``model_channels`` while its text context keeps the true width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_faceid.demo.face_pack import build_pack
from lib_faceid.engine.prepare import make_identity
from lib_faceid.weights.adapter import load_adapter

from ..clip_files import Tower, hf_layout
from ..containers import save_nested_bin, save_safetensors
from ..layouts import PUBLISHED, Scale, layout, random_tensors

STEM = "faceid-live"
PACK = STEM
# .bin and .safetensors both occur among the published files, so both are tried here.
SUFFIXES = {"faceid": ".bin", "faceid-plusv2": ".safetensors", "portrait": ".safetensors"}
BASES = ("sd15", "sdxl")
# A width no published adapter has: this tower is never taken for a real one.
CLIP = Tower(hidden=80, mlp=96, layers=3, heads=5, patch=28, image=224, projection=80)
VECTOR_SEED = 3
# Random keys hardly prefer a token, so the values decide how much is added. Found by trying: pictures change by 5 to 40
# grey levels of 255, at true and at small size.
_GAINS = {"to_k_ip": 2.0, "to_v_ip": 1.0, "_lora.up": 0.7}
_EXTRA_BLOCKS = re.compile(r"\.layers\.[1-3]\.")  # of a perceiver; one of the four is enough, and the file is smaller


def adapter_name(kind: str, base: str, *, narrow: bool) -> str:
    """The file name of a fixture in ``ip-adapter``."""
    return f"{STEM}-{kind}_{base}{'_narrow' if narrow else ''}{SUFFIXES[kind]}"


def person_name(base: str, *, narrow: bool) -> str:
    """What a saved person of the fixtures is called."""
    return f"{STEM}_{base}{'_narrow' if narrow else ''}"


def vectors(count: int = 1, seed: int = VECTOR_SEED) -> list[list[float]]:
    """Face vectors (count, 512) as a recogniser gives them: about 20 long. The saved person has the first of them."""
    drawn = 20 / 512**0.5 * torch.randn(count, 512, generator=torch.Generator().manual_seed(seed))
    return [[round(float(value), 6) for value in row] for row in drawn]


def write_fixtures(models: Path, channels: int | None, say: Callable[[str], None]) -> None:
    """Write what is missing into ``models``; ``say`` hears one line for each file."""
    for path, make in files(models, channels).items():
        if path.exists():
            say(f"kept     {path.relative_to(models)}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")  # a run that is cut short leaves nothing that looks complete
        make(draft)
        draft.chmod(0o755 if draft.is_dir() else 0o644)  # the WebUI may run as somebody else
        draft.replace(path)
        say(f"written  {path.relative_to(models)}")


def remove_fixtures(models: Path, say: Callable[[str], None]) -> None:
    """Remove the files that ``write_fixtures`` may have written, known by their names, and no others."""
    for path in [*files(models, None), *files(models, 1)]:
        for found in sorted(path.rglob("*.onnx")) if path.is_dir() else [path]:
            if found.is_file():
                found.unlink()
                say(f"removed  {found.relative_to(models)}")
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def files(models: Path, channels: int | None) -> dict[Path, Callable[[Path], object]]:
    """Path -> how it is made, in an order in which each finds what it needs. ``channels`` None: true sizes."""
    narrow = channels is not None
    made: dict[Path, Callable[[Path], object]] = {
        models / "insightface" / "models" / PACK: _write_pack,
        models / "clip_vision" / STEM / f"{STEM}-clip.safetensors": _write_clip,
        models / "clip_vision" / STEM / "config.json": _write_config,
    }
    for base in BASES:
        scale = scale_of(base, channels)
        for kind in SUFFIXES:
            made[models / "ip-adapter" / adapter_name(kind, base, narrow=narrow)] = _adapter_writer(kind, base, scale)
        adapter = models / "ip-adapter" / adapter_name("faceid", base, narrow=narrow)
        name = f"{person_name(base, narrow=narrow)}.safetensors"
        made[models / "ip-adapter" / "identities" / name] = _person_writer(adapter)
    return made


def scale_of(base: str, channels: int | None) -> Scale:
    """Sizes of the adapters for a base: published, or for a checkpoint with this many ``model_channels``."""
    published = replace(PUBLISHED[base], clip=CLIP.hidden)
    if channels is None:
        return published
    widths = (channels, 2 * channels, 4 * channels)
    return replace(published, widths=widths, rank=4, hidden=96, heads=2)


def adapter_tensors(kind: str, base: str, scale: Scale) -> dict[str, torch.Tensor]:
    """Random weights of a kind whose effect is clearly visible; half precision, as most are published."""
    shapes = {name: shape for name, shape in layout(kind, base, scale).items() if not _EXTRA_BLOCKS.search(name)}
    return {name: (_gain(name) * tensor).half() for name, tensor in _one_by_one(shapes)}


def _one_by_one(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        yield from random_tensors({name: shape}, seed=11).items()


def _gain(name: str) -> float:
    return next((gain for part, gain in _GAINS.items() if part in name), 1.0)


def _adapter_writer(kind: str, base: str, scale: Scale) -> Callable[[Path], object]:
    save = save_nested_bin if SUFFIXES[kind] == ".bin" else save_safetensors
    return lambda path: save(path, adapter_tensors(kind, base, scale))


def _person_writer(adapter: Path) -> Callable[[Path], object]:
    return lambda path: make_identity(load_adapter(adapter), embeddings=vectors()).save(path, overwrite=True)


def _write_pack(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    build_pack(folder)


def _write_clip(path: Path) -> None:
    save_file(random_tensors(hf_layout(CLIP), seed=12), path)


def _write_config(path: Path) -> None:
    path.write_text(json.dumps(CLIP.config()), encoding="utf-8")
