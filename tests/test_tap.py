"""The tap among others: wrappers that come later, modules that are bypassed, gradients, devices' dtypes, memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

import lib_faceid
from lib_faceid.core.entries import Entry
from lib_faceid.core.patch import live_patches
from lib_faceid.core.strength import Strength
from lib_faceid.core.tap import Taps
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import FaceNotApplied, WrongBase

from . import unets
from .adapters import make_adapter
from .unets import assert_same_state, inputs, run, state


@pytest.fixture
def unet():
    return unets.sd15_unet()


@pytest.fixture
def identity(tmp_path):
    return make_adapter(tmp_path, "faceid").identity()


def attention(unet: nn.Module) -> nn.Module:
    return unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2


def add_user_lora(unet: nn.Module) -> None:
    """What PEFT does to the modules the taps sit on, with a LoRA that has an effect."""
    torch.manual_seed(7)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["to_q", "to_out.0"], init_lora_weights=False), unet)


def test_a_lora_that_comes_later_is_followed(unet, identity):
    """PEFT wraps to_q and to_out[0] while the taps are in place: the same picture as with the LoRA there first."""
    first = unets.sd15_unet()
    add_user_lora(first)
    with lib_faceid.applied(first, identity, lora=0.0):
        expected = run(first, inputs(1))
    with lib_faceid.applied(unet, identity, lora=0.0):
        run(unet, inputs(1))
        add_user_lora(unet)
        found = run(unet, inputs(1))
        wrapped = attention(unet).to_q
        assert wrapped._forward_hooks
        assert not wrapped.base_layer._forward_hooks
    assert torch.equal(found, expected)
    assert not wrapped._forward_hooks
    assert live_patches() == []


def test_all_layers_fire_in_every_call(unet, identity):
    with lib_faceid.applied(unet, identity) as firing:
        for _ in range(3):
            run(unet, inputs(1))
    assert (firing.calls, firing.acted, firing.expected, firing.fewest) == (3, 3, 16, 16)


def test_a_unet_that_bypasses_its_attention_is_an_error(unet, identity):
    unet.forward = lambda sample, *_, **__: sample  # as a TensorRT engine does
    with pytest.raises(FaceNotApplied, match="ran without the attention modules"), lib_faceid.applied(unet, identity):
        unet(torch.zeros(1, 4, 8, 8), 0, None)


def test_a_processor_that_uses_weights_instead_of_modules_is_an_error(unet, identity):
    """q is seen and the result never passes to_out as a module: nothing is added, so it is not counted as reached."""

    def processor(attn, x, *_, **__):
        attn.to_q(x)
        return torch.nn.functional.linear(x, attn.to_out[0].weight, attn.to_out[0].bias)

    for module in find_layers(unet).attentions:
        module.processor = processor
    with pytest.raises(FaceNotApplied, match="without the attention modules"), lib_faceid.applied(unet, identity):
        run(unet, inputs(1))


def test_a_block_without_a_picture_is_told(unet, identity):
    sentence = "The UNet was not called inside the block"
    with pytest.warns(lib_faceid.FaceIDWarning, match=sentence) as caught, lib_faceid.applied(unet, identity):
        pass
    assert caught[0].filename == __file__


def test_a_window_that_no_step_falls_into_is_told(unet, identity):
    with (
        pytest.warns(lib_faceid.FaceIDWarning, match=r"None of the 2 steps falls in the window .* .0\.9 to 1."),
        lib_faceid.applied(unet, identity, start=0.9, progress=lambda: 0.5),
    ):
        run(unet, inputs(1))
        run(unet, inputs(1))


def test_progress_is_read_once_in_a_call(unet, identity):
    """A tensor would otherwise be compared in every layer, on CUDA each time waiting for the device."""
    reads = []

    class Fraction:
        def __float__(self):
            reads.append(1)
            return 0.5

    with lib_faceid.applied(unet, identity, end=0.6, progress=Fraction):
        run(unet, inputs(1))
    assert len(reads) == 1


def test_after_a_failed_call_rows_are_asked_for_again(unet, identity):
    """The next call enters through ``forward``: the failed call's rows must not serve for it."""
    fail = attention(unet).to_v.register_forward_pre_hook(lambda *_: 1 / 0)
    with lib_faceid.applied(unet, identity, rows=["cond"], lora=0.0):
        with pytest.raises(ZeroDivisionError):
            run(unet, inputs(1))
        fail.remove()
        assert unet._forward_hooks_always_called
        with torch.no_grad():
            found = unet.forward(**inputs(2)).sample
        assert torch.equal(found, run(unet, inputs(2)))


def test_torchs_defaults_do_not_matter(unet, tmp_path):
    """Hosts set a default dtype and device, and call under autocast."""
    made = make_adapter(tmp_path, "faceid-plusv2")
    expected = made.identity()
    features, adapter = made.features(), made.load()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = lib_faceid.make_identity(adapter, **features)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.kv[3].v, expected.kv[3].v)


def test_skipped_layers_are_told(unet, identity):
    """A caching extension that runs the middle block only once."""
    unet.mid_block.forward = lambda hidden_states, *_, **__: hidden_states
    with (
        pytest.warns(lib_faceid.FaceIDWarning, match="reached only 15 of 16 layers"),
        lib_faceid.applied(unet, identity),
    ):
        run(unet, inputs(1))


def test_a_unet_whose_call_is_bypassed_still_gets_its_rows(unet, identity):
    """Some hosts call ``forward`` directly, where the UNet's own hooks do not run."""
    call = inputs(2)
    with lib_faceid.applied(unet, identity, rows=["uncond", "cond"], lora=0.0):
        expected = run(unet, call)
        with torch.no_grad():
            found = unet.forward(**call).sample
    assert torch.equal(found, expected)


def test_an_attention_that_runs_twice_in_a_call(unet, identity):
    """reference_only runs attn2 once to write and once to read; each run gets the same contribution."""
    attn, seen = attention(unet), []
    forward = attn.forward

    def twice(hidden_states, *args, **kwargs):
        first = forward(hidden_states, *args, **kwargs)
        seen.append(torch.equal(first, forward(hidden_states, *args, **kwargs)))
        return first

    with lib_faceid.applied(unet, identity, lora=0.0):
        expected = run(unet, inputs(1))
        attn.forward = twice
        assert torch.equal(run(unet, inputs(1)), expected)
    assert seen == [True]


def test_an_error_between_the_hooks_leaves_nothing_for_the_next_call(unet, identity):
    """The slot filled in a failed call is overwritten, not added later."""
    with lib_faceid.applied(unet, identity, lora=0.0):
        expected = run(unet, inputs(1))
        handle = attention(unet).to_v.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(unet, inputs(1))
        handle.remove()
        assert torch.equal(run(unet, inputs(1)), expected)


def test_results_of_another_shape_are_an_error(unet, identity):
    attn = attention(unet)
    attn.to_v.register_forward_hook(lambda *_: None)
    attn.processor = lambda attn, x, *_, **__: attn.to_out[0](attn.to_q(x)[:, :3])
    sentence = r"made \(1, 64\) queries but \(1, 3\) results"
    with pytest.raises(FaceNotApplied, match=sentence), lib_faceid.applied(unet, identity, lora=0.0):
        run(unet, inputs(1))


@pytest.mark.parametrize("mask", [None, torch.tril(torch.ones(8, 8))])
def test_gradients_flow_through_the_identity(unet, identity, mask):
    """Guidance extensions differentiate through the UNet; what was made in inference mode must not stand in the way.

    The gradient is that of finite differences along one direction, and not the bare UNet's.
    """
    call = inputs(1)
    unet, sample = unet.double(), call["sample"].double()
    call = {**call, "encoder_hidden_states": call["encoder_hidden_states"].double()}
    direction = torch.randn_like(sample)

    def total(x):
        return unet(**{**call, "sample": x}).sample.sum()

    def slope():
        x = sample.clone().requires_grad_()
        total(x).backward()
        return (x.grad * direction).sum()

    bare = slope()
    with lib_faceid.applied(unet, identity, weight=3.0, mask=mask, lora=0.0):
        with torch.inference_mode():
            total(sample)
        exact = slope()
        with torch.no_grad():
            step = 1e-4 * direction
            estimate = (total(sample + step) - total(sample - step)) / 2e-4
    torch.testing.assert_close(exact, estimate, rtol=1e-3, atol=1e-6)
    assert (exact - bare).abs() > 10 * (exact - estimate).abs()


def test_an_identity_made_in_inference_mode(unet, tmp_path):
    made = make_adapter(tmp_path, "faceid-plusv2")
    expected = made.identity()
    with torch.inference_mode():
        identity = made.identity()
    assert not identity.tokens.is_inference()
    assert not identity.vectors.is_inference()
    assert torch.equal(identity.tokens, expected.tokens)


def test_the_compute_dtype_may_change(unet, identity):
    """The same taps in float32 and then in bfloat16: tables are made anew."""
    call = inputs(1)
    with lib_faceid.applied(unet, identity, lora=0.0):
        exact = run(unet, call)
        unet.bfloat16()
        lowered = run(
            unet,
            {
                **call,
                "sample": call["sample"].bfloat16(),
                "encoder_hidden_states": call["encoder_hidden_states"].bfloat16(),
            },
        )
    assert lowered.dtype == torch.bfloat16
    assert (lowered - exact).abs().max() < 0.1 * exact.abs().max()


def test_autocast(unet, identity):
    """q is bfloat16 while weights are float32; the result stays near the exact one and differs from the bare one."""
    call = inputs(1)
    with lib_faceid.applied(unet, identity, weight=5.0, lora=0.0):
        exact = run(unet, call)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = run(unet, call)
    bare = run(unet, call)
    assert (found - exact).norm() < 0.1 * (exact - bare).norm()


def test_channels_of_another_model(unet, tmp_path):
    identity = make_adapter(tmp_path, "faceid").identity()
    wide = {n: type(kv)(kv.k.repeat(1, 1, 2), kv.v.repeat(1, 1, 2)) for n, kv in identity.kv.items()}
    with pytest.raises(WrongBase, match=r"64 channels for layer 0 and this SD1\.5 UNet has 32"):
        Taps(unet, find_layers(unet), [Entry(wide, Strength())], source=None)


def test_unet_and_tensors_are_let_go_at_once(tmp_path):
    """Without waiting for the garbage collector: ``del pipe`` has to give the memory back."""
    made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
    identity = made.identity()
    gc.collect()
    gc.disable()
    try:
        with lib_faceid.applied(unet, identity, mask=torch.ones(8, 8)):
            run(unet, inputs(1))
        watched = [weakref.ref(unet), weakref.ref(identity.main.kv[0].k)]
        del unet, identity
        assert [reference() for reference in watched] == [None, None]
    finally:
        gc.enable()


def test_hooks_of_others_on_the_same_modules_stay(unet, identity):
    attn = attention(unet)
    attn.to_q.register_forward_hook(lambda *_: None)
    attn.to_out[0].register_forward_pre_hook(lambda *_: None)
    before = state(unet)
    with lib_faceid.applied(unet, identity):
        run(unet, inputs(1))
    assert_same_state(before, state(unet))


def test_the_slot_is_emptied_when_it_is_used(unet, identity):
    """to_out called once more, by whomever, gets nothing added."""
    out, x = attention(unet).to_out[0], torch.randn(1, 64, 32)
    with lib_faceid.applied(unet, identity, lora=0.0), torch.no_grad():
        run(unet, inputs(1))
        assert torch.equal(out(x), torch.nn.functional.linear(x, out.weight, out.bias))
