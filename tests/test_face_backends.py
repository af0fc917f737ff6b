"""insightface and the built-in runner give the same faces, and every way in which either can be missing is said."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper

from lib_faceid.errors import BrokenWeights, MissingPackage, WrongWeights
from lib_faceid.face.backend import Backend, Prefer, load_backend
from lib_faceid.face.opencv import load_cv2
from lib_faceid.face.opened import Opened
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Attempt, Detections, Photo

from .face_packs import Habits, detector, draw_marker, make_pack, recogniser, save, scene

ROOT = Path(__file__).resolve().parent.parent
BOTH: tuple[Prefer, ...] = ("builtin", "insightface")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "buffalo_l")


@pytest.fixture(scope="module")
def two(pack: Path) -> tuple[Backend, Backend]:
    pytest.importorskip("insightface")
    return load_backend(pack, "builtin"), load_backend(pack, "insightface")


def busy_scene(seed: int) -> Photo:
    """Up to nine faces of different sizes on no grid, one in each field of a 3 x 3 board."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(500, 1400, 2))
    photo = scene(width, height, seed)
    for row in range(3):
        for column in range(3):
            # Kept three cells of the detector apart, in which markers would run into each other.
            room = np.array([width, height]) / 3 - 40
            side = int(rng.uniform(0.4, 0.9) * room.min())
            x, y = (np.array([column, row]) * (room + 40) + 20 + rng.uniform(0, room - side)).astype(int)
            draw_marker(photo, (x, y, x + side, y + side), score=float(rng.uniform(0.4, 1.0)))
    return photo


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


# --- what is not there -------------------------------------------------------------------------------------------


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


def test_providers_are_what_the_sessions_report(pack: Path) -> None:
    for prefer in BOTH:
        assert load_backend(pack, prefer).providers == ("CPUExecutionProvider",)
        # One this onnxruntime has never heard of: it runs on the CPU, and says so.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backend = load_backend(pack, prefer, providers=["NoSuchExecutionProvider"])
            assert backend.providers == ("CPUExecutionProvider",)


# --- how it behaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer", BOTH)
def test_threads_share_a_finder(pack: Path, prefer: Prefer) -> None:
    photos = [busy_scene(seed) for seed in range(6)]
    alone = [FaceFinder(load_backend(pack, prefer)).find(photo).faces for photo in photos]
    shared = FaceFinder(load_backend(pack, prefer))
    with ThreadPoolExecutor(6) as pool:
        together = [found.faces for found in pool.map(shared.find, photos * 3)]
    for expected, got in zip(alone * 3, together, strict=True):
        assert len(expected) == len(got)
        for a, b in zip(expected, got, strict=True):
            assert np.array_equal(a.box, b.box)
            np.testing.assert_allclose(a.vector, b.vector, atol=1e-4)


@pytest.mark.parametrize("prefer", BOTH)
def test_a_threshold_of_one_thread_is_not_another_threads(pack: Path, prefer: Prefer) -> None:
    backend, photo = load_backend(pack, prefer), scene(320, 320)
    draw_marker(photo, (64, 64, 224, 224), score=0.6)
    with ThreadPoolExecutor(4) as pool:
        thresholds = [0.3, 0.9] * 20
        counts = [len(found.scores) for found in pool.map(lambda at: backend.detect(photo, 320, at), thresholds)]
    assert counts == [1, 0] * 20


def test_a_thing_is_opened_once_however_many_threads_ask() -> None:
    opened: list[object] = []
    ready = threading.Barrier(8)

    def open_slowly() -> object:
        opened.append(object())
        return opened[-1]

    def ask(thing: Opened[object]) -> object:
        ready.wait()
        return thing.get()

    thing = Opened(open_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, [thing] * 8)) == {opened[0]}
    thing.close()
    assert thing.get() is opened[1]
    assert len(opened) == 2


def test_a_failure_to_open_is_not_remembered() -> None:
    answers = iter([OSError("disk"), "model"])

    def open_thing() -> object:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    thing = Opened(open_thing)
    with pytest.raises(OSError, match="disk"):
        thing.get()
    assert thing.get() == "model"


@pytest.mark.parametrize("prefer", BOTH)
def test_models_are_opened_on_first_use_and_given_back(pack: Path, tmp_path: Path, prefer: Prefer) -> None:
    backend = load_backend(pack, prefer)
    assert _open_models(backend) == []
    FaceFinder(backend).find(busy_scene(0))
    assert len(_open_models(backend)) == 2
    backend.close()
    assert _open_models(backend) == []
    assert len(backend.detect(busy_scene(0), 640, 0.5).scores) > 2


def _open_models(backend: Backend) -> list[object]:
    things = [value for value in vars(backend).values() if isinstance(value, Opened)]
    return [thing._thing for thing in things if thing._thing is not None]


USE = """
import sys, warnings
from pathlib import Path
from lib_faceid.face.backend import load_backend
import cv2, numpy as np
backend = load_backend(Path(sys.argv[1]), sys.argv[2])
before = sys.stdout, list(warnings.filters), cv2.getNumThreads()
photo = np.zeros((320, 320, 3), np.uint8)
photo[64:224, 64:224] = (229, 26, 229)
found = backend.detect(photo, 320, 0.5)
backend.embed(photo, found.points[0])
backend.close()
assert (sys.stdout, list(warnings.filters), cv2.getNumThreads()) == before
assert sys.stdout is sys.__stdout__
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("prefer", BOTH)
def test_nothing_is_printed_and_nothing_global_is_changed(pack: Path, prefer: Prefer) -> None:
    command = [sys.executable, "-c", USE, str(pack), prefer]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
