"""Small random UNets with the exact SD1.5 and SDXL topologies, and a way to photograph all hooks and attributes of
one.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

WIDTHS = (32, 64, 128)  # channels of the three levels, instead of 320, 640, 1280
CONTEXT = {"sd15": 64, "sdxl": 128}  # instead of 768 and 2048; as in layouts.NARROW


def sd15_unet(seed: int = 0) -> UNet2DConditionModel:
    """16 cross-attentions, 8 heads each."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        block_out_channels=(*WIDTHS, WIDTHS[-1]),
        cross_attention_dim=CONTEXT["sd15"],
        attention_head_dim=8,
        norm_num_groups=8,
        sample_size=32,
    ).eval()


def sdxl_unet(seed: int = 0) -> UNet2DConditionModel:
    """70 cross-attentions; heads grow with the channels, as in SDXL."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[1, 2, 4],
        use_linear_projection=True,
        cross_attention_dim=CONTEXT["sdxl"],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
        norm_num_groups=8,
        sample_size=32,
    ).eval()


def ldm_unet(seed: int = 0) -> nn.Module:
    """The original UNetModel, SD1.5 topology."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(seed)
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=WIDTHS[0],
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        channel_mult=[1, 2, 4, 4],
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=1,
        context_dim=CONTEXT["sd15"],
        use_checkpoint=False,
        legacy=False,
    ).eval()
    for parameter in unet.parameters():  # it zeroes its output convolutions, which would hide every effect
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return unet


UNETS = {"sd15": sd15_unet, "sdxl": sdxl_unet}


def inputs(rows: int, base: str = "sd15", size: tuple[int, int] = (8, 8), seed: int = 1) -> dict[str, Any]:
    """Random latent, timestep and text for a diffusers UNet call with ``rows`` rows; SDXL's extra conditions
    included.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(rows, 4, *size, generator=generator),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(rows, 7, CONTEXT[base], generator=generator),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(rows, 32, generator=generator),
            "time_ids": torch.randn(rows, 6, generator=generator),
        },
    }


def run(unet: nn.Module, call: dict[str, Any], **extra: Any) -> Tensor:
    """The UNet's output without gradients; ``extra`` adds to ``added_cond_kwargs``."""
    kwargs = {**call, "added_cond_kwargs": {**call["added_cond_kwargs"], **extra}}
    with torch.no_grad():
        return unet(**kwargs).sample


def run_ldm(unet: nn.Module, call: dict[str, Any]) -> Tensor:
    """The same call on an ldm UNet."""
    with torch.no_grad():
        rows = call["sample"].shape[0]
        return unet(call["sample"], torch.full((rows,), 500), context=call["encoder_hidden_states"])


def state(module: nn.Module) -> dict[str, Any]:
    """Everything a patch could leave behind: names in ``vars()``, hooks in order, and weights by their bits."""
    seen: dict[str, Any] = {}
    for name, child in module.named_modules():
        seen[name] = {
            "vars": {key: id(value) for key, value in vars(child).items()},
            "hooks": {key: list(value.items()) for key, value in vars(child).items() if key.endswith("_hooks")},
            "flags": {key: dict(value) for key, value in vars(child).items() if "hooks_" in key},
            "weights": {key: value.detach().clone() for key, value in child.named_parameters(recurse=False)},
        }
    return seen


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Fails with the first module and aspect that differ."""
    assert before.keys() == after.keys()
    for name, was in before.items():
        now = after[name]
        for aspect in ("vars", "hooks", "flags"):
            assert was[aspect] == now[aspect], f"{name or 'unet'}: {aspect} changed"
        for key, value in was["weights"].items():
            assert torch.equal(value, now["weights"][key]), f"{name}.{key} changed"


def relative_error(found: Tensor, expected: Tensor, base: Tensor) -> float:
    """Largest difference in relation to the largest effect: |found - expected| / |expected - base|."""
    return ((found - expected).abs().max() / (expected - base).abs().max()).item()
