"""In diffusers' own pipelines: rows from their guidance, steps from their timesteps, the same picture as their
IP-Adapter.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.core.tokens import Row
from lib_faceid.errors import RowsMismatch, UnsupportedUNet
from lib_faceid.hosts.pipeline_calls import PipelineCalls

from . import oracle_diffusers, unets
from .adapters import make_adapter
from .unets import assert_same_state, relative_error, state


def vae():
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        norm_num_groups=4,
        latent_channels=4,
    )


def sd15(kind=StableDiffusionPipeline, scheduler=None, **extra):
    pipe = kind(
        vae=vae(),
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
        vae=vae(),
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


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("pictures", [1, 2])
def test_with_guidance_equal_to_diffusers(tmp_path, base, pictures):
    """A whole run: positive rows get the person, negative rows the projected zero input, in every step."""
    made = make_adapter(tmp_path, "faceid", base)
    build = sdxl if base == "sdxl" else sd15
    bare = draw(build(), base, pictures=pictures)
    theirs = build()
    oracle_diffusers.load(theirs.unet, [made], [0.8])
    embeds = oracle_diffusers.image_embeds(theirs.unet, 0, made, made.features(), ["uncond", "cond"])
    expected = draw(theirs, base, pictures=pictures, ip_adapter_image_embeds=[embeds])
    ours = build()
    with lib_faceid.applied(ours, made.identity(), weight=0.8, lora=0.0):
        found = draw(ours, base, pictures=pictures)
    assert relative_error(found, expected, bare) <= 1e-4


def test_the_negative_half_gets_the_uncond_tokens(tmp_path):
    """Seen from outside: what reaches to_out, less what reaches it without us, is attention to each side's tokens."""
    identity = make_adapter(tmp_path, "faceid").identity()
    seen = []
    pipe = sd15()
    with lib_faceid.applied(pipe, identity, lora=0.0):
        attn = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
        attn.to_q.register_forward_hook(lambda m, args, q: seen.append([q]))
        attn.to_out[0].register_forward_pre_hook(lambda m, args: seen[-1].append(args[0]))
        draw(pipe, steps=1)
    bare = sd15()
    alone = []
    attn = bare.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    attn.to_out[0].register_forward_pre_hook(lambda m, args: alone.append(args[0]))
    draw(bare, steps=1)
    (q, with_identity), (without,) = seen[0], [alone[0]]
    for row, side in enumerate((0, 1)):  # uncond first; LayerKV keeps uncond first as well
        k, v = identity.kv[0].k[side], identity.kv[0].v[side]
        heads = [
            torch.softmax(q[row, :, p] @ k[:, p].T / 2.0, -1) @ v[:, p]
            for p in (slice(4 * h, 4 * h + 4) for h in range(8))
        ]
        torch.testing.assert_close(with_identity[row] - without[row], torch.cat(heads, -1), rtol=1e-4, atol=1e-5)


def test_without_guidance_all_rows_are_positive(tmp_path):
    identity = make_adapter(tmp_path, "faceid").identity()
    pipe = sd15()
    with lib_faceid.applied(pipe, identity, lora=0.0):
        single = draw(pipe, guidance=1.0)
    with lib_faceid.applied(pipe.unet, identity, rows=["cond"], lora=0.0):
        assert torch.equal(draw(pipe, guidance=1.0), single)


def test_afterwards_nothing_is_left(tmp_path):
    pipe = sd15()
    before, bare = state(pipe.unet), draw(pipe)
    with lib_faceid.applied(pipe, make_adapter(tmp_path, "faceid").identity()):
        draw(pipe)
    assert_same_state(before, state(pipe.unet))
    assert torch.equal(draw(pipe), bare)


class Recorder(PipelineCalls):
    """Keeps what the pipeline's steps were taken for."""

    def __init__(self, pipe):
        super().__init__(pipe)
        self.steps = []
        pipe.unet.register_forward_pre_hook(
            lambda m, args, kwargs: self.steps.append(self.progress(args[1])), with_kwargs=True
        )


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (lambda: DDIMScheduler(steps_offset=1, clip_sample=False), [0, 1 / 4, 2 / 4, 3 / 4]),
        (lambda: EulerDiscreteScheduler(steps_offset=1), [0, 1 / 4, 2 / 4, 3 / 4]),
        (
            lambda: HeunDiscreteScheduler(steps_offset=1),
            [i / 7 for i in range(7)],
        ),  # second order: every timestep but the first counts twice
    ],
)
def test_progress_by_the_pipelines_own_timesteps(scheduler, expected):
    pipe = sd15(scheduler=scheduler())
    recorder = Recorder(pipe)
    draw(pipe, steps=4)
    draw(pipe, steps=4)
    assert recorder.steps == pytest.approx(expected * 2)


@pytest.mark.parametrize(
    ("scheduler", "steps", "expected"),
    [
        (lambda: DDIMScheduler(steps_offset=1, clip_sample=False), 6, [0, 1 / 3, 2 / 3]),
        # 15 timesteps, of which the pass takes the last 7 and enters on the second of a pair
        (lambda: HeunDiscreteScheduler(steps_offset=1), 8, [i / 7 for i in range(7)]),
    ],
)
def test_progress_of_img2img_starts_at_zero(scheduler, steps, expected):
    pipe = sd15(StableDiffusionImg2ImgPipeline, scheduler=scheduler())
    recorder = Recorder(pipe)
    for _ in range(2):
        draw(pipe, steps=steps, strength=0.5, image=torch.zeros(1, 3, 64, 64))
    assert recorder.steps == pytest.approx(expected * 2)


def test_progress_where_the_list_of_timesteps_is_copied_in_between():
    """Some pipelines put back a copy of the scheduler's state at every step; that begins no new pass."""
    pipe = sd15()
    calls = PipelineCalls(pipe)
    pipe.scheduler.set_timesteps(4)
    pipe._num_timesteps = 4
    seen = []
    for timestep in list(pipe.scheduler.timesteps):
        pipe.scheduler.timesteps = pipe.scheduler.timesteps.clone()
        seen.append(calls.progress(timestep))
    assert seen == [0, 0.25, 0.5, 0.75]


def test_start_and_end_in_a_pipeline(tmp_path):
    """Active in steps 1 and 2 of 4: equal to a bare UNet with the same fractions."""
    identity = make_adapter(tmp_path, "faceid").identity()
    pipe, steps = sd15(), iter([0.0, 0.25, 0.5, 0.75])
    with lib_faceid.applied(pipe, identity, start=0.25, end=0.5, lora=0.0):
        found = draw(pipe, steps=4)
    rows = ["uncond", "cond"]
    with lib_faceid.applied(
        pipe.unet, identity, rows=rows, start=0.25, end=0.5, lora=0.0, progress=lambda: next(steps)
    ):
        assert torch.equal(draw(pipe, steps=4), found)
    with lib_faceid.applied(pipe, identity, lora=0.0):
        assert not torch.equal(draw(pipe, steps=4), found)


def test_rows_of_perturbed_attention_guidance():
    """PAG adds a third, positive part to every call."""
    pipe = sd15(StableDiffusionPAGPipeline, pag_applied_layers=["mid"], image_encoder=None)
    seen = []
    calls = PipelineCalls(pipe)
    pipe.unet.register_forward_pre_hook(lambda m, args: seen.append(calls.rows(len(args[0]))))
    draw(pipe, steps=1, pictures=2, pag_scale=3.0)
    assert seen[0] == [Row(side, image) for side in ("uncond", "cond", "cond") for image in (0, 1)]


def test_rows_that_do_not_fit_the_guidance():
    class StableDiffusionPipeline:
        do_classifier_free_guidance = True

    with pytest.raises(RowsMismatch, match="called its UNet with 3 rows, which is not a multiple of the 2 parts"):
        PipelineCalls(StableDiffusionPipeline()).rows(3)


def test_rows_of_instruct_pix2pix():
    """Prompt, image and unconditional part, in this order."""
    pipe = sd15(StableDiffusionInstructPix2PixPipeline, image_encoder=None)
    calls = PipelineCalls(pipe)
    pipe._guidance_scale, pipe._image_guidance_scale = 5.0, 1.5
    assert [row.side for row in calls.rows(6)] == ["cond", "cond", "uncond", "uncond", "uncond", "uncond"]


def test_a_pipeline_whose_rows_are_not_known(tmp_path):
    """Panorama puts views side by side and guides outside its property."""
    pipe = sd15(StableDiffusionPanoramaPipeline, image_encoder=None)
    identity = make_adapter(tmp_path, "faceid").identity()
    with (
        pytest.raises(RowsMismatch, match="How StableDiffusionPanoramaPipeline orders the rows"),
        lib_faceid.applied(pipe, identity),
    ):
        draw(pipe, steps=1)


def test_rows_given_for_a_pipeline(tmp_path):
    pipe, identity = sd15(), make_adapter(tmp_path, "faceid").identity()
    with lib_faceid.applied(pipe, identity, lora=0.0):
        expected = draw(pipe)
    with lib_faceid.applied(pipe, identity, rows=["uncond", "cond"], lora=0.0):
        assert torch.equal(draw(pipe), expected)


def test_another_pipeline_on_the_same_unet_is_an_error(tmp_path):
    """Built with from_pipe, it has guidance of its own; the given pipeline's would be stale."""
    pipe, identity = sd15(), make_adapter(tmp_path, "faceid").identity()
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    draw(pipe, guidance=1.0)
    image = torch.zeros(1, 3, 64, 64)
    with (
        pytest.raises(RowsMismatch, match="called by something else than the StableDiffusionPipeline"),
        lib_faceid.applied(pipe, identity),
    ):
        draw(other, image=image)
    with lib_faceid.applied(other, identity):
        draw(other, image=image)
    assert pipe._guidance_scale == 1.0
    assert live_patches() == []


def test_a_pipeline_without_a_unet(tmp_path):
    class StableDiffusion3Pipeline:
        transformer = None

    identity = make_adapter(tmp_path, "faceid").identity()
    with (
        pytest.raises(UnsupportedUNet, match="StableDiffusion3Pipeline has no UNet"),
        lib_faceid.applied(StableDiffusion3Pipeline(), identity),
    ):
        pass


@pytest.mark.parametrize(
    "wrong", [{"identity": []}, {"rows": ["positive"]}, {"weight": [1.0, 2.0]}, {"start": 0.7, "end": 0.2}]
)
def test_arguments_that_make_no_sense(tmp_path, wrong):
    given = {"identity": make_adapter(tmp_path, "faceid").identity(), **wrong}
    with (
        pytest.raises(ValueError, match=r"No identity|'cond' or 'uncond'|one weight|start <= end"),
        lib_faceid.applied(sd15(), given.pop("identity"), **given),
    ):
        pass
