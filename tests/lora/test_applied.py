"""The LoRA as part of ``applied``: how strong, how often, and from which file."""

from __future__ import annotations

import warnings

import pytest
import torch

import lib_faceid
from lib_faceid.errors import FaceIDError
from lib_faceid.weights.merge import merges_on

from .. import unets
from ..adapters import make_adapter
from ..unets import assert_same_state, inputs, run, state
from ..user_loras import load_companion


class TestApplied:
    """The LoRA as part of ``applied``."""

    def pictures(self, unet, identity, **kwargs):
        with lib_faceid.applied(unet, identity, **kwargs):
            return run(unet, inputs(1))

    def test_the_default_is_065(self, tmp_path):
        identity, unet = make_adapter(tmp_path, "faceid").identity(), unets.sd15_unet()
        default = self.pictures(unet, identity)
        assert torch.equal(default, self.pictures(unet, identity, lora=0.65))
        assert not torch.equal(default, self.pictures(unet, identity, lora=0.0))

    def test_it_acts_outside_the_window_too(self, tmp_path):
        """The window limits the image branch; the LoRA was trained into the whole pass."""
        identity, unet = make_adapter(tmp_path, "faceid").identity(), unets.sd15_unet()
        bare = run(unet, inputs(1))
        late = self.pictures(unet, identity, start=0.5, progress=lambda: 0.0)
        assert not torch.equal(late, bare)

    def test_never_twice(self, tmp_path):
        """Two people made with one file: the LoRA goes in once."""
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        people = [made.identity(seed=1), made.identity(seed=2)]
        with lib_faceid.applied(unet, people):
            (merge,) = merges_on(unet)
            assert merge.lora.digest() == made.load().digest
            with lib_faceid.applied(unet, people[0]):
                assert merges_on(unet) == [merge]
            assert merges_on(unet) == [merge]
        assert merges_on(unet) == []

    def test_shared_until_the_last_one_leaves(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        before = state(unet)
        first, second = (lib_faceid.applied(unet, made.identity(seed=seed), lora=0.3) for seed in (1, 2))
        first.__enter__()
        second.__enter__()
        run(unet, inputs(1))
        first.__exit__(None, None, None)
        assert [merge.strength for merge in merges_on(unet)] == [0.3]
        second.__exit__(None, None, None)
        assert_same_state(before, state(unet))

    def test_two_strengths_of_one_file_are_refused(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        sentence = r"active at 0\.2 and cannot be at 1 as well"
        with lib_faceid.applied(unet, made.identity(), lora=0.2):
            with pytest.raises(FaceIDError, match=sentence), lib_faceid.applied(unet, made.identity(), lora=1.0):
                pass
            run(unet, inputs(1))

    def test_a_companion_loaded_through_peft_is_not_added_again(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        load_companion(unet, made, tmp_path)
        with lib_faceid.applied(unet, made.identity(), weight=0.5, lora=0.0):
            expected = run(unet, inputs(1))
        with pytest.warns(lib_faceid.FaceIDWarning, match="active already as PEFT adapter"):
            found = self.pictures(unet, made.identity(), weight=0.5)
        assert torch.equal(found, expected)

    def test_another_file_than_the_identitys(self, tmp_path):
        made, other = make_adapter(tmp_path, "faceid"), make_adapter(tmp_path, "faceid", seed=4)
        with pytest.raises(
            FaceIDError, match=r"adapter= is 4-ip-adapter.*but this identity was made with 0-ip-adapter"
        ):
            self.pictures(unets.sd15_unet(), made.identity(), adapter=other.load())

    def test_a_file_that_is_gone_is_told(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        identity = made.identity()
        made.path.unlink()
        with pytest.warns(lib_faceid.FaceIDWarning, match="without its LoRA, so the likeness will be weaker") as caught:
            self.pictures(unet, identity)
        assert caught[0].filename == __file__

    def test_an_adapter_without_one(self, tmp_path):
        identity, unet = make_adapter(tmp_path, "portrait").identity(), unets.sd15_unet()
        assert torch.equal(self.pictures(unet, identity), self.pictures(unet, identity, lora=0.0))
        with pytest.raises(FaceIDError, match=r"portrait_sd15\.bin .FaceID Portrait.* carries no LoRA"):
            self.pictures(unet, identity, lora=0.5)

    def test_a_loaded_person_says_that_the_lora_is_missing(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        loaded = lib_faceid.load_identity(made.identity().save(tmp_path / "anna.safetensors"))
        with pytest.warns(lib_faceid.FaceIDWarning, match=r"0-ip-adapter-faceid_sd15\.bin .sha256 [0-9a-f]{12}"):
            without = self.pictures(unet, loaded)
        assert torch.equal(without, self.pictures(unet, made.identity(), lora=0.0))

    def test_a_loaded_person_with_the_adapter_at_hand(self, tmp_path):
        made, unet = make_adapter(tmp_path, "faceid"), unets.sd15_unet()
        loaded = lib_faceid.load_identity(made.identity().save(tmp_path / "anna.safetensors"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = self.pictures(unet, loaded, adapter=made.load())
        assert torch.equal(found, self.pictures(unet, made.identity()))
