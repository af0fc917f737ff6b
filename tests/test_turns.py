"""Whose turn it is in a picture: the next one each time, or one by the picture's seed."""

from __future__ import annotations

import hashlib

import pytest

from lib_faceid.engine.request import Unit, read_unit
from lib_faceid.engine.turns import Picture, places_of, turn_of
from lib_faceid.errors import BadRequest
from lib_faceid.library.photos import PhotoData

PHOTOS = tuple(PhotoData(bytes([n]), f"{n}.jpg") for n in range(3))


def test_cycle_goes_by_the_number_in_the_job():
    assert [turn_of(Picture(number, 99 - number), 3, "cycle") for number in range(5)] == [0, 1, 2, 0, 1]


def test_random_goes_by_the_seed_alone():
    """sha256 of the seed in decimal digits, its first eight bytes as a number, modulo the count."""
    for seed in (0, 1, 12345, 2**32 - 1):
        expected = int(hashlib.sha256(b"%d" % seed).hexdigest()[:16], 16) % 7
        assert {turn_of(Picture(number, seed), 7, "random") for number in range(4)} == {expected}


def test_random_gives_everybody_a_fair_share():
    turns = [turn_of(Picture(0, seed), 4, "random") for seed in range(1000, 3000)]
    assert all(430 < turns.count(turn) < 570 for turn in range(4))  # 500 ± 3.5 standard deviations


@pytest.mark.parametrize("mode", ["cycle", "random"])
def test_each_picture_of_a_batch_has_one_of_them(mode):
    batch = [Picture(4 + place, 1000 + place) for place in range(6)]
    places = [places_of(turn, batch, 4, mode) for turn in range(4)]
    assert sorted(place for found in places for place in found) == list(range(6))
    assert all(turn_of(batch[place], 4, mode) == turn for turn, found in enumerate(places) for place in found)


def test_photos_together_are_one_person():
    unit = Unit(images=PHOTOS)
    assert unit.by_photo() == [unit]


@pytest.mark.parametrize("mode", ["cycle", "random"])
def test_photos_in_turn_are_one_person_each(mode):
    parts = Unit(images=PHOTOS, seed_mode=mode, face="2", weight=0.5).by_photo()
    assert parts == [Unit(images=(photo,), face="2", weight=0.5) for photo in PHOTOS]


def test_vectors_in_turn():
    vectors = (tuple([0.1] * 512), tuple([0.2] * 512))
    assert Unit(embeddings=vectors, seed_mode="cycle").by_photo() == [Unit(embeddings=(one,)) for one in vectors]


def test_a_saved_person_has_every_turn():
    unit = Unit(identity="anna", seed_mode="cycle")
    assert unit.by_photo() == [unit]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", "largest"), ("largest", "largest"), ("leftmost", "leftmost"), (2, "2"), ("3", "3"),
        ("like:anna", "like:anna"), ([1, 2.5, 30, 40], "box:1,2.5,30,40"), ("box:0,0,9,9", "box:0,0,9,9"),
    ],
)  # fmt: skip
def test_ways_to_choose_a_face(given, read):
    assert read_unit({"face": given}).face == read


@pytest.mark.parametrize(
    "given", [0, "0", -1, "biggest", "like:", "like: ", "box:1,2,3", "box:9,0,1,9", [1, 2], True, None, 1.5]
)
def test_what_chooses_no_face(given):
    with pytest.raises(BadRequest, match=r'Face in the photo \(face\) is .*; expected "largest", "leftmost", a number'):
        read_unit({"face": given})
