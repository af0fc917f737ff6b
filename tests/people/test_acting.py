"""How a person acts in a sampling pass: weight, window, structure, LoRA, factors of the layers and mask."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.core.unet_map import layers
from lib_faceid.engine.people import People
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadRequest

from ..models_folder import add_adapter, add_person, make_models, photo, place_of


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


def act(root, kind="faceid", hires_pass=False, adapter=True, **values):
    file = add_adapter(root, kind)
    add_person(root, file)
    if not adapter:
        file.path.unlink()
    unit = read_unit({"identity": "anna", **values})
    return People().find(unit, place_of(root)).act(unit, hires_pass=hires_pass)


def test_weight_and_window(root):
    strength = act(root, weight=0.7, hires_weight=0.3, start=0.1, end=0.9).strength
    assert (strength.weight, strength.start, strength.end, strength.by_layer) == (0.7, 0.1, 0.9, None)
    assert act(root, weight=0.7, hires_weight=0.3, hires_pass=True).strength.weight == 0.3
    assert act(root, weight=0.7, hires_pass=True).strength.weight == 0.7


def test_structure_where_there_is_one(root):
    assert act(root, "faceid-plusv2", structure=0.4).identity.structure == 0.4
    assert act(root, "faceid", structure=0.4).identity.structure == 1.0


@pytest.mark.parametrize(
    ("kind", "adapter", "lora", "expected"),
    [
        ("faceid", True, 0.4, 0.4),
        ("faceid", True, 0, 0.0),
        ("faceid", False, 0, 0.0),
        ("faceid", False, 0.4, 0.0),
        ("portrait", True, 0.4, 0.0),
    ],
)
def test_lora(root, kind, adapter, lora, expected):
    assert act(root, kind, adapter=adapter, lora=lora).lora == expected


def test_factors_by_execution(root):
    """The middle block is the seventh to run and the last in the file."""
    factors = act(root, layers=list(range(16))).strength.by_layer
    by_name = dict(zip((layer.ldm for layer in layers("sd15")), factors, strict=True))
    assert by_name["input_blocks.1.1.transformer_blocks.0"] == 0
    assert by_name["middle_block.1.transformer_blocks.0"] == factors[-1] == 6
    assert by_name["output_blocks.3.1.transformer_blocks.0"] == 7
    assert by_name["output_blocks.11.1.transformer_blocks.0"] == 15
    with pytest.raises(BadRequest, match=r"has 11 numbers; SD1\.5 needs 16"):
        act(root, layers=[1] * 11)


def test_mask(root):
    mask = act(root, mask=photo(1)).mask
    assert (mask.shape, mask.dtype) == ((480, 640), np.uint8)
