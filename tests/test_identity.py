"""Identities: what goes in, what comes out, and the file in between."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lib_faceid
from lib_faceid.core.tokens import LayerKV, Tokens
from lib_faceid.engine.prepare import make_identity
from lib_faceid.errors import BadIdentity, FaceIDError
from lib_faceid.library.identity import Identity, Origin, Part

from . import unets
from .adapters import make_adapter
from .containers import save_safetensors
from .layouts import channels_in_file_order
from .library.people import old_file
from .unets import inputs, run


class TestMaking:
    def test_several_photos_are_averaged_before_the_projection(self, tmp_path):
        """Mean of normed vectors, not normed again (the mean of opposite ones is nearly nothing)."""
        made = make_adapter(tmp_path, "faceid")
        vectors = torch.randn(3, 512)
        normed = vectors / vectors.norm(dim=1, keepdim=True)
        projection = made.load().projection()
        with torch.no_grad():
            expected = projection(normed.mean(0, keepdim=True))[0]
        found = make_identity(made.load(), embeddings=vectors)
        torch.testing.assert_close(found.tokens, expected)
        assert found.tokens.shape == (4, 64)

    def test_concat_lays_photos_side_by_side(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        vectors = torch.randn(3, 512)
        together = make_identity(made.load(), embeddings=vectors, combine="concat")
        single = [make_identity(made.load(), embeddings=vector[None]) for vector in vectors]
        torch.testing.assert_close(together.tokens, torch.cat([one.tokens for one in single]))
        torch.testing.assert_close(together.uncond_tokens, single[0].uncond_tokens.repeat(3, 1))

    def test_portrait_lays_photos_side_by_side_as_it_was_trained(self, tmp_path):
        made = make_adapter(tmp_path, "portrait")
        assert made.identity(3).tokens.shape == (48, 64)
        assert made.identity(3, combine="mean").tokens.shape == (16, 64)

    def test_portrait_unnorm_takes_raw_vectors_as_rows(self, tmp_path):
        made = make_adapter(tmp_path, "portrait-unnorm")
        vectors = 20 * torch.randn(3, 512)
        identity = make_identity(made.load(), embeddings=vectors)
        with torch.no_grad():
            expected = made.load().projection()(vectors[None])[0]
        torch.testing.assert_close(identity.tokens, expected)
        shuffled = make_identity(made.load(), embeddings=vectors[[2, 0, 1]])
        torch.testing.assert_close(identity.tokens, shuffled.tokens, rtol=1e-4, atol=1e-5)
        assert make_identity(made.load(), embeddings=vectors, combine="concat").tokens.shape == (48, 64)

    def test_the_length_of_a_vector_does_not_matter(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        vectors = torch.randn(1, 512)
        a, b = (make_identity(made.load(), embeddings=vectors * factor) for factor in (1, 20))
        torch.testing.assert_close(a.tokens, b.tokens)

    def test_the_negative_side_is_the_projected_zero_not_zero(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        with torch.no_grad():
            expected = made.load().projection()(torch.zeros(1, 512))[0]
        identity = made.identity()
        torch.testing.assert_close(identity.uncond_tokens, expected)
        assert identity.uncond_tokens.abs().max() > 0.1

    def test_keys_and_values_of_every_layer(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        identity = made.identity()
        for n, channels in enumerate(channels_in_file_order("sd15", unets.WIDTHS)):
            k = made.tensors[f"ip_adapter.{2 * n + 1}.to_k_ip.weight"]
            v = made.tensors[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"]
            torch.testing.assert_close(identity.kv[n].k[1], identity.tokens @ k.T)
            torch.testing.assert_close(identity.kv[n].v[0], identity.uncond_tokens @ v.T)
            assert identity.kv[n].k.shape == (2, 4, channels)

    def test_structure_stays_adjustable(self, tmp_path):
        made = make_adapter(tmp_path, "faceid-plusv2")
        live = made.identity(structure=1.0).with_structure(0.3)
        fresh = made.identity(structure=0.3)
        torch.testing.assert_close(live.tokens, fresh.tokens)
        torch.testing.assert_close(live.kv[15].k, fresh.kv[15].k)
        assert live.has_structure
        assert not made.identity(structure=0.0).tokens.equal(fresh.tokens)

    def test_plus_v1_has_no_structure(self, tmp_path):
        made = make_adapter(tmp_path, "faceid-plus")
        assert not made.identity().has_structure
        assert made.identity(structure=0.0).tokens.equal(made.identity(structure=1.0).tokens)

    @pytest.mark.parametrize("name", ["numpy", "tolist", "double", "half"])
    def test_kinds_of_array(self, tmp_path, name):
        made = make_adapter(tmp_path, "faceid")
        vectors = torch.randn(2, 512).half().float()
        expected = make_identity(made.load(), embeddings=vectors)
        torch.testing.assert_close(
            make_identity(made.load(), embeddings=getattr(vectors, name)()).tokens, expected.tokens
        )

    def test_inputs_are_not_changed(self, tmp_path):
        made = make_adapter(tmp_path, "faceid")
        vectors = np.ones((1, 512), dtype=np.float32)
        make_identity(made.load(), embeddings=vectors)
        assert (vectors == 1).all()


BAD = [
    ("faceid", {"embeddings": None}, r"needs embeddings of shape \(photos, 512\) face vectors.*; none were given"),
    ("faceid", {"embeddings": torch.ones(512)}, r"found shape \(512,\)"),
    ("faceid", {"embeddings": torch.ones(0, 512)}, r"found shape \(0, 512\)"),
    ("faceid", {"embeddings": torch.ones(2, 128)}, r"found shape \(2, 128\)"),
    ("faceid", {"embeddings": torch.full((1, 512), float("nan"))}, "values that are not numbers"),
    ("faceid", {"embeddings": torch.tensor([[1.0], [0.0], [0.0]]).expand(3, 512)}, "Face vector 2, 3 is all zeros"),
    ("faceid", {"combine": "sum"}, "combine is 'mean', 'concat' or None; found 'sum'"),
    ("faceid-plusv2", {"clip_hidden": None}, r"needs clip_hidden of shape \(photos, positions, 80\)"),
    ("faceid-plusv2", {"clip_uncond": None}, "needs clip_uncond .*zero pixel values; none were given"),
    ("faceid-plusv2", {"clip_hidden": torch.ones(2, 6, 80)}, "1 face vectors and 2 sets of CLIP features"),
    ("faceid-plusv2", {"clip_hidden": torch.ones(1, 5, 80)}, "clip_hidden has 5 positions and clip_uncond 6"),
    ("base", {"clip_pooled": torch.ones(1, 81)}, r"needs clip_pooled of shape \(photos, 80\).*found shape \(1, 81\)"),
    ("plus", {"clip_hidden": torch.ones(1, 6, 1280)}, r"penultimate CLIP features; found shape \(1, 6, 1280\)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "sentence"), BAD)
def test_inputs_that_do_not_fit(tmp_path, kind, change, sentence):
    made = make_adapter(tmp_path, kind)
    with pytest.raises(BadIdentity, match=sentence):
        make_identity(made.load(), **{**made.features(), **change})


class TestFile:
    @pytest.mark.parametrize(("kind", "base"), [("faceid", "sd15"), ("faceid-plusv2", "sd15"), ("faceid", "sdxl")])
    def test_round_trip(self, tmp_path, kind, base):
        made = make_adapter(tmp_path, kind, base)
        identity = made.identity(2, structure=0.4)
        loaded = lib_faceid.load_identity(identity.save(tmp_path / "anna.safetensors"))
        assert (loaded.base, loaded.origin, loaded.structure) == (base, identity.origin, 0.4)
        assert torch.equal(loaded.tokens, identity.tokens)
        assert torch.equal(loaded.uncond_tokens, identity.uncond_tokens)
        assert torch.equal(loaded.vectors, identity.vectors)
        for n, kv in identity.kv.items():
            assert torch.equal(loaded.kv[n].k, kv.k)
            assert torch.equal(loaded.kv[n].v, kv.v)
        assert loaded.origin.adapter_sha256 == made.load().digest
        assert loaded.adapter_path is None

    def test_a_loaded_person_draws_the_same_picture_without_any_model(self, tmp_path):
        made = make_adapter(tmp_path, "faceid-plusv2")
        identity, unet = made.identity(), unets.sd15_unet()
        saved = identity.save(tmp_path / "anna.safetensors")
        with lib_faceid.applied(unet, identity, lora=0.0):
            expected = run(unet, inputs(1))
        made.path.unlink()
        with lib_faceid.applied(unet, lib_faceid.load_identity(saved), lora=0.0):
            assert torch.equal(run(unet, inputs(1)), expected)

    @pytest.mark.parametrize(("base", "limit"), [("sd15", 2e6), ("sdxl", 12e6)])
    def test_size_at_the_true_widths(self, tmp_path, base, limit):
        """Per 4 tokens at most 2 MB for SD1.5 and 12 MB for SDXL, both parts of Plus v2 included."""
        width = {"sd15": 768, "sdxl": 2048}[base]
        channels = channels_in_file_order(base, (320, 640, 1280))

        def part():
            kv = {n: LayerKV(torch.zeros(2, 4, c), torch.zeros(2, 4, c)) for n, c in enumerate(channels)}
            return Part(Tokens(torch.zeros(4, width), torch.zeros(4, width)), kv)

        origin = Origin("faceid-plusv2", "", "", "", False, 1, "")
        identity = Identity(base, width, origin, part(), part(), vectors=torch.zeros(1, 512))
        assert os.path.getsize(identity.save(tmp_path / "anna.safetensors")) <= limit  # noqa: PTH202

    def test_nothing_is_overwritten_unasked(self, tmp_path):
        identity = make_adapter(tmp_path, "faceid").identity()
        path = identity.save(tmp_path / "anna.safetensors")
        with pytest.raises(FaceIDError, match="exists already"):
            identity.save(path)
        assert identity.save(path, overwrite=True) == path

    def test_a_failed_write_leaves_no_file(self, tmp_path, monkeypatch):
        identity = make_adapter(tmp_path, "faceid").identity()
        for name in ("replace", "hardlink_to"):
            monkeypatch.setattr(f"pathlib.Path.{name}", lambda *_: 1 / 0)
        before = sorted(tmp_path.iterdir())
        for overwrite in (False, True):
            with pytest.raises(ZeroDivisionError):
                identity.save(tmp_path / "anna.safetensors", overwrite=overwrite)
        assert sorted(tmp_path.iterdir()) == before

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FaceIDError, match="there is no folder"):
            make_adapter(tmp_path, "faceid").identity().save(tmp_path / "people" / "anna.safetensors")

    def damaged(self, tmp_path, change):
        """A file of format 1; those of format 2 are in library/test_person_file.py."""
        path = old_file(tmp_path / "anna.safetensors", make_adapter(tmp_path, "faceid").identity())
        tensors = load_file(path)
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        change(tensors, metadata)
        save_file(tensors, path, metadata)
        return path

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda t, m: t.pop("main.15.k"), "anna.safetensors is damaged: 'main.15.k' is missing"),
            (lambda t, m: m.pop("base"), "'base' is missing"),
            (lambda t, m: m.update(base="sd3"), "its base is 'sd3', expected one of sd15, sdxl"),
            (lambda t, m: m.update(format="faceid-identity-9"), "its format is 'faceid-identity-9', expected"),
            (lambda t, m: m.update(structure="much"), "could not convert string"),
            (lambda t, m: m.update(photos="[1"), "damaged"),
            (lambda t, m: m.update(photos='"three"'), "photos is 'three'"),
            (lambda t, m: m.update(adapter_sha256="5"), "adapter_sha256 is 5"),
            (lambda t, m: m.update(structure="nan"), "values that are not float32 numbers"),
            (lambda t, m: t.update({"main.3.k": torch.full_like(t["main.3.k"], float("nan"))}), "not float32 numbers"),
            (lambda t, m: t.update({"main.3.k": t["main.3.k"].int()}), "not float32 numbers"),
            (
                lambda t, m: t.update({f"clip{n[4:]}": v[..., :1].clone() for n, v in list(t.items()) if "main" in n}),
                "damaged",
            ),
            (lambda t, m: t.update({"main.uncond": torch.zeros(3, 64)}), r"one shape \(T, X\)"),
            (lambda t, m: t.update({"main.0.k": torch.zeros(2, 3, 32)}), r"main.0 has keys \(2, 3, 32\).*for 4 tokens"),
        ],
    )
    def test_damaged_files(self, tmp_path, change, sentence):
        with pytest.raises(BadIdentity, match=sentence):
            lib_faceid.load_identity(self.damaged(tmp_path, change))

    def test_files_that_are_something_else(self, tmp_path):
        with pytest.raises(BadIdentity, match="no saved person at"):
            lib_faceid.load_identity(tmp_path / "nobody.safetensors")
        other = save_safetensors(tmp_path / "lora.safetensors", {"a": torch.zeros(1)})
        with pytest.raises(BadIdentity, match="not a saved person: its format is 'not given'"):
            lib_faceid.load_identity(other)
        (tmp_path / "text.safetensors").write_text("hello")
        with pytest.raises(BadIdentity, match=r"not a readable \.safetensors file"):
            lib_faceid.load_identity(tmp_path / "text.safetensors")
