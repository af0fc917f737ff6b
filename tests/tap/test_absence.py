"""Off is absent: bit for bit the bare UNet, and no module holds anything of ours."""

from __future__ import annotations

import pytest
import torch

import lib_faceid
from lib_faceid.core.patch import HookPatch, live_patches, sweep

from ..adapters import make_adapter
from ..unets import assert_same_state, inputs, run, state


@pytest.fixture
def untouched(unet):
    """Checks at the end of a test that the UNet is as it was, down to the bits of its output."""
    before, picture = state(unet), run(unet, inputs(1))
    yield
    assert_same_state(before, state(unet))
    assert torch.equal(run(unet, inputs(1)), picture)
    assert live_patches() == []


@pytest.mark.usefixtures("untouched")
class TestAfterwards:
    def test_after_a_picture(self, unet, identity):
        bare = run(unet, inputs(1))
        with lib_faceid.applied(unet, identity):
            assert not torch.equal(run(unet, inputs(1)), bare)

    def test_installed_and_removed_twice(self, unet, identity):
        pictures = []
        for _ in range(2):
            with lib_faceid.applied(unet, identity):
                pictures.append(run(unet, inputs(1)))
        assert torch.equal(*pictures)

    def test_error_in_the_body(self, unet, identity):
        with pytest.raises(KeyError, match="body"), lib_faceid.applied(unet, identity):
            run(unet, inputs(1))
            raise KeyError("body")

    def test_error_in_the_middle_of_a_unet_call(self, unet, identity):
        def fail(*_):
            raise RuntimeError("out of memory")

        handle = unet.up_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"), lib_faceid.applied(unet, identity):
            run(unet, inputs(1))
        handle.remove()

    def test_error_in_a_tap(self, unet, identity):
        with pytest.raises(ValueError, match="called with 2 rows"), lib_faceid.applied(unet, identity):
            run(unet, inputs(2))

    def test_keyboard_interrupt(self, unet, identity):
        with pytest.raises(KeyboardInterrupt), lib_faceid.applied(unet, identity):
            raise KeyboardInterrupt

    def test_error_while_removing(self, unet, identity, monkeypatch):
        """The removal of one hook fails: all others are taken away, the LoRA comes out, the error is seen, and what is
        left is found and taken away later."""
        remove = HookPatch._remove
        failed = []

        def failing(patch):
            if patch.label.endswith("attn2.to_q") and not failed:
                failed.append(patch.label)
                raise OSError("removing")
            remove(patch)

        monkeypatch.setattr(HookPatch, "_remove", failing)
        with pytest.raises(OSError, match="removing"), lib_faceid.applied(unet, identity):
            run(unet, inputs(1))
        assert [patch.label for patch in live_patches()] == failed
        assert sweep() == []

    def test_error_while_installing(self, unet, identity, monkeypatch):
        install = HookPatch._install

        def failing(patch):
            if "mid_block" in patch.label:
                raise OSError("installing")
            install(patch)

        monkeypatch.setattr(HookPatch, "_install", failing)
        with pytest.raises(OSError, match="installing"), lib_faceid.applied(unet, identity):
            pass

    def test_two_installations_leave_in_turn(self, unet, identity):
        bare = run(unet, inputs(1))
        with lib_faceid.applied(unet, identity, lora=0.0):
            once = run(unet, inputs(1))
            with lib_faceid.applied(unet, identity, lora=0.0):
                twice = run(unet, inputs(1))
            assert torch.equal(run(unet, inputs(1)), once)
        with lib_faceid.applied(unet, identity, lora=0.0, weight=2.0):
            doubled = run(unet, inputs(1))
        torch.testing.assert_close(twice - bare, doubled - bare, rtol=1e-4, atol=1e-5)

    def test_two_installations_leave_in_the_other_order(self, unet, identity):
        first, second = lib_faceid.applied(unet, identity, lora=0.0), lib_faceid.applied(unet, identity, lora=0.0)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        once = run(unet, inputs(1))
        second.__exit__(None, None, None)
        with lib_faceid.applied(unet, identity, lora=0.0):
            assert torch.equal(run(unet, inputs(1)), once)

    def test_a_wrong_base_never_touches_the_unet(self, unet, tmp_path):
        stranger = make_adapter(tmp_path, "faceid", "sdxl").identity()
        sentence = r"adapter for SDXL \(context 128\).*UNet is SD1.5 \(context 64, expected 128\)"
        with pytest.raises(lib_faceid.FaceIDError, match=sentence), lib_faceid.applied(unet, stranger):
            pass


class TestOff:
    """The block is entered and nothing happens to the picture."""

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"weight": 0.0},  # the LoRA at its default of 0.65 included
            {"weight": 0.0, "lora": 1.0},
            {"start": 0.5, "lora": 0.0, "progress": lambda: 0.2},
            {"end": 0.5, "lora": 0.0, "progress": lambda: 0.6},
        ],
    )
    def test_bit_identical(self, unet, identity, kwargs):
        bare = run(unet, inputs(1))
        with lib_faceid.applied(unet, identity, **kwargs):
            assert torch.equal(run(unet, inputs(1)), bare)

    def test_weight_zero_installs_nothing(self, unet, identity):
        before = state(unet)
        with lib_faceid.applied(unet, identity, weight=0.0):
            assert_same_state(before, state(unet))
            assert live_patches() == []

    def test_a_large_weight_changes_the_picture(self, unet, identity):
        bare = run(unet, inputs(1))
        with lib_faceid.applied(unet, identity, weight=42.0, lora=0.0):
            assert (run(unet, inputs(1)) - bare).abs().max() > 1e-2

    def test_one_of_two_people_off_is_the_other_alone(self, unet, identity, tmp_path):
        other = make_adapter(tmp_path, "faceid", seed=5).identity()
        with lib_faceid.applied(unet, other, lora=0.0):
            alone = run(unet, inputs(1))
        with lib_faceid.applied(unet, [identity, other], weight=[0.0, 1.0], lora=0.0):
            assert torch.equal(run(unet, inputs(1)), alone)
