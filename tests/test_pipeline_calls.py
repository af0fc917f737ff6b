"""Whose rows a pipeline calls its UNet with, and how far it is, read from its own guidance and timesteps."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
)

import lib_faceid
from lib_faceid.core.tokens import Row
from lib_faceid.errors import RowsMismatch
from lib_faceid.hosts.pipeline_calls import PipelineCalls

from .adapters import make_adapter
from .bare_pipelines import draw, sd15


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
