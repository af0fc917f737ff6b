"""The FaceID LoRA through PEFT, where weights cannot be changed in place; and which of the two ways is taken."""

from __future__ import annotations

import warnings

import accelerate
import pytest
import torch

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.core.unet_map import find_layers
from lib_faceid.engine.ports import held_loras
from lib_faceid.errors import FaceIDError, WrongBase, WrongWeights
from lib_faceid.hosts.peft_lora import PeftLora, place_lora
from lib_faceid.weights.merge import LoraMerge

from .. import unets
from ..adapters import make_adapter
from ..unets import UNETS, assert_same_state, inputs, relative_error, run, state
from ..user_loras import add_user_lora, load_companion
from .merges import merge_of


def through_peft(unet, made, strength=0.65):
    return PeftLora(find_layers(unet), unet, made.load().lora(), strength)


def gradients(unet):
    return [weight.requires_grad for weight in unet.parameters()]


def in_eight_bits(unet):
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return unet


def offloaded(unet):
    return accelerate.cpu_offload(unet, execution_device="cpu")


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("user", [False, True], ids=["alone", "beside a user's LoRA"])
def test_equal_to_the_merge_and_gone_afterwards(tmp_path, base, user):
    made, unet = make_adapter(tmp_path, "faceid", base), UNETS[base]()
    if user:
        add_user_lora(unet)
    bare = run(unet, inputs(1, base))
    before, wanted = state(unet), gradients(unet)
    merge = merge_of(unet, made, 0.65)
    merge.install()
    expected = run(unet, inputs(1, base))
    merge.remove()
    lora = through_peft(unet, made)
    for _ in range(2):
        lora.install()
        assert relative_error(run(unet, inputs(1, base)), expected, bare) <= 1e-4
        assert not any(weight.requires_grad for name, weight in unet.named_parameters() if lora.name in name)
        lora.remove()
        assert_same_state(before, state(unet))
        assert gradients(unet) == wanted
        assert torch.equal(run(unet, inputs(1, base)), bare)
    assert hasattr(unet, "peft_config") == user


class TestTheUsersOwn:
    """Two adapters of the user, of which some act, and weights they set."""

    @pytest.fixture
    def unet(self):
        from peft import LoraConfig, inject_adapter_in_model

        unet = unets.sd15_unet()
        for name in ("style", "pose"):
            config = LoraConfig(r=4, target_modules=["to_q", "to_out.0"], init_lora_weights=False)
            inject_adapter_in_model(config, unet, adapter_name=name)
        return unet

    @staticmethod
    def wrappers(unet):
        return [module for module in unet.modules() if hasattr(module, "lora_A")]

    def activate(self, unet, *names):
        for wrapper in self.wrappers(unet):
            wrapper.set_adapter(list(names))
            wrapper.scaling["style"] = 0.3

    @pytest.mark.parametrize("names", [(), ("pose",), ("style", "pose")])
    def test_adapters_that_act_go_on_acting(self, unet, tmp_path, names):
        self.activate(unet, *names)
        lora, before, mine = through_peft(unet, make_adapter(tmp_path, "faceid")), state(unet), self.wrappers(unet)
        bare = run(unet, inputs(1))
        lora.install()
        assert all(wrapper.active_adapters == [*names, lora.name] for wrapper in mine)
        assert all(wrapper.scaling["style"] == 0.3 for wrapper in mine)
        assert not torch.equal(run(unet, inputs(1)), bare)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PEFT warns when it switches on another adapter
            lora.remove()
        assert all(wrapper.active_adapters == list(names) for wrapper in mine)
        assert_same_state(before, state(unet))

    def test_adapters_that_are_switched_off_stay_off(self, unet, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        for wrapper in self.wrappers(unet):
            wrapper.enable_adapters(False)
        clean = unets.sd15_unet()
        merge = merge_of(clean, made, 0.65)
        bare = run(clean, inputs(1))
        merge.install()
        expected = run(clean, inputs(1))
        merge.remove()
        lora, before = through_peft(unet, made), state(unet)
        lora.install()
        assert relative_error(run(unet, inputs(1)), expected, bare) <= 1e-4
        lora.remove()
        assert_same_state(before, state(unet))
        assert torch.equal(run(unet, inputs(1)), bare)

    def test_a_choice_made_meanwhile_stays(self, unet, tmp_path):
        self.activate(unet, "style", "pose")
        lora = through_peft(unet, make_adapter(tmp_path, "faceid"))
        lora.install()
        for wrapper in self.wrappers(unet):
            if "pose" in wrapper.lora_A:
                wrapper.set_adapter(["pose", lora.name])
        lora.remove()
        assert all(wrapper.active_adapters == ["pose"] for wrapper in self.wrappers(unet))

    def test_an_adapter_loaded_meanwhile_stays(self, tmp_path):
        unet, other = unets.sd15_unet(), unets.sd15_unet()
        lora = through_peft(unet, make_adapter(tmp_path, "faceid"))
        lora.install()
        add_user_lora(unet)
        lora.remove()
        add_user_lora(other)
        for (name, found), expected in zip(unet.named_parameters(), other.parameters(), strict=False):
            assert lora.name not in name
            assert found.shape == expected.shape


@pytest.mark.parametrize("store", [in_eight_bits, offloaded])
class TestWhereNothingCanBeMerged:
    def test_the_lora_acts_all_the_same(self, tmp_path, store):
        made, unet = make_adapter(tmp_path, "faceid"), store(unets.sd15_unet())
        layers, lora = find_layers(unet), made.load().lora()
        with pytest.raises(WrongWeights, match="cannot be merged into this UNet"):
            LoraMerge(layers, unet, lora, 1.0).install()
        bare, before = run(unet, inputs(1)), {name: list(vars(part)) for name, part in unet.named_modules()}
        with lib_faceid.applied(unet, made.identity(), lora=1.0):
            assert [type(held) for held in held_loras(unet)] == [PeftLora]
            found = run(unet, inputs(1))
        assert torch.equal(run(unet, inputs(1)), bare)
        assert {name: list(vars(part)) for name, part in unet.named_modules()} == before
        assert live_patches() == []
        plain = unets.sd15_unet()
        with lib_faceid.applied(plain, made.identity(), lora=1.0):
            expected = run(plain, inputs(1))
        tolerance = 1e-4 if store is offloaded else 0.3  # eight bits change the picture by themselves
        assert relative_error(found, expected, bare) <= tolerance

    def test_never_twice_and_shared(self, tmp_path, store):
        made, unet = make_adapter(tmp_path, "faceid"), store(unets.sd15_unet())
        first, second = (lib_faceid.applied(unet, made.identity(seed=seed), lora=0.3) for seed in (1, 2))
        first.__enter__()
        second.__enter__()
        assert len(held_loras(unet)) == 1
        with pytest.raises(FaceIDError, match=r"active at 0\.3 and cannot be at 1"):
            lib_faceid.applied(unet, made.identity(), lora=1.0).__enter__()
        run(unet, inputs(1))
        first.__exit__(None, None, None)
        assert [held.strength for held in held_loras(unet)] == [0.3]
        second.__exit__(None, None, None)
        assert not [name for name, _ in unet.named_modules() if "lora" in name]


def test_a_companion_that_is_loaded_is_left(tmp_path):
    made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
    load_companion(unet, made, tmp_path)
    in_eight_bits(unet)
    with (
        pytest.warns(lib_faceid.FaceIDWarning, match="active already as PEFT adapter"),
        lib_faceid.applied(unet, made.identity(), weight=0.5),
    ):
        assert held_loras(unet) == []
        run(unet, inputs(1))


def test_plain_weights_are_merged(tmp_path):
    """Exact, and it costs nothing in a step."""
    unet, lora = unets.sd15_unet(), make_adapter(tmp_path, "faceid").load().lora()
    assert isinstance(place_lora(find_layers(unet), unet, lora, 1.0), LoraMerge)
    add_user_lora(unet)
    assert isinstance(place_lora(find_layers(unet), unet, lora, 1.0), LoraMerge)


def test_an_error_while_it_is_put_in_leaves_nothing(tmp_path, monkeypatch):
    unet = unets.sd15_unet()
    add_user_lora(unet)
    before, wanted, lora = state(unet), gradients(unet), through_peft(unet, make_adapter(tmp_path, "faceid"))

    def fail(self):
        raise OSError("disk")

    monkeypatch.setattr(PeftLora, "_fill", fail)
    with pytest.raises(OSError, match="disk"):
        lora.install()
    assert_same_state(before, state(unet))
    assert gradients(unet) == wanted
    assert live_patches() == []


def test_what_is_refused_before_the_unet_is_touched(tmp_path):
    unet = unets.sd15_unet()
    before = state(unet)
    with pytest.raises(WrongBase, match=r"is for SDXL and this UNet is SD1\.5"):
        through_peft(unet, make_adapter(tmp_path, "faceid", "sdxl")).install()
    wide = in_eight_bits(unets.sd15_unet())
    wide.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q = torch.nn.Linear(32, 48, bias=False)
    with pytest.raises(WrongBase, match=r"of shape \(32, 32\), and this UNet has \(48, 32\) there"):
        through_peft(wide, make_adapter(tmp_path, "faceid")).install()
    assert_same_state(before, state(unet))
    unet.fuse_qkv_projections()
    with pytest.raises(WrongWeights, match=r"q, k and v were fused"):
        through_peft(unet, make_adapter(tmp_path, "faceid")).install()


def test_a_fused_user_lora_is_refused(tmp_path):
    unet = unets.sd15_unet()
    add_user_lora(unet)
    for module in unet.modules():
        if hasattr(module, "lora_A"):
            module.merge()
    with pytest.raises(WrongWeights, match=r"another LoRA was fused into .*unfuse_lora\(\) first"):
        through_peft(unet, make_adapter(tmp_path, "faceid")).install()
