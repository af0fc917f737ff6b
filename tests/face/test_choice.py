"""Which face is meant, how alike two are, and what is no photo."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.errors import BadIdentity, BadPhoto, NoFaceFound
from lib_faceid.face import photo as limits
from lib_faceid.face.choice import LARGEST, FaceChoice, by_number, choose, leftmost, most_similar
from lib_faceid.face.photo import check_photo
from lib_faceid.face.similarity import cosine, cosine_matrix
from lib_faceid.face.types import Attempt, Face, Found


def face(index: int, box: tuple[float, ...], vector: tuple[float, ...] = (1.0, 0.0)) -> Face:
    return Face(
        box=np.array(box, np.float32),
        points=np.zeros((5, 2), np.float32),
        score=0.9,
        vector=np.array(vector, np.float32),
        index=index,
    )


def found(*faces: Face) -> Found:
    attempt = Attempt(640)
    return Found(faces, (attempt,), attempt)


THREE = found(
    face(1, (50, 0, 90, 40), (3.0, 4.0)), face(2, (10, 5, 40, 35), (0.0, 2.0)), face(3, (10, 60, 30, 80), (-1.0, 0.0))
)


def test_faces_are_chosen_by_number_place_and_likeness() -> None:
    assert choose(THREE).index == 1
    assert [by_number(THREE, number).index for number in (1, 2, 3)] == [1, 2, 3]
    assert leftmost(THREE).index == 2  # as far left as number 3, and larger
    assert most_similar(THREE, np.array([0.1, 1.0], np.float32)).index == 2
    assert most_similar(THREE, np.array([-5.0, 0.0], np.float32)).index == 3


@pytest.mark.parametrize(
    ("choice", "index"),
    [
        (LARGEST, 1),
        (FaceChoice("leftmost"), 2),
        (FaceChoice("number", number=3), 3),
        (FaceChoice("like", vector=np.array([0.1, 1.0], np.float32)), 2),
    ],
)
def test_a_choice_is_carried_out(choice: FaceChoice, index: int) -> None:
    assert choose(THREE, choice).index == index


def test_a_choice_that_cannot_be_carried_out() -> None:
    with pytest.raises(NoFaceFound, match=r"^Face number 5 was asked for, and anna\.png has 3 faces; choose"):
        choose(THREE, FaceChoice("number", number=5), "anna.png")
    with pytest.raises(ValueError, match="needs a vector"):
        choose(THREE, FaceChoice("like"))
    with pytest.raises(ValueError, match="not looked for"):
        choose(THREE, FaceChoice("box", box=(0, 0, 50, 50)))


def test_choices_are_equal_when_they_mean_the_same() -> None:
    def like(*numbers: float) -> FaceChoice:
        return FaceChoice("like", vector=np.array(numbers, np.float32))

    assert like(1, 2) == like(1, 2) != like(1, 3)
    assert FaceChoice("number", number=2) == FaceChoice("number", number=2) != FaceChoice("number", number=3)
    assert FaceChoice("box", box=(0, 0, 9, 9)) != FaceChoice("box", box=(0, 0, 9, 8))
    assert FaceChoice() == LARGEST != "largest"
    assert len({like(1, 2), like(1, 2), LARGEST, FaceChoice()}) == 2


@pytest.mark.parametrize("number", [0, -1, 4])
def test_a_number_nobody_has_is_said_with_the_numbers_there_are(number: int) -> None:
    with pytest.raises(NoFaceFound, match=f"number {number} .* 3 faces; choose a number from 1 to 3"):
        by_number(THREE, number)


def test_a_number_too_high_where_there_is_one_face() -> None:
    with pytest.raises(NoFaceFound, match="the photo has 1 face; its number is 1"):
        by_number(found(face(1, (0, 0, 9, 9))), 2)


def test_area_and_normed_vector() -> None:
    assert THREE.faces[0].area == 1600.0
    np.testing.assert_allclose(THREE.faces[0].normed, [0.6, 0.8], atol=1e-7)
    assert THREE.faces[0].normed.dtype == np.float32
    assert face(1, (0, 0, 1, 1), (0.0, 0.0)).normed.tolist() == [0.0, 0.0]


def test_attempts_in_words() -> None:
    assert Attempt(640).words == "at 640 px"
    assert Attempt(320, padding=50).words == "at 320 px, with 50 % border"
    assert Attempt(0).words == "in the box drawn by hand"
    assert [Attempt(128).unusual, Attempt(128, 25, 90).unusual] == ["", "with 25 % border, turned by 90°"]
    assert Attempt(640, rotation=90).words == "at 640 px, turned by 90°"
    assert Attempt(320, padding=50, threshold=0.3).words == (
        "at 320 px, with 50 % border, with the score threshold lowered to 0.3"
    )


def test_cosine_by_hand() -> None:
    a, b = np.array([3.0, 4.0], np.float32), np.array([4.0, 3.0], np.float32)
    assert cosine(a, b) == pytest.approx(24 / 25)
    assert cosine(a, -a) == -1.0
    matrix = cosine_matrix(np.stack([a, b]), np.stack([a, b, -10 * a]))
    np.testing.assert_allclose(matrix, [[1, 0.96, -1], [0.96, 1, -0.96]], atol=1e-6)
    assert matrix.dtype == np.float32


def test_cosine_never_leaves_its_range() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 512)).astype(np.float32) * 1e3
    assert np.abs(cosine_matrix(rows, rows)).max() <= 1.0


@pytest.mark.parametrize(("a", "b"), [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [np.nan, 0.0]), ([1.0, 0.0], [1.0] * 3)])
def test_vectors_that_cannot_be_compared(a: list[float], b: list[float]) -> None:
    with pytest.raises(BadIdentity):
        cosine(np.array(a, np.float32), np.array(b, np.float32))


GOOD = np.zeros((20, 30, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "type NoneType"),
        ("photo.jpg", "type str"),
        (GOOD.astype(np.float32), "array of float32"),
        (GOOD.astype(np.int64), "array of int64"),
        (GOOD[..., 0], "a grey picture"),
        (np.zeros((20, 30, 4), np.uint8), "with transparency"),
        (GOOD[None], r"shape \(1, 20, 30, 3\)"),
        (np.zeros((3, 20, 30), np.uint8), r"shape \(3, 20, 30\)"),
        (np.zeros((0, 0, 3), np.uint8), "0x0 px"),
        (np.zeros((1, 5000, 3), np.uint8), "5000x1 px"),
        (np.zeros((15, 16, 3), np.uint8), "at least 16 px"),
        (np.zeros((16, 16 * 32 + 1, 3), np.uint8), "too narrow"),
        (np.broadcast_to(np.uint8(0), (8001, 8000, 3)), "64 megapixels"),
        (np.broadcast_to(np.uint8(0), (1001, 32_001, 3)), "32000 px a side"),
    ],
)
def test_what_is_no_photo_is_refused_in_a_sentence(image: object, words: str) -> None:
    with pytest.raises(BadPhoto, match=words) as caught:
        check_photo(image, "anna.png")
    assert str(caught.value).startswith("anna.png is ")


def test_limits_are_inclusive_and_any_memory_layout_is_taken() -> None:
    for shape in ((16, 16, 3), (16, 16 * limits.MAX_ASPECT, 3)):
        assert check_photo(np.zeros(shape, np.uint8)).shape == shape
    flipped = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)[::-1, :, ::-1]
    checked = check_photo(flipped)
    assert checked.flags.c_contiguous
    assert np.array_equal(checked, flipped)
