"""The status line, and what a pasted picture sets the controls to."""

from __future__ import annotations

from typing import Any

import pytest

from lib_faceid.errors import BadRequest
from lib_faceid.library.photos import PhotoData
from lib_faceid.ui.accordion import PANEL, read_panel
from lib_faceid.ui.services import paste_functions, status_html

from .fake_gradio import AS_DRAWN, CLEARED, PASTED, FakeServices
from .files import Gradio3File, Gradio4File


def test_the_status_line_shows_the_services_sentence_as_text_not_as_html():
    services = FakeServices("problem", '<img src=x> & "you"')
    line = status_html(services, *AS_DRAWN)
    assert line == (
        '<div class="faceid-status faceid-problem" role="status">&lt;img src=x&gt; &amp; &quot;you&quot;</div>'
    )
    assert services.asked == [read_panel(AS_DRAWN)]


def test_a_photo_that_cannot_be_read_is_the_status_and_no_error(tmp_path):
    services = FakeServices()
    line = status_html(services, True, [Gradio3File(tmp_path / "gone", "<b>.jpg")], *AS_DRAWN[2:])
    assert 'class="faceid-status faceid-problem"' in line
    assert "&lt;b&gt;.jpg cannot be read" in line
    assert services.asked == []


def test_photos_are_counted_and_named_and_not_read_for_the_status(tmp_path):
    (tmp_path / "large.jpg").write_bytes(b"not to be read")
    services = FakeServices()
    status_html(services, True, [Gradio4File(tmp_path / "large.jpg")] * 2, *AS_DRAWN[2:])
    assert services.asked[0]["images"] == (PhotoData(b"", "large.jpg"),) * 2


def pasted_values(values: dict[str, Any] | None, params: Any = PASTED) -> dict[str, Any]:
    functions = paste_functions(FakeServices(values=values), CLEARED)
    return {name: function(params) for name, function in zip(PANEL, functions, strict=True)}


def test_a_picture_without_faceid_switches_it_off_and_touches_nothing_else():
    assert pasted_values(None, {"Steps": "20"}) == {**dict.fromkeys(PANEL), "enabled": False}


def test_a_picture_with_faceid_sets_every_field():
    read = {"identity": "digest:12", "adapter": "plusv2.safetensors", "weight": "1.2", "hires_weight": 0.50,
            "start": 0, "end": 0.9, "structure": 1.5, "lora": 0.4, "layers": (1.0,), "face": "2",
            "seed_mode": "cycle", "on_fail": "warn"}  # fmt: skip
    assert pasted_values(read) == {
        "enabled": True, "images": CLEARED, "identity": "digest:12", "adapter": "plusv2.safetensors", "weight": 1.2,
        "structure": 1.5, "lora": 0.4, "start": 0.0, "end": 0.9, "hires_weight": "0.5", "face": "2",
        "seed_mode": "cycle", "on_fail": "warn",
    }  # fmt: skip


def test_what_the_picture_does_not_say_has_its_default_not_the_value_of_the_last_picture():
    pasted = pasted_values({})
    assert [pasted[name] for name in PANEL] == [True, CLEARED, *AS_DRAWN[2:]]
    assert pasted_values({"enabled": False})["enabled"] is False


def test_pasted_values_have_the_types_of_the_controls():
    # A host makes type(control.value)(value) of what is pasted.
    pasted = pasted_values({"start": 0, "hires_weight": 1})
    for name, drawn in zip(PANEL, AS_DRAWN, strict=True):
        if name != "images":
            assert type(pasted[name]) is type(drawn), name


@pytest.mark.parametrize("wrong", ["nan", "99", "much", None])
def test_a_number_that_makes_no_sense_is_refused_and_reaches_no_slider(wrong):
    with pytest.raises(BadRequest, match="Weight"):
        pasted_values({"weight": wrong})


def test_the_text_of_a_picture_is_read_once_for_all_fields_and_again_for_the_next():
    services = FakeServices(values={"weight": 1.0})
    functions = paste_functions(services, CLEARED)
    for params in (dict(PASTED), dict(PASTED), {}):
        before = services.pastes
        results = [function(params) for function in functions]
        assert services.pastes == before + 1
        assert results[0] is bool(params)
