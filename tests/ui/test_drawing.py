"""What the panel draws, and how its controls are wired."""

from __future__ import annotations

import sys

import pytest

from lib_faceid.engine.request import FIELDS
from lib_faceid.ui.accordion import PANEL, build_panel

from .fake_gradio import AS_DRAWN, PASTED, Drawn, FakeServices, Page


@pytest.fixture
def drawn(monkeypatch):
    page, services = Page(), FakeServices("off", "")
    monkeypatch.setitem(sys.modules, "gradio", page.module)
    return Drawn(page, build_panel(page.input_accordion, "txt2img", services), services)


def test_importing_the_panel_needs_no_gradio():
    assert not [name for name in sys.modules if name.partition(".")[0] == "gradio"]


def test_the_controls_are_those_of_the_table_with_its_words_limits_and_defaults(drawn):
    assert [control.value for control in drawn.panel.controls] == AS_DRAWN
    assert drawn.panel.controls[0].kind == "InputAccordion"
    for name, control in zip(PANEL, drawn.panel.controls, strict=True):
        (row,) = [item for item in FIELDS if item.name == name]
        assert control.label == row.label
        assert control.settings["elem_id"] == ("txt2img_faceid" if name == "enabled" else f"txt2img_faceid_{name}")
        if control.kind == "Slider":
            span = (row.range.low, row.range.high, row.range.step)
            assert tuple(control.settings[key] for key in ("minimum", "maximum", "step")) == span
            assert type(control.value) is float
    assert [name for name in PANEL if drawn.control(name).kind == "Slider"] == [
        "weight", "structure", "lora", "start", "end",
    ]  # fmt: skip
    assert drawn.control("on_fail").choices == ["stop", "warn"]


def test_three_things_are_seen_at_first_glance_and_the_rest_is_folded_away(drawn):
    folded = {
        name
        for name, control in zip(PANEL, drawn.panel.controls, strict=True)
        if "txt2img_faceid_advanced" in control.inside
    }
    assert set(PANEL) - folded == {"enabled", "images", "identity", "weight"}
    assert drawn.page.part("txt2img_faceid_advanced").settings["open"] is False
    for part in drawn.page.parts[1:]:
        assert part.inside[0] == "txt2img_faceid"


def test_every_elem_id_starts_with_its_tab_and_is_used_once(monkeypatch):
    page = Page()
    monkeypatch.setitem(sys.modules, "gradio", page.module)
    for tab in ("txt2img", "img2img"):
        build_panel(page.input_accordion, tab, FakeServices())
    ids = [part.settings["elem_id"] for part in page.parts if "elem_id" in part.settings]
    assert len(ids) == len(set(ids))
    assert {name.split("_")[0] for name in ids} == {"txt2img", "img2img"}


def test_drawing_again_changes_nothing(drawn):
    again = build_panel(drawn.page.input_accordion, "txt2img", drawn.services)
    assert [control.value for control in again.controls] == [control.value for control in drawn.panel.controls]


def test_lists_begin_with_what_is_taken_without_a_choice(drawn):
    assert drawn.control("adapter").choices == ["auto", "plain.bin", "plusv2.safetensors"]
    assert drawn.control("identity").choices == ["", "Ann"]
    for name in ("adapter", "identity"):
        assert drawn.control(name).settings["allow_custom_value"] is True


def test_refresh_reads_the_files_again(drawn):
    ((refresh, inputs, output),) = drawn.page.part("txt2img_faceid_adapter_refresh").events["click"]
    drawn.services.files.append("new.bin")
    assert refresh() == {"__type__": "update", "choices": ["auto", "plain.bin", "plusv2.safetensors", "new.bin"]}
    assert (inputs, output) == (None, drawn.control("adapter"))


def test_choosing_a_preset_moves_the_four_sliders(drawn):
    preset = drawn.page.part("txt2img_faceid_preset")
    assert (preset.choices, preset.value) == (["Subtle", "Balanced", "Strong", "Official"], "Balanced")
    ((choose, source, sliders),) = preset.events["input"]
    moved = dict(zip([PANEL[drawn.panel.controls.index(slider)] for slider in sliders], choose("Subtle"), strict=True))
    assert moved == {"weight": 0.5, "start": 0.4, "end": 0.9, "lora": 0.65}
    assert source is preset
    assert choose(None) == [{"__type__": "update"}] * 4
    assert preset not in drawn.panel.controls
    assert preset.do_not_save_to_config


def test_the_preset_follows_the_sliders(drawn):
    for name in ("weight", "start", "end", "lora"):
        listeners = drawn.control(name).events["change"]
        ((follow, inputs, _),) = [item for item in listeners if item[2] is drawn.page.part("txt2img_faceid_preset")]
        strong = {"weight": 1.2, "start": 0.2, "end": 1.0, "lora": 0.65}
        values = [strong[PANEL[drawn.panel.controls.index(slider)]] for slider in inputs]
        assert follow(*values) == {"__type__": "update", "value": "Strong"}
        assert follow(*(value / 2 for value in values)) == {"__type__": "update", "value": None}


def test_the_status_is_read_again_after_every_control(drawn):
    status = drawn.page.part("txt2img_faceid_status")
    assert status.value == '<div class="faceid-status faceid-off" role="status"></div>'
    drawn.services.kind, drawn.services.sentence = "ready", "Ann & Plus v2."
    for control in drawn.panel.controls:
        ((read, inputs, _),) = [item for item in control.events["change"] if item[2] is status]
        assert inputs == drawn.panel.controls
        assert (
            read(True, *AS_DRAWN[1:])
            == '<div class="faceid-status faceid-ready" role="status">Ann &amp; Plus v2.</div>'
        )
        assert drawn.services.asked[-1]["enabled"] is True


def test_a_loaded_page_shows_the_status_and_preset_of_the_defaults_a_person_saved(drawn):
    drawn.control("enabled").value = True  # as a host does between drawing and serving
    drawn.control("weight").value = 1.2
    assert drawn.page.part("txt2img_faceid_preset").source() == "Strong"
    drawn.page.part("txt2img_faceid_status").source()
    assert (drawn.services.asked[-1]["enabled"], drawn.services.asked[-1]["weight"]) == (True, 1.2)


def test_pasting_reaches_each_control_with_its_own_value(drawn):
    drawn.services.values = {"weight": 1.1, "start": 0.3, "identity": "Ann"}
    pairs = drawn.panel.infotext_fields
    assert [control for control, _ in pairs] == drawn.panel.controls
    values = dict(zip(PANEL, [function(PASTED) for _, function in pairs], strict=True))
    assert (values["weight"], values["start"], values["identity"]) == (1.1, 0.3, "Ann")
    assert values["images"] == {"__type__": "update", "value": None}
