"""A tower gives the features of transformers and of open_clip, from either layout and container."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from lib_faceid.errors import BadIdentity, BrokenWeights, FaceIDError
from lib_faceid.vision.clip import Encoder, Features
from lib_faceid.vision.recognise import recognise_encoder
from lib_faceid.vision.uncond import UncondCache
from lib_faceid.vision.weight_file import WeightFile
from lib_faceid.weights.read import TensorFile, open_tensors

from .clip_files import OPEN_CLIP_TEXT, TINY, Tower, hf_layout, open_clip_forward, open_clip_layout
from .containers import save_flat_bin, save_safetensors
from .layouts import random_tensors

QUICK = replace(TINY, hidden=48, heads=3, layers=2, act="quick_gelu")
WRITERS = {"model.safetensors": save_safetensors, "pytorch_model.bin": save_flat_bin}


def load_encoder(file: WeightFile, tower: Tower = TINY, dtype: torch.dtype | None = None) -> Encoder:
    return Encoder.load(file, recognise_encoder(file, tower.config()), "cpu", dtype)


def save_tower(folder: Path, tower: Tower = TINY, dtype: torch.dtype = torch.float32) -> TensorFile:
    tensors = random_tensors(hf_layout(tower), dtype=dtype)
    return open_tensors(save_safetensors(folder / "model.safetensors", tensors))


def theirs(tensors: dict[str, Tensor], tower: Tower) -> nn.Module:
    """transformers' model with these weights, built and loaded the ordinary way."""
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**tower.config()))
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def features_of(model: nn.Module, pixels: Tensor) -> Features:
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True)
    return Features(output.hidden_states[-2], output.image_embeds)


def pixels_for(tower: Tower, photos: int = 2) -> Tensor:
    return torch.randn(photos, 3, tower.image, tower.image)


def assert_same(found: Features, expected: Features) -> None:
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.pooled, expected.pooled)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("tower", [TINY, QUICK])
def test_features_are_those_of_transformers(tmp_path, tower, ending):
    tensors = random_tensors(hf_layout(tower))
    pixels = pixels_for(tower)
    with load_encoder(open_tensors(WRITERS[ending](tmp_path / ending, tensors)), tower) as encoder:
        found = encoder.features(pixels)
    assert found.hidden.shape == (2, 17, tower.hidden)
    assert found.pooled.shape == (2, 24)
    assert_same(found, features_of(theirs(tensors, tower), pixels))


def test_a_folder_saved_by_transformers_is_read_with_its_config(tmp_path):
    model = theirs(random_tensors(hf_layout(QUICK)), QUICK)
    model.save_pretrained(tmp_path, safe_serialization=True)
    file = open_tensors(tmp_path / "model.safetensors")
    spec = recognise_encoder(file, json.loads((tmp_path / "config.json").read_text()))
    pixels = pixels_for(QUICK)
    loaded = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    assert_same(Encoder.load(file, spec, "cpu").features(pixels), features_of(loaded, pixels))


def test_a_whole_clip_saved_by_transformers_is_read_with_its_config(tmp_path):
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=text | {"vocab_size": 9}, vision_config=TINY.config(), projection_dim=24)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path, safe_serialization=True)
    file = open_tensors(tmp_path / "model.safetensors")
    spec = recognise_encoder(file, json.loads((tmp_path / "config.json").read_text()))
    pixels = pixels_for(TINY)
    with torch.no_grad():
        output = model.vision_model(pixels, output_hidden_states=True)
        pooled = model.visual_projection(output.pooler_output)
    assert_same(Encoder.load(file, spec, "cpu").features(pixels), Features(output.hidden_states[-2], pooled))


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("tower", [TINY, QUICK])
def test_features_are_those_of_open_clip(tmp_path, tower, ending, prefix):
    tensors = random_tensors(open_clip_layout(tower))
    whole = {prefix + name: one for name, one in (tensors | random_tensors(OPEN_CLIP_TEXT)).items()}
    pixels = pixels_for(tower)
    found = load_encoder(open_tensors(WRITERS[ending](tmp_path / ending, whole)), tower).features(pixels)
    with torch.no_grad():
        hidden, pooled = open_clip_forward(tensors, tower, pixels)
    assert torch.allclose(found.hidden, hidden, rtol=1e-5, atol=1e-5)
    assert torch.allclose(found.pooled, pooled, rtol=1e-5, atol=1e-5)
    assert hidden.std() > 0.1 and (hidden[:, 0] - hidden[:, 1]).abs().max() > 0.1


def test_position_ids_in_an_old_file_are_counted_anew(tmp_path):
    tensors = random_tensors(hf_layout(TINY))
    wrong = {"vision_model.embeddings.position_ids": torch.zeros(1, 17, dtype=torch.int64)}
    pixels = pixels_for(TINY)
    found = load_encoder(open_tensors(save_flat_bin(tmp_path / "old.bin", tensors | wrong))).features(pixels)
    assert_same(found, features_of(theirs(tensors, TINY), pixels))


@pytest.mark.parametrize("layout", [hf_layout, open_clip_layout])
def test_nothing_is_left_without_a_value(tmp_path, layout):
    file = open_tensors(save_safetensors(tmp_path / "clip.safetensors", random_tensors(layout(TINY))))
    model: Any = load_encoder(file)._model
    parts = [*model.named_parameters(), *model.named_buffers()]
    assert len(parts) >= len(hf_layout(TINY))
    assert [name for name, part in parts if part.is_meta or part.requires_grad] == []
    assert not model.training


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_on_the_cpu_16_bits_are_stored_and_32_compute(tmp_path, stored):
    """As if the whole tower had been widened first."""
    file = save_tower(tmp_path, dtype=stored)
    pixels = pixels_for(TINY)
    encoder = load_encoder(file)
    widened = {name: tensor.float() for name, tensor in file.load_many(file.tensors)}
    for _ in range(2):
        found = encoder.features(pixels)
        assert found.hidden.dtype == found.pooled.dtype == torch.float32
        assert_same(found, features_of(theirs(widened, TINY), pixels))
    layers: Any = encoder._model.vision_model.encoder.layers
    assert {parameter.dtype for parameter in layers.parameters()} == {stored}


def test_a_failed_forward_leaves_the_layers_as_stored(tmp_path):
    encoder = load_encoder(save_tower(tmp_path, dtype=torch.float16))
    layers: Any = encoder._model.vision_model.encoder.layers

    def fail(*_: object) -> None:
        raise MemoryError

    handle = layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        encoder.features(pixels_for(TINY))
    handle.remove()
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.float16}


def test_a_dtype_that_was_asked_for_computes(tmp_path):
    file = save_tower(tmp_path)
    pixels = pixels_for(TINY)
    exact = load_encoder(file).features(pixels).pooled
    encoder = load_encoder(file, dtype=torch.bfloat16)
    rough = encoder.features(pixels).pooled
    assert rough.dtype == torch.float32
    assert torch.equal(rough, rough.bfloat16().float())
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_autocast_of_the_host_changes_nothing(tmp_path):
    encoder = load_encoder(save_tower(tmp_path))
    pixels = pixels_for(TINY)
    expected = encoder.features(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(encoder.features(pixels), expected)


def test_features_carry_no_gradient_and_can_be_trained_on(tmp_path):
    found = load_encoder(save_tower(tmp_path)).features(pixels_for(TINY))
    assert not found.hidden.requires_grad and not found.hidden.is_inference()


def test_uncond_is_what_zeros_after_normalisation_give(tmp_path):
    tensors = random_tensors(hf_layout(TINY))
    found = load_encoder(save_tower(tmp_path)).uncond()
    assert (found.hidden.shape, found.pooled.shape) == ((1, 17, 32), (1, 24))
    assert_same(found, features_of(theirs(tensors, TINY), torch.zeros(1, 3, 16, 16)))


def test_uncond_is_made_once_for_each_digest(tmp_path):
    encoder, cache, made = load_encoder(save_tower(tmp_path)), UncondCache(), []

    def make() -> Features:
        made.append(1)
        return encoder.uncond()

    first = cache.get("aa", make)
    assert cache.get("aa", make) is first
    assert len(made) == 1
    assert cache.get("bb", make) is not first
    assert UncondCache().get("aa", make) is not first
    assert len(made) == 3


def test_many_photos_keep_their_order(tmp_path):
    encoder = load_encoder(save_tower(tmp_path))
    pixels = pixels_for(TINY, photos=9)
    together = encoder.features(pixels)
    alone = [encoder.features(one[None]) for one in pixels]
    assert torch.allclose(together.hidden, torch.cat([one.hidden for one in alone]), atol=1e-5)
    assert torch.allclose(together.pooled, torch.cat([one.pooled for one in alone]), atol=1e-5)
    assert (together.pooled[0] - together.pooled[5]).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(2, 3, 16, 17), (3, 16, 16), (2, 1, 16, 16), (2, 3, 224, 224), (0, 3, 16, 16)])
def test_pixels_of_another_shape_are_refused(tmp_path, shape):
    with pytest.raises(BadIdentity, match=r"32 wide, 3 layers takes .*\(photos, 3, 16, 16\); found"):
        load_encoder(save_tower(tmp_path)).features(torch.zeros(shape))


def test_pixels_that_were_not_normalised_are_refused(tmp_path):
    with pytest.raises(BadIdentity, match="of uint8"):
        load_encoder(save_tower(tmp_path)).features(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_a_file_that_changed_since_it_was_recognised(tmp_path):
    file = save_tower(tmp_path)
    spec = recognise_encoder(file, TINY.config())
    file.path.write_bytes(b"something else")
    with pytest.raises(BrokenWeights, match="replaced or changed"):
        Encoder.load(file, spec, "cpu")


def test_without_transformers_the_package_is_named(tmp_path, monkeypatch):
    file = save_tower(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FaceIDError, match="need the package transformers, which cannot be imported"):
        load_encoder(file)
