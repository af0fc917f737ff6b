"""From a photo to its faces, with as many attempts as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import NoFaceFound
from .backend import Backend, load_backend
from .ladder import LADDER, say_tried, to_photo, view_of
from .photo import check_photo
from .scrfd import take
from .types import Attempt, Detections, Face, Found, Photo, box_area

_ADVICE = (
    "Use a photo in which one face is sharp, well lit and turned to the camera, or cut the photo to head and shoulders."
)


class FaceFinder:
    """Finds faces with one backend; threads may share it, as they may the backend. ``ladder``: attempts, in order."""

    def __init__(self, backend: Backend, ladder: Sequence[Attempt] = LADDER) -> None:
        self.backend, self._ladder = backend, tuple(ladder)

    @classmethod
    def of_pack(cls, folder: Path) -> FaceFinder:
        """With the pack in this folder and whatever is installed to run it."""
        return cls(load_backend(folder))

    def find(self, image: Photo, label: str = "The photo") -> Found:
        """Every face the first successful attempt shows, largest first, with its vector.

        image: (H, W, 3) uint8 RGB, upright as people see it (orientation marks of the camera applied). label: what
        sentences call it. Raises BadPhoto or NoFaceFound.
        """
        photo = check_photo(image, label)
        tried: list[Attempt] = []
        for attempt in self._ladder:
            tried.append(attempt)
            found = self._detect(photo, attempt)
            if len(found.scores):
                return Found(self._describe(photo, found), tuple(tried), attempt)
        raise NoFaceFound(f"{label} shows no face; it was searched {say_tried(tried)}. {_ADVICE}")

    def close(self) -> None:
        """Give the models' memory back; ``find`` opens them again."""
        self.backend.close()

    def _detect(self, photo: Photo, attempt: Attempt) -> Detections:
        view = view_of(photo, attempt)
        found = self.backend.detect(view.picture, attempt.size, attempt.threshold)
        return to_photo(take(found, np.flatnonzero([_is_face(found, i) for i in range(len(found.scores))])), view)

    def _describe(self, photo: Photo, found: Detections) -> tuple[Face, ...]:
        return tuple(
            Face(
                box=found.boxes[i],
                points=found.points[i],
                score=float(found.scores[i]),
                vector=self.backend.embed(photo, found.points[i]),
                index=number,
            )
            for number, i in enumerate(_largest_first(found), start=1)
        )


def _largest_first(found: Detections) -> list[int]:
    """Equal areas: the better score, then further left, then further up, whatever order the detector has them in."""
    boxes, scores = found.boxes, found.scores
    return sorted(
        range(len(scores)), key=lambda i: (-box_area(boxes[i]), -scores[i], float(boxes[i][0]), float(boxes[i][1]))
    )


def _is_face(found: Detections, i: int) -> bool:
    """A damaged model can give boxes without area or points in one spot; nothing can be cut out there."""
    box, points = found.boxes[i], found.points[i]
    finite = bool(np.all(np.isfinite(box)) and np.all(np.isfinite(points)))
    return finite and box[2] > box[0] and box[3] > box[1] and bool(np.ptp(points, axis=0).max() > 0)
