"""The aligned crop: same framing and same pixels as insightface's, by other arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.errors import BadPhoto
from lib_faceid.face.align import TEMPLATE, estimate_similarity, norm_crop, target_points

from ..face_packs import scene


def points_at(x: float, y: float, side: float, degrees: float = 0.0) -> np.ndarray:
    """The template as a face whose crop is the square of ``side`` px at x, y, turned about its corner."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE / 112 * side @ turn.T + (x, y)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "nose_x", "nose_y"),
    [
        (112, 56.0252, 71.7366),
        (224, 112.0504, 143.4732),  # twice
        (256, 128.0504, 143.4732),  # as 224, and 16 px more on the left
        (512, 256.1008, 286.9464),  # as 448, and 32 px more on the left
        (128, 64.0252, 71.7366),
        (336, 168.0756, 215.2098),
    ],
)
def test_the_nose_lies_where_the_published_framing_has_it(size: int, nose_x: float, nose_y: float) -> None:
    np.testing.assert_allclose(target_points(size)[2], (nose_x, nose_y), atol=1e-9)


def test_896_counts_as_a_multiple_of_112_as_upstream() -> None:
    np.testing.assert_allclose(target_points(896), TEMPLATE * 8)


@pytest.mark.parametrize("size", [0, -112, 100, 113, 200])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"found {size}"):
        target_points(size)


def test_similarity_by_hand() -> None:
    # A quarter turn, twice as large, moved by (10, 20): (1, 0) → (10, 22), (0, 1) → (8, 20).
    source = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    target = np.array([[10, 20], [10, 22], [8, 20]], np.float32)
    np.testing.assert_allclose(estimate_similarity(source, target), [[0, -2, 10], [2, 0, 20]], atol=1e-12)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The published algorithm: singular values of the covariance, and a sign against mirror images."""
    a, b = source - source.mean(0), target - target.mean(0)
    left, values, right = np.linalg.svd(b.T @ a / len(a))
    signs = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / a.var(0).sum()
    return np.column_stack([scale * turn, target.mean(0) - scale * turn @ source.mean(0)])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mirrored", [False, True])
def test_similarity_equals_umeyama(seed: int, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(5, 2)) * 50
    source = (target + rng.normal(size=(5, 2)) * 5) * ((-1, 1) if mirrored else (1, 1))
    np.testing.assert_allclose(estimate_similarity(source, target), umeyama(source, target), atol=1e-10)


@pytest.mark.parametrize("value", [3.0, np.nan, np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_points_in_one_spot_are_refused(value: float) -> None:
    with pytest.raises(BadPhoto, match="cannot be aligned"):
        norm_crop(scene(64, 64), np.full((5, 2), value, np.float32))


def test_a_crop_at_its_own_scale_is_the_square_itself() -> None:
    photo = scene(300, 260)
    assert np.array_equal(norm_crop(photo, points_at(40, 70, 112)), photo[70:182, 40:152])


def test_colours_stay_in_their_channels() -> None:
    photo = np.zeros((200, 200, 3), np.uint8)
    photo[:] = (200, 100, 50)
    assert norm_crop(photo, points_at(20, 20, 112))[50, 50].tolist() == [200, 100, 50]


def test_outside_of_the_photo_is_black() -> None:
    photo = np.full((112, 112, 3), 255, np.uint8)
    crop = norm_crop(photo, points_at(-56, 0, 112))
    assert not crop[:, :56].any()
    assert (crop[:, 56:] == 255).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # scikit-image about the function insightface uses
@pytest.mark.parametrize("size", [112, 128, 224, 256, 336, 448, 512])
def test_crops_equal_insightface(size: int) -> None:
    face_align = pytest.importorskip("insightface.utils.face_align")
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(size)
    # Smooth, because OpenCV 4 rounds positions to 1/32 px, where a last digit of the matrix may decide.
    photo = cv2.GaussianBlur(rng.integers(0, 256, (320, 400, 3), np.uint8), (0, 0), 2)
    for degrees in (0, 17, -40, 90, 180):
        points = points_at(170, 150, 90, degrees) + rng.normal(size=(5, 2)).astype(np.float32) * 3
        matrix = estimate_similarity(points, target_points(size))
        np.testing.assert_allclose(matrix, face_align.estimate_norm(points, size), rtol=1e-5, atol=1e-3)
        theirs = face_align.norm_crop(photo, points, size)
        assert np.abs(norm_crop(photo, points, size).astype(int) - theirs.astype(int)).max() <= 1
