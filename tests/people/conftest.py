"""A models folder, and a count of what is made in it."""

from __future__ import annotations

import pytest

from lib_faceid.engine import people as people_module

from ..models_folder import add_adapter, add_face_pack, make_models


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


@pytest.fixture
def ready(root):
    """With an adapter and a face pack."""
    add_adapter(root)
    add_face_pack(root)
    return root


@pytest.fixture
def made(monkeypatch):
    """Names of the adapters for which photos were read, and identities made."""
    calls = []
    for name in ("extract", "make_identity"):
        real = getattr(people_module, name)

        def counted(adapter, *args, name=name, real=real, **kwargs):
            calls.append(name)
            return real(adapter, *args, **kwargs)

        monkeypatch.setattr(people_module, name, counted)
    return calls
