"""The cases beside other extensions hold on a WebUI that behaves, and each of them can fail."""

from __future__ import annotations

import pytest

from ..live import peers
from ..live.case import Case
from ..live.client import Client
from ..live.company import SECTION
from ..live.compare import Failed, Skipped
from ..live.job import Job
from ..live.runner import run_case
from ..live.webui import Setup, WebUI
from .company import Company

CASES = {case.name: case for case in SECTION.cases}
OPTIMISATIONS = "every attention optimisation"
CHANGED = "another attention optimisation after ControlNet's FaceID"
COMPANION = "the adapter's LoRA in the prompt as well"
ALIKE = {name for name in CASES if name.startswith("ControlNet's own FaceID, and")}
"""They compare with ControlNet's FaceID and nothing else."""
BATCH_OF_ONE = "all at once, with hires fix"
NO_TWIN = {name for name in CASES if name.startswith("ControlNet reference_")}


@pytest.fixture
def stand_in() -> Company:
    return Company()


@pytest.fixture
def webui(address: str) -> WebUI:
    """Small pictures: there are many."""
    return WebUI(Client(address), Setup(size=16))


def failure(stand_in: Company, webui: WebUI, name: str, mistake: str) -> str:
    """What the case says of the mistake; empty if it holds."""
    webui.unit()  # the fixtures are looked for before the mistakes begin
    stand_in.faults = {mistake}
    result = run_case(webui, CASES[name])
    assert result.outcome in ("ok", "FAILED"), result.detail
    return result.detail if result.outcome == "FAILED" else ""


def test_there_are_many() -> None:
    assert len(CASES) == len(SECTION.cases) >= 28
    assert all(case.optional for case in SECTION.cases)


@pytest.mark.parametrize("name", CASES)
def test_a_case_holds_on_a_webui_that_behaves(stand_in: Company, webui: WebUI, name: str) -> None:
    before = dict(stand_in.settings)
    result = run_case(webui, CASES[name])
    assert (result.outcome, stand_in.settings | before) == ("ok", stand_in.settings), result.detail


@pytest.mark.parametrize("name", CASES)
def test_a_face_that_is_ignored_in_company_is_found(stand_in: Company, webui: WebUI, name: str) -> None:
    assert failure(stand_in, webui, name, "company is deaf")


@pytest.mark.parametrize("name", CASES)
def test_what_stays_after_a_job_in_company_is_found(stand_in: Company, webui: WebUI, name: str) -> None:
    assert failure(stand_in, webui, name, "company stays")


# The stand-in takes AND_PERP and AND_SALT as words like others, which nothing switches off.
@pytest.mark.parametrize("name", sorted(CASES.keys() - {OPTIMISATIONS, CHANGED, "AND_PERP", "AND_SALT"}))
def test_another_that_a_face_switches_off_is_found(stand_in: Company, webui: WebUI, name: str) -> None:
    assert failure(stand_in, webui, name, "others lost")


@pytest.mark.parametrize("name", sorted(CASES.keys() - {CHANGED} - ALIKE))
def test_a_face_that_is_another_afterwards_is_found(stand_in: Company, webui: WebUI, name: str) -> None:
    told = failure(stand_in, webui, name, "tired face")
    assert "the face" in told
    assert "from the same before; expected at most 0.00" in told


@pytest.mark.parametrize("name", sorted(CASES.keys() - ALIKE - NO_TWIN - {BATCH_OF_ONE}))
def test_rows_that_are_mixed_in_company_are_found(stand_in: Company, webui: WebUI, name: str) -> None:
    assert "picture 2 alone: with the face" in failure(stand_in, webui, name, "rows mixed")


@pytest.mark.parametrize(
    ("name", "mistake", "words"),
    [
        (COMPANION, "added twice", "by the prompt and by the adapter: with the face 9.00"),
        (COMPANION, "added silently", "has the remark None; expected one with"),
        (
            COMPANION,
            "told wrongly",
            "expected one with 'in the prompt already as faceid-live-companion_sd15, strength 1",
        ),
        ("ControlNet's own FaceID", "theirs differ", "theirs and ours: with the face 3.00"),
        ("ControlNet's own FaceID, and a LoRA in the prompt", "theirs differ", "theirs and ours: with the face 3.00"),
        ("ControlNet and a LoRA", "lora lost", "a LoRA in the prompt among them changes a picture by 0.00 only"),
        ("T2I adapter", "lazy alone", "the face alone changes a picture by 0.00 only"),
        ("T2I adapter", "tired plain", "the plain picture afterwards: 1.00 from the plain picture"),
        ("T2I adapter", "control silent", "the other alone changes a picture by 0.00 only"),
        (OPTIMISATIONS, "company is deaf", "sdp - scaled dot product: with the face 20.00, plain 0.00"),
    ],
)
def test_each_mistake_is_told(stand_in: Company, webui: WebUI, name: str, mistake: str, words: str) -> None:
    assert words in failure(stand_in, webui, name, mistake)


def test_token_merging_that_controlnet_silenced_is_skipped(stand_in: Company, webui: WebUI) -> None:
    webui.unit()
    stand_in.faults = {"merging silent"}
    with pytest.raises(Skipped, match=r"by 0\.00 only.*start it again"):
        CASES["token merging"].run(webui)


# What is needed, and what is asked for.


@pytest.mark.parametrize("name", sorted(CASES.keys() - {OPTIMISATIONS, BATCH_OF_ONE}))
def test_without_its_extension_a_case_is_skipped(stand_in: Company, webui: WebUI, name: str) -> None:
    stand_in.scripts[:], stand_in.loras[:], stand_in.models[:] = ["faceid"], [], []
    stand_in.settings.pop("token_merging_ratio")
    bare = WebUI(webui.client, Setup(size=16))
    result = run_case(bare, CASES[name])
    assert (result.outcome, result.is_bad) == ("skipped", False)
    assert "lists no" in result.detail or "has no" in result.detail


def test_all_at_once_needs_two_others(stand_in: Company, webui: WebUI) -> None:
    stand_in.loras[:], stand_in.models[:] = [], []
    stand_in.scripts.remove("neutral prompt")
    with pytest.raises(Skipped, match="fewer than two"):
        CASES[BATCH_OF_ONE].run(WebUI(webui.client, Setup(size=16)))


def named(webui: WebUI, model: str) -> WebUI:
    return WebUI(webui.client, Setup(controlnet=model))


def test_the_controlnet_model_is_the_first_that_fits_or_the_one_named(stand_in: Company, webui: WebUI) -> None:
    stand_in.models[:] = ["ip-adapter_sd15 [1]", "t2i_canny [2]", "canny_xl [3]", "depth_sd15 [4]", "tile_sd15 [5]"]

    def model(of: WebUI) -> str:
        return peers.control(of, of.job()).body(())["alwayson_scripts"]["controlnet"]["args"][0]["model"]

    assert model(webui) == "depth_sd15 [4]"
    assert model(named(webui, "tile_sd15")) == "tile_sd15 [5]"
    assert peers.control_model(webui) == ""
    assert peers.control_model(named(webui, "openpose")) == "ControlNet lists no model openpose"
    del stand_in.models[3:]
    assert "--controlnet-model" in peers.control_model(webui)


def test_attention_optimisations_are_those_of_the_page(stand_in: Company, webui: WebUI) -> None:
    assert peers.attention_choices(webui) == ["Automatic", "sdp - scaled dot product", "None"]
    stand_in.get = lambda path: (200, {"components": [{"props": {}}]})
    with pytest.raises(Failed, match="does not say"):
        peers.attention_choices(webui)


def test_settings_that_were_never_saved_come_back(stand_in: Company, webui: WebUI) -> None:
    """A request leaves them behind, as A1111 does with settings it has not saved."""
    stand_in.faults = {"settings stay"}
    webui.draw(peers.HYPERTILE.join(webui, webui.job()))
    assert stand_in.settings["hypertile_enable_unet"] is False
    assert stand_in.settings["hypertile_swap_size_unet"] == 3
    webui.settings.assume(batch_cond_uncond=False)
    webui.draw(webui.job().under(batch_cond_uncond=False))
    assert stand_in.settings["batch_cond_uncond"] is True  # what the WebUI lists counts more
    webui.settings.restore()
    assert stand_in.settings["batch_cond_uncond"] is True


def test_units_of_one_extension_stand_side_by_side() -> None:
    job = Job({"prompt": "cat"}).beside("a", 1).beside("b", 2).beside("a", 3)
    assert job.body(({"x": 1},))["alwayson_scripts"] == {
        "a": {"args": [1, 3]},
        "b": {"args": [2]},
        "FaceID": {"args": [{"x": 1}]},
    }
    assert Job({"prompt": "cat"}).saying("dog").fields["prompt"] == "cat dog"


def test_a_case_says_which_host_it_is_for() -> None:
    assert all(isinstance(case, Case) and "a1111" in case.hosts for case in SECTION.cases)
