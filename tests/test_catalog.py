"""The adapters of a folder, which of them suits a checkpoint, and which one is taken for a unit."""

from __future__ import annotations

import os
from itertools import permutations

import pytest

from lib_faceid.engine.choice import choose_adapter
from lib_faceid.engine.request import read_unit
from lib_faceid.errors import WrongBase, WrongWeights
from lib_faceid.weights import catalog
from lib_faceid.weights.catalog import fitting, list_adapters, weight_files, with_digest

from .adapters import NAMES
from .models_folder import add_adapter, add_encoder, make_models, photo, place_of

ONE, TWO = {"images": [photo()]}, {"images": [photo(), photo()]}
VECTORS = {"embeddings": [0.1] * 512}


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


@pytest.fixture
def folder(root):
    return root / "ip-adapter"


class TestTheList:
    def test_files_by_name_whatever_they_are(self, root, folder):
        add_adapter(root, name="b.bin")
        add_adapter(root, name="A.PTH")
        (folder / "c.safetensors").write_bytes(b"nothing")
        for other in ("readme.txt", "d.onnx", ".bin"):
            (folder / other).write_bytes(b"nothing")
        (folder / "folder.bin").mkdir()
        assert [path.name for path in weight_files(folder)] == ["A.PTH", "b.bin", "c.safetensors"]
        listed = list_adapters(folder)
        assert [item.adapter is None for item in listed] == [False, False, True]
        assert "c.safetensors" in listed[2].problem
        assert not listed[0].problem

    def test_no_folder(self, tmp_path):
        assert weight_files(tmp_path / "gone") == []
        assert list_adapters(tmp_path / "gone") == []

    def test_headers_are_read_once_for_each_state_of_a_file(self, root, folder, monkeypatch):
        made = add_adapter(root)
        read = []
        real = catalog.load_adapter
        monkeypatch.setattr(catalog, "load_adapter", lambda path: read.append(path.name) or real(path))
        first = list_adapters(folder)[0].adapter
        assert list_adapters(folder)[0].adapter is first
        assert read == [made.path.name]
        add_adapter(root, "portrait", name=made.path.name)
        os.utime(made.path, ns=(1, 1))
        assert list_adapters(folder)[0].adapter.variant == "portrait"
        assert len(read) == 2

    def test_found_by_digest(self, root, folder):
        first, second = add_adapter(root, name="a.bin"), add_adapter(root, seed=1, name="b.bin")
        listed = list_adapters(folder)
        sha = second.load().digest
        for digits in (sha, sha[:12]):
            for name in ("a.bin", "b.bin", "", "gone.bin"):
                assert with_digest(listed, digits, name, "faceid").path == second.path
        assert with_digest(listed, first.load().digest[:12], "b.bin", "faceid").path == first.path
        assert with_digest(listed, "0" * 12, "a.bin", "faceid") is None
        assert with_digest(listed, "", "a.bin", "faceid") is None
        assert with_digest(listed, sha, "b.bin", "portrait") is None

    def test_the_named_one_of_two_equal_files(self, root, folder):
        add_adapter(root, name="a.bin")
        twin = add_adapter(root, name="b.bin")
        assert with_digest(list_adapters(folder), twin.load().digest, "b.bin", "faceid").path == twin.path


# most suitable first
ORDERS = {
    1: [
        "faceid-plusv2",
        "faceid-plus",
        "faceid",
        "portrait",
        "portrait-unnorm",
        "plus-face",
        "full-face",
        "plus",
        "base",
    ],
    2: [
        "faceid-plusv2",
        "faceid-plus",
        "portrait",
        "faceid",
        "portrait-unnorm",
        "plus-face",
        "full-face",
        "plus",
        "base",
    ],
}


class TestFitting:
    @pytest.fixture
    def listed(self, root, folder):
        for kind in NAMES:
            add_adapter(root, kind)
        add_adapter(root, "faceid", "sdxl")
        (folder / "broken.bin").write_bytes(b"nothing")
        return list_adapters(folder)

    @pytest.mark.parametrize("photos", [1, 2])
    def test_order(self, listed, photos):
        found = fitting(listed, "sd15", 64, photos=photos, clip=True)
        assert [adapter.variant for adapter in found] == ORDERS[photos]

    def test_without_clip(self, listed):
        found = fitting(listed, "sd15", 64, photos=1, clip=False)
        assert [adapter.variant for adapter in found] == ["faceid", "portrait", "portrait-unnorm"]

    def test_the_random_ones_of_the_live_cases_stand_behind_everybody_else(self, root, folder):
        for kind, name in (("faceid-plusv2", "faceid-live-plusv2.bin"), ("base", "base.bin"), ("faceid", "plain.bin")):
            add_adapter(root, kind, name=name)
        found = fitting(list_adapters(folder), "sd15", 64, photos=1, clip=True)
        assert [adapter.path.name for adapter in found] == ["plain.bin", "base.bin", "faceid-live-plusv2.bin"]

    def test_base_and_width_of_the_text(self, listed):
        assert [adapter.base for adapter in fitting(listed, "sdxl", 128, photos=1, clip=True)] == ["sdxl"]
        assert fitting(listed, "sd15", 768, photos=1, clip=True) == []
        assert fitting(listed, "sdxl", 64, photos=1, clip=True) == []


def choose(root, base="sd15", **values):
    return choose_adapter(read_unit(values), place_of(root, base))


class TestChoice:
    @pytest.mark.parametrize("present", list(permutations(["faceid", "portrait", "plus-face"], 2)))
    def test_the_best_of_what_there_is(self, root, present):
        add_encoder(root)
        for kind in present:
            add_adapter(root, kind)
        assert choose(root, **ONE).variant == min(present, key=ORDERS[1].index)
        assert choose(root, **TWO).variant == min(present, key=ORDERS[2].index)

    def test_by_the_base_of_the_checkpoint(self, root):
        add_adapter(root, "faceid", "sd15")
        add_adapter(root, "faceid", "sdxl")
        assert choose(root, "sd15", **ONE).base == "sd15"
        assert choose(root, "sdxl", **ONE).base == "sdxl"

    def test_only_what_can_be_fed(self, root):
        """FaceID Plus v2 is better, and needs an encoder; with vectors alone it cannot be fed at all."""
        add_adapter(root, "faceid-plusv2")
        add_adapter(root, "faceid")
        assert choose(root, **ONE).variant == "faceid"
        add_encoder(root)
        assert choose(root, **ONE).variant == "faceid-plusv2"
        assert choose(root, **VECTORS).variant == "faceid"

    def test_what_is_missing_is_said_of_the_best(self, root):
        """Nothing can be fed: the first is taken, and reading the photo then says what it needs."""
        add_adapter(root, "faceid-plusv2")
        assert choose(root, **ONE).variant == "faceid-plusv2"

    def test_by_name(self, root):
        add_adapter(root, "faceid")
        add_adapter(root, "portrait", name="mine.bin")
        assert choose(root, **ONE, adapter="mine.bin").variant == "portrait"
        assert choose(root, **ONE, adapter="mine.bin", variant="portrait").variant == "portrait"

    def test_a_renamed_file_and_its_variant(self, root):
        add_adapter(root, "faceid-plus", name="model.bin")
        with pytest.raises(WrongWeights, match=r"model\.bin"):
            choose(root, **ONE, adapter="model.bin")
        assert choose(root, **ONE, adapter="model.bin", variant="faceid-plusv2").variant == "faceid-plusv2"
        with pytest.raises(WrongWeights, match="There is no variant 'v3'"):
            choose(root, **ONE, adapter="model.bin", variant="v3")

    def test_a_name_that_is_not_there(self, root, folder):
        with pytest.raises(WrongWeights, match=r"There is no adapter x\.bin in models/ip-adapter; it holds nothing"):
            choose(root, **ONE, adapter="x.bin")
        add_adapter(root)
        add_adapter(root.parent / "models", name="../outside.bin")
        with pytest.raises(WrongWeights, match=r"it holds ip-adapter-faceid_sd15\.bin\.$"):
            choose(root, **ONE, adapter="../outside.bin")

    def test_of_another_base(self, root):
        made = add_adapter(root, "faceid", "sdxl")
        with pytest.raises(WrongBase, match=r"is FaceID for SDXL and this checkpoint is SD1\.5\. Choose"):
            choose(root, **ONE, adapter=made.path.name)

    def test_of_another_width_of_text(self, root):
        made = add_adapter(root, "faceid", text=768)
        with pytest.raises(WrongBase):
            choose(root, **ONE, adapter=made.path.name)

    def test_nothing_fits(self, root):
        with pytest.raises(WrongWeights, match=r"checkpoint is SD1\.5, and models/ip-adapter holds no adapter\."):
            choose(root, **ONE)
        add_adapter(root, "faceid", "sdxl")
        expected = r"holds ip-adapter-faceid_sdxl\.bin \(FaceID for SDXL\).*such as ip-adapter-faceid-plusv2_sd15\.bin"
        with pytest.raises(WrongWeights, match=expected):
            choose(root, **ONE)

    def test_nothing_for_vectors(self, root):
        """It holds an adapter for the base, and the sentence asks for one that needs photos as well."""
        add_adapter(root, "faceid-plusv2")
        with pytest.raises(WrongWeights) as caught:
            choose(root, **VECTORS)
        assert "such as ip-adapter-faceid-plusv2_sd15.bin" not in str(caught.value)
