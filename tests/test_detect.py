"""What is recognised in a file by its tensors alone: at the published sizes and at narrow ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_faceid.core.projections import (
    FullMLPSpec,
    IDMLPSpec,
    IDPerceiverSpec,
    ImageProjSpec,
    PerceiverSpec,
    ResamplerSpec,
    build_projection,
)
from lib_faceid.core.unet_map import layers
from lib_faceid.errors import UnsupportedAdapter
from lib_faceid.weights.detect import recognise
from lib_faceid.weights.read import open_tensors
from lib_faceid.weights.variants import UNSUPPORTED, VARIANTS

from .layouts import NARROW, PUBLISHED_FILES, channels_in_file_order, nest, published_layout, random_tensors
from .meta_file import find, narrow

PERCEIVER_SD15 = PerceiverSpec(1280, 768, 768, 12, 4, 3072)
PERCEIVER_SDXL = PerceiverSpec(1280, 1280, 2048, 20, 4, 5120)
PLUS_SDXL = PerceiverSpec(1280, 2048, 2048, 32, 4, 8192)
FACE_SD15, FACE_SDXL = IDMLPSpec(4, 768, 512, 1024), IDMLPSpec(4, 2048, 512, 1024)
# file: variant, base, context width, tokens, LoRA rank, projection
EXPECTED = {
    "ip-adapter-faceid_sd15.bin": ("faceid", "sd15", 768, 4, 128, FACE_SD15),
    "ip-adapter-faceid-plusv2_sd15.bin": (
        "faceid-plusv2", "sd15", 768, 4, 128, IDPerceiverSpec(FACE_SD15, PERCEIVER_SD15)
    ),
    "ip-adapter-faceid-portrait-v11_sd15.bin": ("portrait", "sd15", 768, 16, 0, IDMLPSpec(16, 768, 512, 1024)),
    "ip-adapter-faceid_sdxl.bin": ("faceid", "sdxl", 2048, 4, 128, FACE_SDXL),
    "ip-adapter-faceid-plusv2_sdxl.bin": (
        "faceid-plusv2", "sdxl", 2048, 4, 128, IDPerceiverSpec(FACE_SDXL, PLUS_SDXL)
    ),
    "ip-adapter-faceid-portrait_sdxl.bin": ("portrait", "sdxl", 2048, 16, 0, IDMLPSpec(16, 2048, 512, 1024)),
    "ip-adapter_sd15.safetensors": ("base", "sd15", 768, 4, 0, ImageProjSpec(4, 768, 1024)),
    "ip-adapter_sd15_vit-G.safetensors": ("base", "sd15", 768, 4, 0, ImageProjSpec(4, 768, 1280)),
    "ip-adapter-plus_sd15.safetensors": ("plus", "sd15", 768, 16, 0, ResamplerSpec(16, PERCEIVER_SD15)),
    "ip-adapter-full-face_sd15.safetensors": ("full-face", "sd15", 768, 0, 0, FullMLPSpec(768, 1280)),
    "ip-adapter_sdxl.safetensors": ("base", "sdxl", 2048, 4, 0, ImageProjSpec(4, 2048, 1280)),
    "ip-adapter_sdxl_vit-h.safetensors": ("base", "sdxl", 2048, 4, 0, ImageProjSpec(4, 2048, 1024)),
    "ip-adapter-plus_sdxl_vit-h.safetensors": ("plus", "sdxl", 2048, 16, 0, ResamplerSpec(16, PERCEIVER_SDXL)),
}  # fmt: skip
UNSUPPORTED_FILES = {
    "instantid_ip-adapter.bin": "InstantID (by its file name)",
    "kolors_ip-adapter-plus.bin": "Kolors IP-Adapter Plus (by its tensors)",
    "kolors_ipa-faceid-plus.bin": "Kolors FaceID Plus (by its tensors)",
    "pulid_v1.safetensors": "PuLID v1 (by its tensors)",
    "pulid_v1.1.safetensors": "PuLID v1.1 (by its tensors)",
}


@pytest.mark.parametrize("file", EXPECTED)
def test_published_files_are_recognised_with_all_their_sizes(file: str) -> None:
    found = find(published_layout(file), file)
    sizes = (found.variant.key, found.base, found.context_width, found.tokens, found.lora_rank, found.projection)
    assert sizes == EXPECTED[file]


@pytest.mark.parametrize("file", UNSUPPORTED_FILES)
def test_families_that_are_not_run_are_named(file: str) -> None:
    with pytest.raises(UnsupportedAdapter) as error:
        find(published_layout(file), file)
    assert f"'{file}' is {UNSUPPORTED_FILES[file]}" in str(error.value)
    assert "this version does not run it yet" in str(error.value)


def test_every_published_file_is_tested() -> None:
    assert EXPECTED.keys() | UNSUPPORTED_FILES.keys() == PUBLISHED_FILES.keys()


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("key", VARIANTS)
def test_narrow_adapters_are_recognised_at_any_width(key: str, base: str) -> None:
    scale = NARROW[base]
    found = find(narrow(key, base), f"{key}.safetensors")
    assert (found.variant.key, found.base, found.context_width) == (
        "faceid-plusv2" if (key, base) == ("faceid-plus", "sdxl") else key, base, scale.context
    )  # fmt: skip
    assert found.tokens == {"full-face": 0, "base": 4}.get(key, 4 if "faceid" in key else 16)
    assert found.lora_rank == (4 if "faceid" in key else 0)


@pytest.mark.parametrize("kind", ["kolors-plus", "kolors-faceid-plus", "pulid-v1", "pulid-v1.1"])
def test_narrow_foreign_families_are_named_too(kind: str) -> None:
    sizes: dict[str, dict[str, int]] = {
        "kolors-plus": {"dim": 128, "heads": 1},
        "kolors-faceid-plus": {"token_width": 256},
    }
    with pytest.raises(UnsupportedAdapter, match=UNSUPPORTED[kind].title):
        find(narrow(kind, "sdxl", **sizes.get(kind, {})))


@pytest.mark.parametrize("context", [64, 192, 1024])
def test_the_context_width_is_read_and_not_assumed(context: int) -> None:
    found = find(narrow("faceid", context=context))
    assert (found.base, found.context_width) == ("sd15", context)


def test_layers_are_expected_with_the_channels_of_their_place_in_the_unet() -> None:
    for base in ("sd15", "sdxl"):
        channels = channels_in_file_order(base, (32, 64, 128))
        shapes = narrow("faceid", base)
        assert [shapes[f"ip_adapter.{layer.key}.to_k_ip.weight"][0] for layer in layers(base)] == channels
        assert find(shapes, digest="unused").base == base


def test_the_keys_lead_to_weights_that_fit_the_projection(tmp_path: Path) -> None:
    tensors = random_tensors(narrow("faceid-plusv2"))
    save_file(tensors, tmp_path / "faceid-plusv2.safetensors")
    torch.save(nest(tensors), tmp_path / "faceid-plusv2.bin")
    for path in tmp_path.iterdir():
        file = open_tensors(path)
        found = recognise(file, digest=lambda path=path: hashlib.sha256(path.read_bytes()).hexdigest())
        state = {inner: file.load(name) for inner, name in found.keys.image_proj.items()}
        build_projection(found.projection).load_state_dict(state, strict=True, assign=True)
        key = found.keys.ip_adapter["17.to_v_ip.weight"]
        assert torch.equal(file.load(key), tensors["ip_adapter.17.to_v_ip.weight"])
        assert (found.variant.key, found.how) == ("faceid-plusv2", "by its file name")
