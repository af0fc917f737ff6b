"""The panel: its values, its words and its wiring, drawn with a stand-in for gradio that writes down what is asked."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import pytest

from lib_faceid.engine.request import FIELDS, PRESETS, Unit, read_unit
from lib_faceid.errors import BadPhoto, BadRequest
from lib_faceid.library.photos import PhotoData
from lib_faceid.ui.accordion import PANEL, Panel, build_panel, read_panel
from lib_faceid.ui.services import paste_functions, status_html
from lib_faceid.ui.values import matching_preset, preset_values

AS_DRAWN = [False, None, "", "auto", 0.8, 1.0, 0.65, 0.2, 1.0, "", "stop"]  # values of a panel nobody has touched
PASTED = {"x": "a picture made with FaceID"}
CLEARED = {"__type__": "update", "value": None}


@dataclass
class FakeServices:
    kind: str = "ready"
    sentence: str = "Ready."
    values: dict[str, Any] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    pastes: int = 0
    files: list[str] = field(default_factory=lambda: ["plain.bin", "plusv2.safetensors"])

    def adapters(self):
        return list(self.files)

    def people(self):
        return ["Ann"]

    def status(self, values):
        self.asked.append(dict(values))
        return self.kind, self.sentence

    def pasted(self, params):
        self.pastes += 1
        return self.values if params == PASTED else None


# The values of the panel --------------------------------------------------------------------------------------------


def test_the_panel_has_exactly_the_fields_that_the_table_puts_there():
    assert list(PANEL) == [item.name for item in FIELDS if "panel" in item.where]
    assert PANEL[:2] == ("enabled", "images")
    assert len(AS_DRAWN) == len(PANEL)


def test_an_untouched_panel_that_is_switched_on_is_the_default_unit():
    assert read_unit(read_panel([True, *AS_DRAWN[1:]])) == Unit()


def test_each_value_lands_in_its_field():
    values = [True, None, "Ann", "plain.bin", 1.1, 0.5, 0.3, 0.25, 0.75, "0.6", "warn"]
    assert read_unit(read_panel(values)) == Unit(
        identity="Ann", adapter="plain.bin", weight=1.1, structure=0.5, lora=0.3, start=0.25, end=0.75,
        hires_weight=0.6, on_fail="warn",
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, len(AS_DRAWN) - 1, len(AS_DRAWN) + 1])
def test_another_number_of_values_is_refused_with_both_numbers(count):
    values = (AS_DRAWN * 2)[:count]
    with pytest.raises(BadRequest, match=rf"got {count} values.*expected {len(AS_DRAWN)}"):
        read_panel(values)


def photos_of(value: Any) -> Any:
    return read_panel([True, value, *AS_DRAWN[2:]])["images"]


class Gradio3File:
    """What gradio 3.41 hands over: a temporary file; ``orig_name`` is the path it was uploaded to."""

    def __init__(self, name, orig_name):
        self.name = str(name)
        self.orig_name = orig_name


class Gradio4File(str):
    """What gradio 4 hands over: a str that has its path once more as ``name``."""

    @property
    def name(self):
        return str(self)


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


# Presets ------------------------------------------------------------------------------------------------------------


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


# Status line --------------------------------------------------------------------------------------------------------


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


# Pasting ------------------------------------------------------------------------------------------------------------


def pasted_values(values: dict[str, Any] | None, params: Any = PASTED) -> dict[str, Any]:
    functions = paste_functions(FakeServices(values=values), CLEARED)
    return {name: function(params) for name, function in zip(PANEL, functions, strict=True)}


def test_a_picture_without_faceid_switches_it_off_and_touches_nothing_else():
    assert pasted_values(None, {"Steps": "20"}) == {**dict.fromkeys(PANEL), "enabled": False}


def test_a_picture_with_faceid_sets_every_field():
    read = {"identity": "digest:12", "adapter": "plusv2.safetensors", "weight": "1.2", "hires_weight": 0.50,
            "start": 0, "end": 0.9, "structure": 1.5, "lora": 0.4, "layers": (1.0,), "on_fail": "warn"}  # fmt: skip
    assert pasted_values(read) == {
        "enabled": True, "images": CLEARED, "identity": "digest:12", "adapter": "plusv2.safetensors", "weight": 1.2,
        "structure": 1.5, "lora": 0.4, "start": 0.0, "end": 0.9, "hires_weight": "0.5", "on_fail": "warn",
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


# Drawing ------------------------------------------------------------------------------------------------------------


class Part:
    """A component or a container: what it was made with, where it stands, and the events it was given."""

    def __init__(self, page: Page, kind: str, args: tuple[Any, ...], settings: dict[str, Any]) -> None:
        self.page, self.kind, self.settings = page, kind, settings
        value = settings.get("value", args[0] if kind == "Button" else None)
        self.source = value
        self.value = value() if callable(value) else value  # gradio asks a function once while it draws
        self.choices = settings.get("choices", args[0] if kind == "Radio" and args else None)
        self.label = settings.get("label") or (args[0] if kind == "Accordion" else None)
        self.inside = [part.settings.get("elem_id") or part.label for part in page.open]
        self.events: dict[str, list[tuple[Any, Any, Any]]] = {}
        page.parts.append(self)

    def __enter__(self):
        self.page.open.append(self)
        return self

    def __exit__(self, *_):
        assert self.page.open.pop() is self

    def __getattr__(self, event: str) -> Any:
        if event not in {"change", "click", "input"}:
            raise AttributeError(event)

        def listen(fn, inputs, outputs, *, show_progress, queue, api_name):
            assert (show_progress, queue, api_name) == ("hidden", False, False)
            self.events.setdefault(event, []).append((fn, inputs, outputs))

        return listen


class Page:
    """A stand-in for gradio, with the components and arguments that both 3.41 and 4.40 have."""

    allowed: ClassVar = {
        "File": "value file_count file_types label elem_id elem_classes min_width",
        "Dropdown": "choices value allow_custom_value label info elem_id min_width",
        "Radio": "choices value label info elem_id elem_classes min_width",
        "Slider": "value minimum maximum step label info elem_id min_width",
        "Textbox": "value label info placeholder max_lines elem_id min_width",
        "HTML": "value elem_id",
        "Button": "elem_id elem_classes",
        "Row": "elem_classes",
        "Column": "elem_classes min_width",
        "Accordion": "open elem_id",
    }

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.open: list[Part] = []
        self.module = ModuleType("gradio")
        self.module.update = lambda **settings: {"__type__": "update", **settings}
        for kind in self.allowed:
            setattr(self.module, kind, self.maker(kind))

    def maker(self, kind):
        def make(*args, **settings):
            assert set(settings) <= set(self.allowed[kind].split()), kind
            return Part(self, kind, args, settings)

        return make

    def input_accordion(self, value, *, label, elem_id):
        return Part(self, "InputAccordion", (), {"value": value, "label": label, "elem_id": elem_id})

    def part(self, elem_id: str) -> Part:
        (found,) = [part for part in self.parts if part.settings.get("elem_id") == elem_id]
        return found


@dataclass
class Drawn:
    page: Page
    panel: Panel
    services: FakeServices

    def control(self, name: str) -> Part:
        return self.panel.controls[PANEL.index(name)]


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
    assert folded == {"adapter", "structure", "lora", "start", "end", "hires_weight", "on_fail"}
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
