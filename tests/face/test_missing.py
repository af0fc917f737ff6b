"""Every way in which a runner or a model can be missing or broken is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lib_faceid.errors import BrokenWeights, MissingPackage, WrongWeights
from lib_faceid.face.backend import Prefer, load_backend
from lib_faceid.face.opencv import load_cv2
from lib_faceid.face.pipeline import FaceFinder

from ..face_packs import Habits, detector, make_pack, recogniser, save
from .finders import BOTH
from .scenes import busy_scene


@pytest.fixture
def without_insightface(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget insightface; whatever is imported meanwhile is forgotten afterwards."""
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "insightface"}
    for name in known:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "insightface"]:
        del sys.modules[name]


BREAKS = {
    "missing": "raise ModuleNotFoundError('No module named insightface')",
    "cython": "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
    "protobuf": "class VersionError(Exception): pass\nraise VersionError('Detected incompatible Protobuf versions')",
    "attribute": "import numpy\nnumpy.no_such_name",
    "syntax": "def broken(:",
    "hollow": "pass",
}


def test_an_old_insightface_is_not_given_outputs_with_a_batch_dimension(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ModuleType("insightface")
    old.__version__, old.model_zoo = "0.7.3", ModuleType("model_zoo")
    old.model_zoo.get_model = print
    monkeypatch.setitem(sys.modules, "insightface", old)
    assert load_backend(pack).name == "insightface 0.7.3"
    backend = load_backend(make_pack(tmp_path / "batched", Habits(batched=True)))
    assert backend.name == "built-in"
    assert "det_10g.onnx, whose outputs have a batch dimension" in backend.note


@pytest.mark.usefixtures("without_insightface")
@pytest.mark.parametrize("kind", BREAKS)
def test_an_insightface_that_breaks_in_any_way_is_done_without(
    kind: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "insightface.py").write_text(f"print('noise')\n{BREAKS[kind]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    backend = load_backend(pack)
    assert backend.name == "built-in"
    assert backend.note.startswith("insightface is not used: ")
    assert {"cython": "size changed", "protobuf": "VersionError", "hollow": "model_zoo"}.get(kind, "") in backend.note
    assert len(FaceFinder(backend).find(busy_scene(0)).faces) > 2
    with pytest.raises(MissingPackage, match="insightface was asked for and cannot be used"):
        load_backend(pack, "insightface")
    assert capfd.readouterr().out == ""


def test_insightface_is_not_even_tried_when_the_built_in_runner_is_asked_for(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    assert load_backend(pack, "builtin").note == ""


@pytest.mark.parametrize("module", [None, ModuleType("onnxruntime")], ids=["missing", "hollow"])
@pytest.mark.parametrize("prefer", ["auto", *BOTH])
def test_without_onnxruntime_a_sentence_says_how_to_get_it(
    pack: Path, prefer: Prefer, module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    with pytest.raises(MissingPackage, match="pip install --force-reinstall onnxruntime"):
        load_backend(pack, prefer)


def test_without_opencv_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackage, match="pip install opencv-python"):
        load_cv2()


def test_a_missing_pack_is_said_before_anything_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WrongWeights, match="does not exist"):
        load_backend(tmp_path / "buffalo_l")


@pytest.mark.parametrize("prefer", BOTH)
@pytest.mark.parametrize("name", ["det_10g.onnx", "w600k_r50.onnx"])
def test_a_model_that_onnxruntime_refuses_is_named(tmp_path: Path, prefer: Prefer, name: str) -> None:
    folder = make_pack(tmp_path / "pack")
    model = detector() if name.startswith("det") else recogniser()
    model.graph.node[0].op_type = "NoSuchOperation"
    save(model, folder / name)
    with pytest.raises(BrokenWeights, match=rf"{name} cannot be opened by"):
        FaceFinder(load_backend(folder, prefer)).find(busy_scene(0))


@pytest.mark.parametrize("prefer", BOTH)
def test_a_recogniser_that_gives_no_numbers_is_named(tmp_path: Path, prefer: Prefer) -> None:
    folder = make_pack(tmp_path / "pack")
    model = recogniser()
    model.graph.node[-1].op_type = "MatMul"
    weight = model.graph.initializer[-1]
    weight.raw_data = np.full(432 * 512, np.nan, np.float32).tobytes()
    save(model, folder / "w600k_r50.onnx")
    with pytest.raises(WrongWeights, match=r"w600k_r50\.onnx gave"):
        FaceFinder(load_backend(folder, prefer)).find(busy_scene(0))
