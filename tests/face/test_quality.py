"""What is measured about a face: its pixels, how sharp it is, how far it is turned; and the numbered crops."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.face.align import TEMPLATE, norm_crop
from lib_faceid.face.numbered import number_faces
from lib_faceid.face.opencv import load_cv2
from lib_faceid.face.pipeline import FaceFinder
from lib_faceid.face.quality import Quality, measure, sharpness, turn
from lib_faceid.face.types import BY_HAND, Attempt, Face, Found, Photo

from ..face_packs import scene
from .scenes import scene_with

GOOD = Quality(pixels=112, sharpness=0.06, turn=0.4)


def blurred(picture: Photo, times: int) -> Photo:
    """Made smaller and large again."""
    cv2 = load_cv2()
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // times, height // times), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height))


def face_in(box: tuple[float, ...]) -> Face:
    """A frontal face whose points lie where ArcFace has them in the box."""
    corners = np.array(box, np.float32)
    points = corners[:2] + TEMPLATE / 112 * (corners[2:] - corners[:2])
    return Face(corners, points.astype(np.float32), 0.9, np.ones(512, np.float32), 1)


def test_sharpness_by_hand() -> None:
    """Stripes two pixels wide of brightness 0 and 200: variance 10000; each Laplacian is ±200, variance 40000."""
    stripes = np.zeros((112, 112, 3), np.uint8)
    stripes[:, 2::4] = stripes[:, 3::4] = 200
    assert sharpness(stripes) == pytest.approx(4.0, rel=0.05)
    assert sharpness(stripes // 4) == pytest.approx(4.0, rel=0.05)  # a dark photo is as sharp
    assert sharpness(np.full((112, 112, 3), 77, np.uint8)) == 1.0


def test_only_what_is_inside_the_face_counts() -> None:
    crop = np.full((112, 112, 3), 100, np.uint8)
    crop[:30] = crop[106:] = 0
    crop[:, :20] = crop[:, 92:] = 255
    assert sharpness(crop) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_a_blur_of_four_is_told_and_a_sharp_face_is_not(seed: int) -> None:
    photo, face = scene(640, 640, seed), face_in((200, 160, 360, 320))
    assert not measure(photo, face).is_blurred
    crop = norm_crop(photo, face.points)
    assert sharpness(crop) > 0.4
    assert sharpness(blurred(crop, 4)) < 0.06
    assert measure(blurred(photo, 8), face).is_blurred


def test_the_face_of_a_real_photo() -> None:
    photo = pytest.importorskip("skimage.data").astronaut()
    points = np.array([[200, 112], [240, 110], [219, 132], [206, 155], [240, 153]], np.float32)
    face = Face(np.array([160, 60, 285, 190], np.float32), points, 0.9, np.ones(512, np.float32), 1)
    sharp = measure(photo, face)
    assert sharp.sharpness == pytest.approx(0.51, abs=0.02)
    assert not (sharp.is_small or sharp.is_blurred or sharp.is_from_the_side)
    assert not measure(blurred(photo, 2), face).is_blurred
    assert measure(blurred(photo, 4), face).sharpness == pytest.approx(0.033, abs=0.005)
    assert measure(blurred(photo, 4), face).is_blurred


def test_pixels_are_those_of_the_shorter_side() -> None:
    photo = scene(640, 640)
    assert measure(photo, face_in((10, 20, 121.4, 320))).pixels == 111
    assert measure(photo, face_in((10, 20, 310, 54))).pixels == 34


def test_the_limits_are_on_the_good_side() -> None:
    assert not (GOOD.is_small or GOOD.is_blurred or GOOD.is_from_the_side)
    assert Quality(111, 0.5, 0.0).is_small
    assert Quality(112, 0.059, 0.0).is_blurred
    assert not Quality(111, 0.01, 0.0).is_blurred  # few pixels say it already
    assert Quality(112, 0.5, -0.41).is_from_the_side
    assert Quality(112, 0.5, 0.41).is_from_the_side


@pytest.mark.parametrize("degrees", [-60, -43, -30, 0, 30, 43, 60])
@pytest.mark.parametrize("lying", [0, 90, 180])
def test_the_turn_of_a_head_that_is_projected(degrees: int, lying: int) -> None:
    """Pupils 315 apart, the nose 135 before them, turned about the vertical axis and seen from the front."""
    angle, across = np.radians(degrees), np.exp(1j * np.radians(lying))
    spots = [
        x * np.cos(angle) + z * np.sin(angle) + 1j * y for x, y, z in ((-157.5, 0, 0), (157.5, 0, 0), (0, 170, 135))
    ]
    points = np.array([[(spot * across).real, (spot * across).imag] for spot in spots])
    assert turn(points) == pytest.approx(135 / 315 * np.tan(angle), abs=1e-6)
    assert Quality(200, 0.5, turn(points)).is_from_the_side == (abs(degrees) > 43)


def test_both_eyes_in_one_place_are_a_profile() -> None:
    assert Quality(200, 0.5, turn(np.array([[5.0, 5.0], [5.0, 5.0], [9.0, 9.0]]))).is_from_the_side
    assert abs(turn(TEMPLATE)) < 0.005


@pytest.mark.parametrize("size", [112, 224])
def test_every_face_with_its_number_and_crop(finder: FaceFinder, size: int) -> None:
    boxes = [(320, 320, 544, 544), (16, 16, 128, 128)]
    photo = scene_with(*boxes)
    faces = number_faces(photo, finder.find(photo), size)
    assert [face.number for face in faces] == [1, 2]
    for face, (x0, y0, x1, y1) in zip(faces, boxes, strict=True):
        assert face.box == pytest.approx((x0, y0, x1, y1), abs=0.01)
        assert face.how == "at 640 px"
        assert face.crop.shape == (size, size, 3)
        assert 0.5 < face.score <= 0.8
        np.testing.assert_allclose(face.points, face.box[:2] + TEMPLATE * ((x1 - x0) / 112), atol=0.1)
        if x1 - x0 == size:
            assert np.abs(face.crop.astype(int) - photo[y0:y1, x0:x1]).max() <= 1


def test_crops_say_how_their_faces_were_found() -> None:
    photo, face = scene(64, 64), face_in((0, 0, 32, 32))
    turned = Attempt(320, rotation=90)
    assert number_faces(photo, Found((face,), (turned,), turned))[0].how == "at 320 px, turned by 90°"
    assert number_faces(photo, Found((face,), (BY_HAND,), BY_HAND))[0].how == "in the box drawn by hand"
