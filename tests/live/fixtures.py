"""What the live cases need in a WebUI's ``models`` folder: random adapters, saved people, a face pack, a CLIP tower,
LoRAs for the prompt, and an adapter where ControlNet looks for one.

Everything has a fixed seed and a name that begins with "faceid-live". Nothing that exists is overwritten, so a second
run adds what is missing. The adapters have the published layouts; ``channels`` makes them for a small test checkpoint,
whose levels are 1, 2 and 4 times as wide as its ``model_channels`` while its text context keeps the true width.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_faceid.demo.face_pack import build_pack
from lib_faceid.engine.prepare import make_identity
from lib_faceid.weights.adapter import load_adapter
from lib_faceid.weights.lora import Lora, write_companion

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
LORAS = ("style", "companion")
"""Kinds of LoRA files for the prompt: any LoRA, and the LoRA half of the FaceID adapter as a file of its own."""
_STYLE_RANK = 4
_STYLE_GAIN = 0.35  # of the upper half; the other random tensors have their own scale
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


def lora_name(kind: str, base: str, *, narrow: bool) -> str:
    """What a LoRA of the fixtures is called in a prompt."""
    return f"{STEM}-{kind}_{base}{'_narrow' if narrow else ''}"


def controlnet_name(*, narrow: bool) -> str:
    """The file name of a copy of the FaceID adapter for ControlNet, which knows its kind by the name. SD1.5 alone: for
    SDXL it would be another GB.
    """
    return adapter_name("faceid", "sd15", narrow=narrow).replace(f"{STEM}-", f"{STEM}-ip-adapter-")


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
        for kind in LORAS:
            path = models / "Lora" / f"{lora_name(kind, base, narrow=narrow)}.safetensors"
            made[path] = _lora_writer(kind, adapter)
    return made | {models / "ControlNet" / controlnet_name(narrow=narrow): _copier(models, narrow=narrow)}


def scale_of(base: str, channels: int | None) -> Scale:
    """Sizes of the adapters for a base: published, or for a checkpoint with this many ``model_channels``."""
    published = replace(PUBLISHED[base], clip=CLIP.hidden)
    if channels is None:
        return published
    widths = (channels, 2 * channels, 4 * channels)
    # The ID-MLP keeps its published width (``hidden``): ControlNet builds it no other way.
    return replace(published, widths=widths, rank=4, heads=2)


def adapter_tensors(kind: str, base: str, scale: Scale) -> dict[str, torch.Tensor]:
    """Random weights of a kind whose effect is clearly visible; half precision, as most are published."""
    shapes = {name: shape for name, shape in layout(kind, base, scale).items() if not _EXTRA_BLOCKS.search(name)}
    return {name: (_gain(name) * tensor).half() for name, tensor in _one_by_one(shapes)}


def _one_by_one(shapes: Mapping[str, tuple[int, ...]], seed: int = 11) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        yield from random_tensors({name: shape}, seed=seed).items()


def _gain(name: str) -> float:
    return next((gain for part, gain in _GAINS.items() if part in name), 1.0)


def _adapter_writer(kind: str, base: str, scale: Scale) -> Callable[[Path], object]:
    save = save_nested_bin if SUFFIXES[kind] == ".bin" else save_safetensors
    return lambda path: save(path, adapter_tensors(kind, base, scale))


def _person_writer(adapter: Path) -> Callable[[Path], object]:
    return lambda path: make_identity(load_adapter(adapter), embeddings=vectors()).save(path, overwrite=True)


def _lora_writer(kind: str, adapter: Path) -> Callable[[Path], object]:
    write = {"companion": write_companion, "style": _write_style}[kind]

    def make(path: Path) -> object:
        lora = load_adapter(adapter).lora()
        if lora is None:
            raise ValueError(f"{adapter.name} has no LoRA; remove it, and write the fixtures again")
        return write(lora, path)

    return make


def _write_style(like: Lora, path: Path) -> object:
    """Random pairs for the modules that ``like`` changes, with an alpha as most LoRA files have it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for target, (outputs, inputs) in like.shapes.items():
        shapes[f"{target.kohya}.lora_down.weight"] = (_STYLE_RANK, inputs)
        shapes[f"{target.kohya}.lora_up.weight"] = (outputs, _STYLE_RANK)
    tensors = {name: tensor.half() for name, tensor in _one_by_one(shapes, seed=13)}
    tensors = {name: tensor * (_STYLE_GAIN if "_up." in name else 1.0) for name, tensor in tensors.items()}
    alphas = {f"{target.kohya}.alpha": torch.tensor(float(_STYLE_RANK)) for target in like.shapes}
    return save_safetensors(path, tensors | alphas)


def _copier(models: Path, *, narrow: bool) -> Callable[[Path], object]:
    source = models / "ip-adapter" / adapter_name("faceid", "sd15", narrow=narrow)
    return lambda path: shutil.copyfile(source, path)


def _write_pack(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    build_pack(folder)


def _write_clip(path: Path) -> None:
    save_file(random_tensors(hf_layout(CLIP), seed=12), path)


def _write_config(path: Path) -> None:
    path.write_text(json.dumps(CLIP.config()), encoding="utf-8")
