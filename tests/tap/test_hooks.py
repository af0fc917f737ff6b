"""The tap among others: wrappers that come later, modules that are bypassed or run twice, hooks of others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import FaceNotApplied

from .. import unets
from ..unets import assert_same_state, inputs, run, state
from ..user_loras import add_user_lora


def attention(unet: nn.Module) -> nn.Module:
    return unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2


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
