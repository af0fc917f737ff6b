"""A face somebody drew a box around: no detector, a vector of what is in the box."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.errors import BadPhoto, BadRequest
from lib_faceid.face.align import norm_crop
from lib_faceid.face.choice import FaceChoice, choose
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.similarity import cosine
from lib_faceid.face.types import BY_HAND, Box

from ..face_packs import scene
from .finders import Scripted
from .scenes import scene_with


def test_the_crop_is_the_box(finder: FaceFinder) -> None:
    photo = scene(640, 480)
    face = finder.in_box(photo, (80, 160, 304, 384))
    assert np.abs(norm_crop(photo, face.points, 224).astype(int) - photo[160:384, 80:304]).max() <= 1
    assert (face.box.tolist(), face.score, face.index) == ([80, 160, 304, 384], 0.0, 1)
    assert (face.box.dtype, face.points.dtype, face.vector.dtype) == (np.float32,) * 3
    assert (face.points.shape, face.vector.shape) == ((5, 2), (512,))


@pytest.mark.parametrize("box", [(136, 160, 248, 384), (80, 216, 304, 328)])
def test_a_box_that_is_no_square_is_widened_about_its_middle(finder: FaceFinder, box: Box) -> None:
    photo = scene(640, 480)
    face = finder.in_box(photo, box)
    assert np.abs(norm_crop(photo, face.points, 224).astype(int) - photo[160:384, 80:304]).max() <= 1
    assert face.box.tolist() == list(box)


def test_the_same_face_gives_the_same_vector_as_the_detector(finder: FaceFinder) -> None:
    photo = scene_with((64, 64, 224, 224))
    np.testing.assert_array_equal(finder.in_box(photo, (64, 64, 224, 224)).vector, finder.find(photo).faces[0].vector)
    assert cosine(finder.in_box(photo, (300, 300, 460, 460)).vector, finder.find(photo).faces[0].vector) < 0.5


def test_no_detector_is_asked_and_the_box_is_what_is_chosen() -> None:
    backend = Scripted()
    choice = FaceChoice("box", box=(10, 10, 42, 42))
    found = FaceFinder(backend).look(scene(64, 64), choice)
    assert backend.asked == []
    assert (found.used, found.tried) == (BY_HAND, (BY_HAND,))
    assert choose(found, choice) is found.faces[0]


def test_part_of_the_box_may_be_outside(finder: FaceFinder) -> None:
    photo = scene(640, 480)
    face = finder.in_box(photo, (-50, -50, 174, 174))
    crop = norm_crop(photo, face.points, 224)
    assert np.abs(crop[50:, 50:].astype(int) - photo[:174, :174]).max() <= 1
    assert not crop[:49, :49].any()


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 90),
        (90, 10, 10, 90),
        (10, 10, 90, 25.9),
        (640, 0, 740, 90),
        (0, 480, 90, 570),
        (-90, 0, 15, 90),
        (np.nan, 0, 90, 90),
        (0, 0, 90, np.inf),
        (-1300, -1300, 1300, 1300),
        (-1e200, -1e200, 1e200, 1e200),
    ],
)
def test_a_box_that_holds_nothing_is_refused_in_a_sentence(finder: FaceFinder, box: Box) -> None:
    with pytest.raises(BadRequest, match=r"holds no face of anna\.png, which is 640x480 px\. Give x0,y0,x1,y1"):
        finder.in_box(scene(640, 480), box, "anna.png")


def test_the_photo_is_checked_first(finder: FaceFinder) -> None:
    with pytest.raises(BadPhoto, match=r"anna\.png is"):
        finder.in_box(np.zeros((8, 8, 3), np.uint8), (0, 0, 8, 8), "anna.png")
    with pytest.raises(ValueError, match="needs a box"):
        finder.look(scene(64, 64), FaceChoice("box"))
