"""The panel's values: which fields it has and in which order, and what gradio hands over made into plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, cast

from ..engine.fields import MANY
from ..engine.request import FIELDS, PRESETS, field
from ..errors import BadRequest
from ..library.photos import PhotoData

PANEL: tuple[str, ...] = tuple(item.name for item in FIELDS if "panel" in item.where)
PRESET_FIELDS = ("weight", "start", "end", "lora")
_SAME = 1e-6  # far below the step of any slider: numbers that differ by less were only rounded on their way


def read_panel(values: Sequence[Any], *, contents: bool = True) -> dict[str, Any]:
    """Values by field name, for ``read_unit``, from the values of the controls in the order of ``PANEL``.

    Files become photos, empty ones without ``contents``; an emptied drop-down has its default. What has a wrong type
    stays, for ``read_unit`` to refuse.
    Raises BadRequest when their number is another, BadPhoto when a file cannot be read.
    """
    if len(values) != len(PANEL):
        raise BadRequest(
            f"FaceID got {len(values)} values from its panel; expected {len(PANEL)}: {', '.join(PANEL)}. "
            "Reload the page, or send all of them."
        )
    named = dict(zip(PANEL, values, strict=True))
    named["images"] = _read_files(named["images"], contents)
    for name in ("identity", "adapter"):
        if named[name] is None:
            named[name] = field(name).default
    return named


def _read_files(value: Any, contents: bool) -> Any:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        return _read_file(value, contents)
    several = tuple(cast("Sequence[Any]", value))
    # More than are accepted are not read into memory, only to be refused.
    return several if len(several) > MANY else tuple(_read_file(item, contents) for item in several)


def _read_file(value: Any, contents: bool) -> Any:
    """A file of ``gr.File`` as a photo; anything else as it is.

    gradio 3.41 hands over a temporary file with ``orig_name``, gradio 4 a str with ``name``. A plain str comes from a
    caller of the API and is base64, never a path.
    """
    path = getattr(value, "name", None)
    if not isinstance(path, str):
        return value
    original = getattr(value, "orig_name", None)
    name = PurePath(original if isinstance(original, str) else path).name
    return PhotoData.of_file(path, name, contents=contents)


def preset_values(name: str | None) -> tuple[float, ...] | None:
    """Values of ``PRESET_FIELDS`` in their order; None for no preset's name."""
    chosen = next((preset for preset in PRESETS if preset.name == name), None)
    return None if chosen is None else tuple(float(getattr(chosen, item)) for item in PRESET_FIELDS)


def matching_preset(*values: Any) -> str | None:
    """Name of the preset whose ``PRESET_FIELDS`` these are; None for values of one's own."""
    for preset in PRESETS:
        wanted = preset_values(preset.name) or ()
        if all(_is_number(value) and abs(value - due) < _SAME for value, due in zip(values, wanted, strict=True)):
            return preset.name
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
