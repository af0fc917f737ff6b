"""Region masks by hand-sized arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lib_faceid.core.masks import check_mask, layer_size, resize_mask
from lib_faceid.errors import MaskMismatch


@pytest.mark.parametrize(
    ("latent", "queries", "expected"),
    [
        ((64, 64), 4096, (64, 64)),
        ((64, 64), 1024, (32, 32)),
        ((64, 64), 64, (8, 8)),
        ((65, 72), 33 * 36, (33, 36)),  # 520 x 576 px: a side of 65 becomes 33, 17, 9
        ((65, 72), 17 * 18, (17, 18)),
        ((128, 96), 32 * 24, (32, 24)),
    ],
)
def test_layer_size_follows_the_convolutions(latent, queries, expected):
    assert layer_size(latent, queries) == expected


def test_a_size_no_level_has_is_refused():
    with pytest.raises(MaskMismatch, match="1000 positions and no level of a 64x64 latent"):
        layer_size((64, 64), 1000)


def test_area_average():
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert resize_mask(mask, (2, 2)).tolist() == [0.75, 0.0, 0.0, 1.0]
    assert resize_mask(mask, (1, 1)).item() == pytest.approx(7 / 16)


def test_kinds_of_mask_that_are_read():
    expected = [[0.0, 1.0]]
    assert check_mask(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == expected
    assert check_mask(torch.tensor([[0, 1]], dtype=torch.uint8)).tolist() == expected
    assert check_mask(torch.tensor([[0, 255]])).tolist() == expected
    assert check_mask(torch.tensor([[False, True]])).tolist() == expected
    assert check_mask(torch.tensor([[[-3.0, 3.0]]])).tolist() == expected


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.zeros(3), r"shape \(height, width\); found \(3,\)"),
        (torch.zeros(2, 3, 4), r"found \(2, 3, 4\)"),
        (torch.zeros(0, 4), r"found \(0, 4\)"),
        (torch.tensor([[float("nan")]]), "not numbers"),
    ],
)
def test_what_is_no_mask(mask, sentence):
    with pytest.raises(MaskMismatch, match=sentence):
        check_mask(mask)


def test_arrays_and_pictures():
    from lib_faceid.engine.acts import _as_tensor

    drawn = np.array([[0, 255], [128, 0]], dtype=np.uint8)
    for mask in (drawn, Image.fromarray(drawn)):
        torch.testing.assert_close(check_mask(_as_tensor(mask)), torch.tensor([[0.0, 1.0], [128 / 255, 0.0]]))
    with pytest.raises(MaskMismatch, match=r"found \(2, 2, 3\)"):
        check_mask(_as_tensor(Image.fromarray(drawn).convert("RGB")))
