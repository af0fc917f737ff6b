"""What a single-file checkpoint is, and the settings of its parts, read from the names and shapes of its tensors.

Only what shapes cannot tell is written down here; it comes from the configuration files published with the two bases
(runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-xl-base-1.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.unet_map import Base, base_of_count
from ..errors import WrongBase, WrongWeights
from ..weights.read import TensorFile

Config = dict[str, object]
Shapes = Mapping[str, tuple[int, ...]]

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP_L: Mapping[Base, str] = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
_BIG_G = "conditioner.embedders.1.model."
_POSITIONS = "text_model.embeddings.position_embedding.weight"
_CROSS = re.compile(re.escape(_UNET) + r".*\.attn2\.to_k\.weight")
# A tensor that only this kind of file has, and what it is called.
_OTHERS = {
    "cond_stage_model.model.positional_embedding": "a Stable Diffusion 2 checkpoint",
    "conditioner.embedders.0.model.positional_embedding": "the SDXL refiner",
    _UNET + "joint_blocks.0.x_block.attn.qkv.weight": "a Stable Diffusion 3 checkpoint",
    _UNET + "double_blocks.0.img_attn.qkv.weight": "a Flux checkpoint",
    "double_blocks.0.img_attn.qkv.weight": "a Flux checkpoint",
    "input_blocks.0.0.weight": "a UNet alone",
    "encoder.down.0.block.0.conv1.weight": "a VAE alone",
    "image_proj.norm.weight": "an IP-Adapter",
}


@dataclass(frozen=True)
class CheckpointLayout:
    """``names``: name as diffusers expects it -> name in the file. ``configs``: settings by part of the pipeline."""

    base: Base
    context_width: int
    channels: int
    names: Mapping[str, str]
    configs: Mapping[str, Config]


def recognise_checkpoint(file: TensorFile) -> CheckpointLayout:
    """Raises WrongBase for a checkpoint of another base, WrongWeights for a file that is no whole checkpoint."""
    names = {_plain_name(name): name for name in file.tensors}
    shapes = {plain: file.tensors[name].shape for plain, name in names.items()}
    base = _find_base(file.path.name, shapes)
    texts = _text_configs(base, shapes)
    context = _context_width(shapes)
    configs = {"unet": _unet_config(base, context, shapes), "vae": _vae_config(base, shapes), **texts}
    return CheckpointLayout(
        base=base,
        context_width=context,
        channels=shapes[_UNET + "input_blocks.0.0.weight"][1],
        names=names,
        configs={**configs, "scheduler": _scheduler_config(shapes)},
    )


def _plain_name(name: str) -> str:
    """Without the dict that training left around the weights; with the name CLIP got in transformers 4."""
    plain = name.removeprefix("state_dict.")
    old = _CLIP_L["sd15"]
    if plain.startswith(old) and not plain.startswith(old + "text_model."):
        return old + "text_model." + plain.removeprefix(old)
    return plain


def _find_base(file: str, shapes: Shapes) -> Base:
    other = next((title for name, title in _OTHERS.items() if name in shapes), None)
    base = base_of_count(sum(1 for name in shapes if _CROSS.fullmatch(name)))
    if other is not None or base is None:
        found = other or "no Stable Diffusion checkpoint"
        raise WrongBase(f"{file} is {found}; expected a whole Stable Diffusion 1.5 or SDXL checkpoint. Choose another.")
    needed = {
        "text encoder": _CLIP_L[base] + _POSITIONS,
        "second text encoder": _BIG_G + "positional_embedding" if base == "sdxl" else _CLIP_L[base] + _POSITIONS,
        "VAE": _VAE + "decoder.conv_in.weight",
        "VAE encoder": _VAE + "encoder.conv_in.weight",
    }
    missing = [title for title, name in needed.items() if name not in shapes]
    if missing:
        raise WrongWeights(
            f"{file} has no {missing[0]} ({needed[missing[0]]} is missing). Choose a checkpoint with UNet, text "
            "encoder and VAE in one file."
        )
    return base


def _context_width(shapes: Shapes) -> int:
    return next(shape[1] for name, shape in shapes.items() if _CROSS.fullmatch(name))


def _levels(shapes: Shapes, pattern: str) -> list[int]:
    """Output channels of the first block of each level, as long as there are levels."""
    found: list[int] = []
    while (name := pattern.format(len(found), 3 * len(found) + 1)) in shapes:
        found.append(shapes[name][0])
    return found


def _unet_config(base: Base, context: int, shapes: Shapes) -> Config:
    widths = _levels(shapes, _UNET + "input_blocks.{1}.0.out_layers.3.weight")
    shared: Config = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes[_UNET + "input_blocks.0.0.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": 2,
        "cross_attention_dim": context,
        "use_linear_projection": len(shapes[_UNET + "middle_block.1.proj_in.weight"]) == 2,
    }
    if base == "sd15":
        return {**shared, "attention_head_dim": 8, "sample_size": 64}
    added = shapes[_UNET + "label_emb.0.0.weight"][1]
    pooled = shapes[_BIG_G + "text_projection"][1]
    return {
        **shared,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [max(1, width // 64) for width in widths],  # diffusers' name for the number of heads
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added - pooled) // 6,  # six numbers: original size, crop, target size
        "projection_class_embeddings_input_dim": added,
        "sample_size": 128,
    }


def _vae_config(base: Base, shapes: Shapes) -> Config:
    widths = _levels(shapes, _VAE + "encoder.down.{0}.block.0.conv1.weight")
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 2,
        "latent_channels": shapes[_VAE + "decoder.conv_in.weight"][1],
        "sample_size": 512 if base == "sd15" else 1024,
        "scaling_factor": 0.18215 if base == "sd15" else 0.13025,
        "force_upcast": True,  # SDXL's overflows in half precision; diffusers asks only SDXL's
    }


def _text_configs(base: Base, shapes: Shapes) -> dict[str, Config]:
    first = _CLIP_L[base] + "text_model."
    token, position = shapes[first + "embeddings.token_embedding.weight"], shapes[_CLIP_L[base] + _POSITIONS]
    small = _text_config(token, position, shapes[first + "encoder.layers.0.mlp.fc1.weight"][0])
    small |= {"num_hidden_layers": _count(shapes, first + "encoder.layers."), "hidden_act": "quick_gelu"}
    if base == "sd15":
        return {"text_encoder": small}
    token, position = shapes[_BIG_G + "token_embedding.weight"], shapes[_BIG_G + "positional_embedding"]
    large = _text_config(token, position, shapes[_BIG_G + "transformer.resblocks.0.mlp.c_fc.weight"][0])
    large |= {"num_hidden_layers": _count(shapes, _BIG_G + "transformer.resblocks."), "hidden_act": "gelu"}
    return {"text_encoder": small, "text_encoder_2": large | {"projection_dim": shapes[_BIG_G + "text_projection"][1]}}


def _text_config(token: tuple[int, ...], position: tuple[int, ...], mlp: int) -> Config:
    return {
        "model_type": "clip_text_model",
        "vocab_size": token[0],
        "hidden_size": token[1],
        "intermediate_size": mlp,
        "num_attention_heads": max(1, token[1] // 64),  # 12 of 768, 20 of 1280
        "max_position_embeddings": position[0],
        "projection_dim": token[1],
        "bos_token_id": 0,
        "eos_token_id": 2,  # as published: transformers then takes the highest token for the end, which it is
        "pad_token_id": 1,
    }


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _scheduler_config(shapes: Shapes) -> Config:
    """Euler with the noise schedule both bases were trained with; marker tensors tell of velocity prediction."""
    return {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": "v_prediction" if "v_pred" in shapes else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in shapes,
    }
