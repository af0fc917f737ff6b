"""The order in which a photo is searched, and the way back from each rung's picture to the photo.

Detectors miss faces that fill the frame, because they were trained on faces with surroundings; a smaller picture or a
border helps (cubiq/ComfyUI_IPAdapter_plus issue 165). The whole ladder costs about twelve detections at 640 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .opencv import load_cv2
from .types import USUAL_THRESHOLD, Attempt, Detections, Floats, Photo

SIZES = (640, 512, 384, 256, 192, 128)
PADDINGS = (25, 50, 100)
ROTATIONS = (90, 180, 270)
LOW_THRESHOLD = 0.3
"""Below it SCRFD reports hands and patterns as often as faces."""
_TWO_SIZES = (640, 320)  # with borders and turns: one that finds small faces, one for a face that fills the frame

LADDER = (
    *(Attempt(size) for size in SIZES),
    *(Attempt(size, padding=padding) for padding in PADDINGS for size in _TWO_SIZES),
    *(Attempt(size, rotation=rotation) for rotation in ROTATIONS for size in _TWO_SIZES),
    *(Attempt(320, padding=50, rotation=rotation) for rotation in ROTATIONS),  # lying and filling the frame
    *(Attempt(size, threshold=LOW_THRESHOLD) for size in _TWO_SIZES),
    Attempt(320, padding=50, threshold=LOW_THRESHOLD),
)

# A border of 100 % makes nine times as many pixels. The detector sees at most 640 px, so twice that loses nothing.
_WORKING_SIDE = 1280


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture made from a photo of ``width`` x ``height`` px, which was first scaled to ``small`` (width, height)."""

    picture: Photo
    width: int
    height: int
    small: tuple[int, int]
    attempt: Attempt

    def to_photo(self, spots: Floats) -> Floats:
        """Positions (…, 2) in the picture → positions in the photo, each step of ``view_of`` undone."""
        width, height = self.small
        turned = (width, height) if self.attempt.rotation % 180 == 0 else (height, width)
        x, y = (spots[..., axis] - _border(turned[axis], self.attempt.padding) for axis in (0, 1))
        x, y = {
            0: (x, y),
            90: (width - 1 - y, x),
            180: (width - 1 - x, height - 1 - y),
            270: (y, height - 1 - x),
        }[self.attempt.rotation]
        # Scaling keeps edges, not middles, of the outer pixels in place.
        scaled = ((x + 0.5) * (self.width / width) - 0.5, (y + 0.5) * (self.height / height) - 0.5)
        return np.stack(scaled, axis=-1).astype(np.float32)


def view_of(image: Photo, attempt: Attempt) -> View:
    """What the detector is shown in this attempt. Without border and turn it is the photo itself."""
    height, width = image.shape[:2]
    picture = image
    if attempt.padding or attempt.rotation:
        picture = _shrink(image)
    small = (picture.shape[1], picture.shape[0])
    picture = np.rot90(picture, attempt.rotation // 90)
    if attempt.padding:
        across, down = (_border(picture.shape[axis], attempt.padding) for axis in (1, 0))
        picture = np.pad(picture, ((down, down), (across, across), (0, 0)))
    return View(np.ascontiguousarray(picture), width, height, small, attempt)


def to_photo(found: Detections, view: View) -> Detections:
    """Boxes, points and scores in pixels of the photo; boxes stay upright, with x0 < x1 and y0 < y1."""
    corners = view.to_photo(np.reshape(found.boxes, (-1, 2, 2)))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return Detections(boxes, view.to_photo(found.points), found.scores)


def say_tried(tried: Sequence[Attempt]) -> str:
    """For people: everything these attempts covered, without listing each."""
    sizes = [attempt.size for attempt in tried]
    parts = [f"at {max(sizes)} to {min(sizes)} px" if len(set(sizes)) > 1 else f"at {sizes[0]} px"]
    paddings = sorted({attempt.padding for attempt in tried} - {0})
    rotations = sorted({attempt.rotation for attempt in tried} - {0})
    lowest = min(attempt.threshold for attempt in tried)
    if paddings:
        parts.append(f"with borders of {_all(paddings)} %")
    if rotations:
        parts.append(f"turned by {_all(rotations)}°")
    if lowest < USUAL_THRESHOLD:
        parts.append(f"with the score threshold lowered to {lowest:g}")
    return ", ".join(parts)


def _all(numbers: Sequence[int]) -> str:
    return " and ".join(filter(None, (", ".join(map(str, numbers[:-1])), str(numbers[-1]))))


def _border(side: int, percent: int) -> int:
    return side * percent // 100


def _shrink(image: Photo) -> Photo:
    height, width = image.shape[:2]
    factor = _WORKING_SIDE / max(height, width)
    if factor >= 1:
        return image
    cv2 = load_cv2()
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
