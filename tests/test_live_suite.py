"""The live cases' own machinery, against a stand-in that answers as a WebUI does: does a mistake turn a case red?"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_faceid.face.pack import find_pack
from lib_faceid.library.identity import load_identity
from lib_faceid.vision.recognise import recognise_encoder
from lib_faceid.weights.adapter import load_adapter
from lib_faceid.weights.read import open_tensors

from . import __main__ as checks
from .live import command, fixtures
from .live.case import Case, checkpoint, sampler, select, setting
from .live.checks import Plain, Twin, alone, check_row
from .live.client import Client, Refused, Settings, Unreachable, encode_picture, infotext_field, read_drawn
from .live.compare import Failed, Skipped, difference, ensure_clear, ensure_near, show
from .live.errors import check_fault, check_sentence
from .live.photos import bomb
from .live.report import Report
from .live.runner import run_case, run_cases
from .live.stand_in import StandIn, serving
from .live.webui import Setup, WebUI, restoring


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with serving(stand_in) as found:
        yield found


@pytest.fixture
def webui(address: str) -> WebUI:
    return WebUI(Client(address), Setup(size=64))


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


# Arithmetic.


def test_differences_are_means_of_absolute_8_bit_values() -> None:
    other = grey(10)
    other[0, 0] = (13, 7, 10)
    assert difference(grey(10), other) == 6 / 48
    assert difference(grey(0), grey(255)) == 255  # no wrap-around
    with pytest.raises(Failed, match="4x4 and the other 8x4"):
        difference(grey(0), np.zeros((4, 8, 3), np.uint8))
    assert show([1.0, 1.001, 2.5]) == "1.00/2.50"


def test_an_effect_has_to_be_clear_in_every_picture() -> None:
    assert ensure_clear([2.0, 30.0], "effect") == "effect 2.00/30.00"
    with pytest.raises(Failed, match=r"1\.99 only; expected at least 2\.00"):
        ensure_clear([30.0, 1.99], "effect")
    with pytest.raises(Failed, match=r"at least 4\.00"):
        ensure_clear([3.9], "effect", noise=1.0)


def test_two_ways_may_differ_by_about_what_they_differ_by_plainly() -> None:
    ensure_near([2.5, 0.5], [1.0, 0.0], "split", effect=20)
    with pytest.raises(Failed, match=r"expected at most 2\.50/0\.50"):
        ensure_near([2.4, 0.6], [1.0, 0.0], "split", effect=20)
    with pytest.raises(Failed, match="proves nothing"):
        ensure_near([2.5], [1.0], "split", effect=3.3)
    ensure_near([2.5], [1.0], "split", effect=3.4)


# What comes back.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('cat\nSteps: 4, FaceID: "adapter: a, weight: 1", Version: x', "adapter: a, weight: 1"),
        ("cat\nSteps: 4, FaceID: plain, Version: x", "plain"),
        ("cat\nFaceID: first in its line", "first in its line"),
        ('cat\nSteps: 4, FaceID note: "a, b", Version: x', None),
        ('cat\nSteps: 4, FaceID: "says \\"no\\", and more"', 'says "no", and more'),
    ],
)
def test_a_field_is_found_in_the_text(text: str, expected: str | None) -> None:
    assert infotext_field(text, "FaceID") == expected


def test_grids_and_masks_are_no_pictures() -> None:
    info = {"infotexts": ["grid", "one", "two"], "all_seeds": [1, 2], "index_of_first_image": 1}
    images = [encode_picture(grey(level)) for level in (9, 1, 2, 7)]
    drawn = read_drawn({"images": images, "info": json.dumps(info)})
    assert [int(picture[0, 0, 0]) for picture in drawn.pictures] == [1, 2]
    assert (len(drawn.images), drawn.infotexts, drawn.text) == (4, ("one", "two"), "one")


def test_refusals_and_silence_are_told_apart(address: str) -> None:
    with pytest.raises(Refused, match="answered 404: Not Found"):
        Client(address).get("/nothing")
    with pytest.raises(Unreachable, match="No WebUI with --api answers"):
        Client("http://127.0.0.1:9").get("/sdapi/v1/options")  # the discard port


# Settings.


def test_settings_that_a_request_left_behind_are_put_back(stand_in: StandIn, webui: WebUI) -> None:
    stand_in.faults = {"settings stay"}
    webui.draw(webui.job().under(batch_cond_uncond=False))
    assert stand_in.settings["batch_cond_uncond"] is True
    webui.settings.hold(sd_model_checkpoint="b.safetensors")
    webui.draw(webui.job().under(sd_model_checkpoint="a.safetensors"))
    assert stand_in.settings["sd_model_checkpoint"] == "b.safetensors"
    webui.settings.restore()
    assert stand_in.settings["sd_model_checkpoint"] == "a.safetensors"


def test_settings_that_never_changed_are_not_written(stand_in: StandIn, webui: WebUI) -> None:
    webui.draw(webui.job().under(batch_cond_uncond=False))
    webui.settings.restore()
    assert "/sdapi/v1/options" not in stand_in.posted


def test_leaving_early_stops_the_job_and_restores(stand_in: StandIn, webui: WebUI) -> None:
    def press_control_c() -> None:
        with restoring(webui):
            webui.settings.hold(batch_cond_uncond=False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        press_control_c()
    assert "/sdapi/v1/interrupt" in stand_in.posted
    assert stand_in.settings["batch_cond_uncond"] is True
    assert Settings(webui.client).knows("batch_cond_uncond")


# Cases on a WebUI that behaves, and on ones that do not.


def split(webui: WebUI) -> str:
    job = webui.job()
    return check_row(webui, job, Twin("split", job.under(batch_cond_uncond=False)), *alone(job, 1))


def split_alone(webui: WebUI) -> str:
    job = webui.job()
    return check_row(webui, job, Twin("split", job.under(batch_cond_uncond=False)))


def fault(webui: WebUI) -> str:
    return check_fault(webui, webui.unit(adapter="other.bin"), ("other.bin",))


def test_cases_hold_on_a_webui_that_behaves(webui: WebUI) -> None:
    assert "effect 30.00; split: with the face 0.00, plain 0.00; picture 2 alone" in split(webui)
    assert fault(webui).startswith("There is no adapter other.bin")


@pytest.mark.parametrize(
    ("mistake", "case", "words"),
    [
        ("weak", split, "changes a picture by 1.00 only"),
        ("wrong rows", split, "split: with the face 15.00, plain 0.00; expected at most 0.50"),
        ("always on", split, "weight 0: 1.00 from the plain picture; expected at most 0.00"),
        ("leftovers", split, "enabled false: 1.00 from the plain"),
        ("split leftovers", split_alone, "the plain picture afterwards: 1.00 from the plain"),
        ("wrong sides", split, "a face reaches the negative side: 12.00 between two people"),
        ("one for all", split, "another person changes a picture by 0.00 only"),
        ("face anyway", fault, "the picture under warn: 30.00 from the plain"),
        ("no text", split, "has no field FaceID"),
        ("silence", fault, "does not say 'other.bin'"),
        ("paths", fault, "holds a path"),
        ("wrong status", fault, "expected the answer 422; found 500"),
        ("leftovers", fault, "the plain picture afterwards: 1.00"),
    ],
)
def test_each_mistake_is_found(
    stand_in: StandIn, webui: WebUI, mistake: str, case: Callable[[WebUI], str], words: str
) -> None:
    webui.unit()  # the fixtures are looked for before the mistakes begin
    stand_in.faults = {mistake}
    with pytest.raises(Failed) as caught:
        case(webui)
    assert words in str(caught.value)


def test_what_a_webui_does_not_repeat_itself_is_compared_within_that(stand_in: StandIn, webui: WebUI) -> None:
    webui.unit()
    stand_in.faults = {"unstable"}
    plain = Plain(webui, webui.job(batch_size=1))
    plain.expect(webui.draw(plain.job), "again")
    assert plain.noise == 1
    with pytest.raises(Failed, match=r"expected at most 2\.00"):
        plain.expect(webui.draw(plain.job, webui.unit()), "with a face")


@pytest.mark.parametrize(
    "sentence",
    [
        "Photo 1 is broken",
        "Traceback: Photo 1.",
        "Photo 1 in /srv/x/a.png.",
        "Photo 1 in C:\\x.",
        "Photo 1. " * 90,
        "",
    ],
)
def test_what_is_no_sentence_for_people_is_found(sentence: str) -> None:
    check_sentence("Photo 1 of models/ip-adapter and 50/50 is broken (see https://example.org/x/y).", ("Photo 1",))
    with pytest.raises(Failed):
        check_sentence(sentence, ("Photo 1",))


# Running and reporting.


def ok(webui: WebUI) -> str:
    return "numbers"


def bad(webui: WebUI) -> str:
    raise Failed("3.00; expected 2.00")


def refused(webui: WebUI) -> str:
    raise Refused("/x", 500, "boom")


def skipping(webui: WebUI) -> str:
    raise Skipped("not here")


def gone(webui: WebUI) -> str:
    raise Unreachable("No WebUI answers.")


def run(webui: WebUI, *cases: Case) -> tuple[int, list[str]]:
    said: list[str] = []
    return run_cases(webui, cases, Report(said.append, as_json=False), clock=lambda: 0.0), said


@pytest.mark.parametrize(
    ("case", "code", "line"),
    [
        (Case("s", "n", ok), 0, "ok      s/n  (0.0 s)  numbers"),
        (Case("s", "n", bad), 1, "FAILED  s/n  (0.0 s)  3.00; expected 2.00"),
        (Case("s", "n", bad, optional=True), 1, "FAILED  s/n  (0.0 s)  3.00; expected 2.00"),
        (Case("s", "n", refused), 1, "FAILED  s/n  (0.0 s)  /x answered 500: boom"),
        (Case("s", "n", skipping), 1, "skipped s/n  (0.0 s)  not here"),
        (Case("s", "n", skipping, optional=True), 0, "skipped s/n  (0.0 s)  not here"),
        (Case("s", "n", bad, (sampler("Heun"),)), 1, "skipped s/n  (0.0 s)  this WebUI has no sampler Heun"),
        (Case("s", "n", bad, (setting("x"),), optional=True), 0, "skipped s/n  (0.0 s)  this WebUI has no setting x"),
        (Case("s", "n", bad, hosts=frozenset({"forge"})), 0, "skipped s/n  (0.0 s)  not a thing of"),
    ],
)
def test_how_a_case_went_decides_the_exit_code(webui: WebUI, case: Case, code: int, line: str) -> None:
    found, said = run(webui, Case("s", "first", ok), case)
    assert (found, len(said)) == (code, 3)
    assert said[1].startswith(line)


def test_the_summary_counts(webui: WebUI) -> None:
    code, said = run(webui, Case("s", "a", ok), Case("s", "b", bad), Case("s", "c", skipping), Case("s", "d", ok))
    assert (code, said[-1]) == (1, "Done: 2 ok, 1 failed, 1 skipped (1 of them had to be run).")
    assert run(webui) == (1, ["Done: 0 ok, 0 failed, 0 skipped."])


def test_a_webui_that_dies_ends_the_run(webui: WebUI) -> None:
    code, said = run(webui, Case("s", "a", ok), Case("s", "b", gone), Case("s", "c", ok))
    assert code == 1
    assert said[-1] == (
        "Stopped: No WebUI answers. 2 cases from s/b on were not completed. Until then 1 ok, 0 failed, 0 skipped."
    )


def test_settings_are_restored_after_each_case(stand_in: StandIn, webui: WebUI) -> None:
    def careless(webui: WebUI) -> str:
        webui.settings.hold(batch_cond_uncond=False)
        raise Failed("x")

    assert run_case(webui, Case("s", "n", careless)).outcome == "FAILED"
    assert stand_in.settings["batch_cond_uncond"] is True


def test_checkpoints_are_found_by_title_file_or_name(webui: WebUI) -> None:
    for name in ("b", "b.safetensors", "b.safetensors [2c3d]", "models/Stable-diffusion/b.safetensors"):
        assert webui.checkpoint_title(name) == "b.safetensors [2c3d]"
    assert webui.checkpoint_title("c") == ""
    assert checkpoint("sdxl")(webui) == "no checkpoint was named; add --checkpoint-sdxl NAME"


def test_patterns_choose_cases() -> None:
    cases = [Case("rows", "plain", ok), Case("rows", "AND with 2", ok), Case("errors", "plain photo", ok)]
    assert [case.title for case in select(cases, "rows/and")] == ["rows/AND with 2"]
    assert [case.title for case in select(cases, "*plain")] == ["rows/plain"]
    assert len(select(cases, "")) == 3
    titles = [case.title for case in command.all_cases()]
    assert len(titles) == len(set(titles)) > 100


# The command.


def main(*words: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return command.main(words, said.append), said


def test_the_command_tells_what_is_missing(stand_in: StandIn, address: str) -> None:
    assert main("--live", "http://127.0.0.1:9")[1][0].startswith("No WebUI with --api answers")
    assert main("--live", address, "--only", "no such case") == (1, ["Nothing was tried: no case has this name."])
    stand_in.adapters = ()
    code, said = main("--live", address)
    assert code == 1
    assert "python -m tests --fixtures MODELS" in said[0]
    stand_in.scripts.remove("faceid")
    assert "no script FaceID" in main("--live", address)[1][0]
    assert main("--live", address, "--size", "100")[0] == 1


def test_the_command_runs_cases(address: str) -> None:
    code, said = main("--live", address, "--only", "rows/plain", "--size", "64")
    assert (code, said[-1]) == (0, "Done: 1 ok, 0 failed, 0 skipped.")
    assert said[0] == f"{address}: a1111, a.safetensors [0a1b] (sd15); 1 cases"
    code, said = main("--live", address, "--only", "rows/plain", "--size", "64", "--json")
    told = json.loads("\n".join(said))
    assert (code, told["exit"], told["cases"][0]["outcome"]) == (0, 0, "ok")


def test_cases_are_listed_without_a_webui() -> None:
    code, said = main("--live", "--list", "--only", "rows/plain")
    assert (code, said) == (0, ["rows/plain"])


def test_the_tests_command_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(checks, "ensure_environment", lambda *files, no_deps: None)
    monkeypatch.setattr(command, "main", lambda words: ran.append(words) or 7)
    assert checks.main(["--live", "http://x", "--list"]) == 7
    assert checks.main(["--fixtures=models"]) == 7
    assert ran == [["--live", "http://x", "--list"], ["--fixtures=models"]]


# Files.


def test_fixtures_are_what_the_extension_takes_them_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "BASES", ("sd15",))  # SDXL's are made in the same way, and large
    foreign = tmp_path / "ip-adapter" / "faceid-live-portrait_sd15_narrow.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"somebody's own")
    said: list[str] = []
    fixtures.write_fixtures(tmp_path, 8, said.append)
    assert [line for line in said if line.startswith("kept")] == [f"kept     {foreign.relative_to(tmp_path)}"]
    for kind in ("faceid", "faceid-plusv2"):
        adapter = load_adapter(tmp_path / "ip-adapter" / fixtures.adapter_name(kind, "sd15", narrow=True))
        assert (adapter.variant, adapter.base, adapter.has_lora) == (kind, "sd15", True)
    person = load_identity(tmp_path / "ip-adapter/identities/faceid-live_sd15_narrow.safetensors")
    assert (person.context_width, tuple(person.kv[0].k.shape)) == (768, (2, 4, 8))
    assert find_pack(tmp_path / "insightface/models/faceid-live").crop == 112
    clip = tmp_path / "clip_vision/faceid-live/faceid-live-clip.safetensors"
    assert recognise_encoder(open_tensors(clip), json.loads((clip.parent / "config.json").read_text())).hidden == 80
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said.clear()
    assert command.main(["--fixtures", str(tmp_path), "--channels", "8"], said.append) == 0
    assert all(line.startswith("kept") for line in said)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_only_fixtures_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.relative_to(tmp_path) for path in fixtures.files(tmp_path, 8)}
    own = [tmp_path / "ip-adapter/faceid-live-of-mine.bin", tmp_path / "insightface/models/faceid-live/note.txt"]
    for file in [tmp_path / name for name in names if name.suffix] + own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "insightface/models/faceid-live/det_10g.onnx").touch()
    assert command.main(["--fixtures", str(tmp_path), "--remove"], lambda line: None) == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(own)
    assert command.main(["--fixtures", str(tmp_path / "none")], lambda line: None) == 1


def test_true_fixtures_have_published_shapes() -> None:
    scale = fixtures.scale_of("sd15", None)
    assert (scale.widths, scale.context, scale.rank) == ((320, 640, 1280), 768, 128)
    assert np.isclose(np.linalg.norm(fixtures.vectors()[0]), 20, rtol=0.1)


def test_the_bomb_is_small_and_says_that_it_is_large() -> None:
    data = base64.b64decode(bomb())
    assert len(data) < 100_000
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(base64.b64decode(bomb(10_000)))) as image:
        assert image.size == (10_000, 10_000)
