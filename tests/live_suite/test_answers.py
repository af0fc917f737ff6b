"""What is read of a WebUI's answers, and the arithmetic on its pictures."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from ..live.client import Client, Refused, Unreachable, encode_picture, infotext_field, read_drawn
from ..live.compare import Failed, difference, ensure_clear, ensure_near, show
from ..live.errors import check_sentence
from ..live.photos import bomb


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def test_differences_are_means_of_absolute_8_bit_values() -> None:
    other = grey(10)
    other[0, 0] = (13, 7, 10)
    assert difference(grey(10), other) == 6 / 48
    assert difference(grey(0), grey(255)) == 255  # no wrap-around
    with pytest.raises(Failed, match="4x4 and the other 8x4"):
        difference(grey(0), np.zeros((4, 8, 3), np.uint8))
    assert show([1.0, 1.001, 2.5]) == "1.00/2.50"


def test_an_effect_has_to_be_clear_in_every_picture() -> None:
    assert ensure_clear([2.0, 30.0], "effect") == "effect 2.00/30.00"
    with pytest.raises(Failed, match=r"1\.99 only; expected at least 2\.00"):
        ensure_clear([30.0, 1.99], "effect")
    with pytest.raises(Failed, match=r"at least 4\.00"):
        ensure_clear([3.9], "effect", noise=1.0)


def test_two_ways_may_differ_by_about_what_they_differ_by_plainly() -> None:
    ensure_near([2.5, 0.5], [1.0, 0.0], "split", effect=20)
    with pytest.raises(Failed, match=r"expected at most 2\.50/0\.50"):
        ensure_near([2.4, 0.6], [1.0, 0.0], "split", effect=20)
    with pytest.raises(Failed, match="proves nothing"):
        ensure_near([2.5], [1.0], "split", effect=3.3)
    ensure_near([2.5], [1.0], "split", effect=3.4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('cat\nSteps: 4, FaceID: "adapter: a, weight: 1", Version: x', "adapter: a, weight: 1"),
        ("cat\nSteps: 4, FaceID: plain, Version: x", "plain"),
        ("cat\nFaceID: first in its line", "first in its line"),
        ('cat\nSteps: 4, FaceID note: "a, b", Version: x', None),
        ('cat\nSteps: 4, FaceID: "says \\"no\\", and more"', 'says "no", and more'),
    ],
)
def test_a_field_is_found_in_the_text(text: str, expected: str | None) -> None:
    assert infotext_field(text, "FaceID") == expected


def test_grids_and_masks_are_no_pictures() -> None:
    info = {"infotexts": ["grid", "one", "two"], "all_seeds": [1, 2], "index_of_first_image": 1}
    images = [encode_picture(grey(level)) for level in (9, 1, 2, 7)]
    drawn = read_drawn({"images": images, "info": json.dumps(info)})
    assert [int(picture[0, 0, 0]) for picture in drawn.pictures] == [1, 2]
    assert (len(drawn.images), drawn.infotexts, drawn.text) == (4, ("one", "two"), "one")


def test_refusals_and_silence_are_told_apart(address: str) -> None:
    with pytest.raises(Refused, match="answered 404: Not Found"):
        Client(address).get("/nothing")
    with pytest.raises(Unreachable, match="No WebUI with --api answers"):
        Client("http://127.0.0.1:9").get("/sdapi/v1/options")  # the discard port


@pytest.mark.parametrize(
    "sentence",
    [
        "Photo 1 is broken",
        "Traceback: Photo 1.",
        "Photo 1 in /srv/x/a.png.",
        "Photo 1 in C:\\x.",
        "Photo 1. " * 90,
        "",
    ],
)
def test_what_is_no_sentence_for_people_is_found(sentence: str) -> None:
    check_sentence("Photo 1 of models/ip-adapter and 50/50 is broken (see https://example.org/x/y).", ("Photo 1",))
    with pytest.raises(Failed):
        check_sentence(sentence, ("Photo 1",))


def test_the_bomb_is_small_and_says_that_it_is_large() -> None:
    data = base64.b64decode(bomb())
    assert len(data) < 100_000
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(base64.b64decode(bomb(10_000)))) as image:
        assert image.size == (10_000, 10_000)
