"""What the panel asks of the host's side, and the two answers it shapes itself: the status line and pasted values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any, Protocol

from ..engine.request import field
from ..errors import FaceIDError
from .values import PANEL, read_panel

Params = Mapping[str, Any]
Paste = Callable[[Params], Any]


class Services(Protocol):
    """Implemented where the host is known. All are cheap enough to be called while the page is built."""

    def adapters(self) -> list[str]:
        """File names of adapters, known from their headers."""
        ...

    def people(self) -> list[str]:
        """Names of saved persons."""
        ...

    def status(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """ "ready", "problem" or "off", and one plain sentence, for the panel's values by field name. Never raises.

        The photos among them have a name and no contents.
        """
        ...

    def pasted(self, params: Params) -> dict[str, Any] | None:
        """Values by field name from the text of a picture; None where it was made without FaceID."""
        ...


def status_html(services: Services, *values: Any) -> str:
    """The status line for the values of the controls, in the order of ``PANEL``. Photos are counted, not read."""
    try:
        kind, sentence = services.status(read_panel(values, contents=False))
    except FaceIDError as error:
        kind, sentence = "problem", str(error)
    return f'<div class="faceid-status faceid-{escape(kind)}" role="status">{escape(sentence)}</div>'


def paste_functions(services: Services, cleared: Any) -> tuple[Paste, ...]:
    """For each field of ``PANEL``, what a picture's text sets it to; None leaves it as it is.

    ``cleared`` is gradio's update that empties a component: a picture's text holds no photos.
    """
    pasted = _Pasted(services)
    return tuple(partial(_pasted_value, pasted, cleared, name) for name in PANEL)


class _Pasted:
    """``Services.pasted``, asked once for a picture: the hosts call one function per field with the same object."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._last: tuple[Params, dict[str, Any] | None] | None = None

    def read(self, params: Params) -> dict[str, Any] | None:
        last = self._last
        if last is None or last[0] is not params:
            last = self._last = (params, self._services.pasted(params))
        return last[1]


def _pasted_value(pasted: _Pasted, cleared: Any, name: str, params: Params) -> Any:
    values = pasted.read(params)
    if values is None:
        return False if name == "enabled" else None
    if name == "enabled":
        return bool(values.get(name, True))
    return cleared if name == "images" else shown_value(name, values.get(name, field(name).default))


def shown_value(name: str, value: Any) -> Any:
    """A field's value as its control holds it. Hosts turn what is pasted into the type of the control's value.

    Raises BadRequest for a value that the field does not take; the hosts report it and leave the control as it is.
    """
    row = field(name)
    read = row.read(row, value)
    if name == "hires_weight":
        return "" if read is None else f"{read:g}"
    return read
