"""The LoRA of an adapter through A1111's own Lora extension, for one sampling pass; and without that extension."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.hosts.job import FaceIDStopped

from ..models_folder import add_adapter, add_person, sd15_checkpoint
from . import fake_lora
from .checks import ANNA_THROUGHOUT, fail
from .fake_webui import sent

ANNA = {**ANNA_THROUGHOUT, "lora": 0.5}
BERT = {**ANNA, "identity": "bert"}
PLAIN_FORWARD = nn.Linear.forward


@pytest.fixture
def other(root):
    return add_adapter(root, seed=1, name="other.bin", text=768)


@pytest.fixture
def bert(root, other):
    return add_person(root, other, "bert")


@pytest.fixture
def networks(host):
    return fake_lora.install(host)


def assert_drawn_with(host, identity, lora, unet=None, calls=None):
    """Each UNet call equals one on a fresh UNet into which the LoRA is merged, without the extension."""
    unet = unet or sd15_checkpoint()
    calls = host.calls if calls is None else calls
    assert calls
    with host.monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(nn.Linear, "forward", PLAIN_FORWARD)
        for call in calls:
            sides = [row.side for row in call.rows]
            with lib_faceid.applied(unet, identity, rows=sides, weight=0.8, lora=lora):
                due = unet(call.x, call.timestep, context=call.context)
            assert (call.output - due).abs().max() <= 1e-4
            with lib_faceid.applied(unet, identity, rows=sides, weight=0.8, lora=0.0):
                without = unet(call.x, call.timestep, context=call.context)
            assert lora == 0 or (due - without).abs().max() > 1e-2


def watch(host, networks):
    """Names of the loaded networks before each denoiser call."""
    seen = []
    host.during = lambda denoiser: seen.append([network.name for network in networks.loaded_networks])
    return seen


def ours(made):
    return f"faceid:{made.load().digest[:12]}"


@pytest.mark.parametrize(
    "settings", [{}, {"enable_hr": True}, {"n_iter": 2}, {"disable_extra_networks": True}], ids=str
)
def test_active_in_every_pass_and_gone_afterwards(host, networks, anna, made, settings):
    before = host.run()
    seen = watch(host, networks)
    job = host.run(*sent(ANNA), **settings)
    assert seen == [[ours(made)]] * len(host.calls)
    assert_drawn_with(host, anna, 0.5)
    assert (networks.loaded_networks, live_patches(), job.comments, host.reported) == ([], [], [], [])
    assert torch.equal(host.run().pictures[0], before.pictures[0])


def test_not_left_for_a_job_that_keeps_the_list(host, networks):
    """With extra networks disabled the extension does not clear its list."""
    before = host.run(disable_extra_networks=True)
    host.run(*sent(ANNA))
    assert torch.equal(host.run(disable_extra_networks=True).pictures[0], before.pictures[0])


def test_another_file_at_the_same_strength(host, networks, anna, bert):
    """The extension would keep the first one merged if both had one name."""
    host.run(*sent(ANNA))
    host.run(*sent(BERT))
    assert_drawn_with(host, bert, 0.5)


def test_another_strength(host, networks, anna):
    host.run(*sent(ANNA))
    host.run(*sent({**ANNA, "lora": 0.9}))
    assert_drawn_with(host, anna, 0.9)


@pytest.mark.parametrize(
    "unit",
    [{**ANNA, "weight": 0}, {**ANNA, "lora": 0}, {**ANNA, "enabled": False}],
    ids=["weight 0", "lora 0", "off"],
)
def test_off(host, networks, unit):
    seen = watch(host, networks)
    host.run(*sent(unit))
    assert seen == [[], []]


def test_in_the_second_pass_only(host, networks, made):
    seen = watch(host, networks)
    host.run(*sent({**ANNA, "weight": 0, "hires_weight": 0.5}), enable_hr=True)
    assert seen == [[], [], [ours(made)], [ours(made)]]


@pytest.mark.parametrize("accident", ["error", "interrupt"])
def test_whatever_happens_the_list_is_as_before(host, networks, other, accident):
    theirs = fake_lora.prompt_network(host, other, "style")
    before = host.run(prompt_networks=[theirs])

    def during(denoiser):
        if denoiser.step == 1:
            assert len(networks.loaded_networks) == 2
            fail() if accident == "error" else setattr(host.state, "interrupted", True)

    host.during = during
    if accident == "error":
        with pytest.raises(RuntimeError):
            host.run(*sent(ANNA), prompt_networks=[theirs])
    else:
        host.run(*sent(ANNA), prompt_networks=[theirs])
    assert networks.loaded_networks == [theirs]
    host.during = None
    assert torch.equal(host.run(prompt_networks=[theirs]).pictures[0], before.pictures[0])


def test_beside_a_network_of_the_prompt(host, networks, anna, made, other):
    theirs = fake_lora.prompt_network(host, other, "style", 0.4)
    seen = watch(host, networks)
    host.run(*sent(ANNA), prompt_networks=[theirs])
    assert seen == [["style", ours(made)]] * 2
    unet = sd15_checkpoint()
    layers = {name.replace(".", "_"): module for name, module in unet.named_modules()}
    with torch.no_grad():
        for name, pair in theirs.modules.items():
            layers[name.removeprefix("diffusion_model_")].weight.add_(pair.delta())
    assert_drawn_with(host, anna, 0.5, unet)


class TestTheSameLoraInThePrompt:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_is_not_added_twice(self, host, networks, anna, made, dtype):
        theirs = fake_lora.prompt_network(host, made, "my faceid lora", 0.3)
        for pair in theirs.modules.values():
            for part in (pair.up_model, pair.down_model):
                part.weight = part.weight.to(dtype)
        seen = watch(host, networks)
        job = host.run(*sent(ANNA), prompt_networks=[theirs])
        assert seen == [["my faceid lora"]] * 2
        note = job.texts[0]["FaceID note"]
        assert "is in the prompt already as my faceid lora, strength 0.3; it is not added twice." in note
        assert networks.loaded_networks == [theirs]
        if dtype == torch.float32:
            assert_drawn_with(host, anna, 0.3)

    @pytest.mark.parametrize("part", ["down", "up"])
    def test_another_one_is_another_one(self, host, networks, made, part):
        theirs = fake_lora.prompt_network(host, made, "a relative")
        first = next(iter(theirs.modules.values()))
        getattr(first, f"{part}_model").weight = getattr(first, f"{part}_model").weight * 1.01
        seen = watch(host, networks)
        host.run(*sent(ANNA), prompt_networks=[theirs])
        assert seen[0] == ["a relative", ours(made)]

    def test_two_units_that_share_it(self, host, networks, made):
        theirs = fake_lora.prompt_network(host, made, "my faceid lora", 1.0)
        job = host.run(*sent(ANNA, {**ANNA, "weight": 0.2}), prompt_networks=[theirs])
        assert "it is not added twice" in job.texts[0]["FaceID note"]


class TestTwoUnits:
    def test_of_one_adapter_share_one_network(self, host, networks, made):
        seen = watch(host, networks)
        host.run(*sent(ANNA, {**ANNA, "weight": 0.2}))
        assert seen == [[ours(made)]] * 2

    def test_of_two_adapters_have_one_each(self, host, networks, made, bert, other):
        seen = watch(host, networks)
        host.run(*sent(ANNA, BERT))
        assert seen == [[ours(made), ours(other)]] * 2
        assert networks.loaded_networks == []

    def test_of_one_adapter_cannot_differ_in_strength(self, host, networks):
        with pytest.raises(FaceIDStopped, match=r"active at 0\.5 and cannot be at 0\.9 as well"):
            host.run(*sent(ANNA, {**ANNA, "lora": 0.9}))
        assert (networks.loaded_networks, live_patches()) == ([], [])


def test_a_refiner_gets_it_too(host, networks, anna, made):
    other = sd15_checkpoint(seed=1)
    seen = watch(host, networks)
    host.run(*sent(ANNA), steps=4, refiner=(2, lambda: host.load(other)))
    assert seen == [[ours(made)]] * 4
    first, second = host.calls[:2], host.calls[2:]
    assert_drawn_with(host, anna, 0.5, calls=first)
    assert_drawn_with(host, anna, 0.5, sd15_checkpoint(seed=1), calls=second)
    assert (networks.loaded_networks, host.reported) == ([], [])


def test_a_layer_the_extension_does_not_know(host, networks):
    host.run()
    fake_lora.assign_names(host.shared.sd_model)
    mapping = host.shared.sd_model.network_layer_mapping
    del mapping["diffusion_model_middle_block_1_transformer_blocks_0_attn2_to_out_0"]
    sentence = "changes the layer diffusion_model_middle_block_1_transformer_blocks_0_attn2_to_out_0, which the WebUI's"
    with pytest.raises(FaceIDStopped, match=sentence):
        host.run(*sent(ANNA))
    assert (networks.loaded_networks, live_patches()) == ([], [])


def test_the_adapter_is_not_at_hand(host, networks, anna, made):
    """Told with what to do about it, and put right once it is there."""
    content = made.path.read_bytes()
    made.path.unlink()
    job = host.run(*sent(ANNA), n_iter=2)
    told = "The LoRA is in ip-adapter-faceid_sd15.bin, which is not in models/ip-adapter"
    assert all(text["FaceID note"].startswith(told) for text in job.texts)
    assert all("lora: " not in text["FaceID"] for text in job.texts)
    assert len(job.comments) == 1
    assert_drawn_with(host, anna, 0.0)
    assert host.run(*sent({**ANNA, "lora": 0})).comments == []
    made.path.write_bytes(content)
    assert host.run(*sent(ANNA)).comments == []
    assert_drawn_with(host, anna, 0.5)


def test_the_extension_is_switched_off(host, anna):
    """Told, and nothing is merged: a refiner loads its weights into the same modules."""
    weights, load = fake_lora.other_weights(host)
    job = host.run(*sent(ANNA), refiner=(1, load))
    assert job.texts[0]["FaceID note"].startswith("The WebUI's own Lora extension is switched off")
    assert_drawn_with(host, anna, 0.0, sd15_checkpoint(seed=1), calls=host.calls[1:])
    for name, weight in host.unet.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_layers_the_extension_could_not_merge(host, networks, made):
    """It counts such errors and shows them itself, at the end of the job, under the network's name."""
    networks.extra_network_lora = SimpleNamespace(errors={ours(made): 3, "theirs": 2})
    job = host.run(*sent(ANNA))
    assert "could not apply the LoRA of the adapter to 3 layers" in job.texts[0]["FaceID note"]
    assert networks.extra_network_lora.errors == {"theirs": 2}


def test_one_network_for_all_passes_of_a_job(host, networks):
    seen = []
    host.during = lambda denoiser: seen.append(networks.loaded_networks[0])
    host.run(*sent(ANNA), n_iter=2, enable_hr=True)
    assert len({id(network) for network in seen}) == 1
    host.run(*sent(ANNA))
    assert len({id(network) for network in seen}) == 2


def test_a_refiner_in_the_same_unet(host, networks, anna):
    weights, load = fake_lora.other_weights(host)
    host.run(*sent(ANNA), refiner=(1, load))
    assert_drawn_with(host, anna, 0.5, sd15_checkpoint(seed=1), calls=host.calls[1:])
    host.run()
    for name, weight in host.unet.state_dict().items():
        assert torch.equal(weight, weights[name]), name
