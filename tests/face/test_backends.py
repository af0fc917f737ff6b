"""insightface and the built-in runner give the same faces, whatever the models of a pack are like."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from lib_faceid.face.backend import Backend, Prefer, load_backend
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Attempt, Detections

from ..face_packs import Habits, detector, draw_marker, make_pack, recogniser, save, scene
from .finders import BOTH
from .scenes import busy_scene


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [640, 384])
def test_both_runners_find_the_same(two: tuple[Backend, Backend], seed: int, size: int) -> None:
    photo = busy_scene(seed)
    ours, theirs = (backend.detect(photo, size, 0.5) for backend in two)
    assert len(ours.scores) == len(theirs.scores) > 2
    for mine, other in zip(_in_one_order(ours), _in_one_order(theirs), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)
    for points in ours.points:
        np.testing.assert_allclose(*(backend.embed(photo, points) for backend in two), atol=0.01)


def _in_one_order(found: Detections) -> tuple[np.ndarray, ...]:
    """By position: 0.7.3 leaves equal scores in any order."""
    order = np.lexsort((found.boxes[:, 1], found.boxes[:, 0]))
    return found.boxes[order], found.points[order], found.scores[order]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # scikit-image about the function insightface uses
def test_both_runners_equal_the_published_example(two: tuple[Backend, Backend], pack: Path) -> None:
    """The model card's own lines: FaceAnalysis, prepare(det_size=(640, 640)), get of the BGR photo."""
    app = pytest.importorskip("insightface.app").FaceAnalysis(name=str(pack), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=0, det_size=(640, 640))
    photo = busy_scene(3)
    theirs = sorted(app.get(photo[:, :, ::-1]), key=lambda face: float(face.bbox[0]))
    for backend in two:
        ours = sorted(FaceFinder(backend).find(photo).faces, key=lambda face: float(face.box[0]))
        assert len(ours) == len(theirs) > 2
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine.box, other.bbox, atol=1e-3)
            np.testing.assert_allclose(mine.points, other.kps, atol=1e-3)
            np.testing.assert_allclose(mine.vector, other.embedding, atol=0.05)
            np.testing.assert_allclose(mine.normed, other.normed_embedding, atol=0.002)
            assert mine.score == pytest.approx(float(other.det_score), abs=1e-5)


@pytest.mark.parametrize("prefer", BOTH)
def test_red_is_red_for_the_recogniser(pack: Path, prefer: Prefer, tmp_path: Path) -> None:
    """A recogniser whose first three numbers are the mean red, green and blue in the middle of the crop."""
    folder = tmp_path / "colours"
    save(detector(), folder / "det.onnx")
    model = recogniser()
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Pad", ["flat", "pads"], [model.graph.output[0].name]),
    ]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, 0, 509]))
    save(model, folder / "rec.onnx")
    photo = np.zeros((112, 112, 3), np.uint8)
    photo[:] = (255, 128, 0)
    points = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)
    vector = load_backend(folder, prefer).embed(photo, points)
    np.testing.assert_allclose(vector[:3], (1.0, 0.5 / 127.5, -1.0), atol=1e-5)


@pytest.mark.parametrize("prefer", BOTH)
def test_a_recogniser_that_normalises_itself_is_fed_0_to_255(pack: Path, tmp_path: Path, prefer: Prefer) -> None:
    other = make_pack(tmp_path / "old")
    save(recogniser(normalises=True), other / "w600k_r50.onnx")
    photo, points = busy_scene(1), load_backend(pack, "builtin").detect(busy_scene(1), 640, 0.5).points[0]
    vectors = [load_backend(folder, prefer).embed(photo, points) for folder in (pack, other)]
    np.testing.assert_allclose(*vectors, atol=0.01)


@pytest.mark.parametrize("prefer", ["builtin", "auto"])
def test_outputs_with_a_batch_dimension_are_read(pack: Path, tmp_path: Path, prefer: Prefer) -> None:
    batched = make_pack(tmp_path / "batched", Habits(batched=True))
    photo = busy_scene(2)
    plain, with_batch = (load_backend(folder, prefer).detect(photo, 640, 0.5) for folder in (pack, batched))
    for ours, theirs in zip(plain, with_batch, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("prefer", BOTH)
def test_every_size_and_threshold_is_taken_per_call(pack: Path, prefer: Prefer) -> None:
    backend, photo = load_backend(pack, prefer), scene(640, 640)
    draw_marker(photo, (64, 64, 80, 80), score=0.9)  # two cells at 640 px, less than one at 256
    draw_marker(photo, (320, 320, 480, 480), score=0.6)
    counts = [len(backend.detect(photo, *each).scores) for each in ((640, 0.5), (256, 0.5), (640, 0.7), (640, 0.5))]
    assert counts == [2, 1, 1, 2]


def test_a_detector_of_one_size_looks_at_smaller_sizes_too(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "fixed", Habits(side=640, largest=48))
    backend = load_backend(pack)
    assert backend.name == "built-in"
    assert "det_10g.onnx takes 640 px only" in backend.note
    photo = scene(640, 640)
    draw_marker(photo, (0, 0, 640, 640))
    found = FaceFinder(backend).find(photo)
    assert found.used == Attempt(384)
    np.testing.assert_allclose(found.faces[0].box, (0, 0, 640, 640), atol=0.01)


def test_providers_are_what_the_sessions_report(pack: Path) -> None:
    for prefer in BOTH:
        assert load_backend(pack, prefer).providers == ("CPUExecutionProvider",)
        # One this onnxruntime has never heard of: it runs on the CPU, and says so.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backend = load_backend(pack, prefer, providers=["NoSuchExecutionProvider"])
            assert backend.providers == ("CPUExecutionProvider",)
