"""What is said about the photos of a person, and only when it matters."""

from __future__ import annotations

import numpy as np
import pytest

from lib_faceid.engine.notes import Note, likeness_to_others, odd_ones, photo_notes
from lib_faceid.face.types import BY_HAND, Attempt, Face, Found, Photo

from ..face_packs import FRACTIONS, scene

PHOTO = scene(640, 640)
BOX = (200.0, 160.0, 360.0, 320.0)
USUAL = Attempt(640)
SIDEWAYS = np.array([0.0, 0.0, 0.2, 0.0, 0.0])  # of the box: the nose, beyond 0.4 of the distance between the eyes


def face(index: int = 1, box: tuple[float, ...] = BOX, shift: np.ndarray | None = None) -> Face:
    corners = np.array(box, np.float32)
    points = corners[:2] + FRACTIONS * (corners[2:] - corners[:2])
    if shift is not None:
        points[:, 0] += shift * (corners[2] - corners[0])
    return Face(corners, points.astype(np.float32), 0.9, np.ones(512, np.float32), index)


def words(photo: Photo, *faces: Face, taken: int = 0, used: Attempt = USUAL) -> list[str]:
    return [note.words for note in photo_notes(1, photo, Found(faces, (used,), used), faces[taken])]


def smooth() -> Photo:
    y, x = np.mgrid[:640, :640] / 640
    return np.stack([x * 255, y * 255, x * 0], axis=-1).astype(np.uint8)


def test_a_good_photo_is_passed_over_in_silence() -> None:
    for attempt in (Attempt(640), Attempt(128), BY_HAND):
        assert words(PHOTO, face(), used=attempt) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words(PHOTO, face(1), face(2)), ["shows 2 faces; the largest was taken."]),
        (words(PHOTO, face(1), face(2), face(3), taken=1), ["shows 3 faces; number 2 was taken."]),
        (words(PHOTO, face(), used=Attempt(640, rotation=90)), ["was found turned by 90°."]),
        (
            words(PHOTO, face(), used=Attempt(320, 50, 180, 0.3)),
            ["was found with 50 % border, turned by 180°, with the score threshold lowered to 0.3."],
        ),
        (
            words(PHOTO, face(box=(10, 10, 44, 60))),
            ["has a face of only 34 px; 112 px or more give a better likeness."],
        ),
        (words(smooth(), face()), ["is blurred."]),
        (words(PHOTO, face(shift=SIDEWAYS)), ["shows the face from the side."]),
        (words(PHOTO, face(shift=SIDEWAYS), used=BY_HAND), []),
        (
            words(smooth(), face(1, shift=-SIDEWAYS), face(2), used=Attempt(320, 25)),
            [
                "shows 2 faces; the largest was taken.",
                "was found with 25 % border.",
                "is blurred.",
                "shows the face from the side.",
            ],
        ),
    ],
)
def test_each_thing_in_its_words(said: list[str], expected: list[str]) -> None:
    assert said == expected


def test_notes_carry_the_number_of_their_photo() -> None:
    found = Found((face(1), face(2)), (Attempt(640),), Attempt(640))
    assert photo_notes(7, PHOTO, found, found.faces[0]) == [Note(7, "shows 2 faces; the largest was taken.")]


def people(*directions: tuple[float, ...], length: float = 20.0) -> list[Face]:
    """Faces whose vectors point that way, of any length."""
    faces: list[Face] = []
    for direction in directions:
        vector = np.zeros(512, np.float32)
        vector[: len(direction)] = np.array(direction) / np.linalg.norm(direction) * length
        faces.append(Face(face().box, face().points, 0.9, vector, 1))
    return faces


def at(*degrees: float) -> list[Face]:
    """Faces in one plane, by the angle of their vectors."""
    return people(*((float(np.cos(np.radians(d))), float(np.sin(np.radians(d)))) for d in degrees))


class TestLikeness:
    def test_by_hand(self) -> None:
        """e1, e1 and e2: the mean of e1 and e2 lies between them, at 45°; e1 and e1 are at 90° of e2."""
        likeness = likeness_to_others(people((1, 0), (1, 0), (0, 1)))
        np.testing.assert_allclose(likeness, [2**-0.5, 2**-0.5, 0], atol=1e-6)
        assert likeness.dtype == np.float32

    def test_vectors_count_by_direction_only(self) -> None:
        long, short = people((1, 0), length=30), people((1, 1), (0, 1), length=0.1)
        np.testing.assert_allclose(
            likeness_to_others([*long, *short]), likeness_to_others(people((1, 0), (1, 1), (0, 1))), atol=1e-6
        )

    def test_two_photos_are_as_alike_as_their_vectors(self) -> None:
        np.testing.assert_allclose(likeness_to_others(at(0, 60)), [0.5, 0.5], atol=1e-6)

    def test_one_photo_has_nobody_to_be_like(self) -> None:
        assert likeness_to_others(at(0)) is None
        assert likeness_to_others([]) is None

    def test_vectors_without_direction_are_like_nobody(self) -> None:
        nothing = Face(face().box, face().points, 0.9, np.zeros(512, np.float32), 1)
        np.testing.assert_array_equal(likeness_to_others([*at(0), nothing]), [0, 0])
        np.testing.assert_allclose(likeness_to_others(at(0, 180, 0))[0], 0, atol=1e-6)  # the others cancel out


class TestOddOnes:
    @pytest.mark.parametrize("faces", [[], at(0), at(0, 70), at(0, 20, 40), at(0, 0, 0, 0)])
    def test_one_person_is_passed_over_in_silence(self, faces: list[Face]) -> None:
        assert odd_ones(faces) == []

    def test_of_two_photos_the_pair_is_told(self) -> None:
        assert odd_ones(at(0, 80)) == [Note(2, "looks like someone else than photo 1: likeness 0.17.")]
        assert odd_ones(at(0, 75)) == [Note(2, "may be someone else than photo 1: likeness 0.26.")]

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_of_three_the_one_that_is_unlike_the_rest(self, place: int) -> None:
        degrees = [0.0, 10.0]
        degrees.insert(place, 90.0)  # 85° from the middle of the two
        assert odd_ones(at(*degrees)) == [Note(place + 1, "looks like someone else: likeness 0.09 to the others.")]

    def test_the_limits_are_those_of_the_demo(self) -> None:
        def said(cosine: float) -> list[str]:
            return [note.words for note in odd_ones(at(0, 0, float(np.degrees(np.arccos(cosine)))))]

        assert said(0.285) == []
        assert said(0.275) == ["may be someone else: likeness 0.28 to the others."]
        assert said(0.205) == ["may be someone else: likeness 0.20 to the others."]
        assert said(0.195) == ["looks like someone else: likeness 0.20 to the others."]
        assert said(-0.001) == ["looks like someone else: likeness 0.00 to the others."]

    def test_a_stranger_does_not_make_the_others_strange(self) -> None:
        """The two at 0° and 60° are each at less than 0.28 from the rest as long as the stranger is part of it."""
        faces = people((1, 0, 0), (0.5, 0.75**0.5, 0), (-0.6, -0.6, 0.5))
        assert likeness_to_others(faces)[0] < 0.28
        assert [note.photo for note in odd_ones(faces)] == [3]

    def test_every_stranger_is_named_in_the_order_of_the_photos(self) -> None:
        faces = people((0, 1, 0), (1, 0, 0), (1, 0.1, 0), (0, 0, 1), (1, 0, 0.1))
        assert [note.photo for note in odd_ones(faces)] == [1, 4]
        three_strangers = people((1, 0, 0), (0, 1, 0), (0, 0, 1))
        assert [note.photo for note in odd_ones(three_strangers)] == [1, 3]
        assert odd_ones(three_strangers)[1].words.startswith("looks like someone else than photo 2")
