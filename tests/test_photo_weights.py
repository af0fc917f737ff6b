"""How much each of several photos counts: in a mean, and side by side."""

from __future__ import annotations

import pytest
import torch

from lib_faceid.engine import prepare
from lib_faceid.engine.extract import Extracted
from lib_faceid.engine.features import RawFeatures
from lib_faceid.engine.prepare import make_identity
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import BadIdentity, BadRequest

from .adapters import make_adapter
from .models_folder import photo

VECTORS = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))


def person(tmp_path, kind="faceid", **kwargs):
    return make_identity(make_adapter(tmp_path, kind).load(), embeddings=VECTORS, **kwargs)


def test_three_to_one_in_a_mean(tmp_path):
    made = make_adapter(tmp_path, "faceid")
    normed = VECTORS / VECTORS.norm(dim=1, keepdim=True)
    with torch.no_grad():
        expected = made.load().projection()((0.75 * normed[0] + 0.25 * normed[1])[None])[0]
    for weights in ([3, 1], [0.3, 0.1], torch.tensor([6.0, 2.0])):
        torch.testing.assert_close(person(tmp_path, weights=weights).tokens, expected, atol=1e-5, rtol=1e-4)


def test_equal_weights_are_none(tmp_path):
    assert torch.equal(person(tmp_path, weights=[2, 2]).tokens, person(tmp_path).tokens)


def test_a_weight_of_zero_leaves_a_photo_out(tmp_path):
    alone = make_identity(make_adapter(tmp_path, "faceid").load(), embeddings=VECTORS[1:])
    torch.testing.assert_close(person(tmp_path, weights=[0, 5]).tokens, alone.tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "combine", "tokens"), [("portrait", None, 16), ("faceid", "concat", 4)])
def test_side_by_side_the_values_of_each_photo_have_its_share(tmp_path, kind, combine, tokens):
    """3 to 1 is 1.5 to 0.5 on average 1; keys, and so the attention, are as without weights."""
    plain, weighed = (person(tmp_path, kind, combine=combine, weights=weights) for weights in (None, [3, 1]))
    for n, one in plain.kv.items():
        assert torch.equal(weighed.kv[n].k, one.k)
        torch.testing.assert_close(weighed.kv[n].v[:, :tokens], one.v[:, :tokens] * 1.5)
        torch.testing.assert_close(weighed.kv[n].v[:, tokens:], one.v[:, tokens:] * 0.5)


def test_an_adapter_that_looks_at_all_photos_at_once(tmp_path):
    with pytest.raises(BadIdentity, match="a photo cannot have a weight of its own"):
        person(tmp_path, "portrait-unnorm", weights=[3, 1])


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [-1, 1], [0, 0], [float("nan"), 1]])
def test_weights_that_make_no_sense(tmp_path, weights):
    with pytest.raises(BadIdentity, match="weights"):
        person(tmp_path, weights=weights)


def test_photos_with_a_weight_and_a_face_of_their_own_in_a_request():
    unit = read_unit({"images": [photo(), {"image": photo(), "weight": 2, "face": 3}, {"image": photo()}]})
    assert [(one.weight, one.face, one.label) for one in unit.images] == [
        (1.0, "", "Photo 1"), (2.0, "3", "Photo 2"), (1.0, "", "Photo 3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"weight": 1}, "expected pictures as base64, alone or as"),
        ({"image": "AAAA", "wieght": 1}, "expected pictures as base64, alone or as"),
        ({"image": "AAAA", "weight": -1}, "The weight of Photo 1"),
        ({"image": "AAAA", "face": "biggest"}, "The face in Photo 1"),
        ({"image": 5}, "pictures as base64"),
    ],
)
def test_what_is_no_description_of_a_photo(given, sentence):
    with pytest.raises(BadRequest, match=sentence):
        read_unit({"images": [given]})


def test_weights_of_photos_reach_an_identity_made_from_them(tmp_path, monkeypatch):
    """Those of the photos count unless the call names others."""
    raw = RawFeatures(embeddings=VECTORS, weights=[3, 1])
    monkeypatch.setattr(prepare, "extract", lambda *_: Extracted((), raw))
    for given, expected in ((None, [3, 1]), ([1, 3], [1, 3])):
        made = make_identity(make_adapter(tmp_path, "faceid").load(), images=["a.jpg", "b.jpg"], weights=given)
        assert torch.equal(made.tokens, person(tmp_path, weights=expected).tokens)


def test_a_photo_that_makes_a_person_of_its_own_has_no_weight():
    unit = read_unit({"images": [{"image": photo(), "weight": 0, "face": 2}, photo()], "seed_mode": "cycle"})
    assert [(part.images[0].weight, part.images[0].face) for part in unit.by_photo()] == [(1.0, "2"), (1.0, "")]
