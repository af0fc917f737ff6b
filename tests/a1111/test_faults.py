"""All that can be wrong before a picture is begun: each stops the job with its sentence, or warns and goes on."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import pytest
import torch

from lib_faceid.core.patch import live_patches
from lib_faceid.hosts.a1111.jobs import Jobs
from lib_faceid.hosts.job import FaceIDStopped

from ..models_folder import add_adapter, add_encoder, add_face_pack, photo, sd15_checkpoint
from .checks import ANNA, assert_stops, differs
from .fake_webui import Processing, panel, sent


def without_adapters(host):
    for path in (host.models / "ip-adapter").glob("*.bin"):
        path.unlink()


def another_base(host):
    add_adapter(host.models, "faceid", "sdxl", text=2048)


def broken(host):
    (host.models / "ip-adapter" / "broken.bin").write_bytes(b"nothing")


def with_pack(host):
    add_face_pack(host.models)


def needing_clip(host):
    with_pack(host)
    add_adapter(host.models, "plus-face", text=768)


def another_unet(host):
    host.start_with(sd15_checkpoint(text=1024))
    host.rules.width = 1024


def no_unet(host):
    host.start_with(None)


def nothing(host):
    pass


FAULTS = {
    "nobody": (nothing, {}, "FaceID is on and has nobody to show"),
    "two persons in one": (nothing, {**ANNA, "images": [photo()]}, "saved person anna and photos as well"),
    "photos and vectors": (nothing, {"images": [photo()], "embeddings": [0.1] * 512}, "photos and face vectors as"),
    "not saved": (nothing, {"identity": "bert"}, "There is no saved person bert. Choose one from"),
    "forgotten": (nothing, {"identity": "digest:0123"}, "The person 0123 of the pasted picture"),
    "a path": (nothing, {"identity": "../anna"}, "A saved person is chosen by name"),
    "no adapter": (without_adapters, {"images": [photo()]}, "models/ip-adapter holds no adapter"),
    "not there": (
        nothing,
        {"images": [photo()], "adapter": "x.bin"},
        "no adapter x.bin in models/ip-adapter; it holds",
    ),
    "other base": (
        another_base,
        {"images": [photo()], "adapter": "ip-adapter-faceid_sdxl.bin"},
        r"is FaceID for SDXL and this checkpoint is SD1\.5",
    ),
    "broken adapter": (broken, {"images": [photo()], "adapter": "broken.bin"}, r"broken\.bin"),
    "no face pack": (nothing, {"images": [photo()]}, "face pack folder models/insightface/buffalo_l does not exist"),
    "no face": (with_pack, {"images": [photo(0, ())]}, "Photo 1"),
    "no photo": (with_pack, {"images": ["aGVsbG8="]}, "Photo 1 is not a picture that can be read"),
    "no encoder": (
        needing_clip,
        {"images": [photo()], "adapter": "ip-adapter-plus-face_sd15.bin"},
        "features 80 wide, and models/clip_vision has none",
    ),
    "only vectors": (
        needing_clip,
        {"embeddings": [0.1] * 512, "adapter": "ip-adapter-plus-face_sd15.bin"},
        "looks at the photo as well, and only face vectors were sent",
    ),
    "too few factors": (
        nothing,
        {**ANNA, "layers": [1, 1]},
        r"Layer factors \(layers\) has 2 numbers; SD1\.5 needs 16",
    ),
    "no mask": (nothing, {**ANNA, "mask": "aGVsbG8="}, "region mask is not a picture that can be read"),
    "SD2": (another_unet, ANNA, "This checkpoint is Stable Diffusion 2"),
    "SD3": (no_unet, ANNA, "without a UNet; FaceID works with Stable Diffusion 1.x and SDXL"),
}


@pytest.mark.parametrize(("prepare", "unit", "sentence"), FAULTS.values(), ids=FAULTS)
def test_faults_stop_the_job(host, prepare, unit, sentence):
    prepare(host)
    assert_stops(host, sent(unit), sentence)
    assert host.calls == []
    assert host.state.textinfo is None


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "SD3"])
def test_faults_with_a_picture_all_the_same(host, name):
    prepare, unit, sentence = FAULTS[name]
    prepare(host)
    p = Processing(host, n_iter=2)
    job = host.process(p, *sent({**unit, "on_fail": "warn"}))
    for text in job.texts:
        assert text["FaceID note"].count("The face was not applied: ") == 1
        assert re.search(sentence, text["FaceID note"])
        assert str(host.models) not in str(text)
    assert any("The face was not applied" in comment for comment in job.comments)
    assert str(host.models) not in str(job.comments)
    assert differs(host, job) == [False, False]
    assert (host.reported, live_patches()) == ([], [])


def test_what_was_said_is_under_the_picture_as_well(host):
    """X/Y/Z plot swallows the error; the comment stays."""
    p = Processing(host)
    with pytest.raises(FaceIDStopped):
        host.process(p, *sent({"identity": "bert"}))
    assert list(p.comments) == ["FaceID: There is no saved person bert. Choose one from the list in the panel."]


def test_one_of_two_people_is_missing(host):
    """With "warn" the other one is in the picture; the line of the missing one is not written."""
    missing = {"identity": "bert", "on_fail": "warn"}
    job = host.run(*sent(missing, {**ANNA, "on_fail": "warn"}))
    assert "no saved person bert" in job.texts[0]["FaceID note"]
    assert "FaceID" not in job.texts[0]
    assert "person: anna" in job.texts[0]["FaceID 2"]
    assert torch.equal(job.pictures[0], host.run(*sent(ANNA)).pictures[0])
    assert_stops(host, sent({**missing, "on_fail": "stop"}, {**ANNA, "on_fail": "warn"}), "no saved person bert")


def test_photos_end_to_end(host):
    """From a photo to a person with a key, digests of the photo and the remark on two faces."""
    add_face_pack(host.models)
    add_encoder(host.models)
    unit = {"images": [photo(1, ((40, 160, 200, 320), (400, 120, 600, 320)))], "lora": 0}
    job = host.run(*sent(unit), n_iter=2)
    for text in job.texts:
        assert text["FaceID note"] == "Photo 1 shows 2 faces; the largest was taken."
        assert "key: " in text["FaceID"]
        assert "photos: " in text["FaceID"]
    assert job.comments == ["FaceID: Photo 1 shows 2 faces; the largest was taken."]
    assert differs(host, job) == [True, True]
    again = host.run(*sent({"identity": "digest:" + job.texts[0]["FaceID"].split("key: ")[1][:16], "lora": 0}))
    assert torch.equal(again.pictures[0], job.pictures[0])


def upload(tmp_path, name, content):
    """A file as gradio 3.41 hands it over: somewhere else, with the name it had."""
    path = tmp_path / "upload"
    if content is not None:
        path.write_bytes(base64.b64decode(content))
    return SimpleNamespace(name=str(path), orig_name=name)


class TestNamesOfPhotos:
    """The person is told which photo it is; the picture, which goes around, does not say how its owner calls it."""

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (photo(0, ()), "no face"),
            ("aGVsbG8=", "is not a picture"),
            (None, "cannot be read"),
        ],
    )
    def test_in_pictures_and_under_them(self, host, tmp_path, content, sentence):
        with_pack(host)
        job = host.run(*panel(images=[upload(tmp_path, "holiday with bert.png", content)], on_fail="warn"))
        assert "holiday with bert.png" in job.comments[0]
        assert sentence in job.comments[0].lower()
        assert "Photo 1" in job.texts[0]["FaceID note"]
        assert "holiday" not in str(job.texts)

    def test_in_the_middle_of_a_sentence(self, host, tmp_path):
        with_pack(host)
        photos = [upload(tmp_path, "bert at home.png", photo(0))]
        job = host.run(*panel(images=photos, face="4", on_fail="warn"))
        assert "bert at home.png has 1 face" in job.comments[0]
        assert "Photo 1 has 1 face" in job.texts[0]["FaceID note"]
        assert "bert" not in str(job.texts)

    def test_two_photos_of_one_name(self, host, tmp_path):
        with_pack(host)
        folders = [tmp_path / "1", tmp_path / "2"]
        for folder in folders:
            folder.mkdir()
        contents = (photo(0, ()), photo(0))
        pairs = zip(folders, contents, strict=True)
        photos = [upload(folder, "image.png", content) for folder, content in pairs]
        job = host.run(*panel(images=photos, on_fail="warn"))
        assert job.texts[0]["FaceID note"].startswith("The face was not applied: Photo 1 shows no face")

    def test_a_name_of_one_letter(self, host, tmp_path):
        with_pack(host)
        job = host.run(*panel(images=[upload(tmp_path, "a", "aGVsbG8=")], on_fail="warn"))
        assert job.texts[0]["FaceID note"].startswith("The face was not applied: Photo 1 is not a picture")


STEPS = {
    "begin": "before_process",
    "prepare": "process",
    "begin_batch": "before_process_batch",
    "before_sampling": "process_before_every_sampling",
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("on_fail", ["stop", "warn"])
def test_an_error_nobody_foresaw(host, step, on_fail):
    """The host would print it and make the plain picture without a word."""

    def fail(*args):
        raise ZeroDivisionError("half of nothing")

    host.monkeypatch.setattr(Jobs, step, fail)
    args = sent({**ANNA, "on_fail": on_fail})
    told = r"ran into an error it does not know \(ZeroDivisionError: half of nothing\)"
    if on_fail == "warn" or step == "before_sampling":  # by then it is too late to stop
        p = Processing(host)
        job = host.process(p, *args)
        assert set(job.texts[0]) == {"FaceID note"}
        assert any(re.search(told, comment) for comment in job.comments)
    else:
        assert_stops(host, args, told)


def test_a_checkpoint_of_another_kind_in_the_second_pass(host):
    """Hires fix may load another one, for which the person is not made."""

    def load():
        another_unet(host)
        host.rules.width = 1024

    settings = {"enable_hr": True, "hires_loads": load}
    assert_stops(host, sent(ANNA), "This checkpoint is Stable Diffusion 2", **settings)
