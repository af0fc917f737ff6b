"""What the tap does to tensors: gradients, dtypes, channels, and whether their memory comes back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import lib_faceid
from lib_faceid.core.entries import Entry
from lib_faceid.core.strength import Strength
from lib_faceid.core.tap import Taps
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import WrongBase

from .. import unets
from ..adapters import make_adapter
from ..unets import inputs, run


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
