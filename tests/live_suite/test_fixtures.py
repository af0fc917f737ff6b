"""The files the live cases work with are what the extension takes them for, and nobody else's are touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lib_faceid.face.pack import find_pack
from lib_faceid.library.identity import load_identity
from lib_faceid.vision.recognise import recognise_encoder
from lib_faceid.weights.adapter import load_adapter
from lib_faceid.weights.read import open_tensors

from ..live import command, fixtures


def test_fixtures_are_what_the_extension_takes_them_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "BASES", ("sd15",))  # SDXL's are made in the same way, and large
    foreign = tmp_path / "ip-adapter" / "faceid-live-portrait_sd15_narrow.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"somebody's own")
    said: list[str] = []
    fixtures.write_fixtures(tmp_path, 8, said.append)
    assert [line for line in said if line.startswith("kept")] == [f"kept     {foreign.relative_to(tmp_path)}"]
    for kind in ("faceid", "faceid-plusv2"):
        adapter = load_adapter(tmp_path / "ip-adapter" / fixtures.adapter_name(kind, "sd15", narrow=True))
        assert (adapter.variant, adapter.base, adapter.has_lora) == (kind, "sd15", True)
    person = load_identity(tmp_path / "ip-adapter/identities/faceid-live_sd15_narrow.safetensors")
    assert (person.context_width, tuple(person.kv[0].k.shape)) == (768, (2, 4, 8))
    assert find_pack(tmp_path / "insightface/models/faceid-live").crop == 112
    clip = tmp_path / "clip_vision/faceid-live/faceid-live-clip.safetensors"
    assert recognise_encoder(open_tensors(clip), json.loads((clip.parent / "config.json").read_text())).hidden == 80
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said.clear()
    assert command.main(["--fixtures", str(tmp_path), "--channels", "8"], said.append) == 0
    assert all(line.startswith("kept") for line in said)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_only_fixtures_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.relative_to(tmp_path) for path in fixtures.files(tmp_path, 8)}
    own = [tmp_path / "ip-adapter/faceid-live-of-mine.bin", tmp_path / "insightface/models/faceid-live/note.txt"]
    for file in [tmp_path / name for name in names if name.suffix] + own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "insightface/models/faceid-live/det_10g.onnx").touch()
    assert command.main(["--fixtures", str(tmp_path), "--remove"], lambda line: None) == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(own)
    assert command.main(["--fixtures", str(tmp_path / "none")], lambda line: None) == 1


def test_true_fixtures_have_published_shapes() -> None:
    scale = fixtures.scale_of("sd15", None)
    assert (scale.widths, scale.context, scale.rank) == ((320, 640, 1280), 768, 128)
    assert np.isclose(np.linalg.norm(fixtures.vectors()[0]), 20, rtol=0.1)
