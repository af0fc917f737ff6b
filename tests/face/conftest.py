"""The usual face pack, made once, and who looks for faces with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_faceid.face.backend import Backend, load_backend
from lib_faceid.face.pipeline import FaceFinder

from ..face_packs import make_pack


@pytest.fixture(scope="package")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for packs with other habits."""
    return tmp_path_factory.mktemp("packs")


@pytest.fixture(scope="package")
def pack(packs: Path) -> Path:
    return make_pack(packs / "buffalo_l")


@pytest.fixture(scope="package")
def two(pack: Path) -> tuple[Backend, Backend]:
    """The built-in runner and insightface."""
    pytest.importorskip("insightface")
    return load_backend(pack, "builtin"), load_backend(pack, "insightface")


@pytest.fixture(scope="package")
def finder(pack: Path) -> FaceFinder:
    return FaceFinder(load_backend(pack, "builtin"))
