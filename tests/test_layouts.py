"""The generators of layouts are oracles, so they are held against numbers recorded from the published files."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from .layouts import (
    KINDS,
    NARROW,
    PUBLISHED_FILES,
    Layout,
    as_pulid,
    as_training,
    channels_in_file_order,
    layout,
    nest,
    published_layout,
    random_tensors,
)

# Number of tensors, number of parameters, and the start of the sha256 of the sorted lines "name size size", recorded
# from the layouts that the upstream loaders accept. The parameter counts agree with the sizes of the published files.
RECORDED = {
    "instantid_ip-adapter.bin": (191, 422765824, "4b04b0d66b132bfc"),
    "ip-adapter-faceid-plusv2_sd15.bin": (344, 78260736, "aa69d1d9cf0985a2"),
    "ip-adapter-faceid-plusv2_sdxl.bin": (1316, 743707648, "4de9c3aa949b1731"),
    "ip-adapter-faceid-portrait-v11_sd15.bin": (38, 32291328, "d9678c95a6a09a11"),
    "ip-adapter-faceid-portrait_sdxl.bin": (146, 374903808, "7722e109077b7f06"),
    "ip-adapter-faceid_sd15.bin": (294, 48354816, "76fc106b65320ef2"),
    "ip-adapter-faceid_sdxl.bin": (1266, 535507968, "eb4d07e7147a9aa6"),
    "ip-adapter-full-face_sd15.safetensors": (38, 21794304, "71c05e06543c9d33"),
    "ip-adapter-plus_sd15.safetensors": (83, 49087488, "399cf44765a9bede"),
    "ip-adapter-plus_sdxl_vit-h.safetensors": (191, 423748864, "418b253ea488be62"),
    "ip-adapter_sd15.safetensors": (36, 22319616, "89142ef7b76bf335"),
    "ip-adapter_sd15_vit-G.safetensors": (36, 23106048, "3e7e5377e3810bc4"),
    "ip-adapter_sdxl.safetensors": (144, 351285248, "147f9f2c3ebf7fb2"),
    "ip-adapter_sdxl_vit-h.safetensors": (144, 349188096, "110faa915f4b64c5"),
    "kolors_ip-adapter-plus.bin": (191, 506552320, "bfe13a8ed9cc652f"),
    "kolors_ipa-faceid-plus.bin": (196, 1192903680, "0d829284be770cbd"),
    "pulid_v1.1.safetensors": (312, 492185600, "2c16c9acf273d886"),
    "pulid_v1.safetensors": (250, 395673600, "6c64c67f1fd38956"),
}


def digest(shapes: Layout) -> str:
    lines = sorted(f"{name} {' '.join(map(str, shape))}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("file", PUBLISHED_FILES)
def test_every_name_and_shape_is_that_of_the_published_file(file: str) -> None:
    shapes = published_layout(file)
    assert (len(shapes), sum(map(math.prod, shapes.values())), digest(shapes)) == RECORDED[file]


def test_the_recorded_files_are_all_generated() -> None:
    assert PUBLISHED_FILES.keys() == RECORDED.keys()
    assert {kind for kind, _, _ in PUBLISHED_FILES.values()} | {
        "faceid-plus", "plus-face", "composition", "portrait-unnorm",  # same layout as another
    } == KINDS.keys()  # fmt: skip


def test_the_middle_block_is_numbered_last_and_not_where_it_runs() -> None:
    sd15 = channels_in_file_order("sd15", (320, 640, 1280))
    assert sd15 == [320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320, 1280]
    sdxl = channels_in_file_order("sdxl", (320, 640, 1280))
    assert sdxl == [640] * 4 + [1280] * 50 + [640] * 6 + [1280] * 10


def test_narrow_sizes_reach_every_tensor() -> None:
    shapes = layout("faceid-plusv2", "sd15", NARROW["sd15"])
    assert shapes["ip_adapter.17.to_k_ip.weight"] == (128, 64)
    assert shapes["ip_adapter.18.to_k_lora.down.weight"] == (4, 64)  # self-attention of the next block: level 1
    assert shapes["ip_adapter.17.to_k_lora.down.weight"] == (4, 64)  # cross-attention: context width
    assert shapes["image_proj.proj.0.weight"] == (96, 512)
    assert shapes["image_proj.perceiver_resampler.layers.3.0.to_kv.weight"] == (128, 64)
    assert max(size for shape in shapes.values() for size in shape) == 512


def test_lora_can_be_left_out_or_forced() -> None:
    assert not any("lora" in name for name in layout("faceid", "sd15", lora=False))
    assert layout("base", "sd15", NARROW["sd15"], lora=True)["ip_adapter.0.to_q_lora.up.weight"] == (32, 4)


def test_containers_are_the_same_tensors_under_other_names() -> None:
    shapes = layout("base", "sd15", NARROW["sd15"])
    assert set(nest(shapes)) == {"image_proj", "ip_adapter"} and nest(shapes)["image_proj"]["norm.weight"] == (64,)
    assert as_training(shapes)["adapter_modules.1.to_k_ip.weight"] == shapes["ip_adapter.1.to_k_ip.weight"]
    assert as_pulid(shapes)["id_adapter_attn_layers.1.id_to_v.weight"] == shapes["ip_adapter.1.to_v_ip.weight"]
    assert len(as_pulid(shapes)) == len(as_training(shapes)) == len(shapes)


def test_random_tensors_depend_on_seed_and_name_alone() -> None:
    shapes = layout("faceid", "sd15", NARROW["sd15"])
    all_of_them = random_tensors(shapes, seed=1)
    name = "ip_adapter.9.to_k_ip.weight"
    assert torch.equal(all_of_them[name], random_tensors({name: shapes[name]}, seed=1)[name])
    assert not torch.equal(all_of_them[name], random_tensors({name: shapes[name]}, seed=2)[name])
    assert not torch.equal(all_of_them[name], all_of_them["ip_adapter.9.to_v_ip.weight"])


def test_random_tensors_have_a_sensible_size_and_the_dtype_asked_for() -> None:
    shapes = layout("plus", "sd15", NARROW["sd15"])
    tensors = random_tensors(shapes, dtype=lambda name: torch.float32 if "image_proj" in name else torch.float16)
    assert abs(tensors["ip_adapter.9.to_k_ip.weight"].float().std() - 1 / 8) < 0.01
    assert abs(tensors["image_proj.norm_out.weight"].mean() - 1) < 0.1
    assert {str(t.dtype) for name, t in tensors.items() if name.startswith("ip_adapter")} == {"torch.float16"}
    assert tensors["image_proj.latents"].dtype == torch.float32
