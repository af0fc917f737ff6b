"""Which names a container uses, and what a file is that is none of them."""

from __future__ import annotations

import pytest

from lib_faceid.errors import BrokenWeights, NotAnAdapter, UnsupportedAdapter
from lib_faceid.weights.detect import recognise
from lib_faceid.weights.keys import find_keys

from .layouts import NARROW, as_pulid, as_training, layout
from .meta_file import meta_file

SHAPES = layout("faceid", "sd15", NARROW["sd15"])
INNER = {name.removeprefix("image_proj.") for name in SHAPES if name.startswith("image_proj.")}
BLOCK = "input_blocks.1.1.transformer_blocks.0"


def refusal(names: list[str], file_name: str = "file.safetensors") -> str:
    with pytest.raises(NotAnAdapter) as error:
        find_keys(meta_file(dict.fromkeys(names, (4, 4)), file_name))
    return str(error.value)


def test_the_published_container_is_split_by_its_prefixes() -> None:
    keys = find_keys(meta_file(SHAPES))
    assert set(keys.image_proj) == INNER
    assert keys.ip_adapter["1.to_k_ip.weight"] == "ip_adapter.1.to_k_ip.weight"
    assert sorted(keys.flat().values()) == sorted(SHAPES)


@pytest.mark.parametrize("wrapper", ["state_dict.", "model.", "module.", "state_dict.module."])
def test_outer_wrappers_are_looked_through(wrapper: str) -> None:
    keys = find_keys(meta_file({f"{wrapper}{name}": shape for name, shape in SHAPES.items()}))
    assert set(keys.image_proj) == INNER
    assert keys.image_proj["norm.weight"] == f"{wrapper}image_proj.norm.weight"


def test_two_names_that_would_become_one_are_not_unwrapped() -> None:
    doubled = {**SHAPES, "model.image_proj.norm.weight": (64,)}
    with pytest.raises(BrokenWeights, match=r"1 tensor beside it \(first: model\.image_proj\.norm\.weight\)"):
        find_keys(meta_file(doubled))


def test_a_training_checkpoint_is_read_without_its_unet() -> None:
    file = meta_file({**as_training(SHAPES), "unet.down_blocks.0.attentions.0.proj_in.weight": (4, 4)})
    assert find_keys(file).ip_adapter["31.to_v_ip.weight"] == "adapter_modules.31.to_v_ip.weight"
    assert recognise(file, digest=lambda: "").variant.key == "faceid"


def test_pulids_own_names_become_the_published_ones() -> None:
    file = meta_file(as_pulid(layout("pulid-v1.1", "sdxl", NARROW["sdxl"])))
    assert find_keys(file).ip_adapter["139.to_k_ip.weight"] == "id_adapter_attn_layers.139.id_to_k.weight"
    with pytest.raises(UnsupportedAdapter, match=r"PuLID v1\.1"):
        recognise(file, digest=lambda: "")


@pytest.mark.parametrize("group", ["image_proj", "ip_adapter"])
def test_half_an_adapter_says_which_half_is_absent(group: str) -> None:
    half = {name: shape for name, shape in SHAPES.items() if not name.startswith(group)}
    with pytest.raises(BrokenWeights, match=rf"half of an adapter: none of its tensors is named {group}\."):
        find_keys(meta_file(half))


def test_what_stands_beside_an_adapter_is_named() -> None:
    extra = {**SHAPES, "optimizer.0": (1,), "optimizer.1": (1,)}
    with pytest.raises(BrokenWeights, match=r"2 tensors beside it \(first: optimizer\.0\)"):
        find_keys(meta_file(extra))


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
COMPANION = [
    f"{KOHYA}_attn{side}_to_{part}.lora_{half}.weight"
    for side in (1, 2)
    for part in ("q", "k", "v", "out_0")
    for half in ("down", "up")
]
FLUX_IP = [f"ip_adapter.{n}.to_{side}_ip.weight" for n in range(57) for side in "kv"]

# names in the file -> what the sentence says
OTHER_FILES = {
    "kohya LoRA": ([*COMPANION, f"{KOHYA}_attn1_to_q.alpha"], "a LoRA (kohya)"),
    "kohya LoRA of the text encoder": (
        ["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"],
        "a LoRA (kohya)",
    ),
    "companion LoRA": (COMPANION, "accompanies a FaceID adapter"),
    "LyCORIS": ([f"{KOHYA}_attn1_to_q.hada_w1_a", f"{KOHYA}_attn1_to_q.hada_w1_b"], "a LoRA (LyCORIS)"),
    "PEFT LoRA": (["base_model.model.down_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA (PEFT)"),
    "diffusers LoRA": (["unet.down_blocks.0.attn1.processor.to_q_lora.down.weight"], "a LoRA (diffusers)"),
    "diffusers LoRA, later": (["unet.mid_block.attn1.to_q.lora.up.weight"], "a LoRA (diffusers)"),
    "SD checkpoint": ([f"model.diffusion_model.{BLOCK}.attn2.to_k.weight"], "a Stable Diffusion checkpoint"),
    "ldm UNet": ([f"{BLOCK}.attn2.to_k.weight", "output_blocks.3.1.norm.weight"], "a UNet, not"),
    "diffusers UNet": (
        ["down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight"],
        "a UNet (diffusers)",
    ),
    "ldm ControlNet": (
        ["control_model.zero_convs.0.0.weight", "control_model.input_blocks.0.0.weight"],
        "a ControlNet, not",
    ),
    "diffusers ControlNet": (
        ["controlnet_down_blocks.0.weight", "down_blocks.0.resnets.0.conv1.weight"],
        "a ControlNet (diff",
    ),
    "T2I-Adapter": (["conv_in.weight", "body.0.block1.weight"], "a T2I-Adapter"),
    "diffusers T2I-Adapter": (["adapter.body.0.resnets.0.block1.weight"], "a T2I-Adapter"),
    "ldm VAE": (["first_stage_model.decoder.up.0.block.0.conv1.weight"], "a VAE"),
    "diffusers VAE": (["encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"], "a VAE"),
    "CLIP vision": (["vision_model.embeddings.class_embedding", "visual_projection.weight"], "a CLIP vision encoder,"),
    "open_clip": (
        ["visual.transformer.resblocks.0.ln_1.weight", "token_embedding.weight"],
        "a CLIP vision encoder (open_clip)",
    ),
    "open_clip, wrapped": (["module.visual.proj"], "a CLIP vision encoder (open_clip)"),
    "text encoder": (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
    "textual inversion": (["string_to_param.*"], "an embedding (textual inversion)"),
    "SDXL textual inversion": (["clip_g", "clip_l"], "an embedding (textual inversion)"),
    "saved embedding": (["face_embeds"], "a saved face or image embedding"),
    "FLUX adapter, XLabs": (["double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"], "for FLUX (XLabs)"),
    "FLUX projection, XLabs": (["ip_adapter_proj_model.proj.weight"], "for FLUX (XLabs)"),
    "FLUX adapter, InstantX": (["image_proj.proj.0.weight", *FLUX_IP], "for FLUX (InstantX)"),
    "SD3 adapter": (["image_proj.latents", "ip_adapter.0.norm_ip.linear.weight"], "for Stable Diffusion 3"),
    "SD3 adapter, projection": (["image_proj.time_embedding.linear_1.weight"], "for Stable Diffusion 3"),
    "FLUX model": (["double_blocks.0.img_attn.qkv.weight"], "a FLUX model"),
    "SD3 model": (["joint_blocks.0.x_block.mlp.fc1.weight"], "a Stable Diffusion 3 model"),
    "PhotoMaker": (["id_encoder.visual_projection.weight", "lora_weights.0"], "a PhotoMaker file"),
    "GFPGAN": (["params_ema.conv_body_first.weight"], "a face restoration or upscaling model"),
    "ESRGAN": (["model.1.sub.0.RDB1.conv1.0.weight"], "a face restoration or upscaling model"),
    "hypernetwork": (["768.0.linear.0.weight"], "a hypernetwork"),
    "AnimateDiff": (
        ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
        "an AnimateDiff motion module",
    ),
    "only ip_adapter": (["1.to_k_ip.weight", "0.to_q_lora.down.weight"], "its ip_adapter part alone"),
    "only image_proj, ID": (["proj.0.weight", "proj.2.weight", "norm.weight"], "its image_proj part alone"),
    "only image_proj, resampler": (["latents", "proj_in.weight", "norm_out.weight"], "its image_proj part alone"),
    "only image_proj, full face": (["proj.0.weight", "proj.3.weight"], "its image_proj part alone"),
}


@pytest.mark.parametrize("what", OTHER_FILES)
def test_another_kind_of_file_is_named(what: str) -> None:
    names, noun = OTHER_FILES[what]
    sentence = refusal(names)
    assert sentence.startswith("'file.safetensors' is ") and noun in sentence
    assert "not an IP-Adapter file" in sentence and sentence.count(".") >= 2


@pytest.mark.parametrize(
    ("file_name", "adapter"),
    [
        ("ip-adapter-faceid-plusv2_sd15_lora.safetensors", "ip-adapter-faceid-plusv2_sd15.bin"),
        ("ip-adapter-faceid_sdxl_lora (1).safetensors", "ip-adapter-faceid_sdxl.bin"),
    ],
)
def test_a_companion_lora_names_the_adapter_it_belongs_to(file_name: str, adapter: str) -> None:
    for names in (COMPANION, ["unet.mid_block.attn1.to_q.lora_A.weight"]):
        sentence = refusal(names, file_name)
        assert f"'{file_name}' is the LoRA that belongs to {adapter}, not the adapter" in sentence


def test_the_name_alone_does_not_make_a_lora() -> None:
    sentence = refusal(["visual.proj"], "ip-adapter-faceid_sd15_lora.safetensors")
    assert "a CLIP vision encoder" in sentence


def test_unknown_tensors_are_counted_and_the_first_is_shown_safely() -> None:
    sentence = refusal(["a\x1b[31m" + "b" * 500, "c"])
    assert "none of its 2 tensors has a name that an adapter uses (first: a?[31mbbb" in sentence
    assert len(sentence) < 300 and sentence.isprintable()


def test_an_empty_file_is_said_to_be_empty() -> None:
    assert "holds no tensors" in refusal([])


def test_an_unknown_projection_is_refused_with_its_first_tensor() -> None:
    strange = {"image_proj.encoder.weight": (4, 4), "ip_adapter.1.to_k_ip.weight": (4, 4)}
    with pytest.raises(NotAnAdapter, match=r"unknown kind \(first tensor: encoder\.weight\)"):
        recognise(meta_file(strange), digest=lambda: "")
