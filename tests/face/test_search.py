"""Faces are found where they are, numbered and measured."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.errors import BadPhoto, NoFaceFound
from lib_faceid.face.align import norm_crop
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.scrfd import keep_best
from lib_faceid.face.similarity import cosine
from lib_faceid.face.types import Attempt

from ..face_packs import FRACTIONS, Box, draw_marker, scene
from .finders import Scripted, detections
from .scenes import scene_with, step


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


def test_the_photo_is_not_changed(finder: FaceFinder) -> None:
    photo = scene_with((64, 64, 224, 224))
    before = photo.copy()
    finder.find(photo)
    assert np.array_equal(photo, before)


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
