"""What a picture's text says about FaceID, and back through the way A1111 writes and reads such texts."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib_faceid.engine import infotext
from lib_faceid.engine.people import Person
from lib_faceid.engine.request import AUTO, DIGEST, FIELDS, Unit, field, read_unit
from lib_faceid.library.identity import Origin
from lib_faceid.library.photos import PhotoData

ORIGIN = Origin("faceid-plusv2", "FaceID Plus v2 for SD1.5", "adapter.bin", "0123456789abcdef" * 4, True, 2, "today")


def someone(*, name="", structure=True, photos=(), **origin):
    """A person as far as a text tells of one."""
    identity = SimpleNamespace(origin=replace(ORIGIN, **origin), has_structure=structure)
    adapter = SimpleNamespace()  # the file it was made with is at hand
    return Person(identity, "0123456789abcdef", adapter, name=name, photos=tuple(photos))


def as_the_host_writes(info):
    """Pairs joined by commas; a value with a comma, colon or line break becomes a JSON text."""
    parts = []
    for key, value in info.items():
        quoted = any(letter in value for letter in ",:\n")
        parts.append(f"{key}: {json.dumps(value, ensure_ascii=False) if quoted else value}")
    return "a cat\nNegative prompt: dogs\nSteps: 20, Size: 512x512, " + ", ".join(parts) + ", Version: v1.10.1"


def as_the_host_reads(text):
    """The last line's pairs; a value is a JSON text or goes to the next comma."""
    last = text.strip().split("\n")[-1]
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    return {key: json.loads(value) if value[:1] == '"' == value[-1:] else value for key, value in pairs}


def there_and_back(unit, person, number=1):
    info = {infotext.label(n): infotext.write(unit, person) for n in range(1, number + 1)}
    return infotext.read(as_the_host_reads(as_the_host_writes(info)))


def test_a_line():
    unit = Unit(images=(PhotoData(b"a", "a.png"),), weight=0.75, hires_weight=0.5, layers=(1.0, 0.25), pack="my, pack")
    assert infotext.write(unit, someone(photos=["ab" * 32, "cd" * 32])) == (
        "key: 0123456789abcdef, photos: abababababab+cdcdcdcdcdcd, adapter: adapter.bin 0123456789ab, "
        "variant: faceid-plusv2, weight: 0.75, hires weight: 0.5, structure: 1, lora: 0.65, start: 0.2, end: 1, "
        "pack: my%2C pack, layers: 1/0.25, version: 0.1.0"
    )


def test_what_had_no_part_is_left_out():
    line = infotext.write(Unit(identity="anna"), someone(name="anna", structure=False, has_lora=False))
    assert line.startswith("person: anna, adapter: ")
    for absent in ("key", "photos", "structure", "lora", "mask", "layers", "hires", "pack", "combine"):
        assert f"{absent}: " not in line


NAMES = st.text(
    st.one_of(st.sampled_from(",:\"\\%+= '\n\t\r\u2028äß水😀2C"), st.characters(exclude_categories=["Cs"])), max_size=30
).map(str.strip)
GIVEN_NAMES = NAMES.filter(lambda name: name and not name.startswith(DIGEST))


UNITS = st.builds(
    Unit,
    weight=st.floats(0, 3),
    structure=st.floats(0, 2),
    lora=st.floats(0, 2),
    start=st.floats(0, 0.5),
    end=st.floats(0.5, 1),
    hires_weight=st.none() | st.floats(0, 3),
    layers=st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=16).map(tuple),
    combine=st.sampled_from(field("combine").choices),
    pack=st.just(AUTO) | GIVEN_NAMES,
)


@given(unit=UNITS, person=GIVEN_NAMES, adapter=GIVEN_NAMES, number=st.integers(1, 3))
@example(unit=Unit(), person='"%2C", 50%: a+b\\', adapter="a b  c.bin", number=1)
@example(unit=Unit(), person="512x512", adapter="FaceID 2: x", number=2)
def test_there_and_back(unit, person, adapter, number):
    units = there_and_back(unit, someone(name=person, adapter_name=adapter), number)
    assert len(units) == number
    for values in units:
        assert values.pop("adapter_sha256") == "0123456789ab"
        expected = replace(unit, identity=person, adapter=adapter, variant="faceid-plusv2")
        assert read_unit(values) == expected


@given(unit=UNITS)
def test_somebody_from_photos_comes_back_by_key(unit):
    with_photos = replace(unit, images=(PhotoData(b"a", "a.png"),), mask=PhotoData(b"m", "m.png"))
    (values,) = there_and_back(with_photos, someone(photos=["ab" * 32]))
    found = read_unit({key: value for key, value in values.items() if key != "adapter_sha256"})
    expected = replace(unit, identity="digest:0123456789abcdef", adapter="adapter.bin", variant="faceid-plusv2")
    assert found == expected


def test_large_factors():
    unit = Unit(layers=(1e6, 1e-6))
    (values,) = there_and_back(unit, someone())
    assert read_unit({"layers": values["layers"]}).layers == unit.layers


def test_numbers_with_many_digits():
    (values,) = there_and_back(Unit(weight=0.1234567), someone())
    assert float(values["weight"]) == 0.1234567


def test_every_field_is_in_the_text_or_known_not_to_be():
    """A field that is new has to be decided about: the text carries it, its digest, or nothing."""
    unit = Unit(
        hires_weight=0.5,
        layers=(1.0,),
        combine="mean",
        pack="p",
        face="2",
        images=(PhotoData(b"", "a.jpg"),),
        mask=PhotoData(b"", "m"),
        structure=0.5,
        lora=0.1,
    )
    (values,) = there_and_back(unit, someone(name="anna"))
    carried = {item.name for item in FIELDS if "infotext" in item.where}
    assert set(values) - {"adapter_sha256"} == carried - {"images", "embeddings", "mask"}
    assert {item.name for item in fields(Unit)} - carried == {"enabled", "on_fail", "seed_mode"}
    assert "mask: e3b0c44298fc" in infotext.write(unit, someone())


@pytest.mark.parametrize("text", ["", "Steps: 20", "FaceID: ", "FaceID 2: a", 'FaceID note: "a, b"'])
def test_texts_without_faceid_or_with_little(text):
    units = infotext.read(as_the_host_reads(text))
    assert units in ([], [{"adapter": AUTO, "adapter_sha256": ""}])


def test_a_value_that_is_no_text():
    assert infotext.read({"FaceID": None}) == []
    assert infotext.read({}) == []


def test_what_is_unknown_in_a_text_is_passed_over():
    (values,) = infotext.read({"FaceID": "weight: 0.5, zoom: 3, images: x, on_fail: warn, version: 9, nonsense"})
    assert values == {"weight": "0.5", "adapter": AUTO, "adapter_sha256": ""}


def test_no_photo_and_no_path():
    unit = Unit(images=(PhotoData(b"secret", "C:/Users/anna/photo.png"),), mask=PhotoData(b"secret", "mask.png"))
    line = infotext.write(unit, someone(photos=["ab" * 32]))
    assert "anna" not in line
    assert "secret" not in line


def test_notes():
    assert infotext.join_notes(["One.", "Two.", "One."]) == "One. Two."
    note = 'The face was not applied: "a", b: c.'
    read = as_the_host_reads(as_the_host_writes({"FaceID note": note, "FaceID": "weight: 1, end: 1"}))
    assert read["FaceID note"] == note
    assert read["FaceID"] == "weight: 1, end: 1"


def test_our_lines_are_cleared_and_no_others():
    info = {"FaceID": 1, "FaceID 2": 1, "FaceID 13": 1, "FaceID note": 1, "FaceID x": 2, "My FaceID": 2, "Steps": 2}
    infotext.clear(info)
    assert info == {"FaceID x": 2, "My FaceID": 2, "Steps": 2}
