"""From a face of 5 % to one of 140 % of the frame's width, upright and lying: found, and how is told truly.

The detector is as stubborn as real ones: it finds upright faces only, none that touches the edge, none that is longer
than 40 of its 80 cells. The marker's upper left quarter is tinted, so that every visible part of it says where up is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib_faceid.face.ladder import LADDER
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Attempt, Photo

from ..face_packs import FRACTIONS, Box, Habits, draw_marker, scene, tint_quarter
from .finders import finder_with

WIDTH, HEIGHT = 480, 640
STUBBORN = Habits(largest=40, margin=True, tint=True)


@pytest.fixture(scope="module")
def stubborn(packs: Path) -> FaceFinder:
    return finder_with(packs / "stubborn", STUBBORN)


def frame_with(part: float, quarters: int) -> tuple[Photo, Box]:
    """A photo in whose middle a face has this part of the width, and the face's box, part of which may be outside.

    The face lies on its side by quarter turns clockwise, what is inside of it too.
    """
    side = round(WIDTH * part)
    face = scene(side, side, seed=5)
    draw_marker(face, (0, 0, side, side), score=0.7, edge=1 / 4 if part >= 0.1 else 1 / 2)
    tint_quarter(face, (0, 0, side, side))
    x0, y0 = (WIDTH - side) // 2, (HEIGHT - side) // 2
    wide = scene(3 * WIDTH, 3 * HEIGHT, seed=4)
    wide[HEIGHT + y0 : HEIGHT + y0 + side, WIDTH + x0 : WIDTH + x0 + side] = np.rot90(face, -quarters)
    return np.ascontiguousarray(wide[HEIGHT : 2 * HEIGHT, WIDTH : 2 * WIDTH]), (x0, y0, x0 + side, y0 + side)


def shown(photo: Photo, attempt: Attempt) -> Photo:
    """What an attempt's words say the detector was shown, made without the ladder."""
    turned = np.rot90(photo, attempt.rotation // 90)
    height, width = turned.shape[:2]
    borders = [(side * attempt.padding // 100,) * 2 for side in (height, width)]
    return np.ascontiguousarray(np.pad(turned, (*borders, (0, 0))))


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("part", [0.05, 0.1, 0.3, 0.75, 1.0, 1.2, 1.4])
def test_it_is_found_and_how_is_true(stubborn: FaceFinder, part: float, quarters: int) -> None:
    photo, box = frame_with(part, quarters)
    found = stubborn.find(photo)
    (face,) = found.faces
    seen = np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    one_cell = 8 * HEIGHT * (1 + 2 * found.used.padding / 100) / found.used.size
    np.testing.assert_allclose(face.box, seen, atol=one_cell + 1)
    assert found.tried == LADDER[: len(found.tried)]
    counts = [
        len(stubborn.backend.detect(shown(photo, each), each.size, each.threshold).scores) for each in found.tried
    ]
    assert counts == [0] * (len(counts) - 1) + [1]
    assert found.used.rotation == 90 * quarters
    assert (found.used.padding > 0) == (part >= 1)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("part", [0.3, 1.0])
def test_the_points_of_a_lying_face_lie_with_it(stubborn: FaceFinder, part: float, quarters: int) -> None:
    """Eyes, nose and mouth where they are in the face, which is then turned with them."""
    photo, (x0, y0, x1, _) = frame_with(part, quarters)
    found = stubborn.find(photo)
    x, y = FRACTIONS.T * (x1 - x0)
    for _ in range(quarters):
        x, y = x1 - x0 - 1 - y, x  # a quarter clockwise
    one_cell = 8 * HEIGHT * (1 + 2 * found.used.padding / 100) / found.used.size
    np.testing.assert_allclose(found.faces[0].points, np.stack([x + x0, y + y0], axis=1), atol=one_cell + 1)
