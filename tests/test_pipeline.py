"""In diffusers' own pipelines: the same picture as their IP-Adapter, in the steps that were asked for."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.errors import RowsMismatch, UnsupportedUNet

from . import oracle_diffusers
from .adapters import make_adapter
from .bare_pipelines import draw, sd15, sdxl
from .unets import assert_same_state, relative_error, state


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
