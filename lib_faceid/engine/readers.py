"""What reads photos, kept open between requests: one detector and one recogniser for each face pack.

CLIP is not among it: 2.5 GB are opened for the photos of one request and given back. That it ran is counted here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..face.backend import Backend, load_backend
from ..face.pipeline import FaceFinder
from ..face.types import Detections, Floats, Photo
from .model_files import State, state_of

# A pack is 190 MB to 410 MB. Two: that of most adapters, and antelopev2 of other families or one chosen by name.
_OPEN = 2
Run = Literal["detections", "embeddings", "encodings", "weight_files"]


@dataclass(frozen=True)
class Runs:
    """How often a detector, a recogniser and a CLIP tower ran, and the tensors of a weight file were read."""

    detections: int = 0
    embeddings: int = 0
    encodings: int = 0
    weight_files: int = 0


class Readers:
    """The face finders of at most two packs, opened on first use. Threads may share it, and what it gives."""

    def __init__(self) -> None:
        self._finders: OrderedDict[tuple[Path, State], FaceFinder] = OrderedDict()
        self._runs: dict[Run, int] = {}
        self._opening, self._counting = threading.Lock(), threading.Lock()

    @property
    def runs(self) -> Runs:
        """What ran since this was made; what is released stays counted."""
        with self._counting:
            return Runs(**self._runs)

    def count(self, run: Run, times: int = 1) -> None:
        """For those who run a model or read a weight file themselves."""
        with self._counting:
            self._runs[run] = self._runs.get(run, 0) + times

    def finder(self, folder: Path) -> FaceFinder:
        """The face finder of the pack in this folder; another one when a file in it was replaced.

        It may be closed at any time by another request; it then opens its models again. Raises WrongWeights,
        BrokenWeights or MissingPackage.
        """
        place = folder.absolute()
        with self._opening:
            key = place, state_of(place)
            if key not in self._finders:
                for old in [old for old in self._finders if old[0] == place]:
                    self._finders.pop(old).close()
                self._finders[key] = FaceFinder(_Counted(load_backend(place), self))
            self._finders.move_to_end(key)
            while len(self._finders) > _OPEN:
                self._finders.popitem(last=False)[1].close()
            return self._finders[key]

    def release(self) -> None:
        """Give the memory of all models back; the next use opens them again."""
        with self._opening:
            while self._finders:
                self._finders.popitem()[1].close()


class _Counted:
    """A backend whose runs are counted."""

    def __init__(self, backend: Backend, readers: Readers) -> None:
        self._backend, self._readers = backend, readers
        self.name, self.note = backend.name, backend.note

    @property
    def providers(self) -> tuple[str, ...]:
        return self._backend.providers

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        self._readers.count("detections")
        return self._backend.detect(image_rgb, size, threshold)

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        self._readers.count("embeddings")
        return self._backend.embed(image_rgb, points)

    def close(self) -> None:
        self._backend.close()
