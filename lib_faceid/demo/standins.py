"""The stand-in models: the true layouts and names of the real ones, narrow, with random weights from fixed seeds.

Sizes: a UNet with the 16 cross-attentions of SD1.5 and 32 to 128 channels instead of 320 to 1280, context 64 instead of
768, a CLIP tower 80 wide instead of 1280, a VAE of 16 channels.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..core.projections import IDMLPSpec, IDPerceiverSpec, PerceiverSpec, build_projection
from ..core.unet_map import find_layers, layers, linear_sizes
from ..errors import MissingPackage
from ..files import write_file
from ..weights.lora import PROJECTIONS

ADAPTER_NAME = "ip-adapter-faceid-plusv2_sd15.bin"
CONTEXT = 64
_TOKENS = 4
_RANK = 4
_CLIP_WIDTH = 80
_CLIP = {
    "hidden_size": _CLIP_WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "patch_size": 28,
    "image_size": 224,
    "projection_dim": _CLIP_WIDTH,
}
_SEED = 7
# A random LoRA as strong as the rest would drown the difference between people and between weights.
_GAINS = {"_lora.up": 0.1, "to_v_ip": 3.0}


@dataclass(frozen=True)
class StandIns:
    """Where everything lies, in the folders that the other verbs look into (FACEID_MODELS), and the pipeline."""

    folder: Path
    pipe: Any

    @property
    def face_pack(self) -> Path:
        return self.folder / "insightface" / "buffalo_l"

    @property
    def clip_encoder(self) -> Path:
        return self.folder / "clip_vision" / "model.safetensors"

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER_NAME


def build_standins(folder: Path) -> StandIns:
    """Build all models in an existing folder. Raises MissingPackage without diffusers, transformers or onnx."""
    with _fixed_seed():
        try:
            from .face_pack import build_pack

            made = StandIns(folder, _build_pipeline())
            build_pack(made.face_pack)
            _write_clip(made.clip_encoder)
        except ImportError as error:
            raise MissingPackage(
                f"The demo builds its models with onnx, diffusers and transformers, and one cannot be imported "
                f"({error}). Install the packages of lib_faceid/requirements.txt."
            ) from error
    nested = adapter_tensors(made.pipe.unet)
    torch.save(nested, made.adapter)
    return made


def adapter_tensors(unet: nn.Module) -> dict[str, dict[str, Tensor]]:
    """A FaceID Plus v2 adapter for the UNet, nested and named as the published .bin files are."""
    projection = build_projection(_projection_spec()).state_dict()
    image = {name: tuple(tensor.shape) for name, tensor in projection.items()}
    return {"image_proj": _random(image), "ip_adapter": _random(dict(_attention_shapes(unet)))}


def _projection_spec() -> IDPerceiverSpec:
    """depth, heads of 64, ff and hidden as published: ip_adapter_faceid.py:64-117 upstream."""
    perceiver = PerceiverSpec(_CLIP_WIDTH, CONTEXT, CONTEXT, CONTEXT // 64, depth=4, ff=4 * CONTEXT)
    return IDPerceiverSpec(IDMLPSpec(_TOKENS, CONTEXT, id_width=512, hidden=1024), perceiver)


def _attention_shapes(unet: nn.Module) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names in "ip_adapter": LoRA pairs on even (self-attention) and odd numbers, keys and values on odd ones."""
    found = find_layers(unet)
    for layer, attention in zip(layers(found.base), found.attentions, strict=True):
        context, channels = linear_sizes(attention, "to_k")
        for number, width in ((layer.key - 1, channels), (layer.key, context)):
            for projection in PROJECTIONS:
                inputs = width if projection in ("to_k", "to_v") else channels
                yield f"{number}.{projection}_lora.down.weight", (_RANK, inputs)
                yield f"{number}.{projection}_lora.up.weight", (channels, _RANK)
        for side in ("to_k_ip", "to_v_ip"):
            yield f"{layer.key}.{side}.weight", (channels, context)


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a plausible size, about 1/sqrt(inputs), norms near 1. A tensor depends on its name alone."""
    return {name: _random_tensor(name, shape) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) > 1:
        return noise / shape[-1] ** 0.5 * next((gain for part, gain in _GAINS.items() if part in name), 1.0)
    return 1 + 0.1 * noise if name.endswith(".weight") else 0.1 * noise


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """The models draw their first weights from torch's common generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield


def _write_clip(path: Path) -> None:
    """A CLIP image tower as transformers stores one, with its config.json. The last layer but one is what counts."""
    transformers: Any = import_module("transformers")
    path.parent.mkdir(parents=True)
    config = transformers.CLIPVisionConfig(**_CLIP)
    state: Mapping[str, Tensor] = transformers.CLIPVisionModelWithProjection(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    write_file(path, save(_random(shapes)))
    (path.parent / "config.json").write_text(json.dumps(_CLIP), encoding="utf-8")


def _build_pipeline() -> Any:
    """A StableDiffusionPipeline without text encoder: it is called with prompts that are encoded already."""
    diffusers: Any = import_module("diffusers")
    pipe = diffusers.StableDiffusionPipeline(
        vae=_build_vae(diffusers),
        text_encoder=None,
        tokenizer=None,
        unet=_build_unet(diffusers),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _build_unet(diffusers: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
        norm_num_groups=8,
        sample_size=16,
    ).eval()


def _build_vae(diffusers: Any) -> Any:
    """8 pixels for one of the latent, as in SD1.5."""
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16,) * 4,
        norm_num_groups=4,
        latent_channels=4,
    ).eval()
    # Soft colours, closer to each other than chance makes them, and on the green side: the stand-in detector would take
    # spots of magenta for faces.
    last = vae.decoder.conv_out
    weight = last.weight.data
    weight.copy_(0.45 * weight + 1.3 * weight.mean(dim=0, keepdim=True))
    last.bias.data.copy_(torch.tensor([0.0, 0.22, 0.04]))
    return vae
