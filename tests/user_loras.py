"""LoRAs as people load them: through PEFT, beside ours or instead of it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn

from lib_faceid.weights.lora import write_companion

from .adapters import Made


def add_user_lora(unet: nn.Module) -> None:
    """What PEFT does to the modules the taps sit on, with a LoRA that has an effect."""
    torch.manual_seed(7)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["to_q", "to_out.0"], init_lora_weights=False), unet)


def load_companion(unet: UNet2DConditionModel, made: Made, folder: Path) -> None:
    """The companion file through diffusers' own kohya conversion and PEFT, at 1.0."""
    raw = load_file(write_companion(made.load().lora(), folder / "companion.safetensors"))
    converted, alphas = _convert_non_diffusers_lora_to_diffusers(raw)
    named = {key.removeprefix("unet."): value for key, value in converted.items()}
    unet.load_lora_adapter(named, prefix=None, network_alphas=alphas or None)
