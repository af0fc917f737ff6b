"""Faces are found where they are, on every rung of the ladder, and the rung is reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_faceid.errors import BadPhoto, NoFaceFound
from lib_faceid.face.align import norm_crop
from lib_faceid.face.backend import load_backend
from lib_faceid.face.ladder import LADDER, SIZES, view_of
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.scrfd import keep_best
from lib_faceid.face.similarity import cosine
from lib_faceid.face.types import Attempt, Detections, Floats, Photo

from .face_packs import CELL, FRACTIONS, Box, Habits, draw_bar, draw_marker, make_pack, scene


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packs")


@pytest.fixture(scope="module")
def finder(packs: Path) -> FaceFinder:
    return FaceFinder(load_backend(make_pack(packs / "usual"), "builtin"))


def finder_with(folder: Path, habits: Habits) -> FaceFinder:
    return FaceFinder(load_backend(make_pack(folder, habits), "builtin"))


def scene_with(*boxes: Box, width: int = 640, height: int = 640) -> Photo:
    photo = scene(width, height, seed=width + height)
    for box in boxes:
        draw_marker(photo, box)
    return photo


def step(photo: Photo, size: int = 640) -> float:
    """What one cell of the detector measures in the photo: its boxes cannot be finer."""
    return CELL * max(photo.shape[:2]) / size


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (640, 640, (64, 80, 224, 240)),
        (640, 640, (0, 0, 64, 64)),
        (640, 640, (320, 400, 640, 640)),
        (640, 640, (16, 16, 32, 32)),  # the smallest: two cells
        (640, 640, (24, 40, 88, 136)),  # taller than wide
        (1280, 960, (160, 96, 800, 896)),
        (800, 1200, (300, 333, 517, 601)),  # on no grid
        (333, 222, (50, 60, 151, 171)),
        (100, 100, (20, 20, 80, 80)),
    ],
)
def test_a_face_is_found_where_it_is(finder: FaceFinder, width: int, height: int, box: Box) -> None:
    photo = scene_with(box, width=width, height=height)
    found = finder.find(photo)
    assert [attempt.words for attempt in found.tried] == ["at 640 px"]
    (face,) = found.faces
    tolerance = 0.01 if max(photo.shape) == 640 and not any(side % 8 for side in box) else step(photo)
    np.testing.assert_allclose(face.box, box, atol=tolerance)
    corner, side = face.box[:2], face.box[2:] - face.box[:2]
    np.testing.assert_allclose(face.points, corner + FRACTIONS * side, atol=0.01 * step(photo))
    assert (face.box.dtype, face.points.dtype, face.vector.dtype) == (np.float32,) * 3
    assert (face.vector.shape, face.index) == ((512,), 1)
    assert 0.5 < face.score <= 0.8


def test_the_crop_of_a_square_face_is_its_box(finder: FaceFinder) -> None:
    photo = scene_with((80, 160, 304, 384))
    crop = norm_crop(photo, finder.find(photo).faces[0].points, 224)
    assert np.abs(crop.astype(int) - photo[160:384, 80:304]).max() <= 1


def test_faces_are_numbered_from_the_largest(finder: FaceFinder) -> None:
    photo = scene_with((16, 16, 80, 80), (320, 320, 576, 576), (200, 40, 328, 168))
    faces = finder.find(photo).faces
    assert [face.index for face in faces] == [1, 2, 3]
    assert [face.box[0] for face in faces] == [320, 200, 16]
    assert faces[0].area > faces[1].area > faces[2].area


def test_of_faces_of_one_size_the_surer_comes_first_then_the_left_one(finder: FaceFinder) -> None:
    photo = scene(640, 640)
    for box, score in (((400, 40, 528, 168), 0.7), ((40, 400, 168, 528), 0.7), ((240, 240, 368, 368), 0.9)):
        draw_marker(photo, box, score)
    assert [int(face.box[0]) for face in finder.find(photo).faces] == [240, 40, 400]


def test_the_vector_is_of_what_is_inside(finder: FaceFinder) -> None:
    here, there, other = scene_with((64, 64, 224, 224)), scene(640, 640, seed=9), scene(640, 640, seed=8)
    there[320:480, 400:560] = here[64:224, 64:224]  # the same face at another place
    draw_marker(other, (64, 64, 224, 224))
    a, b, c = (finder.find(photo).faces[0].vector for photo in (here, there, other))
    assert cosine(a, b) > 0.99
    assert cosine(a, c) < 0.5
    assert 15 < np.linalg.norm(a) < 30


def test_a_real_photo_with_a_frame_around_the_face(finder: FaceFinder) -> None:
    data = pytest.importorskip("skimage.data")
    photo = data.astronaut()
    with pytest.raises(NoFaceFound):
        finder.find(photo)
    draw_marker(photo, (160, 48, 288, 192), edge=0.1)
    (face,) = finder.find(photo).faces
    np.testing.assert_allclose(face.box, (160, 48, 288, 192), atol=step(photo))


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


def test_the_photo_is_not_changed(finder: FaceFinder) -> None:
    photo = scene_with((64, 64, 224, 224))
    before = photo.copy()
    finder.find(photo)
    assert np.array_equal(photo, before)


@dataclass
class Scripted:
    """A backend that answers the nth question with the nth detections, and notes what it was asked."""

    answers: dict[int, Detections] = field(default_factory=dict)
    asked: list[tuple[tuple[int, ...], int, float]] = field(default_factory=list)
    closed: int = 0
    name: str = "scripted"
    note: str = ""
    providers: tuple[str, ...] = ()

    def detect(self, image_rgb: Photo, size: int, threshold: float) -> Detections:
        self.asked.append((image_rgb.shape, size, threshold))
        return self.answers.get(len(self.asked), detections())

    def embed(self, image_rgb: Photo, points: Floats) -> Floats:
        return np.full(512, image_rgb.shape[0], np.float32)

    def close(self) -> None:
        self.closed += 1


def detections(*boxes: tuple[float, ...]) -> Detections:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    points = corners[:, None, :2] + FRACTIONS.astype(np.float32) * (corners[:, None, 2:] - corners[:, None, :2])
    return Detections(corners, points.astype(np.float32), np.full(len(boxes), 0.9, np.float32))


def test_the_ladder_is_climbed_in_the_published_order() -> None:
    backend = Scripted()
    with pytest.raises(NoFaceFound):
        FaceFinder(backend).find(scene(400, 200))
    plain, tall = (200, 400, 3), (400, 200, 3)
    borders = [(200 + 2 * y, 400 + 2 * x, 3) for x, y in ((100, 50), (200, 100), (400, 200))]
    assert backend.asked == [
        *((plain, size, 0.5) for size in (640, 512, 384, 256, 192, 128)),
        *((shape, size, 0.5) for shape in borders for size in (640, 320)),
        *((shape, size, 0.5) for shape in (tall, plain, tall) for size in (640, 320)),
        *((plain, size, 0.3) for size in (640, 320)),
        (borders[1], 320, 0.3),
    ]


def test_vectors_are_taken_from_the_photo_itself() -> None:
    backend = Scripted({7: detections((150, 60, 350, 160))})  # with a border of 25 %: 100 px left, 50 px above
    (face,) = FaceFinder(backend).find(scene(400, 200)).faces
    assert face.vector[0] == 200
    assert face.box.tolist() == [50, 10, 250, 110]


@pytest.mark.parametrize("box", [(10, 10, 10, 50), (50, 10, 10, 50), (np.nan, 0, 9, 9), (0, 0, np.inf, 9)])
def test_boxes_that_are_none_do_not_count(box: tuple[float, ...]) -> None:
    backend = Scripted({1: detections(box), 2: detections((1, 2, 33, 44))})
    found = FaceFinder(backend).find(scene(64, 64))
    assert found.used == Attempt(512)
    assert found.faces[0].box.tolist() == [1, 2, 33, 44]


def test_a_box_without_end_does_not_count_though_its_points_are_good() -> None:
    endless = detections((1, 2, 33, 44))
    endless.boxes[0, 2] = np.inf
    assert FaceFinder(Scripted({1: endless, 3: detections((1, 2, 33, 44))})).find(scene(64, 64)).used == Attempt(384)


def test_overlaps_are_measured_with_whole_pixels() -> None:
    # 10 px each, 5 shared of 15 in the union: 0.33. Counted from middle to middle it would be 4 of 14.
    def kept(*boxes: tuple[float, ...]) -> list[int]:
        return keep_best(detections(*boxes)).tolist()

    assert kept((0, 0, 9, 9), (5, 0, 14, 9)) == [0, 1]
    assert kept((0, 0, 9, 9), (4, 0, 13, 9)) == [0]  # 6 of 14: 0.43; from middle to middle 5 of 13: 0.38
    assert kept((0, 0, 19, 19), (9, 0, 28, 19)) == [0, 1]  # 11 of 29: 0.38
    assert kept((0, 0, 9, 9), (4, 0, 13, 9), (8, 0, 17, 9)) == [0, 2]  # what is dropped drops nothing
    assert kept() == []


def test_a_photo_is_checked_before_the_backend_sees_it() -> None:
    backend = Scripted()
    with pytest.raises(BadPhoto):
        FaceFinder(backend).find(np.zeros((64, 64), np.uint8))
    assert backend.asked == []


def test_close_is_passed_on() -> None:
    backend = Scripted()
    FaceFinder(backend).close()
    assert backend.closed == 1


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
