"""Worlds of both bases, made once."""

from __future__ import annotations

import pytest

from .world import World


@pytest.fixture(scope="package")
def worlds(tmp_path_factory):
    return {base: World(tmp_path_factory.mktemp("world") / base, base) for base in ("sd15", "sdxl")}


@pytest.fixture
def world(worlds):
    return worlds["sd15"]
