"""What the tests of saved people start from."""

from __future__ import annotations

import pytest

from lib_faceid.library.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models" / "identities")
