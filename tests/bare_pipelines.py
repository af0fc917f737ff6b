"""diffusers' pipelines in memory, tiny and random, that take encoded prompts and give latents."""

from __future__ import annotations

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from . import unets
from .pipelines import vae


def sd15(kind=StableDiffusionPipeline, scheduler=None, **extra):
    pipe = kind(
        vae=vae("sd15"),
        text_encoder=None,
        tokenizer=None,
        unet=unets.sd15_unet(),
        scheduler=scheduler or DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **extra,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sdxl():
    pipe = StableDiffusionXLPipeline(
        vae=vae("sdxl"),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unets.sdxl_unet(),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, base="sd15", *, pictures=1, steps=3, guidance=5.0, **kwargs):
    generator = torch.Generator().manual_seed(0)
    width = unets.CONTEXT[base]
    prompts = {
        "prompt_embeds": torch.randn(1, 7, width, generator=generator),
        "negative_prompt_embeds": torch.randn(1, 7, width, generator=generator),
    }
    if base == "sdxl":
        prompts["pooled_prompt_embeds"] = torch.randn(1, 32, generator=generator)
        prompts["negative_pooled_prompt_embeds"] = torch.randn(1, 32, generator=generator)
    size = {} if isinstance(pipe, StableDiffusionImg2ImgPipeline) else {"height": 64, "width": 64}
    return pipe(
        **prompts,
        **size,
        num_inference_steps=steps,
        guidance_scale=guidance,
        num_images_per_prompt=pictures,
        generator=generator,
        output_type="latent",
        **kwargs,
    ).images
