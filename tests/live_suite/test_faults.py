"""Cases that look inside: red when anything stays, when nothing was tried, and when memory or handles grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from ..live import endurance, inpaint
from ..live.case import Case
from ..live.client import Client, Drawn
from ..live.compare import Failed
from ..live.faults import SECTION
from ..live.inside import ensure_untouched, inside, planted
from ..live.photos import landscape
from ..live.stand_in import Answer, StandIn, serving
from ..live.webui import Setup, WebUI

USAGE = {"memory": 100 << 20, "handles": 20, "files": 3, "tensors": 9, "attributes": 50, "hooks": 4, "callbacks": 15}


class Transparent(StandIn):
    """Has the inside view. ``mistake`` is what a job with a unit does to it, once."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"module a": "('forward', 'x')", "weights": "0a"}
        self.usage: dict[str, Any] = {**USAGE, "patches": [], "fired": [], "folder": "faceid"}
        self.mistake: Callable[[Transparent], None] = lambda webui: None
        self.waiting = ""

    def get(self, path: str) -> Answer:
        found = {"/faceid-inside/state": self.state, "/faceid-inside/usage": self.usage}
        return (200, found[path]) if path in found else super().get(path)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        if path == "/faceid-inside/fault":
            self.waiting = body.get("kind", "")
            self.usage["fired"] = []
            return 200, {}
        units = body.get("alwayson_scripts")
        if units and self.waiting:
            self.usage["fired"], self.waiting = [self.waiting], ""
            self.mistake(self)
            return 500, {"error": "RuntimeError", "detail": "", "errors": "planted: an error in sampling"}
        return super().post(path, body)


@pytest.fixture
def transparent() -> Transparent:
    return Transparent()


@pytest.fixture
def glass(transparent: Transparent) -> Iterator[WebUI]:
    with serving(transparent) as address:
        yield WebUI(Client(address), Setup(size=64, jobs=4))


def case(name: str) -> Case:
    (found,) = [case for case in SECTION.cases if case.name == name]
    return found


SAMPLING = "an error in sampling"


def test_a_fault_that_leaves_nothing(glass: WebUI) -> None:
    told = case(SAMPLING).run(glass)
    assert told.startswith("answered 500: planted: an error in sampling; with the face before and after: same bits")
    assert told.endswith("inside as before (2 things)")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda webui: webui.state.update({"module a": "other"}), "1 things are not as before: module a"),
        (lambda webui: webui.state.update({"module b": ""}), "module b came"),
        (lambda webui: webui.state.pop("weights"), "weights is gone"),
        (lambda webui: webui.usage.update(patches=["unet"]), "changes are left in place: unet"),
        (lambda webui: webui.faults.add("always on"), "with the face before and after: differs by 1.00"),
    ],
)
def test_what_stays_is_named(transparent: Transparent, glass: WebUI, mistake: Any, words: str) -> None:
    transparent.mistake = mistake
    with pytest.raises(Failed, match=words):
        case(SAMPLING).run(glass)


def test_the_plain_picture_is_compared_with_a_webui_without_the_extension(glass: WebUI) -> None:
    other = StandIn()
    with serving(other) as address:
        glass.bare = Client(address)
        assert "plain as in a WebUI without FaceID" in case(SAMPLING).run(glass)
        other.settings["sd_model_checkpoint"] = "b.safetensors"
        with pytest.raises(Failed, match="without FaceID: differs"):
            case(SAMPLING).run(glass)


def test_a_fault_that_does_not_come_to_pass_proves_nothing(glass: WebUI) -> None:
    with pytest.raises(Failed, match="did not come to pass"), planted(glass, "sampling"):
        pass


def test_an_error_that_does_not_reach_the_person(transparent: Transparent, glass: WebUI) -> None:
    with pytest.raises(Failed, match="a picture came in spite of the error"):
        case("an error in a tap").run(_deaf(transparent, glass))


def _deaf(transparent: Transparent, glass: WebUI) -> WebUI:
    usual = transparent.post
    transparent.post = lambda path, body: usual("/ignored" if path.endswith("fault") else path, body)
    return glass


def test_without_the_inside_view_the_cases_are_skipped(webui: WebUI) -> None:
    assert "link tests/live/extension" in inside(webui)
    assert all(one.optional and inside in one.needs for one in SECTION.cases)


def test_a_difference_is_shown_where_it_is() -> None:
    before = {"module x": "a" * 500 + "bare" + "c" * 500}
    with pytest.raises(Failed, match=r"…a+bare.*…a+wrapped"):
        ensure_untouched(before, {"module x": "a" * 500 + "wrapped"})
    ensure_untouched(before, dict(before))


# Endurance ----------------------------------------------------------------------------------------------------------


def test_many_jobs(glass: WebUI) -> None:
    told = endurance.SECTION.cases[0].run(glass)
    assert told.startswith("4 jobs; handles 20→20, files 3→3")
    assert told.endswith("memory 100→100 MB")


@pytest.mark.parametrize("grown", [{"hooks": 5}, {"handles": 21}, {"memory": 165 << 20}, {"patches": ["unet"]}])
def test_growth_is_red(grown: dict[str, Any]) -> None:
    first = {**USAGE, "patches": []}
    with pytest.raises(Failed, match="grew: handles"):
        endurance._compare(first, first | grown)
    assert endurance._compare(first, first | {"hooks": 3, "memory": 160 << 20})


# Inpainting ---------------------------------------------------------------------------------------------------------


def test_a_mask_grows_on_all_sides() -> None:
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    assert inpaint.grown(mask, 1).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert (inpaint.grown(mask, 0) == mask).all()
    assert (inpaint.grown(mask, 9)).all()
    assert [inpaint.reach_of(blur) for blur in (0, 1, 4, 8)] == [0, 3, 10, 20]


def test_a_face_outside_the_mask_is_red(webui: WebUI) -> None:
    """The stand-in's face is everywhere, as that of an extension which ignores the mask would be."""
    with pytest.raises(Failed, match="outside the mask a pixel changes by 30"):
        inpaint.SECTION.cases[0].run(webui)


def test_a_mask_that_leaves_nothing_outside_proves_nothing(webui: WebUI) -> None:
    with pytest.raises(Failed, match="40 pixels larger leaves nothing outside"):
        inpaint.check_inpaint(webui, webui.job().inpaint(only_masked=False), 40)


def test_how_far_a_picture_was_redrawn() -> None:
    picture = landscape(64)
    picture[16:48, 16:48] = 0  # the mask
    assert inpaint.measure_reach(Drawn((picture,), (picture,), ("",)), 64) == 0
    picture[30, 53] = 0  # six pixels to the right of it
    assert inpaint.measure_reach(Drawn((picture,), (picture,), ("",)), 64) == 6
