"""What the panel is told in A1111: files, people, whether a job could run, and what a pasted picture says."""

from __future__ import annotations

import os

import pytest

from lib_faceid.engine.request import Unit, read_unit
from lib_faceid.hosts.a1111.panel import PanelServices
from lib_faceid.hosts.detect import PEOPLE, is_supported

from ..models_folder import add_adapter, add_encoder, add_face_pack, add_person, photo, sd15_checkpoint
from .fake_webui import Host, sent

ONE = {"images": [photo(1)]}


@pytest.fixture
def host(root, monkeypatch):
    """With nobody in the folder."""
    return Host(root, monkeypatch)


@pytest.fixture
def services(host):
    return PanelServices(PEOPLE)


def test_files_and_people(services, root):
    assert (services.adapters(), services.people()) == ([], [])
    made = add_adapter(root, text=768)
    add_person(root, made, "bert")
    add_person(root, made)
    (root / "ip-adapter" / "broken.bin").write_bytes(b"nothing")
    assert services.adapters() == ["broken.bin", "ip-adapter-faceid_sd15.bin"]
    assert services.people() == ["anna", "bert"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"enabled": False}, ""),
        ({"weight": 0}, "Weight is 0, so FaceID is off."),
        ({"enabled": False, "weight": 1}, ""),
    ],
)
def test_off(services, values, sentence):
    assert services.status(values) == ("off", sentence)


class TestReady:
    def test_photos(self, services, root):
        add_adapter(root, text=768)
        add_face_pack(root)
        expected = "Ready: FaceID for SD1.5 · LoRA 0.65 · 1 photo · ip-adapter-faceid_sd15.bin"
        assert services.status(ONE) == ("ready", expected)
        assert "LoRA" not in services.status({**ONE, "lora": 0})[1]
        assert " · 2 photos · " in services.status({"images": [photo(1), photo(2)]})[1]

    def test_somebody_saved(self, services, root):
        add_person(root, add_adapter(root, text=768))
        assert services.status({"identity": "anna"}) == ("ready", "Ready: anna · SD1.5")

    def test_somebody_from_a_pasted_picture(self, services, host, root):
        add_adapter(root, text=768)
        add_face_pack(root)
        kind, sentence = services.status({"identity": "digest:0123"})
        assert (kind, sentence) == (
            "problem",
            "The person of the pasted picture is not in memory. Add the same photos again.",
        )
        key = host.run(*sent({**ONE, "lora": 0})).texts[0]["FaceID"].split("key: ")[1][:16]
        assert services.status({"identity": f"digest:{key}"})[0] == "ready"
        assert services.status({"identity": "digest:0123", **ONE})[0] == "ready"

    def test_no_checkpoint_yet(self, services, host):
        """Asking must not load one."""
        host.shared.sd_model = None
        assert services.status(ONE) == (
            "ready",
            "The checkpoint is not loaded yet; whether everything is there is seen when it is.",
        )


def only_adapter(root):
    add_adapter(root, text=768)


def without_encoder(root):
    add_adapter(root, "plus-face", text=768)
    add_face_pack(root)


def nothing(root):
    pass


@pytest.mark.parametrize(
    ("prepare", "values", "sentence"),
    [
        (nothing, {}, "FaceID is on and has nobody to show. Add a photo, choose a saved person, or untick"),
        (nothing, ONE, "models/ip-adapter holds no adapter"),
        (nothing, {"identity": "anna"}, "There is no saved person anna"),
        (nothing, {"weight": 7}, "expected a number from 0 to 3"),
        (nothing, {"images": ["!"]}, "Photo 1 is not base64"),
        pytest.param(only_adapter, ONE, "face pack folder", id="pack"),
        pytest.param(without_encoder, ONE, "clip_vision has none", id="encoder"),
    ],
)
def test_problems(services, root, prepare, values, sentence):
    prepare(root)
    kind, found = services.status(values)
    assert kind == "problem"
    assert sentence in found


@pytest.mark.parametrize("prepare", [only_adapter, without_encoder])
def test_problems_name_no_folder_of_this_machine(services, root, prepare):
    prepare(root)
    assert str(root) not in services.status(ONE)[1]


def test_sd2(services, host):
    host.start_with(sd15_checkpoint(text=1024))
    assert services.status(ONE)[0] == "problem"
    assert "Stable Diffusion 2" in services.status(ONE)[1]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not hold here")
def test_a_file_that_cannot_be_read(services, root):
    path = add_adapter(root, text=768).path
    path.chmod(0)
    assert services.status(ONE)[0] == "problem"


class TestPasted:
    def test_a_picture_of_ours(self, services, host, root):
        add_person(root, add_adapter(root, text=768))
        unit = {"identity": "anna", "weight": 0.5, "start": 0.1, "hires_weight": 0.25, "lora": 0}
        text = host.run(*sent(unit)).texts[0]
        assert read_unit(services.pasted(text)) == Unit(**unit, adapter="ip-adapter-faceid_sd15.bin", variant="faceid")

    def test_a_renamed_adapter(self, services, host, root):
        made = add_adapter(root, text=768)
        add_person(root, made)
        text = host.run(*sent({"identity": "anna"})).texts[0]
        made.path.rename(made.path.with_name("new.bin"))
        add_adapter(root, "portrait", text=768, name=made.path.name)
        assert services.pasted(text)["adapter"] == "new.bin"
        (root / "ip-adapter" / "new.bin").unlink()
        assert services.pasted(text)["adapter"] == "ip-adapter-faceid_sd15.bin"

    def test_other_pictures(self, services):
        assert services.pasted({"Steps": "20"}) is None
        assert services.pasted({}) is None

    def test_the_same_photos_again(self, services, host, root):
        """The values of the picture and the photos added again: the same person, nothing is made anew."""
        add_adapter(root, text=768)
        add_encoder(root)
        add_face_pack(root)
        first = host.run(*sent({**ONE, "lora": 0}))
        again = host.run(*sent({**services.pasted(first.texts[0]), **ONE}))
        assert again.texts == first.texts


def test_forge_stays_away(monkeypatch, tmp_path, caplog):
    is_supported.cache_clear()
    assert is_supported()
    is_supported.cache_clear()
    (tmp_path / "modules_forge").mkdir()
    (tmp_path / "modules_forge" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_supported()
    assert "Forge is not supported yet" in caplog.text
    is_supported.cache_clear()
