"""Jobs in A1111: what is read of the script's arguments, and that nothing is attached where FaceID is off."""

from __future__ import annotations

import copy

import pytest
import torch

from lib_faceid.core.patch import live_patches
from lib_faceid.hosts.a1111 import sampling
from lib_faceid.hosts.job import FaceIDStopped

from ..unets import assert_same_state, state
from .checks import ANNA, differs
from .fake_webui import Processing, panel, sent


class TestArguments:
    def test_the_panel(self, host):
        job = host.run(*panel(identity="anna", weight=0.9))
        assert "person: anna" in job.texts[0]["FaceID"]
        assert "weight: 0.9" in job.texts[0]["FaceID"]
        assert differs(host, job) == [True]

    def test_units_of_the_api(self, host):
        """Side by side or as one list; what the host fills in after them is not read."""
        side_by_side = host.run(*sent(ANNA, {**ANNA, "weight": 0.3}))
        one_list = host.run(*sent([ANNA, {**ANNA, "weight": 0.3}]))
        for job in (side_by_side, one_list):
            assert "weight: 0.8" in job.texts[0]["FaceID"]
            assert "weight: 0.3" in job.texts[0]["FaceID 2"]
            assert set(job.texts[0]) == {"FaceID", "FaceID 2"}
        assert torch.equal(side_by_side.pictures[0], one_list.pictures[0])
        assert differs(host, side_by_side) == [True]

    def test_whatever_comes_after_the_units(self, host):
        job = host.run(ANNA, 5, "x", None, True, 0.5)
        assert set(job.texts[0]) == {"FaceID"}

    def test_as_many_units_as_the_panel_has_values(self, host):
        """The host cuts off what is more, so it cannot be told whether that was all; a list has no such end."""
        count = len(panel())
        with pytest.raises(FaceIDStopped, match=f"At most {count - 1} units can be sent side by side"):
            host.run(*[ANNA] * count)
        assert len(host.run(*sent([ANNA] * count)).texts[0]) == count

    @pytest.mark.parametrize(
        ("args", "sentence"),
        [
            (sent({"wieght": 1}), "FaceID does not know the field 'wieght'; it knows enabled, images"),
            (sent({"weight": 9}), r"Weight \(weight\) is 9; expected a number from 0 to 3"),
            (sent([ANNA, 5]), "A FaceID unit is an object with fields such as images and weight; found 5"),
            (sent([["anna"]]), r"FaceID \(enabled\) is \[\['anna'\]\]; expected true or false"),
            (sent("anna"), r"FaceID \(enabled\) is 'anna'; expected true or false"),
            (sent(1), r"FaceID \(enabled\) is 1; expected true or false"),
            ([True, None], "FaceID got 2 values from its panel; expected 13"),
            (panel(identity="anna", start=0.9, end=0.1), "Start is 0.9 and End is 0.1; expected Start at or before"),
            (panel(identity="anna", hires_weight="a lot"), r"Weight in hires fix \(hires_weight\) is 'a lot'"),
            (sent([ANNA] * 65), "65 FaceID units were sent; expected at most 64"),
        ],
    )
    def test_arguments_that_cannot_be_read(self, host, args, sentence):
        with pytest.raises(FaceIDStopped, match=sentence):
            host.run(*args)
        assert host.reported == []

    def test_nothing_in_a_list_of_units(self, host):
        with pytest.raises(FaceIDStopped, match="A FaceID unit is an object"):
            host.run(*sent([ANNA, None]))

    def test_a_panel_that_is_off_is_not_read(self, host):
        job = host.run(*panel(enabled=False, weight=99, images=["nonsense"]))
        assert (job.texts, job.comments, host.reported) == ([{}], [], [])

    @pytest.mark.parametrize(
        "args",
        [
            sent({**ANNA, "weight": 9, "on_fail": "warn"}),
            sent([{"on_fail": "warn"}, "nonsense"]),
            panel(identity="anna", start=0.9, end=0.1, on_fail="warn"),
        ],
    )
    def test_unreadable_arguments_that_ask_for_a_picture_at_least(self, host, args):
        job = host.run(*args)
        assert job.texts[0]["FaceID note"].startswith("The face was not applied: ")
        assert differs(host, job) == [False]

    @pytest.mark.parametrize("stops", [{"on_fail": "stop"}, {}], ids=["said", "default"])
    def test_one_unit_that_stops_is_enough(self, host, stops):
        with pytest.raises(FaceIDStopped):
            host.run(*sent({**ANNA, **stops, "weight": 9}, {**ANNA, "on_fail": "warn"}))

    def test_a_name_is_not_a_wish(self, host):
        with pytest.raises(FaceIDStopped):
            host.run(*panel(identity="warn", weight=9, on_fail="stop"))

    @pytest.mark.parametrize("kept", [{}, {"FaceID": "old", "FaceID note": "old"}])
    def test_a_copied_job_is_not_used_again(self, host, kept):
        """X/Y/Z plot copies the processing object, with everything that hangs on it."""
        p = Processing(host)
        p.extra_generation_params |= kept
        first = host.process(p, *sent(ANNA))
        again = host.process(copy.copy(p), *sent({**ANNA, "weight": 0.2}))
        assert "weight: 0.2" in again.texts[0]["FaceID"]
        assert "FaceID note" not in again.texts[0]
        assert not torch.equal(first.pictures[0], again.pictures[0])
        off = host.process(copy.copy(p))
        assert off.texts == [{}]
        assert torch.equal(off.pictures[0], host.run().pictures[0])

    def test_reload_ui_registers_once(self, host):
        host.load_script()
        host.load_script()
        assert len(host.denoise_callbacks) == 1


OFF = [
    sent({**ANNA, "weight": 0}),
    sent({**ANNA, "weight": 0, "lora": 1}),
    sent({**ANNA, "weight": 0, "hires_weight": 0}),
    sent({**ANNA, "enabled": False}),
    sent([]),
    panel(enabled=False, identity="anna"),
    panel(identity="anna", weight=0),
    [],
]


@pytest.mark.parametrize("args", OFF)
def test_off_is_absent(host, args):
    before, seen = state(host.unet), []

    def look(denoiser):
        assert_same_state(before, state(host.unet))
        seen.append((live_patches(), "launch_sampling" in vars(denoiser.sampler), list(sampling._running)))

    host.during = look
    job = host.run(*args, enable_hr=True)
    assert seen == [([], False, [])] * 4
    assert (job.texts, job.comments, host.reported) == ([{}], [], [])
    host.during = None
    assert torch.equal(job.pictures[0], host.run(enable_hr=True).pictures[0])


def test_the_same_look_sees_what_is_attached(host):
    seen = []
    host.during = lambda denoiser: seen.append((len(live_patches()), "launch_sampling" in vars(denoiser.sampler)))
    host.run(*sent(ANNA))
    assert all(count > 30 and wrapped for count, wrapped in seen)
