"""A stand-in for gradio that writes down what is asked, and one for the host behind the panel."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

from lib_faceid.ui.accordion import PANEL, Panel

# Values of a panel nobody has touched.
AS_DRAWN = [False, None, "", "auto", 0.8, 1.0, 0.65, 0.2, 1.0, "", "largest", "together", "stop"]
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
