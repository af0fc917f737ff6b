"""Others change the weights a LoRA is merged into, or a second one is: each leaves what is not its own."""

from __future__ import annotations

import pytest
import torch

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.weights.merge import merges_on

from .. import unets
from ..adapters import make_adapter
from ..unets import assert_same_state, inputs, run, state
from .merges import merge_of, to_q


class TestSomebodyElse:
    """Weights that others change while the LoRA is merged: their change stays, ours goes, and it is told."""

    @pytest.fixture
    def unet(self):
        return unets.sd15_unet()

    @pytest.fixture
    def merge(self, unet, tmp_path):
        made = merge_of(unet, make_adapter(tmp_path, "faceid"), 0.65)
        made.install()
        return made

    def test_a_lora_is_fused_meanwhile(self, unet, merge):
        """As PEFT does it: through ``.data``, which torch's version counter does not see."""
        bare = to_q(unets.sd15_unet()).weight
        to_q(unet).weight.data += 1.0
        with pytest.warns(lib_faceid.FaceIDWarning, match=r"1 weights .such as mid_block.*attn1\.to_q. were changed"):
            merge.remove()
        torch.testing.assert_close(to_q(unet).weight, bare + 1.0)

    def test_another_checkpoint_is_loaded_meanwhile(self, unet, merge):
        other = unets.sd15_unet(seed=9)
        unet.load_state_dict(other.state_dict(), assign=True)
        with pytest.warns(lib_faceid.FaceIDWarning, match="128 weights"):
            merge.remove()
        for name, parameter in unet.named_parameters():
            assert torch.equal(parameter, other.get_parameter(name))

    def test_another_checkpoint_is_copied_in_meanwhile(self, unet, merge):
        other = unets.sd15_unet(seed=9)
        unet.load_state_dict(other.state_dict())
        with pytest.warns(lib_faceid.FaceIDWarning, match="128 weights"):
            merge.remove()
        # exactly theirs is not to be had by subtraction; what was copied over ours is less our delta
        assert not torch.equal(to_q(unet).weight, to_q(unets.sd15_unet()).weight)

    def test_one_failing_write_does_not_keep_the_others(self, unet, merge, monkeypatch):
        bare = unets.sd15_unet()
        from lib_faceid.weights import merge as module

        write, calls = module._Kept.write, []

        def failing(kept, value):
            calls.append(kept)
            if len(calls) == 2:
                raise OSError("device lost")
            write(kept, value)

        monkeypatch.setattr(module._Kept, "write", failing)
        with pytest.raises(OSError, match="device lost"):
            merge.remove()
        pairs = zip(unet.named_parameters(), bare.parameters(), strict=True)
        assert sum(not torch.equal(mine, theirs) for (_, mine), theirs in pairs) == 1
        assert live_patches() == []


class TestTwoFiles:
    """Two people, each with an adapter of their own: two LoRAs on the same weights."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_they_leave_in_any_order(self, tmp_path, dtype, order):
        unet = unets.sd15_unet().to(dtype)
        merges = [merge_of(unet, make_adapter(tmp_path, "faceid", seed=seed), 0.65) for seed in (1, 2)]
        before, alone = state(unet), []
        for merge in merges:
            merge.install()
            alone.append(to_q(unet).weight.detach().clone())
            merge.remove()
        for merge in merges:
            merge.install()
        assert not torch.equal(to_q(unet).weight, alone[0])
        merges[order[0]].remove()
        assert torch.equal(to_q(unet).weight, alone[order[1]])
        merges[order[1]].remove()
        assert_same_state(before, state(unet))

    def test_in_one_block(self, tmp_path):
        unet = unets.sd15_unet()
        before = state(unet)
        people = [make_adapter(tmp_path, "faceid", seed=seed).identity() for seed in (1, 2)]
        with lib_faceid.applied(unet, people):
            run(unet, inputs(1))
            assert len(merges_on(unet)) == 2
        assert_same_state(before, state(unet))

    def test_one_changed_by_somebody_while_both_are_in(self, tmp_path):
        unet = unets.sd15_unet()
        bare = to_q(unet).weight.detach().clone()
        merges = [merge_of(unet, make_adapter(tmp_path, "faceid", seed=seed), 0.65) for seed in (1, 2)]
        for merge in merges:
            merge.install()
        to_q(unet).weight.data += 1.0
        with pytest.warns(lib_faceid.FaceIDWarning):
            merges[0].remove()
        merges[1].remove()
        torch.testing.assert_close(to_q(unet).weight, bare + 1.0)
