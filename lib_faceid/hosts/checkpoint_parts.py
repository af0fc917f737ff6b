"""The parts of a checkpoint through diffusers: from its folder, or from tensors that our own reader read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from ..core.unet_map import Base
from ..errors import FaceIDError, MissingPackage, WrongBase, WrongWeights
from ..weights.read import TensorFile
from .checkpoint_layout import CheckpointLayout
from .clip_tokenizer import find_tokenizer, load_tokenizers

Task = Literal["txt2img", "img2img", "inpaint"]
INPAINT_CHANNELS = 9  # latent, masked latent and mask, side by side

_CLASSES: Mapping[tuple[Base, Task], str] = {
    ("sd15", "txt2img"): "StableDiffusionPipeline",
    ("sd15", "img2img"): "StableDiffusionImg2ImgPipeline",
    ("sd15", "inpaint"): "StableDiffusionInpaintPipeline",
    ("sdxl", "txt2img"): "StableDiffusionXLPipeline",
    ("sdxl", "img2img"): "StableDiffusionXLImg2ImgPipeline",
    ("sdxl", "inpaint"): "StableDiffusionXLInpaintPipeline",
}
_ALIGNMENT = 64  # bytes; where PyTorch puts what it allocates itself
# What the tensors of each part are called in a single file.
_PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been recognised and not yet loaded. ``layout`` is None for a diffusers folder."""

    path: Path
    base: Base
    context_width: int
    channels: int
    layout: CheckpointLayout | None = None
    file: TensorFile | None = None

    def ensure_task(self, task: Task) -> None:
        """Raises WrongBase when the UNet was made for inpainting and the task is another."""
        if self.channels == INPAINT_CHANNELS and task != "inpaint":
            raise WrongBase(
                f"{self.path.name} is an inpainting checkpoint ({self.channels} input channels, expected 4): give "
                "--init and --mask, or choose another checkpoint."
            )


def load_folder(checkpoint: Checkpoint, task: Task, dtype: torch.dtype) -> Any:
    """Safetensors only: the library would run a .bin's pickle."""
    folder = checkpoint.path
    weights = [file.name for file in (folder / "unet").glob("*.safetensors")]
    only_half = bool(weights) and all(".fp16." in name for name in weights)
    pipe = _pipeline_class(checkpoint.base, task).from_pretrained(
        str(folder),
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        variant="fp16" if only_half else None,
    )
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            _move_to_memory(part)
    return pipe


def _move_to_memory(part: nn.Module) -> None:
    """Copy weights that lie in the mapped file at addresses for which some kernels round differently."""
    for weight in part.parameters():
        if weight.data_ptr() % _ALIGNMENT:
            weight.data = weight.data.clone()


def load_file(checkpoint: Checkpoint, task: Task, dtype: torch.dtype, tokenizer: Path | None) -> Any:
    layout = cast(CheckpointLayout, checkpoint.layout)
    with tempfile.TemporaryDirectory(prefix="faceid-") as scratch:
        settings = Path(scratch)
        folder = find_tokenizer(checkpoint.path, tokenizer, settings / "tokenizer")
        for part, config in layout.configs.items():
            (settings / part).mkdir()
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            (settings / part / name).write_text(json.dumps(config), encoding="utf-8")
        parts = {part: _load_part(checkpoint, part, settings, dtype) for part in _PREFIXES if part in layout.configs}
        parts["scheduler"] = _diffusers().EulerDiscreteScheduler.from_pretrained(str(settings), subfolder="scheduler")
        parts |= _load_tokenizers(folder, parts)
    if layout.base == "sd15":
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _pipeline_class(layout.base, task)(**parts)


def _load_tokenizers(folder: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    encoders = {name: parts[name] for name in ("text_encoder", "text_encoder_2") if name in parts}
    lengths = [encoder.config.max_position_embeddings for encoder in encoders.values()]
    names = [name.replace("text_encoder", "tokenizer") for name in encoders]
    tokenizers = dict(zip(names, load_tokenizers(folder, lengths), strict=True))
    for tokenizer, encoder in zip(tokenizers.values(), encoders.values(), strict=True):
        if len(tokenizer) > encoder.config.vocab_size:
            raise FaceIDError(
                f"The tokenizer in {folder} knows {len(tokenizer)} words, and the checkpoint's text encoder has "
                f"{encoder.config.vocab_size}. Use that of openai/clip-vit-large-patch14."
            )
    return tokenizers


def _load_part(checkpoint: Checkpoint, part: str, settings: Path, dtype: torch.dtype) -> Any:
    """One model, from tensors that our own reader read; settings come from the scratch folder."""
    file, layout = cast(TensorFile, checkpoint.file), cast(CheckpointLayout, checkpoint.layout)
    plain = {name: key for key, name in layout.names.items() if key.startswith(_PREFIXES[part])}
    # copies, for the reason _move_to_memory gives; position_ids, which older files hold, stay whole numbers
    tensors = {
        plain[name]: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in file.load_many(plain)
    }
    common: dict[str, Any] = {"config": str(settings), "subfolder": part, "local_files_only": True}
    try:
        if part in ("unet", "vae"):
            kind = _diffusers().UNet2DConditionModel if part == "unet" else _diffusers().AutoencoderKL
            model = kind.from_single_file(tensors, **common)
        else:
            model = _load_text_encoder(part, tensors, common)
        return model.to("cpu")
    except NotImplementedError as error:  # what torch raises for a weight that no tensor was found for
        raise WrongWeights(f"{checkpoint.path.name} lacks tensors of its {part}. Get the file again.") from error


def _load_text_encoder(part: str, tensors: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    kind = transformers.CLIPTextModel if part == "text_encoder" else transformers.CLIPTextModelWithProjection
    return create_diffusers_clip_model_from_ldm(kind, tensors, **common)


def _pipeline_class(base: Base, task: Task) -> Any:
    return getattr(_diffusers(), _CLASSES[base, task])


def _diffusers() -> Any:
    try:
        import accelerate  # noqa: F401 - without it, missing tensors would silently be random numbers
        import diffusers
        import transformers  # noqa: F401 - its absence would show as a missing attribute of diffusers
    except ImportError as error:
        raise MissingPackage(
            "Drawing without a WebUI needs diffusers, transformers and accelerate, and "
            f"{error.name} cannot be imported. Run pip install diffusers transformers accelerate."
        ) from error
    return diffusers


@contextmanager
def plain_failures(path: Path) -> Generator[None]:
    """What the libraries say about a damaged checkpoint, in one sentence (WrongWeights)."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise FaceIDError(f"{path.name} does not fit into the memory of the graphics card.") from error
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise WrongWeights(f"{path.name} cannot be loaded as a checkpoint ({reason}). Get it again.") from error
