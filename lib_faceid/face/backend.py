"""The two ways to run a face pack: insightface, or our own few lines on onnxruntime. They give the same results.

Colour: everything of ours is RGB. insightface wants BGR and turns it to RGB for its networks; the one flip from RGB to
BGR is ``_to_bgr`` below. Our own runner feeds RGB as it is.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import BrokenWeights, MissingPackage, WrongWeights
from .align import norm_crop
from .opened import Opened
from .pack import Pack, find_pack
from .probe import Probe
from .scrfd import decode, fit_into, to_input
from .types import Detections, Floats, Photo

Prefer = Literal["auto", "insightface", "builtin"]
CPU = ("CPUExecutionProvider",)
"""A few photos per job: on a GPU the models would only compete with the diffusion model for memory."""


class Backend(Protocol):
    """A face pack ready to use. Methods may be called from several threads; models are opened on first use.

    name: "insightface 2.1" or "built-in". note: why insightface is not used although it was allowed, else empty.
    """

    name: str
    note: str

    @property
    def providers(self) -> tuple[str, ...]:
        """What the opened models report to run on, whatever was asked for."""
        ...

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        """Faces in pixels of the image, best score first. image_rgb: (H, W, 3) uint8; size: see Attempt."""
        ...

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        """(512,) float32 of the face with these points (5, 2), as the recogniser gives it."""
        ...

    def close(self) -> None:
        """Give the models' memory back; the next use opens them again."""
        ...


def load_backend(pack: Path, prefer: Prefer = "auto", providers: Sequence[str] = CPU) -> Backend:
    """The pack in the folder ``pack``, run by insightface where it is usable and by our own runner otherwise.

    providers: onnxruntime's names; those that the installed onnxruntime lacks are left out, and the CPU comes last.

    Raises WrongWeights or BrokenWeights about the folder and its files, MissingPackage without onnxruntime, or without
    a usable insightface where that was asked for by name.
    """
    found, runtime = find_pack(pack), _load_onnxruntime()
    available = set(runtime.get_available_providers())
    usable = [name for name in dict.fromkeys([*providers, *CPU]) if name in available]
    if prefer == "builtin":
        return BuiltinBackend(runtime, found, usable)
    insightface, reason = _probe_insightface(found)
    if insightface is not None:
        return InsightFaceBackend(insightface, found, usable)
    if prefer == "insightface":
        raise MissingPackage(f"insightface was asked for and cannot be used: {reason}. The built-in runner can.")
    return BuiltinBackend(runtime, found, usable, note=f"insightface is not used: {reason}")


def _probe_insightface(pack: Pack) -> tuple[Any, str]:
    """(module, "") or (None, why not). Import errors of every kind count: its many dependencies break in many ways."""
    if pack.detector_side is not None:
        return (
            None,
            f"the detector {pack.detector.name} takes {pack.detector_side} px only, and it cannot vary the size",
        )
    probe = Probe()
    with probe, _silence():
        module = import_module("insightface")
        if pack.batched and _version_of(module).startswith("0."):
            return None, f"this version cannot read {pack.detector.name}, whose outputs have a batch dimension"
        if callable(module.model_zoo.get_model):
            return module, ""
    return None, probe.reason or "it has no model_zoo.get_model"


def _version_of(insightface: Any) -> str:
    return str(getattr(insightface, "__version__", "?"))


def _load_onnxruntime() -> Any:
    """Raises MissingPackage. Removing one of two onnxruntime packages leaves a module without contents behind."""
    probe = Probe()
    with probe:
        module = import_module("onnxruntime")
        if callable(module.InferenceSession):
            return module
    raise MissingPackage(
        f"The package onnxruntime cannot be used ({probe.reason}). Install it with 'pip install --force-reinstall "
        "onnxruntime'; where onnxruntime-gpu is installed too, remove both first."
    ) from probe.error


class BuiltinBackend:
    """SCRFD and ArcFace on numpy, cv2 and onnxruntime alone."""

    name = "built-in"

    def __init__(self, runtime: Any, pack: Pack, providers: list[str], note: str = "") -> None:
        self.note, self._pack = note, pack
        self._detector: Opened[Any] = Opened(lambda: _open_session(runtime, pack.detector, providers))
        self._recogniser: Opened[Any] = Opened(lambda: _open_session(runtime, pack.recogniser, providers))

    @property
    def providers(self) -> tuple[str, ...]:
        return _providers_of(self._detector.get(), self._recogniser.get())

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        side = self._pack.detector_side or size
        square, scale = fit_into(image_rgb, min(size, side), side)
        outputs = _run(self._detector.get(), self._pack.detector, to_input(square))
        return decode(outputs, side, scale, threshold)

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        crop = norm_crop(image_rgb, points, self._pack.crop).astype(np.float32)
        # insightface arcface_onnx.py: a graph that does not bring pixels to [-1, 1] itself gets them so.
        scaled = crop if self._pack.normalises else (crop - 127.5) * (1.0 / 127.5)
        blob = np.ascontiguousarray(np.transpose(scaled, (2, 0, 1))[None], np.float32)
        return _as_vector(_run(self._recogniser.get(), self._pack.recogniser, blob)[0], self._pack.recogniser)

    def close(self) -> None:
        self._detector.close()
        self._recogniser.close()


class InsightFaceBackend:
    """insightface 0.7.3, 1.0 or 2.x, given the two files of the pack by path, so that it has nothing to download.

    The size is passed per call: setting ``input_size`` on the detector is ignored since 1.0, preparing it twice before.
    """

    def __init__(self, insightface: Any, pack: Pack, providers: list[str]) -> None:
        self.name, self.note, self._pack = f"insightface {_version_of(insightface)}", "", pack
        get_model = insightface.model_zoo.get_model
        self._detector: Opened[Any] = Opened(lambda: _open_model(get_model, pack.detector, providers))
        self._recogniser: Opened[Any] = Opened(lambda: _open_model(get_model, pack.recogniser, providers))
        self._threshold_lock = threading.Lock()  # the threshold is an attribute of the detector

    @property
    def providers(self) -> tuple[str, ...]:
        return _providers_of(self._detector.get().session, self._recogniser.get().session)

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        detector, image = self._detector.get(), _to_bgr(image_rgb)
        with self._threshold_lock:
            detector.det_thresh = threshold
            boxes, points = detector.detect(image, input_size=(size, size))
        return Detections(
            boxes[:, :4].astype(np.float32), points.reshape(-1, 5, 2).astype(np.float32), boxes[:, 4].astype(np.float32)
        )

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        # Our own crop, equal to insightface's: its own needs a scikit-image function that is being removed.
        crop = norm_crop(_to_bgr(image_rgb), points, self._pack.crop)
        return _as_vector(self._recogniser.get().get_feat(crop), self._pack.recogniser)

    def close(self) -> None:
        self._detector.close()
        self._recogniser.close()


def _to_bgr(image_rgb: Photo) -> Photo:
    return np.ascontiguousarray(image_rgb[:, :, ::-1])


def _open_session(runtime: Any, path: Path, providers: list[str]) -> Any:
    """Raises BrokenWeights."""
    probe = Probe()
    with probe:
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about unused weights are nothing a user can act on
        return runtime.InferenceSession(str(path), options, providers=providers)
    raise _unusable(path, f"onnxruntime {runtime.__version__}", probe) from probe.error


def _open_model(get_model: Callable[..., Any], path: Path, providers: list[str]) -> Any:
    """insightface's model for the file. Raises BrokenWeights.

    static_shape_sessions: 2.x would open the detector anew for every size of the search; earlier versions ignore it.
    """
    probe = Probe()
    with probe, _silence():
        model = get_model(str(path), providers=providers, static_shape_sessions=False)
        if hasattr(model, "detect"):
            model.prepare(0, nms_thresh=0.4)
        return model
    raise _unusable(path, "insightface", probe) from probe.error


def _unusable(path: Path, program: str, probe: Probe) -> BrokenWeights:
    return BrokenWeights(
        f"{path} cannot be opened by {program} ({probe.reason}). Download the face pack again, or update onnxruntime."
    )


def _run(session: Any, path: Path, blob: Floats) -> list[Floats]:
    probe = Probe()
    with probe:
        return session.run(None, {session.get_inputs()[0].name: blob})
    raise WrongWeights(f"{path} failed on a picture of shape {blob.shape} ({probe.reason}).") from probe.error


def _as_vector(output: Any, path: Path) -> Floats:
    vector = np.asarray(output, np.float32).ravel()
    if vector.shape != (512,) or not np.all(np.isfinite(vector)):
        raise WrongWeights(
            f"{path} gave {vector.size} numbers, some of them perhaps infinite; 512 finite ones were expected."
        )
    return vector


def _providers_of(*sessions: Any) -> tuple[str, ...]:
    """Every provider that a session reports, the first session's order first."""
    return tuple(dict.fromkeys(name for session in sessions for name in session.get_providers()))


_ONE_AT_A_TIME = threading.Lock()  # sys.stdout is put back by whoever took it, in the right order


@contextmanager
def _silence() -> Generator[None, None, None]:
    """Swallow what insightface prints while it is imported and opens models; standard output belongs to the verbs."""
    with _ONE_AT_A_TIME, redirect_stdout(io.StringIO()):
        yield
