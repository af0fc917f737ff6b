"""Which CLIP tower a file holds, by names and shapes of the published sizes, and the sentences for all other files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lib_faceid.errors import WrongEncoder, WrongWeights
from lib_faceid.vision.recognise import recognise_encoder
from lib_faceid.vision.spec import EncoderSpec

from .clip_files import BIG_G, HF_TEXT, OPEN_CLIP_TEXT, TINY, VIT_H, VIT_L_336, Tower, hf_layout, open_clip_layout
from .layouts import Layout, published_layout
from .meta_file import meta_file

LAYOUTS = {"hf": hf_layout, "open_clip": open_clip_layout}
TEXT = {"hf": HF_TEXT, "open_clip": OPEN_CLIP_TEXT}
PUBLISHED = {"CLIP ViT-H/14": VIT_H, "CLIP ViT-bigG/14": BIG_G, "CLIP ViT-L/14 at 336": VIT_L_336}


def find(shapes: Layout, config: dict[str, Any] | None = None, **more: Any) -> EncoderSpec:
    return recognise_encoder(meta_file(shapes, "models/clip.safetensors", **more), config)


def sizes(spec: EncoderSpec) -> Tower:
    numbers = (spec.hidden, spec.mlp, spec.layers, spec.heads, spec.patch, spec.image, spec.projection)
    return Tower(*numbers, act=spec.act)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_towers_need_no_config(name, layout):
    spec = find(LAYOUTS[layout](PUBLISHED[name]))
    assert (spec.name, spec.layout, spec.prefix, spec.eps) == (name, layout, "", 1e-5)
    assert sizes(spec) == PUBLISHED[name]
    assert spec.positions == PUBLISHED[name].positions


@pytest.mark.parametrize(("tower", "tensors"), [(VIT_H, 520), (BIG_G, 776), (VIT_L_336, 392)])
def test_the_layouts_of_these_tests_have_the_published_number_of_tensors(tower, tensors):
    assert len(hf_layout(tower)) == tensors


@pytest.mark.parametrize("prefix", ["", "image_encoder.", "model.clip."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_text_tower_and_a_prefix_change_nothing(layout, prefix):
    shapes = {prefix + name: shape for name, shape in (TEXT[layout] | LAYOUTS[layout](TINY)).items()}
    spec = find(shapes, TINY.config())
    assert (sizes(spec), spec.prefix, spec.layout) == (TINY, prefix, layout)
    assert spec.name == "CLIP vision encoder 32 wide, 3 layers"


def test_position_ids_of_old_transformers_are_passed_over():
    ids = "vision_model.embeddings.position_ids"

    def dtype(name: str) -> torch.dtype:
        return torch.int64 if name == ids else torch.float16

    spec = find(hf_layout(TINY) | {ids: (1, 17)}, TINY.config(), dtype=dtype)
    assert sizes(spec) == TINY


def test_a_config_decides_what_shapes_do_not_tell():
    config = VIT_H.config() | {"num_attention_heads": 20, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-6}
    spec = find(hf_layout(VIT_H), config)
    assert (spec.heads, spec.act, spec.eps) == (20, "quick_gelu", 1e-6)


def test_a_config_without_an_activation_means_the_default_of_transformers():
    config = {name: value for name, value in VIT_H.config().items() if name != "hidden_act"}
    assert find(hf_layout(VIT_H), config).act == "quick_gelu"


def test_the_config_of_a_whole_clip_counts_by_its_image_half():
    whole = {"projection_dim": 24, "vision_config": TINY.config() | {"projection_dim": 512}, "text_config": {}}
    assert sizes(find(hf_layout(TINY), whole)) == TINY


def test_the_config_of_something_else_is_passed_over():
    spec = find(hf_layout(VIT_H), {"_class_name": "UNet2DConditionModel", "sample_size": 64})
    assert (spec.heads, spec.act) == (16, "gelu")


def test_other_widths_have_64_channels_a_head():
    assert find(hf_layout(replace(TINY, hidden=192))).heads == 3


def test_a_width_of_no_rule_asks_for_the_config():
    with pytest.raises(WrongEncoder, match=r"'clip.safetensors' is 32 wide.*config\.json"):
        find(hf_layout(TINY))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_hidden_layers", 24, "num_hidden_layers 24, and the tensors say 32: it belongs to another encoder"),
        ("image_size", 336, "image_size 336, and the tensors say 224"),
        ("projection_dim", 768, "projection_dim 768"),
        ("num_attention_heads", 7, "number of its attention heads cannot be told"),
        ("num_attention_heads", "16", "number of its attention heads cannot be told"),
        ("hidden_act", "gelu_new", "the activation 'gelu_new'"),
        ("layer_norm_eps", 0, "the impossible layer_norm_eps 0"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(field, value, told):
    with pytest.raises(WrongEncoder, match=told):
        find(hf_layout(VIT_H), VIT_H.config() | {field: value})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_is_missed(layout):
    shapes = LAYOUTS[layout](TINY)
    for name in shapes:
        rest = {other: shape for other, shape in shapes.items() if other != name}
        with pytest.raises(WrongEncoder) as error:
            find(rest, TINY.config())
        hidden_by_the_rest = name in {
            "vision_model.embeddings.patch_embedding.weight",
            "visual.conv1.weight",
        }
        assert hidden_by_the_rest or name in str(error.value)


def test_many_missing_tensors_are_counted():
    shapes = {name: shape for name, shape in hf_layout(TINY).items() if ".layers.1." not in name}
    config = TINY.config() | {"num_hidden_layers": 2}
    with pytest.raises(WrongEncoder, match=r"of its 40 tensors: 16 missing \(.*layers\.1\..* and 13 more\); 16 not of"):
        find(shapes, config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"vision_model.encoder.layers.1.mlp.fc2.weight": (48, 32)},
            "1 of the wrong shape .*48 x 32 instead of 32 x 48",
        ),
        ({"vision_model.embeddings.class_embedding": ()}, "a single number instead of 32"),
        ({"vision_model.encoder.layers.0.self_attn.q_norm.weight": (8,)}, r"1 not of CLIP .*q_norm"),
        ({"vision_model.embeddings.patch_embedding.weight": (32, 4, 4, 4)}, "patches are 4 x 4 x 4"),
        ({"vision_model.embeddings.patch_embedding.weight": (32, 48)}, "of shape 32 x 48, expected 4 sizes"),
        ({"vision_model.embeddings.patch_embedding.weight": (0, 3, 4, 4)}, "of shape 0 x 3 x 4 x 4"),
        ({"vision_model.embeddings.position_embedding.weight": (16, 32)}, "there are 16 positions"),
        ({"vision_model.embeddings.position_embedding.weight": (1, 32)}, "there are 1 positions"),
    ],
)
def test_wrong_shapes_are_named(change, told):
    with pytest.raises(WrongEncoder, match=told):
        find(hf_layout(TINY) | change, TINY.config())


def test_a_file_quantised_to_integers_is_refused():
    with pytest.raises(WrongEncoder, match="56 not floating point"):
        find(hf_layout(TINY), TINY.config(), dtype=torch.int8)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (HF_TEXT, "a text encoder, without CLIP's vision part"),
        (OPEN_CLIP_TEXT, "a text encoder, without CLIP's vision part"),
        (published_layout("ip-adapter-faceid-plusv2_sd15.bin"), "an IP-Adapter"),
        (hf_layout(TINY) | {"vision_model.embeddings.patch_embedding.bias": (32,)}, "a SigLIP vision encoder"),
        ({"visual.trunk.patch_embed.proj.weight": (32, 3, 4, 4)}, "without the tensors of CLIP's"),
        ({"visual.conv1.weight": (64, 3, 3, 3), "visual.bn1.weight": (64,)}, "lacks visual.positional_embedding"),
        ({"xvisual.conv1.weight": (64, 3, 3, 3)}, "is not a CLIP vision encoder; it holds tensors such as xvisual"),
        ({"model.diffusion_model.out.2.weight": (4, 320, 3, 3)}, "such as model.diffusion_model.out.2.weight"),
    ],
)
def test_other_files_are_told_apart(shapes, told):
    with pytest.raises(WrongWeights, match=told) as error:
        find(shapes)
    assert isinstance(error.value, WrongEncoder)
    assert "Choose" in str(error.value) or "choose" in str(error.value)
