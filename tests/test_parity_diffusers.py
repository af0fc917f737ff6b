"""Equal to diffusers' own IP-Adapter on the same random weights, for every variant, both bases, in float32 and
bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from torch import Tensor

import lib_faceid

from . import oracle_diffusers
from .adapters import Made, make_adapter
from .unets import UNETS, inputs, relative_error, run

ROWS = ("uncond", "cond", "uncond", "cond")
TOLERANCE = 1e-4  # of the adapter's largest effect


def diffusers_result(
    adapters: Sequence[Made], features: Sequence[dict[str, Tensor]], weights: Sequence[float], structure: float = 1.0
) -> Tensor:
    base = adapters[0].base
    unet = UNETS[base]()
    oracle_diffusers.load(unet, adapters, weights)
    embeds = [
        oracle_diffusers.image_embeds(unet, place, made, fed, ROWS, structure)
        for place, (made, fed) in enumerate(zip(adapters, features, strict=True))
    ]
    return run(unet, inputs(len(ROWS), base), image_embeds=embeds)


def our_result(base: str, identities: Sequence[lib_faceid.Identity], **kwargs: object) -> Tensor:
    unet = UNETS[base]()
    with lib_faceid.applied(unet, identities, rows=ROWS, lora=0.0, **kwargs):
        return run(unet, inputs(len(ROWS), base))


def bare_result(base: str) -> Tensor:
    return run(UNETS[base](), inputs(len(ROWS), base))


CASES = [
    ("faceid", 1, 1.0),
    ("faceid-plus", 1, 1.0),
    ("faceid-plus", 1, 0.0),
    ("faceid-plusv2", 1, 0.0),
    ("faceid-plusv2", 1, 0.5),
    ("faceid-plusv2", 1, 1.0),
    ("portrait", 3, 1.0),
    ("portrait-unnorm", 1, 1.0),
    ("base", 1, 1.0),
    ("plus", 1, 1.0),
    ("plus-face", 1, 1.0),
    ("full-face", 1, 1.0),
]


@pytest.mark.parametrize(
    ("kind", "photos", "structure", "base"),
    [
        (*case, base)
        for base in UNETS
        for case in CASES
        if (case[0], base) != ("faceid-plus", "sdxl")  # there is no FaceID Plus v1 for SDXL
    ],
)
def test_every_variant(tmp_path, kind, base, photos, structure):
    made = make_adapter(tmp_path, kind, base)
    features = made.features(photos)
    expected = diffusers_result([made], [features], [0.8], structure)
    found = our_result(base, [made.identity(photos, structure=structure)], weight=0.8)
    assert relative_error(found, expected, bare_result(base)) <= TOLERANCE


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_two_adapters_with_different_token_counts(tmp_path, base):
    pair = [make_adapter(tmp_path, "faceid", base), make_adapter(tmp_path, "plus", base, seed=1)]
    features = [made.features() for made in pair]
    expected = diffusers_result(pair, features, [0.8, 0.5])
    found = our_result(base, [made.identity() for made in pair], weight=[0.8, 0.5])
    assert relative_error(found, expected, bare_result(base)) <= TOLERANCE


def test_photos_side_by_side_are_diffusers_several_images(tmp_path):
    """diffusers lays the tokens of several images side by side; here that is combine="concat"."""
    made = make_adapter(tmp_path, "faceid-plusv2")
    expected = diffusers_result([made], [made.features(2)], [1.0])
    found = our_result("sd15", [made.identity(2, combine="concat")])
    assert relative_error(found, expected, bare_result("sd15")) <= TOLERANCE


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_masks_aligned_to_64_pixels(tmp_path, base):
    """Two people, left and right; a 32x32 latent is a picture of 256x256, its smallest level 64 pixels coarse."""
    left = torch.zeros(256, 256)
    left[:, :128] = 1
    masks = [left, 1 - left]
    pair = [make_adapter(tmp_path, "faceid", base), make_adapter(tmp_path, "faceid", base, seed=1)]
    features = [made.features(seed=seed) for seed, made in enumerate(pair)]
    call = inputs(len(ROWS), base, size=(32, 32))
    unet = UNETS[base]()
    bare = run(unet, call)
    oracle_diffusers.load(unet, pair, [[0.8], [0.8]])
    embeds = [
        oracle_diffusers.image_embeds(unet, place, made, fed, ROWS)
        for place, (made, fed) in enumerate(zip(pair, features, strict=True))
    ]
    processed = IPAdapterMaskProcessor().preprocess([mask.numpy() for mask in masks], height=256, width=256)
    mask_list = [mask[None] for mask in processed]  # one (1, images, H, W) for each adapter
    kwargs = {**call, "added_cond_kwargs": {**call["added_cond_kwargs"], "image_embeds": embeds}}
    with torch.no_grad():
        expected = unet(**kwargs, cross_attention_kwargs={"ip_adapter_masks": mask_list}).sample
    ours = UNETS[base]()
    people = [made.identity(seed=seed) for seed, made in enumerate(pair)]
    with lib_faceid.applied(ours, people, rows=ROWS, weight=0.8, mask=masks, lora=0.0):
        found = run(ours, call)
    assert relative_error(found, expected, bare) <= TOLERANCE


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_bfloat16_within_its_rounding(tmp_path, base):
    """Both are compared with the float32 result: ours may not be further from it than diffusers is."""
    made = make_adapter(tmp_path, "faceid-plusv2", base)
    exact = our_result(base, [made.identity()], weight=0.8)
    call = {key: _as_bfloat16(value) for key, value in inputs(len(ROWS), base).items()}
    theirs, ours = UNETS[base]().bfloat16(), UNETS[base]().bfloat16()
    oracle_diffusers.load(theirs, [made], [0.8])
    features = {name: value.bfloat16() for name, value in made.features().items()}
    embeds = oracle_diffusers.image_embeds(theirs, 0, made, features, ROWS)
    expected = run(theirs, call, image_embeds=[embeds])
    with lib_faceid.applied(ours, made.identity(), rows=ROWS, weight=0.8, lora=0.0):
        found = run(ours, call)
    assert found.dtype == torch.bfloat16
    error, peer = (found - exact).float().norm(), (expected - exact).float().norm()
    assert error <= 1.2 * peer


def _as_bfloat16(value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_bfloat16(item) for key, item in value.items()}
    return value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value
