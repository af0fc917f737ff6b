"""Several photos and several faces: which is taken, and who is unlike the rest."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lib_faceid.engine.extract import Extracted, extract
from lib_faceid.engine.notes import Note
from lib_faceid.errors import BadRequest, NoFaceFound
from lib_faceid.face.choice import LARGEST, FaceChoice
from lib_faceid.face.types import BY_HAND, Attempt
from lib_faceid.library.photos import PhotoData

from ..adapters import make_adapter
from ..face_packs import scene
from .world import BIG, LEFT, SMALL, THREE, OnePack, photo


def box_of(extracted: Extracted, i: int = 0) -> list[int]:
    return np.round(extracted.chosen[i].box).astype(int).tolist()


class TestChoices:
    def test_each_photo_has_its_own(self, adapter, models):
        """The vectors the adapter is fed are of the faces chosen, in the order of the photos."""
        choices = [LARGEST, FaceChoice("leftmost"), FaceChoice("number", number=2), FaceChoice("box", box=BIG)]
        found = extract(adapter, [THREE] * 4, models, choices=choices, readers=OnePack(models))
        assert [box_of(found, i) for i in range(4)] == [list(box) for box in (BIG, LEFT, SMALL, BIG)]
        assert found.chosen == found.faces
        for row, face in zip(found.raw.embeddings, found.chosen, strict=True):
            assert np.array_equal(row, face.vector)
        assert [item.used for item in found.found] == [*[Attempt(640)] * 3, BY_HAND]
        assert [(note.photo, note.words) for note in found.notes if "shows" in note.words] == [
            (1, "shows 3 faces; the largest was taken."),
            (2, "shows 3 faces; number 3 was taken."),
            (3, "shows 3 faces; number 2 was taken."),
        ]

    def test_the_one_most_like_somebody(self, adapter, models):
        somebody = extract(adapter, [photo(LEFT)], models).chosen[0].vector
        found = extract(adapter, [THREE], models, choices=[FaceChoice("like", vector=somebody / 7)])
        assert box_of(found) == list(LEFT)

    def test_clip_sees_the_face_that_was_chosen(self, tmp_path, models):
        plus = make_adapter(tmp_path, "faceid-plusv2").load()
        taken = extract(plus, [THREE], models, choices=[FaceChoice("number", number=2)])
        boxed = extract(plus, [THREE], models, choices=[FaceChoice("box", box=SMALL)])
        assert torch.equal(taken.raw.clip_hidden, boxed.raw.clip_hidden)
        assert not torch.equal(taken.raw.clip_hidden, extract(plus, [THREE], models).raw.clip_hidden)

    def test_a_drawn_face_is_never_searched_for(self, adapter, models):
        plain = photo(name="drawn.png")
        with pytest.raises(NoFaceFound, match=r"^drawn\.png shows no face"):
            extract(adapter, [plain], models)
        found = extract(adapter, [plain], models, choices=[FaceChoice("box", box=(100, 100, 300, 300))])
        assert (box_of(found), found.notes) == ([100, 100, 300, 300], ())

    @pytest.mark.parametrize(
        ("choice", "kind", "words"),
        [
            (FaceChoice("number", number=4), NoFaceFound, "Face number 4 was asked for, and bob.png has 3 faces"),
            (FaceChoice("box", box=(700, 0, 900, 90)), BadRequest, "holds no face of bob.png, which is 640x640"),
        ],
    )
    def test_errors_name_the_photo(self, adapter, models, choice, kind, words):
        second = PhotoData(THREE.data, "bob.png")
        with pytest.raises(kind, match=words):
            extract(adapter, [THREE, second], models, choices=[LARGEST, choice])

    def test_one_choice_for_each_photo(self, adapter, models):
        with pytest.raises(BadRequest, match="There are 2 photos and 1 choices of a face"):
            extract(adapter, [THREE, THREE], models, choices=[LARGEST])

    def test_adapters_for_the_whole_picture_look_for_no_face(self, tmp_path, models):
        plus = make_adapter(tmp_path, "plus").load()
        found = extract(plus, [photo()], models, choices=[FaceChoice("number", number=9)])
        assert (found.found, found.chosen, found.likeness, found.notes) == ((), (), None, ())


class TestLikeness:
    def test_the_stranger_among_three_is_named(self, adapter, models):
        """The same face at two places, and another one."""
        same = scene(640, 640, 1)
        face = np.array(Image.open(io.BytesIO(THREE.data)))[320:560, 320:560]
        same[100:340, 60:300] = face
        data = io.BytesIO()
        Image.fromarray(same).save(data, format="PNG")
        photos = [photo(BIG), PhotoData(data.getvalue(), "elsewhere.png"), photo(BIG, seed=5)]
        found = extract(adapter, photos, models)
        assert found.likeness.shape == (3,)
        assert found.likeness.argmin() == 2
        assert found.likeness[2] < 0.2
        value = f"{round(float(found.likeness[2]), 2) + 0.0:.2f}"
        assert found.notes == (Note(3, f"looks like someone else: likeness {value} to the others."),)

    def test_one_photo_has_none(self, adapter, models):
        assert extract(adapter, [THREE], models).likeness is None

    def test_notes_come_in_the_order_of_the_photos(self, adapter, models):
        found = extract(
            adapter, [photo(BIG, SMALL), photo(BIG, SMALL, seed=5), photo((40, 40, 100, 100), seed=6)], models
        )
        assert [note.photo for note in found.notes] == sorted(note.photo for note in found.notes)
        assert {note.photo for note in found.notes} == {1, 2, 3}
