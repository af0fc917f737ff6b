"""A models folder with one person in it, and the WebUI that has it."""

from __future__ import annotations

import pytest

from ..models_folder import add_adapter, add_person, make_models
from .fake_webui import Host


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


@pytest.fixture
def made(root):
    """The adapter anna is made with, for a UNet that takes real text."""
    return add_adapter(root, text=768)


@pytest.fixture
def anna(root, made):
    return add_person(root, made)


@pytest.fixture
def host(root, anna, monkeypatch):
    return Host(root, monkeypatch)
