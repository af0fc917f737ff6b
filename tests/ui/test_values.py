"""The values of the panel: from the controls to a unit, and the presets."""

from __future__ import annotations

from typing import Any

import pytest

from lib_faceid.engine.request import FIELDS, PRESETS, Unit, read_unit
from lib_faceid.errors import BadPhoto, BadRequest
from lib_faceid.library.photos import PhotoData
from lib_faceid.ui.accordion import PANEL, read_panel
from lib_faceid.ui.values import matching_preset, preset_values

from .fake_gradio import AS_DRAWN
from .files import Gradio3File, Gradio4File


def test_the_panel_has_exactly_the_fields_that_the_table_puts_there():
    assert list(PANEL) == [item.name for item in FIELDS if "panel" in item.where]
    assert PANEL[:2] == ("enabled", "images")
    assert len(AS_DRAWN) == len(PANEL)


def test_an_untouched_panel_that_is_switched_on_is_the_default_unit():
    assert read_unit(read_panel([True, *AS_DRAWN[1:]])) == Unit()


def test_each_value_lands_in_its_field():
    values = [True, None, "Ann", "plain.bin", 1.1, 0.5, 0.3, 0.25, 0.75, "0.6", "leftmost", "random", "warn"]
    assert read_unit(read_panel(values)) == Unit(
        identity="Ann", adapter="plain.bin", weight=1.1, structure=0.5, lora=0.3, start=0.25, end=0.75,
        hires_weight=0.6, face="leftmost", seed_mode="random", on_fail="warn",
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, len(AS_DRAWN) - 1, len(AS_DRAWN) + 1])
def test_another_number_of_values_is_refused_with_both_numbers(count):
    values = (AS_DRAWN * 2)[:count]
    with pytest.raises(BadRequest, match=rf"got {count} values.*expected {len(AS_DRAWN)}"):
        read_panel(values)


def photos_of(value: Any) -> Any:
    return read_panel([True, value, *AS_DRAWN[2:]])["images"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "8f3a" / "at the sea.jpg"
    path.parent.mkdir()
    path.write_bytes(b"the bytes")
    return path


def test_files_of_gradio_3_are_read_and_called_by_their_original_names(file):
    found = photos_of([Gradio3File(file, "/uploads/portrait.png"), Gradio3File(file, None)])
    assert found == (PhotoData(b"the bytes", "portrait.png"), PhotoData(b"the bytes", "at the sea.jpg"))


def test_files_of_gradio_4_are_read(file):
    assert photos_of([Gradio4File(file)]) == (PhotoData(b"the bytes", "at the sea.jpg"),)


def test_one_file_alone_is_read(file):
    assert photos_of(Gradio4File(file)) == PhotoData(b"the bytes", "at the sea.jpg")


def test_no_photos():
    assert photos_of(None) == ()
    assert photos_of([]) == ()


def test_a_plain_text_is_never_opened_as_a_path(file):
    assert photos_of([str(file)]) == (str(file),)
    assert photos_of(str(file)) == str(file)
    with pytest.raises(BadPhoto, match="not base64"):
        read_unit(read_panel([True, [str(file)], *AS_DRAWN[2:]]))


def test_what_is_no_file_is_left_to_be_refused(file):
    given = {"name": str(file)}
    assert photos_of([given]) == (given,)
    with pytest.raises(BadRequest, match="images"):
        read_unit(read_panel([True, [given], *AS_DRAWN[2:]]))


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(BadPhoto, match=r"me\.jpg cannot be read"):
        photos_of([Gradio3File(tmp_path / "gone", "me.jpg")])


def test_too_many_photos_are_refused_before_one_is_read(tmp_path):
    many = [Gradio4File(tmp_path / "gone.jpg")] * 65
    with pytest.raises(BadRequest, match="65 of them"):
        read_unit(read_panel([True, many, *AS_DRAWN[2:]]))


def test_an_emptied_drop_down_has_its_default():
    values = read_panel([True, None, None, None, *AS_DRAWN[4:]])
    assert (values["identity"], values["adapter"]) == ("", "auto")


def test_other_wrong_types_are_left_to_be_refused():
    assert read_panel([None, None, 7, [], "x", *AS_DRAWN[5:]])["weight"] == "x"
    with pytest.raises(BadRequest, match="enabled"):
        read_unit(read_panel([None, *AS_DRAWN[1:]]))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_found_again_from_its_own_values(preset):
    assert preset_values(preset.name) == (preset.weight, preset.start, preset.end, preset.lora)
    assert matching_preset(preset.weight, preset.start, preset.end, preset.lora) == preset.name


def test_whole_numbers_from_the_browser_match():
    assert matching_preset(1, 0, 1, 1) == "Official"


@pytest.mark.parametrize("place", range(4))
def test_the_smallest_step_of_one_slider_is_no_preset_any_more(place):
    values = [0.8, 0.2, 1.0, 0.65]
    values[place] -= 0.01
    assert matching_preset(*values) is None


def test_values_of_ones_own_and_emptied_sliders_are_no_preset():
    assert matching_preset(0.7, 0.1, 0.6, 0.2) is None
    assert matching_preset(None, 0.2, 1.0, 0.65) is None
    assert preset_values(None) is None
    assert preset_values("Custom") is None
