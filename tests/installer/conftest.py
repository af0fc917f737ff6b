"""Where a test's refusals are noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from install import Note


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "cache" / "note.json", now=1_000_000.0)
