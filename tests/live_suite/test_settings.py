"""Settings that a case or a request changed are put back, whatever happens."""

from __future__ import annotations

import pytest

from ..live.case import Case
from ..live.client import Settings
from ..live.compare import Failed
from ..live.runner import run_case
from ..live.stand_in import StandIn
from ..live.webui import WebUI, restoring


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


def test_settings_are_restored_after_each_case(stand_in: StandIn, webui: WebUI) -> None:
    def careless(webui: WebUI) -> str:
        webui.settings.hold(batch_cond_uncond=False)
        raise Failed("x")

    assert run_case(webui, Case("s", "n", careless)).outcome == "FAILED"
    assert stand_in.settings["batch_cond_uncond"] is True
