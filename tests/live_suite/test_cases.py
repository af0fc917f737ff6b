"""Cases hold on a WebUI that behaves; does every mistake of a WebUI turn one red?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..live.checks import Plain, Twin, alone, check_row
from ..live.compare import Failed
from ..live.errors import check_fault
from ..live.stand_in import StandIn
from ..live.webui import WebUI


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
