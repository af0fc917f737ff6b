"""Another checkpoint from some step on: the face goes along, or it is told that it does not."""

from __future__ import annotations

import pytest
from torch import nn

from lib_faceid.core.patch import live_patches

from ..models_folder import sd15_checkpoint
from ..unets import assert_same_state, ldm_unet, state
from . import fake_sampling
from .checks import ANNA_THROUGHOUT, acted, at, bare, drawn_with, fail
from .fake_webui import sent


class TestRefiner:
    def run(self, host, unet, **unit):
        """A job of four steps with another UNet from the third on."""
        return host.run(*sent({**ANNA_THROUGHOUT, **unit}), steps=4, refiner=(2, lambda: host.load(unet, "refiner v2")))

    def assert_acted(self, host, anna, expected):
        assert acted(host) == expected
        for call, does in zip(host.calls, expected, strict=True):
            due = drawn_with(call, anna) if does else bare(call)
            assert (call.output - due).abs().max() <= 1e-5

    def test_the_same_unet(self, host, anna):
        before, unet = state(host.unet), host.unet
        job = self.run(host, unet)
        self.assert_acted(host, anna, [True] * 4)
        assert_same_state(before, state(unet))
        assert (job.comments, live_patches(), host.reported) == ([], [], [])

    def test_another_unet_of_the_base(self, host, anna):
        first, other = host.unet, sd15_checkpoint(seed=1)
        before = state(first), state(other)
        seen = []
        host.during = at(3, lambda: seen.append(state(first)))
        job = self.run(host, other)
        assert [call.unet for call in host.calls] == [first, first, other, other]
        self.assert_acted(host, anna, [True] * 4)
        assert_same_state(before[0], seen[0])  # nothing of ours stays on the first one while the other is at work
        assert_same_state(before[0], state(first))
        assert_same_state(before[1], state(other))
        assert (job.comments, live_patches(), host.reported) == ([], [], [])

    def test_a_unet_that_is_not_supported(self, host, anna):
        """The picture is half made: what there is of it stays, and the person is told."""
        first = host.unet
        before = state(first)
        other = ldm_unet()
        other.forward = lambda x, timesteps, context: x * 0.5
        job = self.run(host, other)
        self.assert_acted(host, anna, [True, True, False, False])
        assert_same_state(before, state(first))
        told = r"From step 3 of 4 on (refiner v2) the picture was made without the face: "
        assert told in job.texts[0]["FaceID note"]
        assert (live_patches(), host.reported) == ([], [])

    def test_a_checkpoint_without_a_unet(self, host, anna):
        class Transformer(nn.Module):
            def forward(self, x, sigma, context, rows, step):
                return x * 0.5

        def load():
            host.load(None, "sd3")
            host.monkeypatch.setattr(fake_sampling.InnerModel, "forward", Transformer.forward)

        job = host.run(*sent(ANNA_THROUGHOUT), steps=4, refiner=(2, load))
        assert "From step 3 of 4 on (sd3) the picture was made without the face" in job.texts[0]["FaceID note"]
        assert len(job.comments) == 1
        assert (live_patches(), host.reported) == ([], [])

    def test_a_remark_on_one_batch_is_not_in_the_next(self, host):
        def load():
            other = ldm_unet()
            other.forward = lambda x, timesteps, context: x * 0.5
            if host.passes == 0:
                host.load(other)

        job = host.run(*sent(ANNA_THROUGHOUT), n_iter=2, refiner=(1, load))
        assert ["FaceID note" in text for text in job.texts] == [True, False]

    def test_the_error_after_a_switch_cleans_both(self, host):
        first, other = host.unet, sd15_checkpoint(seed=1)
        before = state(first), state(other)
        host.during = at(3, fail)
        with pytest.raises(RuntimeError):
            self.run(host, other)
        assert_same_state(before[0], state(first))
        assert_same_state(before[1], state(other))
        assert live_patches() == []
