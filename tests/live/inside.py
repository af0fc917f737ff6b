"""The inside of a running WebUI, where the maintainers' extension (extension/scripts/inside.py) is linked into it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from .client import Refused, Unreachable
from .compare import Failed
from .webui import WebUI

ROUTE = "/faceid-inside"
_SHOWN = 3  # differences named in a sentence
_LOOK_AGAIN = 0.1  # seconds
_GIVE_UP = 120.0  # seconds until the page must be there again after "Reload UI"
# A1111 dies of a request between the start of the page and that of the API (modules/api/api.py adds middleware to an
# application that must not have served yet): so long nothing is asked after the port is open.
_SETTLE = 5.0
State = Mapping[str, str]


def inside(webui: WebUI) -> str:
    """A need: the maintainers' extension is there."""
    try:
        webui.client.get(f"{ROUTE}/usage")
    except Refused:
        return "the WebUI has no inside view; link tests/live/extension into its extensions folder"
    return ""


def read_state(webui: WebUI) -> State:
    """What hangs on the modules, classes and functions of the WebUI, and a checksum of the weights."""
    return webui.client.get(f"{ROUTE}/state")


def read_usage(webui: WebUI) -> dict[str, Any]:
    """Memory, handles, tensors, hooks, patches."""
    return webui.client.get(f"{ROUTE}/usage")


def ensure_untouched(before: State, after: State) -> None:
    """Raises Failed unless the two states are the same; the sentence names what differs."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        first = "; ".join(_describe(name, before.get(name), after.get(name)) for name in changed[:_SHOWN])
        raise Failed(f"{len(changed)} things are not as before: {first}")


def _describe(name: str, before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return f"{name} {'came' if before is None else 'is gone'}"
    start = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    begin = max(0, start - 40)
    return f"{name}: …{before[begin : start + 60]}… became …{after[begin : start + 60]}…"


@contextmanager
def planted(webui: WebUI, kind: str, call: int = 1) -> Iterator[None]:
    """A fault waits inside for the ``call``-th time. Raises Failed when it did not come to pass."""
    webui.client.post(f"{ROUTE}/fault", {"kind": kind, "call": call})
    try:
        yield
        fired = read_usage(webui)["fired"]
    finally:
        with suppress(Unreachable):
            webui.client.post(f"{ROUTE}/fault", {})
    if kind not in fired:
        raise Failed(f"the planted fault {kind} did not come to pass, so nothing was tried")


def reload_page(webui: WebUI, disabled: Sequence[str] | None = None) -> None:
    """ "Reload UI", with other extensions disabled if ``disabled`` names them; waits until it is there again."""
    webui.client.post(f"{ROUTE}/reload", {} if disabled is None else {"disabled": list(disabled)})
    _wait_for_port(webui.client.address, is_open=False)
    _wait_for_port(webui.client.address, is_open=True)
    time.sleep(_SETTLE)


def _wait_for_port(address: str, *, is_open: bool) -> None:
    parts = urlsplit(address)
    until = time.monotonic() + _GIVE_UP
    while time.monotonic() < until:
        with socket.socket() as probe:
            if (probe.connect_ex((parts.hostname or "", parts.port or 80)) == 0) is is_open:
                return
        time.sleep(_LOOK_AGAIN)
    raise Failed(f"the page did not {'come back' if is_open else 'go'} within {_GIVE_UP:.0f} seconds of Reload UI")
