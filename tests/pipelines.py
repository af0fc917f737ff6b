"""Whole pipelines on disk, tiny and random: a diffusers folder, and the same weights as one file in ldm naming.

The renaming here goes from diffusers to ldm, opposite to what is tested, and is written down on its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from . import unets
from .containers import save_safetensors

TOKENS = 9  # longest prompt, instead of 77
POOLED = 32  # as unets.sdxl_unet expects


def save_tokenizer(folder: Path) -> Path:
    """Letters, one merge and the two markers: vocab.json and merges.txt, nothing else."""
    letters = [chr(code) for code in range(0x21, 0x7F)]
    words = ["!", *letters[1:], *(f"{letter}</w>" for letter in letters), "an", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\na n\n", encoding="utf-8")
    return folder


def text_encoder(vocabulary: int, seed: int, *, projected: bool = False):
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=TOKENS,
        projection_dim=POOLED if projected else 64,
        hidden_act="gelu" if projected else "quick_gelu",
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def unet(base: str, channels: int = 4) -> UNet2DConditionModel:
    """The narrow UNets with the heads and groups that SD1.5 and SDXL have, and optionally 9 input channels."""
    made = unets.sdxl_unet() if base == "sdxl" else unets.sd15_unet()
    heads = [1, 1, 2] if base == "sdxl" else 8
    config = {**made.config, "norm_num_groups": 32, "attention_head_dim": heads, "in_channels": channels}
    config.pop("_use_default_values")  # it would put the defaults back
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(config).eval()


def vae(base: str) -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32] * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025 if base == "sdxl" else 0.18215,
    ).eval()


def pipeline(folder: Path, base: str = "sd15", channels: int = 4):
    """A pipeline whose tokenizer is kept in ``folder``."""
    place = save_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(place), model_max_length=TOKENS)
    shared = {
        "vae": vae(base),
        "unet": unet(base, channels),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder(len(tokenizer), 2),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    }
    if base == "sd15":
        return StableDiffusionPipeline(
            **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    return StableDiffusionXLPipeline(
        **shared,
        text_encoder_2=text_encoder(len(tokenizer), 3, projected=True),
        tokenizer_2=CLIPTokenizer.from_pretrained(str(place), model_max_length=TOKENS, pad_token="!"),
    )


def save_folder(folder: Path, base: str = "sd15", channels: int = 4) -> Path:
    """A diffusers folder."""
    pipeline(folder / "words", base, channels).save_pretrained(folder / "model")
    return folder / "model"


def save_file(folder: Path, base: str = "sd15", channels: int = 4, suffix: str = ".safetensors") -> Path:
    """The same weights in one file, with the tokenizer in a folder beside it."""
    tensors = single_file_tensors(pipeline(folder / "tokenizer", base, channels), base)
    path = folder / f"model{suffix}"
    if suffix == ".safetensors":
        return save_safetensors(path, tensors)
    torch.save({"state_dict": tensors}, path)
    return path


def single_file_tensors(pipe, base: str) -> dict[str, Tensor]:
    tensors = {f"model.diffusion_model.{_unet_name(n, pipe.unet)}": t for n, t in pipe.unet.state_dict().items()}
    for name, tensor in pipe.vae.state_dict().items():
        renamed = _vae_name(name)
        is_attention = "mid.attn_1" in renamed and renamed.endswith("weight") and tensor.ndim == 2
        tensors[f"first_stage_model.{renamed}"] = tensor[:, :, None, None] if is_attention else tensor
    place = "conditioner.embedders.0.transformer." if base == "sdxl" else "cond_stage_model.transformer."
    for name, tensor in pipe.text_encoder.state_dict().items():
        tensors[f"{place}text_model.{name.removeprefix('text_model.')}"] = tensor
    if base == "sdxl":
        state = pipe.text_encoder_2.state_dict()
        tensors |= {f"conditioner.embedders.1.model.{n}": t for n, t in _open_clip(state).items()}
    return {name: tensor.detach() for name, tensor in tensors.items()}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _unet_name(name: str, model: UNet2DConditionModel) -> str:
    stem, kind = name.rpartition(".")[::2]
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = f"middle_block.{1 if found[1] == 'attentions' else 2 * int(found[2])}"
        return f"{place}.{_inner(found[1], found[3])}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    side, level, part, number = found[1], int(found[2]), found[3], int(found[4])
    first = 3 * level + (1 if side == "down" else 0)
    prefix = "input_blocks" if side == "down" else "output_blocks"
    if part == "downsamplers":
        return f"{prefix}.{first + 2}.0.op.{kind}"
    if part == "upsamplers":
        has_attention = "CrossAttn" in model.config.up_block_types[level]
        return f"{prefix}.{first + 2}.{2 if has_attention else 1}.conv.{kind}"
    return f"{prefix}.{first + number}.{1 if part == 'attentions' else 0}.{_inner(part, found[5])}"


def _inner(part: str, name: str) -> str:
    head, dot, rest = name.partition(".")
    return name if part == "attentions" else f"{_RESNET[head]}{dot}{rest}"


def _vae_name(name: str) -> str:
    name = re.sub(r"(encoder|decoder)\.mid_block\.resnets\.(\d)", lambda m: f"{m[1]}.mid.block_{int(m[2]) + 1}", name)
    name = re.sub(r"mid_block\.attentions\.0", "mid.attn_1", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if "mid.attn_1" in name:
        for old, new in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            name = name.replace(old, new)
    return name


def _open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip keeps q, k, v in one matrix and the projection transposed."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    renamed = {
        "token_embedding.weight": plain.pop("embeddings.token_embedding.weight"),
        "positional_embedding": plain.pop("embeddings.position_embedding.weight"),
        "text_projection": plain.pop("text_projection.weight").T.contiguous(),
        "ln_final.weight": plain.pop("final_layer_norm.weight"),
        "ln_final.bias": plain.pop("final_layer_norm.bias"),
    }
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for layer in {name.split(".")[2] for name in plain if name.startswith("encoder.layers.")}:
        source, target = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [plain[f"{source}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            renamed[f"{target}.attn.in_proj_{kind}"] = torch.cat(parts)
            renamed[f"{target}.attn.out_proj.{kind}"] = plain[f"{source}.self_attn.out_proj.{kind}"]
            for old, new in inner.items():
                renamed[f"{target}.{new}.{kind}"] = plain[f"{source}.{old}.{kind}"]
    return renamed
