"""The LoRA written as the file WebUIs load."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_faceid.errors import BrokenWeights, FaceIDError
from lib_faceid.weights.lora import companion_lora, targets, write_companion

from .. import unets
from ..adapters import make_adapter
from ..containers import save_safetensors
from ..unets import inputs, relative_error, run
from ..user_loras import load_companion
from .merges import merge_of


class TestCompanion:
    def test_names_and_values(self, tmp_path):
        """kohya names: diffusers path with underscores; ldm index 1 of the file is down_blocks.0.attentions.0,
        attn2.
        """
        made = make_adapter(tmp_path, "faceid")
        written = load_file(write_companion(made.load().lora(), tmp_path / "companion.safetensors"))
        assert len(written) == 256
        name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q.lora_down.weight"
        assert torch.equal(written[name], made.tensors["ip_adapter.1.to_q_lora.down.weight"])
        name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight"
        assert torch.equal(written[name], made.tensors["ip_adapter.30.to_out_lora.up.weight"])
        assert not [name for name in written if "alpha" in name]

    @pytest.mark.parametrize("base", ["sd15", "sdxl"])
    def test_round_trip(self, tmp_path, base):
        inside = make_adapter(tmp_path, "faceid", base).load().lora()
        beside = companion_lora(write_companion(inside, tmp_path / "companion.safetensors"))
        assert (beside.base, beside.rank) == (base, inside.rank)
        for one, other in zip(inside.pairs(), beside.pairs(), strict=True):
            assert one.target == other.target
            assert torch.equal(one.down, other.down)
            assert torch.equal(one.up, other.up)

    def test_nothing_is_overwritten(self, tmp_path):
        mine = tmp_path / "mine.safetensors"
        mine.write_bytes(b"precious")
        with pytest.raises(FaceIDError, match="exists already and is left as it is"):
            write_companion(make_adapter(tmp_path, "faceid").load().lora(), mine)
        assert mine.read_bytes() == b"precious"

    def test_another_lora_is_refused(self, tmp_path):
        path = save_safetensors(tmp_path / "style.safetensors", {"lora_unet_mid.lora_down.weight": torch.zeros(4, 8)})
        with pytest.raises(BrokenWeights, match="not the LoRA of a FaceID adapter: it has 1 tensors for 1 modules"):
            companion_lora(path)

    def test_loads_in_diffusers_with_the_same_effect(self, tmp_path):
        """The file goes through diffusers' own kohya conversion and gives the picture of the merge."""
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        bare = run(unet, inputs(1))
        load_companion(unet, made, tmp_path)
        expected = run(unet, inputs(1))
        merged = unets.sd15_unet()
        merge = merge_of(merged, made)
        merge.install()
        assert relative_error(run(merged, inputs(1)), expected, bare) <= 1e-4
        merge.remove()


def test_targets():
    assert sum(1 for _ in targets("sd15")) == 128
    assert sum(1 for _ in targets("sdxl")) == 560
    first = next(targets("sdxl"))
    assert first.ldm == "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    assert first.embedded == "0.to_q_lora"
