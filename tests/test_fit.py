"""Whether an identity belongs to a UNet: by base, by the width of the text and by the channels of every layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_faceid.core.tokens import LayerKV
from lib_faceid.core.unet_map import find_layers
from lib_faceid.engine.run import ensure_fit
from lib_faceid.errors import WrongBase
from lib_faceid.library.identity import Identity

from .adapters import make_adapter
from .unets import sd15_unet


def identity(tmp_path, kind="faceid-plusv2", base="sd15") -> Identity:
    return make_adapter(tmp_path, kind, base).identity(1)


def with_channels(person: Identity, n: int, channels: int) -> Identity:
    """The same person, with another number of channels in one layer."""
    wide = LayerKV(torch.zeros(2, 4, channels), torch.zeros(2, 4, channels))
    kv = {number: wide if number == n else person.main.kv[number] for number in range(16)}
    return replace(person, main=replace(person.main, kv=kv))


def test_what_was_made_for_it_fits(tmp_path):
    ensure_fit(identity(tmp_path), find_layers(sd15_unet()))


def test_another_base_names_the_adapter_and_both_bases(tmp_path):
    person = identity(tmp_path, base="sdxl")
    with pytest.raises(WrongBase, match=rf"{person.origin.adapter_name} is an adapter for SDXL .* UNet is SD1\.5"):
        ensure_fit(person, find_layers(sd15_unet()))


@pytest.mark.parametrize(("n", "has", "due"), [(0, 320, 32), (15, 64, 128)])
def test_another_width_names_the_adapter_and_both_widths_and_does_not_blame_the_base(tmp_path, n, has, due):
    person = with_channels(identity(tmp_path), n, has)
    with pytest.raises(WrongBase) as caught:
        ensure_fit(person, find_layers(sd15_unet()))
    sentence = str(caught.value)
    assert sentence.startswith(f"{person.origin.adapter_name} was made for a smaller or larger SD1.5 model")
    assert f"{has} channels in layer {n}, where the UNet has {due}" in sentence
    assert "base" not in sentence
