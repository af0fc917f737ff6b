"""From a photo to its faces, with as many attempts as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import BadRequest, NoFaceFound
from .align import TEMPLATE
from .backend import Backend, load_backend
from .choice import LARGEST, FaceChoice
from .ladder import LADDER, say_tried, to_photo, view_of
from .photo import MIN_SIDE, check_photo
from .scrfd import take
from .types import BY_HAND, Attempt, Box, Detections, Face, Floats, Found, Photo, box_area

_ADVICE = (
    "Use a photo in which one face is sharp, well lit and turned to the camera, or cut the photo to head and shoulders."
)
MIN_BOX = MIN_SIDE
"""Pixels a box drawn by hand needs in the photo, as many as a photo needs."""
FAR_BOX = 4
"""Times the photo's longer side; of a face in a larger box the photo shows a patch of skin at most."""


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

    def in_box(self, image: Photo, box: Box, label: str = "The photo") -> Face:
        """The face a person drew a box around, without a detector: a drawn face, say. Its score is 0.

        box: pixels of the photo; what is outside of the photo is black. The points lie where those of an upright,
        frontal face lie in the square around the box. Raises BadPhoto, or BadRequest for a box that holds nothing.
        """
        photo = check_photo(image, label)
        _check_box(photo, box, label)
        points = _points_in(box)
        vector = self.backend.embed(photo, points)
        return Face(box=np.array(box, np.float32), points=points, score=0.0, vector=vector, index=1)

    def look(self, image: Photo, choice: FaceChoice = LARGEST, label: str = "The photo") -> Found:
        """What ``choose`` needs for a choice: the one face in the drawn box, otherwise what ``find`` finds."""
        if choice.how != "box":
            return self.find(image, label)
        if choice.box is None:
            raise ValueError("a choice by box needs a box")
        return Found((self.in_box(image, choice.box, label),), (BY_HAND,), BY_HAND)

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


def _check_box(photo: Photo, box: Box, label: str) -> None:
    """Raises BadRequest unless the box shares MIN_BOX px with the photo each way and is at most FAR_BOX as large."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = box
    shared = min(x1, width) - max(x0, 0.0), min(y1, height) - max(y0, 0.0)
    far = max(x1 - x0, y1 - y0) > FAR_BOX * max(width, height)
    if not np.all(np.isfinite(box)) or min(shared) < MIN_BOX or far:
        words = ",".join(f"{side:g}" for side in box)
        raise BadRequest(
            f"The box {words} holds no face of {label}, which is {width}x{height} px. Give x0,y0,x1,y1 in pixels: the "
            f"upper left and the lower right corner of the face, at least {MIN_BOX} px apart each way."
        )


def _points_in(box: Box) -> Floats:
    """(5, 2): ArcFace's template in the square that has the box's middle and its longer side."""
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    corner = np.array([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2])
    return np.asarray(corner + TEMPLATE * (side / 112), np.float32)


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
