"""The LoRA inside an adapter: equal to PEFT's, merged and taken out exactly, written as the file WebUIs load."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import load_file

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.core.unet_map import find_layers
from lib_faceid.errors import BrokenWeights, FaceIDError, WrongBase, WrongWeights
from lib_faceid.weights.lora import companion_lora, targets, write_companion
from lib_faceid.weights.merge import LoraMerge, merges_on

from . import unets
from .adapters import make_adapter
from .containers import save_safetensors
from .layouts import nest
from .unets import assert_same_state, inputs, relative_error, run, run_ldm, state

UNETS = {"sd15": unets.sd15_unet, "sdxl": unets.sdxl_unet}


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
    merge = LoraMerge(find_layers(unet), unet, made.load().lora(), 1.0)
    merge.install()
    found = run(unet, inputs(1, base))
    merge.remove()
    assert relative_error(found, expected, bare) <= 1e-4


def test_every_module_by_hand(tmp_path):
    """W' = W + strength * up @ down for all 128 modules; even numbers in the file are attn1, odd ones attn2."""
    made = make_adapter(tmp_path, "faceid")
    unet = unets.ldm_unet()
    before = {name: parameter.clone() for name, parameter in unet.named_parameters()}
    merge = LoraMerge(find_layers(unet), unet, made.load().lora(), 0.65)
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
    merge = LoraMerge(find_layers(unet), unet, made.load().lora(), 0.65)
    for _ in range(2):
        merge.install()
        assert not torch.equal(
            unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight,
            before["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]["weights"]["weight"],
        )
        merge.remove()
        assert_same_state(before, state(unet))


def test_weights_made_in_inference_mode(tmp_path):
    with torch.inference_mode():
        unet = unets.sd15_unet()
    before = state(unet)
    merge = LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0)
    merge.install()
    with pytest.raises(AssertionError):
        assert_same_state(before, state(unet))
    merge.remove()
    assert_same_state(before, state(unet))


def test_under_a_wrapper_of_peft(tmp_path):
    from .test_tap import add_user_lora

    unet = unets.sd15_unet()
    add_user_lora(unet)
    before = state(unet)
    merge = LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0)
    merge.install()
    with pytest.raises(AssertionError):
        assert_same_state(before, state(unet))
    merge.remove()
    assert_same_state(before, state(unet))


def to_q(unet):
    return unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q


class TestSomebodyElse:
    """Weights that others change while the LoRA is merged: their change stays, ours goes, and it is told."""

    @pytest.fixture
    def unet(self):
        return unets.sd15_unet()

    @pytest.fixture
    def merge(self, unet, tmp_path):
        made = LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 0.65)
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
        merges = [
            LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid", seed=seed).load().lora(), 0.65)
            for seed in (1, 2)
        ]
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
        merges = [
            LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid", seed=seed).load().lora(), 0.65)
            for seed in (1, 2)
        ]
        for merge in merges:
            merge.install()
        to_q(unet).weight.data += 1.0
        with pytest.warns(lib_faceid.FaceIDWarning):
            merges[0].remove()
        merges[1].remove()
        torch.testing.assert_close(to_q(unet).weight, bare + 1.0)


def test_failure_in_the_middle_of_merging_takes_everything_back(tmp_path):
    """The last module has another shape: all before it are restored."""
    unet = unets.sd15_unet()
    unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0] = torch.nn.Linear(128, 64)
    before = state(unet)
    merge = LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0)
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
    to_q = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    to_q.weight = torch.nn.Parameter(to_q.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(WrongWeights, match=r"stored as float8_e4m3fn\. Use a 16 or 32 bit UNet, or lora=0"):
        LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0).install()


def load_companion(unet, made, folder):
    """The companion file through diffusers' own kohya conversion and PEFT, at 1.0."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    raw = load_file(write_companion(made.load().lora(), folder / "companion.safetensors"))
    converted, alphas = _convert_non_diffusers_lora_to_diffusers(raw)
    named = {key.removeprefix("unet."): value for key, value in converted.items()}
    unet.load_lora_adapter(named, prefix=None, network_alphas=alphas or None)


class TestApplied:
    """The LoRA as part of ``applied``."""

    def pictures(self, unet, identity, **kwargs):
        with lib_faceid.applied(unet, identity, **kwargs):
            return run(unet, inputs(1))

    def test_the_default_is_065(self, tmp_path):
        identity, unet = make_adapter(tmp_path, "faceid").identity(), unets.sd15_unet()
        default = self.pictures(unet, identity)
        assert torch.equal(default, self.pictures(unet, identity, lora=0.65))
        assert not torch.equal(default, self.pictures(unet, identity, lora=0.0))

    def test_it_acts_outside_the_window_too(self, tmp_path):
        """The window limits the image branch; the LoRA was trained into the whole pass."""
        identity, unet = make_adapter(tmp_path, "faceid").identity(), unets.sd15_unet()
        bare = run(unet, inputs(1))
        late = self.pictures(unet, identity, start=0.5, progress=lambda: 0.0)
        assert not torch.equal(late, bare)

    def test_never_twice(self, tmp_path):
        """Two people made with one file: the LoRA goes in once."""
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        people = [made.identity(seed=1), made.identity(seed=2)]
        with lib_faceid.applied(unet, people):
            (merge,) = merges_on(unet)
            assert merge.lora.digest() == made.load().digest
            with lib_faceid.applied(unet, people[0]):
                assert merges_on(unet) == [merge]
            assert merges_on(unet) == [merge]
        assert merges_on(unet) == []

    def test_shared_until_the_last_one_leaves(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        before = state(unet)
        first, second = (lib_faceid.applied(unet, made.identity(seed=seed), lora=0.3) for seed in (1, 2))
        first.__enter__()
        second.__enter__()
        run(unet, inputs(1))
        first.__exit__(None, None, None)
        assert [merge.strength for merge in merges_on(unet)] == [0.3]
        second.__exit__(None, None, None)
        assert_same_state(before, state(unet))

    def test_two_strengths_of_one_file_are_refused(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        sentence = r"active at 0\.2 and cannot be at 1 as well"
        with lib_faceid.applied(unet, made.identity(), lora=0.2):
            with pytest.raises(FaceIDError, match=sentence), lib_faceid.applied(unet, made.identity(), lora=1.0):
                pass
            run(unet, inputs(1))

    def test_a_companion_loaded_through_peft_is_not_added_again(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        load_companion(unet, made, tmp_path)
        with lib_faceid.applied(unet, made.identity(), weight=0.5, lora=0.0):
            expected = run(unet, inputs(1))
        with pytest.warns(lib_faceid.FaceIDWarning, match="active already as PEFT adapter"):
            found = self.pictures(unet, made.identity(), weight=0.5)
        assert torch.equal(found, expected)

    def test_another_file_than_the_identitys(self, tmp_path):
        made, other = make_adapter(tmp_path, "faceid"), make_adapter(tmp_path, "faceid", seed=4)
        with pytest.raises(
            FaceIDError, match=r"adapter= is 4-ip-adapter.*but this identity was made with 0-ip-adapter"
        ):
            self.pictures(unets.sd15_unet(), made.identity(), adapter=other.load())

    def test_a_file_that_is_gone_is_told(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        identity = made.identity()
        made.path.unlink()
        with pytest.warns(lib_faceid.FaceIDWarning, match="without its LoRA, so the likeness will be weaker") as caught:
            self.pictures(unet, identity)
        assert caught[0].filename == __file__

    def test_an_adapter_without_one(self, tmp_path):
        identity, unet = make_adapter(tmp_path, "portrait").identity(), unets.sd15_unet()
        assert torch.equal(self.pictures(unet, identity), self.pictures(unet, identity, lora=0.0))
        with pytest.raises(FaceIDError, match=r"portrait_sd15\.bin .FaceID Portrait.* carries no LoRA"):
            self.pictures(unet, identity, lora=0.5)

    def test_a_loaded_person_says_that_the_lora_is_missing(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        loaded = lib_faceid.load_identity(made.identity().save(tmp_path / "anna.safetensors"))
        with pytest.warns(lib_faceid.FaceIDWarning, match=r"0-ip-adapter-faceid_sd15\.bin .sha256 [0-9a-f]{12}"):
            without = self.pictures(unet, loaded)
        assert torch.equal(without, self.pictures(unet, made.identity(), lora=0.0))

    def test_a_loaded_person_with_the_adapter_at_hand(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        loaded = lib_faceid.load_identity(made.identity().save(tmp_path / "anna.safetensors"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = self.pictures(unet, loaded, adapter=made.load())
        assert torch.equal(found, self.pictures(unet, made.identity()))


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
        merge = LoraMerge(find_layers(merged), merged, made.load().lora(), 1.0)
        merge.install()
        assert relative_error(run(merged, inputs(1)), expected, bare) <= 1e-4
        merge.remove()


def test_targets():
    assert sum(1 for _ in targets("sd15")) == 128
    assert sum(1 for _ in targets("sdxl")) == 560
    first = next(targets("sdxl"))
    assert first.ldm == "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    assert first.embedded == "0.to_q_lora"


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
        LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0).install()


def test_fused_projections_are_refused(tmp_path):
    unet = unets.sd15_unet()
    unet.fuse_qkv_projections()
    with pytest.raises(WrongWeights, match=r"q, k and v were fused\. Call unfuse_qkv_projections"):
        LoraMerge(find_layers(unet), unet, make_adapter(tmp_path, "faceid").load().lora(), 1.0).install()
