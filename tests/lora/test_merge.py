"""The LoRA inside an adapter: equal to PEFT's, merged and taken out exactly, refused where it does not fit."""

from __future__ import annotations

import pytest
import torch

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import WrongBase, WrongWeights
from lib_faceid.weights.merge import LoraMerge

from .. import unets
from ..adapters import make_adapter
from ..layouts import nest
from ..unets import UNETS, assert_same_state, inputs, relative_error, run, run_ldm, state
from ..user_loras import add_user_lora
from .merges import merge_of, to_q


def peft_result(made, base):
    """diffusers extracts the embedded keys and loads them through PEFT at 1.0."""
    unet = UNETS[base]()
    unet._load_ip_adapter_weights([nest(made.tensors)], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.0]
    state_dict = unet._load_ip_adapter_loras([nest(made.tensors)])[0]
    unet.load_lora_adapter({key.removeprefix("unet."): value for key, value in state_dict.items()}, prefix=None)
    return run(unet, inputs(1, base), image_embeds=[torch.zeros(1, 1, 512)])


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_equal_to_peft(tmp_path, base):
    made = make_adapter(tmp_path, "faceid", base)
    expected = peft_result(made, base)
    unet = UNETS[base]()
    bare = run(unet, inputs(1, base))
    merge = merge_of(unet, made)
    merge.install()
    found = run(unet, inputs(1, base))
    merge.remove()
    assert relative_error(found, expected, bare) <= 1e-4


def test_every_module_by_hand(tmp_path):
    """W' = W + strength * up @ down for all 128 modules; even numbers in the file are attn1, odd ones attn2."""
    made = make_adapter(tmp_path, "faceid")
    unet = unets.ldm_unet()
    before = {name: parameter.clone() for name, parameter in unet.named_parameters()}
    merge = merge_of(unet, made, 0.65)
    merge.install()
    blocks = [
        name
        for part in ("input", "output", "middle")
        for name, _ in unet.named_modules()
        if name.startswith(f"{part}_block") and name.endswith("transformer_blocks.0")
    ]
    changed = 0
    for n, block in enumerate(blocks):
        for number, attention in ((2 * n, "attn1"), (2 * n + 1, "attn2")):
            for projection, linear in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")):
                down = made.tensors[f"ip_adapter.{number}.{projection}_lora.down.weight"]
                up = made.tensors[f"ip_adapter.{number}.{projection}_lora.up.weight"]
                name = f"{block}.{attention}.{linear}"
                found = unet.get_submodule(name).weight
                torch.testing.assert_close(found, before[f"{name}.weight"] + 0.65 * (up @ down))
                changed += 1
    assert changed == 128
    merge.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_merge_then_unmerge_is_bit_for_bit(tmp_path, dtype):
    made = make_adapter(tmp_path, "faceid")
    unet = unets.sd15_unet().to(dtype)
    before = state(unet)
    merge = merge_of(unet, made, 0.65)
    for _ in range(2):
        merge.install()
        assert not torch.equal(
            to_q(unet).weight,
            before["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]["weights"]["weight"],
        )
        merge.remove()
        assert_same_state(before, state(unet))


def assert_comes_and_goes(merge, unet):
    before = state(unet)
    merge.install()
    with pytest.raises(AssertionError):
        assert_same_state(before, state(unet))
    merge.remove()
    assert_same_state(before, state(unet))


def test_weights_made_in_inference_mode(tmp_path):
    with torch.inference_mode():
        unet = unets.sd15_unet()
    assert_comes_and_goes(merge_of(unet, make_adapter(tmp_path, "faceid")), unet)


def test_under_a_wrapper_of_peft(tmp_path):
    unet = unets.sd15_unet()
    add_user_lora(unet)
    assert_comes_and_goes(merge_of(unet, make_adapter(tmp_path, "faceid")), unet)


def test_failure_in_the_middle_of_merging_takes_everything_back(tmp_path):
    """The last module has another shape: all before it are restored."""
    unet = unets.sd15_unet()
    unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0] = torch.nn.Linear(128, 64)
    before = state(unet)
    merge = merge_of(unet, make_adapter(tmp_path, "faceid"))
    sentence = r"changes mid_block.* of shape \(128, 128\), and this UNet has \(64, 128\)"
    with pytest.raises(WrongBase, match=sentence):
        merge.install()
    assert_same_state(before, state(unet))
    assert live_patches() == []


def test_another_base(tmp_path):
    unet = unets.sd15_unet()
    lora = make_adapter(tmp_path, "faceid", "sdxl").load().lora()
    with pytest.raises(WrongBase, match=r"is for SDXL and this UNet is SD1\.5"):
        LoraMerge(find_layers(unet), unet, lora, 1.0).install()


def test_quantised_weights_are_refused(tmp_path):
    unet = unets.sd15_unet()
    linear = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    linear.weight = torch.nn.Parameter(linear.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(WrongWeights, match=r"stored as float8_e4m3fn\. Use a 16 or 32 bit UNet, or lora=0"):
        merge_of(unet, make_adapter(tmp_path, "faceid")).install()


def test_merged_on_the_original_unet(tmp_path):
    unet = unets.ldm_unet()
    bare = run_ldm(unet, inputs(1))
    with lib_faceid.applied(unet, make_adapter(tmp_path, "faceid").identity(), lora=1.0):
        assert not torch.equal(run_ldm(unet, inputs(1)), bare)
    assert torch.equal(run_ldm(unet, inputs(1)), bare)


def test_weights_that_are_offloaded_layer_by_layer_are_refused(tmp_path):
    unet = unets.sd15_unet()
    attn1 = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    attn1.to_q = torch.nn.Linear(32, 32, bias=False, device="meta")
    with pytest.raises(WrongWeights, match=r"not in memory \(it is offloaded layer by layer"):
        merge_of(unet, make_adapter(tmp_path, "faceid")).install()


def test_fused_projections_are_refused(tmp_path):
    unet = unets.sd15_unet()
    unet.fuse_qkv_projections()
    with pytest.raises(WrongWeights, match=r"q, k and v were fused\. Call unfuse_qkv_projections"):
        merge_of(unet, make_adapter(tmp_path, "faceid")).install()
