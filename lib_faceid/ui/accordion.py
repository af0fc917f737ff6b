"""The panel: one accordion with photos, a saved person and the weight at first glance, the rest behind "Advanced"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, cast

from ..engine.fields import Range
from ..engine.request import AUTO, PRESETS, field
from .services import Paste, Services, paste_functions, shown_value, status_html
from .values import PANEL, PRESET_FIELDS, matching_preset, preset_values, read_panel

__all__ = ["PANEL", "Panel", "Services", "build_panel", "read_panel"]

REFRESH = "\U0001f504"  # the hosts' own mark, which they explain with a tooltip
NARROW = 220  # px: two controls side by side in the hosts' half of a page, one above the other on a phone
QUIET = {"show_progress": "hidden", "queue": False, "api_name": False}  # of small events that must not wait for a job
INFO = {
    "identity": "Someone saved before. Leave it empty to use the photos.",
    "weight": "How strongly the face acts; 0 switches it off.",
    "adapter": f'The FaceID file to use; "{AUTO}" takes one that fits the checkpoint.',
    "structure": "How much of them comes from the photo. Only for FaceID Plus v2.",
    "lora": "Strength of the LoRA that the adapter was trained with.",
    "start": "0 is the first step. A later start leaves more to the prompt.",
    "end": "1 is the last step.",
    "hires_weight": "Leave it empty for the same as Weight.",
    "face": 'Which one, where a photo shows several: "largest", "leftmost", a number, or "like:" and a saved person.',
    "seed_mode": "Together: one person. Cycle: the next photo for each picture. Random: by the seed.",
    "on_fail": "Stop: no picture. Warn: the picture without the face. Both say why.",
}


@dataclass(frozen=True)
class Panel:
    """controls: components in the order of ``PANEL``, the first is the accordion's checkbox. infotext_fields: each of
    them with the function that reads its value from the parameters of a pasted picture."""

    controls: list[Any]
    infotext_fields: list[tuple[Any, Paste]]


def build_panel(input_accordion: Callable[..., Any], tab: str, services: Services) -> Panel:
    """Draws the panel inside the caller's gradio blocks. ``tab``: "txt2img" or "img2img", the start of every elem_id.

    ``input_accordion`` is the host's accordion with a checkbox. May be called several times for one page.
    """
    draw = _Draw(tab, services)
    with input_accordion(False, label=field("enabled").label, elem_id=f"{tab}_faceid") as enabled:
        draw.controls["enabled"] = enabled
        draw.first_glance()
        with draw.gr.Accordion("Advanced", open=False, elem_id=draw.id("advanced")):
            draw.advanced()
    draw.connect()
    controls = [draw.controls[name] for name in PANEL]
    pastes = paste_functions(services, cleared=draw.gr.update(value=None))
    return Panel(controls, list(zip(controls, pastes, strict=True)))


class _Draw:
    """One drawing of the panel: its components by field name while they come into being."""

    def __init__(self, tab: str, services: Services) -> None:
        # Not before a panel is drawn: the values of a panel are read and tested where there is no gradio.
        self.gr: Any = import_module("gradio")
        self.tab = tab
        self.services = services
        self.controls: dict[str, Any] = {}

    def id(self, name: str) -> str:
        return f"{self.tab}_faceid_{name}"

    def first_glance(self) -> None:
        gr = self.gr
        with gr.Row(elem_classes=["faceid-row"]):
            with gr.Column(min_width=NARROW, elem_classes=["faceid-part"]):
                pictures = {"file_count": "multiple", "file_types": ["image"]}
                self.add("images", gr.File, value=None, elem_classes=["faceid-photos"], **pictures)
                self.status_line()
            with gr.Column(min_width=NARROW, elem_classes=["faceid-part"]):
                self.choices("identity", self.people)
                self.preset = gr.Radio(
                    [preset.name for preset in PRESETS],
                    value=self.preset_now,
                    label="Preset",
                    info="Sets weight, start, end and LoRA strength together.",
                    elem_id=self.id("preset"),
                )
                self.preset.do_not_save_to_config = True  # it follows the sliders, whose values the host saves
                self.slider("weight")

    def advanced(self) -> None:
        gr = self.gr
        with gr.Column(elem_classes=["faceid-part"]):
            self.choices("adapter", self.adapters)
            for pair in (("start", "end"), ("lora", "structure")):
                with gr.Row(elem_classes=["faceid-row"]):
                    for name in pair:
                        self.slider(name)
            with gr.Row(elem_classes=["faceid-row"]):
                self.hires_weight()
                self.add("face", gr.Textbox, value=field("face").default, min_width=NARROW, max_lines=1)
            with gr.Row(elem_classes=["faceid-row"]):
                self.choice("seed_mode")
                self.choice("on_fail")

    def hires_weight(self) -> None:
        """Text, as an empty number has no type for the hosts to turn a pasted value into."""
        default = shown_value("hires_weight", field("hires_weight").default)
        empty = {"placeholder": "same as Weight", "max_lines": 1}
        self.add("hires_weight", self.gr.Textbox, value=default, min_width=NARROW, **empty)

    def choice(self, name: str) -> None:
        ways = field(name)
        looks = {"min_width": NARROW, "elem_classes": ["faceid-words"]}
        self.add(name, self.gr.Radio, choices=list(ways.choices), value=ways.default, **looks)

    def add(self, name: str, kind: Callable[..., Any], **settings: Any) -> None:
        if name in INFO:
            settings["info"] = INFO[name]
        self.controls[name] = kind(label=field(name).label, elem_id=self.id(name), **settings)

    def slider(self, name: str) -> None:
        limits = cast(Range, field(name).range)
        value = shown_value(name, field(name).default)
        span = {"minimum": limits.low, "maximum": limits.high, "step": limits.step}
        self.add(name, self.gr.Slider, value=value, min_width=NARROW, **span)

    def choices(self, name: str, read: Callable[[], list[str]]) -> None:
        """A drop-down that also takes what is not in its list, as a pasted picture may name it, with its refresh."""
        gr = self.gr
        with gr.Row(elem_classes=["faceid-choice"]):
            default = field(name).default
            self.add(name, gr.Dropdown, choices=read(), value=default, allow_custom_value=True)
            refresh = gr.Button(REFRESH, elem_id=self.id(f"{name}_refresh"), elem_classes=["tool"])
        refresh.click(lambda: gr.update(choices=read()), None, self.controls[name], **QUIET)

    def people(self) -> list[str]:
        return ["", *self.services.people()]

    def adapters(self) -> list[str]:
        return [AUTO, *self.services.adapters()]

    def status_line(self) -> None:
        self.status = self.gr.HTML(value=self.status_now, elem_id=self.id("status"))

    # gradio calls the two below whenever the page is loaded: by then the host has put saved defaults into the controls.

    def status_now(self) -> str:
        return status_html(self.services, *self.values_of(PANEL))

    def preset_now(self) -> str | None:
        return matching_preset(*self.values_of(PRESET_FIELDS))

    def values_of(self, names: tuple[str, ...]) -> list[Any]:
        return [self.controls[name].value if name in self.controls else field(name).default for name in names]

    def connect(self) -> None:
        controls = [self.controls[name] for name in PANEL]
        for control in controls:
            control.change(partial(status_html, self.services), controls, self.status, **QUIET)
        sliders = [self.controls[name] for name in PRESET_FIELDS]
        for slider in sliders:
            slider.change(self.follow, sliders, self.preset, **QUIET)
        self.preset.input(self.choose, self.preset, sliders, **QUIET)

    def follow(self, *values: Any) -> Any:
        return self.gr.update(value=matching_preset(*values))

    def choose(self, name: str | None) -> list[Any]:
        chosen = preset_values(name)
        return [self.gr.update() if chosen is None else chosen[index] for index in range(len(PRESET_FIELDS))]
