"""A WebUI that behaves until it is told not to, at an address of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..live.client import Client
from ..live.stand_in import StandIn, serving
from ..live.webui import Setup, WebUI


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with serving(stand_in) as found:
        yield found


@pytest.fixture
def webui(address: str) -> WebUI:
    return WebUI(Client(address), Setup(size=64))
