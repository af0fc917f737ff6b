"""How much each photo counts."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import lib_faceid
from lib_faceid.engine.extract import extract
from lib_faceid.engine.features import RawFeatures, check_features
from lib_faceid.errors import BadIdentity

from ..adapters import Made, make_adapter
from .world import BIG, THREE, photo


class TestWeights:
    """Sum of w·v over sum of w, of normed vectors and of CLIP features alike."""

    def features(self, made: Made, weights: object) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        raw = RawFeatures(**made.features(photos=3), weights=weights)
        return check_features(made.load(), raw).mean()

    @pytest.mark.parametrize("kind", ["faceid", "faceid-plusv2", "portrait-unnorm", "plus-face"])
    def test_the_mean_by_hand(self, tmp_path, kind):
        made, weights = make_adapter(tmp_path, kind), [1.0, 0.5, 2.5]
        given = made.features(photos=3)
        vectors, clip = self.features(made, weights)
        w = torch.tensor(weights, dtype=torch.float64)
        if vectors is not None:
            rows = torch.as_tensor(given["embeddings"]).double()
            rows = rows if kind == "portrait-unnorm" else rows / rows.norm(dim=1, keepdim=True)
            torch.testing.assert_close(
                vectors.double(), (rows * w[:, None]).sum(0, keepdim=True) / 4, rtol=1e-5, atol=1e-6
            )
        if clip is not None:
            rows = torch.as_tensor(given["clip_hidden"]).double()
            expected = sum(w[i] * rows[i] for i in range(3)) / 4
            torch.testing.assert_close(clip.double(), expected[None], rtol=1e-5, atol=1e-6)

    def test_only_how_they_compare_counts(self, tmp_path):
        made = make_adapter(tmp_path, "faceid-plusv2")
        for weights, same in (([1, 2, 4], [0.5, 1, 2]), ([3, 3, 3], None), ([1e308, 1e308, 0], [1, 1, 0])):
            for a, b in zip(self.features(made, weights), self.features(made, same), strict=True):
                assert torch.equal(a, b)

    def test_a_photo_of_weight_0_does_not_count(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        alone = {name: value[1:2] for name, value in made.features(photos=3).items()}
        expected = check_features(made.load(), RawFeatures(**alone)).mean()[0]
        torch.testing.assert_close(self.features(made, [0, 7, 0])[0], expected)

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            ([1, 2], "3 photos and 2 weights"),
            ([[1, 2, 3]], "3 photos and 1x3 weights"),
            (2.0, "3 photos and 1 weights"),
            ([1, -1, 1], "from 0 up, and not all of them 0; found 1, -1, 1"),
            ([0, 0, 0], "found 0, 0, 0"),
            ([1, float("nan"), 1], "found 1, nan, 1"),
            ([1, float("inf"), 1], "found 1, inf, 1"),
        ],
    )
    def test_weights_that_are_none(self, tmp_path, weights, words):
        with pytest.raises(BadIdentity, match=words):
            self.features(make_adapter(tmp_path, "faceid"), weights)

    def test_photos_bring_theirs(self, adapter, models):
        photos = [photo(BIG), photo(BIG, seed=5, weight=0.25), np.array(Image.open(io.BytesIO(THREE.data)))]
        raw = extract(adapter, photos, models).raw
        assert raw.weights == [1.0, 0.25, 1.0]
        assert extract(adapter, photos[::2], models).raw.weights is None
        person = lib_faceid.make_identity(adapter, **vars(raw))
        rows = raw.embeddings / np.linalg.norm(raw.embeddings, axis=1, keepdims=True)
        mean = (rows[0] + 0.25 * rows[1] + rows[2]) / 2.25
        with torch.no_grad():
            expected = adapter.projection()(torch.as_tensor(mean[None]))[0]
        torch.testing.assert_close(person.tokens, expected, rtol=1e-4, atol=1e-5)
