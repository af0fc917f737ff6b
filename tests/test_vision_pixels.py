"""Photos become the pixels that transformers' CLIPImageProcessor makes of them, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor

from lib_faceid.errors import BadIdentity
from lib_faceid.vision.pixels import prepare


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def processed(image: np.ndarray, size: int) -> torch.Tensor:
    crop = {"height": size, "width": size}
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=crop)
    return torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"]))


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize(
    ("height", "width"),
    [(224, 224), (112, 112), (480, 640), (640, 480), (301, 299), (97, 1023), (1000, 333), (225, 224), (20, 31)],
)
def test_it_is_what_the_processor_makes(height, width, size):
    image = photo(height, width)
    assert torch.equal(prepare([image], size), processed(image, size))


def test_photos_of_different_sizes_make_one_batch():
    images = [photo(40, 50, 1), photo(224, 224, 2), photo(300, 120, 3)]
    pixels = prepare(images, 224)
    assert (pixels.shape, pixels.dtype) == ((3, 3, 224, 224), torch.float32)
    for one, image in zip(pixels, images, strict=True):
        assert torch.equal(one, prepare([image], 224)[0])


def test_each_channel_is_normalised_by_its_own_numbers():
    """White is (1 - mean) / std: red (1 - 0.48145466) / 0.26862954, and so on."""
    white = np.full((8, 8, 3), 255, np.uint8)
    assert torch.allclose(prepare([white], 8)[0, :, 0, 0], torch.tensor([1.93033625, 2.07488403, 2.14589746]))
    red = white * np.array([1, 0, 0], np.uint8)
    assert torch.allclose(prepare([red], 8)[0, :, 0, 0], torch.tensor([1.93033625, -1.75209713, -1.48021979]))


def test_a_view_turned_around_is_a_photo_too():
    image = photo(30, 40)
    assert torch.equal(prepare([image[:, ::-1]], 16), prepare([image[:, ::-1].copy()], 16))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_photo_is_refused(image):
    with pytest.raises(BadIdentity, match=r"uint8 RGB arrays .* found .* of shape"):
        prepare([image], 16)


def test_a_strip_is_refused_before_it_is_enlarged():
    with pytest.raises(BadIdentity, match="90000 x 1 pixels"):
        prepare([photo(1, 90000)], 224)


def test_no_photo_is_refused():
    with pytest.raises(BadIdentity, match="without a photo"):
        prepare([], 224)
