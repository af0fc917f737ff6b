"""Faces that are not found at once are found further down the ladder, and the rung is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_faceid.errors import NoFaceFound
from lib_faceid.face.align import norm_crop
from lib_faceid.face.ladder import LADDER, SIZES, view_of
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.types import Attempt, Photo

from ..face_packs import CELL, Habits, draw_bar, draw_marker, scene
from .finders import Scripted, finder_with
from .scenes import scene_with


@pytest.mark.parametrize("size", SIZES)
def test_a_face_that_fills_the_frame_is_found_at_a_smaller_size(packs: Path, size: int) -> None:
    finder = finder_with(packs / f"at{size}", Habits(largest=size // CELL))
    photo = scene_with((0, 0, 640, 640))
    found = finder.find(photo)
    assert found.used == Attempt(size) == found.tried[-1]
    assert [attempt.size for attempt in found.tried] == [each for each in SIZES if each >= size]
    np.testing.assert_allclose(found.faces[0].box, (0, 0, 640, 640), atol=0.01)


# A photo that is all face: with a border of p % on each side it is 1 / (1 + 2p) of the picture.
@pytest.mark.parametrize(
    ("largest", "used"),
    [
        (80, Attempt(640, padding=25)),
        (30, Attempt(320, padding=25)),
        (22, Attempt(320, padding=50)),
        (15, Attempt(320, padding=100)),
    ],
)
@pytest.mark.parametrize("side", [640, 1280, 1920])
def test_a_tight_crop_is_found_with_a_border(packs: Path, largest: int, used: Attempt, side: int) -> None:
    finder = finder_with(packs / f"border{largest}", Habits(largest=largest, margin=True))
    photo = scene_with((0, 0, side, side), width=side, height=side)
    found = finder.find(photo)
    assert found.used == used
    one_cell = CELL * side * (1 + 2 * used.padding / 100) / used.size
    np.testing.assert_allclose(found.faces[0].box, (0, 0, side, side), atol=one_cell)


def lying_photo(quarters: int, scale: int) -> tuple[Photo, Photo]:
    """An upright photo and the same turned clockwise by so many quarter turns."""
    upright = scene(640 * scale, 480 * scale, seed=3)
    box = (160 * scale, 120 * scale, 320 * scale, 280 * scale)
    draw_marker(upright, box)
    draw_bar(upright, box)
    return upright, np.ascontiguousarray(np.rot90(upright, -quarters))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_on_its_side_is_found_turned_and_cropped_upright(packs: Path, quarters: int) -> None:
    finder = finder_with(packs / "upright", Habits(bar=True))
    upright, lying = lying_photo(quarters, scale=1)
    expected, found = finder.find(upright), finder.find(lying)
    assert expected.used == Attempt(640)
    assert found.used == Attempt(640, rotation=90 * quarters)
    turned = np.zeros(lying.shape[:2], bool)
    x0, y0, x1, y1 = np.round(found.faces[0].box).astype(int)
    turned[y0 : y1 + 1, x0 : x1 + 1] = True  # the box, turned back, is the upright photo's
    rows, columns = np.nonzero(np.rot90(turned, quarters))
    corners = (columns.min(), rows.min(), columns.max(), rows.max())
    np.testing.assert_allclose(corners, expected.faces[0].box, atol=1)
    crops = [norm_crop(*pair) for pair in ((upright, expected.faces[0].points), (lying, found.faces[0].points))]
    assert np.abs(crops[0].astype(int) - crops[1].astype(int)).max() <= 1
    np.testing.assert_allclose(found.faces[0].vector, expected.faces[0].vector, atol=0.05)


def test_a_large_photo_on_its_side_is_found_to_the_pixel(packs: Path) -> None:
    finder = finder_with(packs / "upright", Habits(bar=True))
    upright, lying = lying_photo(1, scale=4)
    expected, found = finder.find(upright).faces[0], finder.find(lying).faces[0]
    back = np.stack([found.points[:, 1], lying.shape[1] - 1 - found.points[:, 0]], axis=1)
    np.testing.assert_allclose(back, expected.points, atol=2)  # half a pixel of the detector's picture


def test_a_doubtful_face_is_found_with_a_lower_threshold(finder: FaceFinder, packs: Path) -> None:
    photo = scene(640, 640)
    draw_marker(photo, (64, 64, 224, 224), score=0.4)
    found = finder.find(photo)
    assert found.used == Attempt(640, threshold=0.3)
    assert len(found.tried) == LADDER.index(found.used) + 1
    assert found.faces[0].score == pytest.approx(0.4, abs=0.01)
    tight = scene(640, 640)
    draw_marker(tight, (0, 0, 640, 640), score=0.4)
    last = finder_with(packs / "last", Habits(margin=True)).find(tight)
    assert last.used.words == "at 320 px, with 50 % border, with the score threshold lowered to 0.3"
    assert last.tried == LADDER


def test_nothing_found_says_what_was_tried_and_what_to_do(finder: FaceFinder) -> None:
    with pytest.raises(NoFaceFound) as caught:
        finder.find(scene(640, 480), "anna.png")
    assert str(caught.value) == (
        "anna.png shows no face; it was searched at 640 to 128 px, with borders of 25, 50 and 100 %, turned by 90, "
        "180 and 270°, with the score threshold lowered to 0.3. Use a photo in which one face is sharp, well lit and "
        "turned to the camera, or cut the photo to head and shoulders."
    )


def test_the_ladder_is_climbed_in_the_published_order() -> None:
    backend = Scripted()
    with pytest.raises(NoFaceFound):
        FaceFinder(backend).find(scene(400, 200))
    plain, tall = (200, 400, 3), (400, 200, 3)
    borders = [(200 + 2 * y, 400 + 2 * x, 3) for x, y in ((100, 50), (200, 100), (400, 200))]
    lying = (borders[1][1], borders[1][0], 3)
    assert backend.asked == [
        *((plain, size, 0.5) for size in (640, 512, 384, 256, 192, 128)),
        *((shape, size, 0.5) for shape in borders for size in (640, 320)),
        *((shape, size, 0.5) for shape in (tall, plain, tall) for size in (640, 320)),
        *((shape, 320, 0.5) for shape in (lying, borders[1], lying)),
        *((plain, size, 0.3) for size in (640, 320)),
        (borders[1], 320, 0.3),
    ]


def numbered_photo(width: int, height: int) -> Photo:
    """Every pixel tells its own position: red is x, green is y, blue is 255."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


@given(
    width=st.integers(16, 200),
    height=st.integers(16, 200),
    padding=st.sampled_from([0, 25, 50, 100]),
    rotation=st.sampled_from([0, 90, 180, 270]),
)
def test_positions_come_back_exactly(width: int, height: int, padding: int, rotation: int) -> None:
    view = view_of(numbered_photo(width, height), Attempt(640, padding, rotation))
    y, x = np.nonzero(view.picture[..., 2])  # all but the black border
    assert len(x) == width * height
    back = view.to_photo(np.stack([x, y], axis=-1).astype(np.float32))
    np.testing.assert_allclose(back, view.picture[y, x, :2], atol=1e-3)


def test_large_photos_are_made_smaller_before_a_border_is_added() -> None:
    view = view_of(np.zeros((4000, 8000, 3), np.uint8), Attempt(640, padding=100))
    assert view.picture.shape == (3 * 640, 3 * 1280, 3)
    assert view_of(np.zeros((2000, 3000, 3), np.uint8), Attempt(640)).picture.shape == (2000, 3000, 3)
    # The middle of the photo is the middle of the picture; the outer edge stays the outer edge.
    spots = np.array([[3 * 1280 / 2 - 0.5, 3 * 640 / 2 - 0.5], [1280 - 0.5, 640 - 0.5]], np.float32)
    np.testing.assert_allclose(view.to_photo(spots), [[3999.5, 1999.5], [-0.5, -0.5]], atol=0.01)
