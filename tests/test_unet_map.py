"""Numbers in files against modules of UNets: both names, both directions, and UNets that are something else."""

from __future__ import annotations

import pytest
from diffusers import UNet2DConditionModel
from torch import nn

from lib_faceid.core.unet_map import base_of_count, find_layers, layers, numbers_by_name
from lib_faceid.errors import UnsupportedUNet

from . import unets
from .oracle_ldm import file_order


@pytest.mark.parametrize(("base", "build"), [("sd15", unets.sd15_unet), ("sdxl", unets.sdxl_unet)])
def test_diffusers_own_numbering(base, build):
    """diffusers lists attn1 and attn2 in turn; file key i is the i-th processor."""
    processors = list(build().attn_processors)
    for layer in layers(base):
        assert processors[layer.key] == f"{layer.diffusers}.attn2.processor"
        assert processors[layer.key - 1] == f"{layer.diffusers}.attn1.processor"
    assert len(processors) == 2 * len(layers(base))


def test_ldm_order():
    unet = unets.ldm_unet()
    assert list(find_layers(unet).attentions) == file_order(unet)


@pytest.mark.parametrize(
    ("base", "n", "ldm", "diffusers", "turn"),
    [
        ("sd15", 0, "input_blocks.1.1", "down_blocks.0.attentions.0", 0),
        ("sd15", 6, "output_blocks.3.1", "up_blocks.1.attentions.0", 7),
        ("sd15", 14, "output_blocks.11.1", "up_blocks.3.attentions.2", 15),
        ("sd15", 15, "middle_block.1", "mid_block.attentions.0", 6),
        ("sdxl", 2, "input_blocks.5.1", "down_blocks.1.attentions.1", 1),
        ("sdxl", 24, "output_blocks.0.1", "up_blocks.0.attentions.0", 5),
        ("sdxl", 54, "output_blocks.3.1", "up_blocks.1.attentions.0", 8),
        ("sdxl", 60, "middle_block.1", "mid_block.attentions.0", 4),
    ],
)
def test_rows_of_the_tables(base, n, ldm, diffusers, turn):
    layer = layers(base)[n]
    assert (layer.ldm, layer.diffusers, layer.turn) == (
        f"{ldm}.transformer_blocks.0",
        f"{diffusers}.transformer_blocks.0",
        turn,
    )
    assert layer.key == 2 * n + 1


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_names_lead_back_to_numbers(base):
    known = numbers_by_name(base)
    for layer in layers(base):
        assert known[layer.ldm] == known[layer.diffusers] == layer.n
    assert len(known) == 2 * len(layers(base))


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("naming", ["ldm", "diffusers"])
def test_a_unet_of_either_naming_under_any_prefix(base, prefix, naming):
    root = nn.Module()
    order = sorted(layers(base), key=lambda layer: layer.turn)  # registered as executed, not as in the file
    for layer in order:
        attn2 = nn.Module()
        attn2.to_k = nn.Linear(5, 7, bias=False)
        _register(root, f"{prefix}{getattr(layer, naming)}.attn2", attn2)
    found = find_layers(root)
    assert (found.base, found.context_width) == (base, 5)
    assert list(found.names) == [f"{prefix}{getattr(layer, naming)}.attn2" for layer in layers(base)]


def _register(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(last, module)


def test_counts():
    assert [base_of_count(count) for count in (16, 70, 0, 15, 64)] == ["sd15", "sdxl", None, None, None]


def test_a_unet_with_too_few_layers():
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    sentence = (
        "UNet2DConditionModel.* has 11 cross-attention layers .*the 16 of Stable Diffusion 1.x and the 70 of SDXL"
    )
    with pytest.raises(UnsupportedUNet, match=sentence):
        find_layers(unet)


def test_sixteen_layers_of_other_names():
    root = nn.Module()
    for i in range(16):
        _register(root, f"blocks.{i}.attn2", nn.Module())
    with pytest.raises(UnsupportedUNet, match=r"for example blocks\.0\.attn2, blocks\.1\.attn2"):
        find_layers(root)


def test_a_model_without_attention():
    with pytest.raises(UnsupportedUNet, match=r"Linear\) has 0 cross-attention layers \(for example none\)"):
        find_layers(nn.Linear(2, 2))
