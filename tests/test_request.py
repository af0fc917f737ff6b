"""One table of fields for panel, infotext and API; what each field takes, and the sentence for what it does not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lib_faceid.engine.fields import MANY
from lib_faceid.engine.request import FIELDS, PRESETS, Unit, field, read_unit, read_units
from lib_faceid.errors import BadPhoto, BadRequest
from lib_faceid.library.photos import PhotoData
from lib_faceid.ui.values import PANEL

from .models_folder import photo

VECTOR = [0.5] * 512


def test_every_field_of_a_unit_is_in_the_table():
    fields = {item.name: item for item in dataclasses.fields(Unit)}
    assert [item.name for item in FIELDS] == list(fields)
    for item in FIELDS:
        assert item.default == fields[item.name].default
        assert field(item.name) is item
        assert item.where <= {"panel", "infotext"}
        assert item.label
    assert len({item.label for item in FIELDS}) == len(FIELDS)
    assert set(PANEL) <= set(fields)


def test_ranges_and_choices_hold_their_defaults():
    for item in FIELDS:
        if item.range is not None:
            assert item.range.low < item.range.high
            assert item.default is None or item.range.low <= item.default <= item.range.high
        if item.choices:
            assert item.default in item.choices


def test_nothing_said_is_the_default():
    assert read_unit({}) == Unit()
    assert read_unit({item.name: item.default for item in FIELDS}) == Unit()


@pytest.mark.parametrize("preset", PRESETS, ids=[preset.name for preset in PRESETS])
def test_presets_can_be_asked_for(preset):
    unit = read_unit({name: getattr(preset, name) for name in ("weight", "start", "end", "lora")})
    assert (unit.weight, unit.start, unit.end, unit.lora) == (preset.weight, preset.start, preset.end, preset.lora)


def test_balanced_is_the_default():
    balanced = next(preset for preset in PRESETS if preset.name == "Balanced")
    unit = Unit()
    assert (unit.weight, unit.start, unit.end, unit.lora) == (
        balanced.weight,
        balanced.start,
        balanced.end,
        balanced.lora,
    )


GOOD = [
    ("enabled", False, False),
    ("identity", "  anna ", "anna"),
    ("identity", "", ""),
    ("adapter", "", "auto"),
    ("adapter", "a b.bin", "a b.bin"),
    ("pack", " ", "auto"),
    ("weight", 0, 0.0),
    ("weight", 3, 3.0),
    ("weight", "0.75", 0.75),
    ("weight", " 1e-1 ", 0.1),
    ("structure", 2, 2.0),
    ("hires_weight", None, None),
    ("hires_weight", "", None),
    ("hires_weight", "0", 0.0),
    ("layers", None, None),
    ("layers", [], None),
    ("layers", ["1", 0.5], (1.0, 0.5)),
    ("layers", (0,) * 16, (0.0,) * 16),
    ("layers", np.ones(11), (1.0,) * 11),
    ("combine", "concat", "concat"),
    ("on_fail", "warn", "warn"),
    ("images", None, ()),
    ("images", [], ()),
    ("images", "aGVsbG8=", (PhotoData(b"hello", "Photo 1"),)),
    ("images", ["aGVsbG8=", PhotoData(b"x", "x.png")], (PhotoData(b"hello", "Photo 1"), PhotoData(b"x", "x.png"))),
    ("mask", None, None),
    ("mask", "", None),
    ("mask", "aGVsbG8=", PhotoData(b"hello", "The region mask")),
    ("embeddings", None, None),
    ("embeddings", [], None),
    ("embeddings", VECTOR, (tuple(VECTOR),)),
    ("embeddings", [VECTOR, VECTOR], (tuple(VECTOR),) * 2),
    ("embeddings", np.array(VECTOR, np.float32), (tuple(VECTOR),)),
    ("embeddings", np.array([VECTOR]), (tuple(VECTOR),)),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_values(name, value, expected):
    assert getattr(read_unit({name: value}), name) == expected


NUMBERS = [None, True, "much", "", [1], float("nan"), math.inf, "inf", -0.01]
BAD = [
    *(("weight", value, r"^Weight \(weight\) is .*; expected a number from 0 to 3\.$") for value in [*NUMBERS, 3.01]),
    *(("lora", value, r"^LoRA strength \(lora\) is .*; expected a number from 0 to 2\.$") for value in [*NUMBERS, 2.1]),
    ("structure", 2.1, r"^Likeness of pose and light \(structure\) is 2\.1; expected a number from 0 to 2\.$"),
    ("start", 1.01, r"^Start \(start\) is 1\.01; expected a number from 0 to 1\.$"),
    ("end", "late", r"^End \(end\) is 'late'; expected a number from 0 to 1\.$"),
    ("hires_weight", "x", r"^Weight in hires fix \(hires_weight\) is 'x'; expected a number from 0 to 3\.$"),
    ("hires_weight", False, r"expected a number from 0 to 3"),
    ("enabled", 1, r"^FaceID \(enabled\) is 1; expected true or false\.$"),
    ("enabled", "true", r"expected true or false"),
    ("identity", 7, r"^Person \(identity\) is 7; expected a name\.$"),
    ("identity", "x" * 256, r"^Person \(identity\) is 'x{56}…; expected a name\.$"),
    ("adapter", None, r"^Adapter \(adapter\) is None; expected a name\.$"),
    ("combine", "sum", r'^Several photos \(combine\) is \'sum\'; expected "auto" or "mean" or "concat"\.$'),
    ("combine", ["mean"], r"expected \"auto\""),
    ("on_fail", None, r'^If the face cannot be applied \(on_fail\) is None; expected "stop" or "warn"\.$'),
    ("layers", "1", r"^Layer factors \(layers\) is '1'; expected one number for each attention"),
    ("layers", [1] * 17, r"expected one number for each attention \(16 for SD1\.5, 11 for SDXL\)\.$"),
    ("layers", [1, "a"], r"expected one number for each attention"),
    ("layers", [1, math.nan], r"expected one number for each attention"),
    ("layers", [[1]], r"expected one number for each attention"),
    ("images", 5, r"^Photos \(images\) is 5; expected pictures as base64, alone or as"),
    ("images", [{}], r"^Photos \(images\) is \{\}; expected pictures as base64, alone or as"),
    ("images", ["aGk="] * (MANY + 1), r"^Photos \(images\) is '65 of them'; expected at most 64 photos\.$"),
    ("mask", 5, r"^Region mask \(mask\) is 5; expected pictures as base64\.$"),
    ("embeddings", "x", r"^Face vectors \(embeddings\) is 'x'; expected face vectors of 512 numbers\.$"),
    ("embeddings", [0.5] * 511, r"'511 values or something else than numbers'; expected face vectors of 512 numbers"),
    ("embeddings", [VECTOR, 3], r"'0 values or something else than numbers'"),
    ("embeddings", [*VECTOR[:-1], "a"], r"'512 values or something else than numbers'"),
    ("embeddings", [*VECTOR[:-1], math.inf], r"'512 values or something else than numbers'"),
    ("embeddings", [VECTOR] * (MANY + 1), r"^Face vectors \(embeddings\) is '65 of them'; expected at most 64\.$"),
    ("embeddings", [[VECTOR]], r"face vectors of 512 numbers"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(BAD)])
def test_values_that_make_no_sense(name, value, sentence):
    with pytest.raises(BadRequest, match=sentence):
        read_unit({name: value})


@pytest.mark.parametrize("name", ["images", "mask"])
@pytest.mark.parametrize("value", ["https://example.org/a.png", "not base64!", "data:image/png;base64,"])
def test_photos_that_are_none(name, value):
    with pytest.raises(BadPhoto, match=r"^(Photo 1|The region mask) is"):
        read_unit({name: value})


def test_unknown_fields():
    with pytest.raises(BadRequest, match=r"^FaceID does not know the field 'Weight'; it knows enabled, .*on_fail"):
        read_unit({"Weight": 1, "zoom": 2})


def test_the_window():
    with pytest.raises(BadRequest, match=r"^Start is 0\.5 and End is 0\.4; expected Start at or before End\.$"):
        read_unit({"start": 0.5, "end": 0.4})
    assert read_unit({"start": 0.5, "end": 0.5}).start == 0.5
    assert read_unit({"start": 0.5, "end": 0.4, "enabled": False}).is_off


@pytest.mark.parametrize(
    ("values", "off", "weights"),
    [
        ({}, False, (0.8, 0.8)),
        ({"weight": 0}, True, (0.0, 0.0)),
        ({"weight": 0, "hires_weight": 0.5}, False, (0.0, 0.5)),
        ({"weight": 0.5, "hires_weight": 0}, False, (0.5, 0.0)),
        ({"weight": 0, "hires_weight": 0}, True, (0.0, 0.0)),
        ({"enabled": False}, True, (0.8, 0.8)),
    ],
)
def test_off_and_the_weights_of_the_passes(values, off, weights):
    unit = read_unit(values)
    assert unit.is_off is off
    assert (unit.weight_in(False), unit.weight_in(True)) == weights


@pytest.mark.parametrize(
    ("values", "count"),
    [([], 0), ([[]], 0), ([{}], 1), ([{}, {}], 2), ([[{}, {}]], 2), ([[{}], {}], 2), ([{}] * MANY, MANY)],
)
def test_units_side_by_side_or_in_a_list(values, count):
    assert read_units(values) == [Unit()] * count


@pytest.mark.parametrize("values", [[5], [{}, "x"], [[[{}]]], [[{}, None]], [None]])
def test_what_is_no_unit(values):
    with pytest.raises(BadRequest, match=r"^A FaceID unit is an object with fields such as images and weight; found "):
        read_units(values)


def test_too_many_units():
    with pytest.raises(BadRequest, match=r"^65 FaceID units were sent; expected at most 64"):
        read_units([[{}] * (MANY + 1)])


def test_a_unit_can_be_a_key():
    """Frozen all the way down: two requests for the same picture are equal."""
    values = {"images": [photo()], "embeddings": [VECTOR], "layers": [1] * 16, "mask": "aGVsbG8="}
    assert len({read_unit(values), read_unit(values)}) == 1
