"""A models folder with a synthetic face pack and a tiny CLIP encoder, and an adapter."""

from __future__ import annotations

import json

import pytest

from lib_faceid.engine.extract import ModelFolder
from lib_faceid.weights.adapter import Adapter

from ..adapters import make_adapter
from ..clip_files import Tower, hf_layout
from ..containers import save_safetensors
from ..face_packs import make_pack
from ..layouts import random_tensors

TOWER = Tower(hidden=80, mlp=96, layers=3, heads=5, patch=28, image=224, projection=80)


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    root = tmp_path_factory.mktemp("models")
    make_pack(root / "insightface" / "buffalo_l")
    (root / "clip_vision").mkdir()
    save_safetensors(root / "clip_vision" / "model.safetensors", random_tensors(hf_layout(TOWER)))
    (root / "clip_vision" / "config.json").write_text(json.dumps(TOWER.config()))
    return ModelFolder(root)


@pytest.fixture(scope="package")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return make_adapter(tmp_path_factory.mktemp("adapter"), "faceid").load()
