"""From which step to which the face acts, in each sampling pass, and how strongly; the LoRA of an adapter.

Steps are found in pictures alone: windows that hold the same steps make the same picture, bit for bit. Step k of n is
at k/n of a pass, and a window holds both its ends.
"""

from __future__ import annotations

from typing import Any

from .case import Section, sampler
from .checks import NOTE, Plain, different_face, ensure_told, same_face
from .client import encode_picture, infotext_field
from .compare import SLIGHT, Failed, differences, ensure_near
from .fixtures import vectors
from .job import Job
from .photos import left_half, uniform
from .webui import WebUI

SECTION = Section("timing")


def window(webui: WebUI, start: float, end: float, **fields: Any) -> dict[str, Any]:
    """A unit at twice the weight, so that single steps show."""
    return webui.unit(start=start, end=end, **{"weight": 2.0, **fields})


def first_steps(webui: WebUI, job: Job) -> str:
    """[0, 0] holds the first step and no other; a window that ends before the second step holds the same."""
    step = 1 / job.fields["steps"]
    plain = Plain(webui, job)
    first, same = window(webui, 0, 0), window(webui, 0, 0.8 * step)
    drawn = webui.draw(job, first)
    ensure_told(drawn)
    told = [
        plain.effect_of(drawn, "the first step alone", SLIGHT)[0],
        different_face(webui, job, (first,), (window(webui, 0, 1),), "the others"),
        same_face(webui, job, (first,), (same,), "0 to 0 and 0 to 0.8 steps"),
        different_face(webui, job, (same,), (window(webui, 0, step),), "the second step"),
    ]
    plain.expect_again()
    return "; ".join(told)


def last_steps(webui: WebUI, job: Job) -> str:
    """A window from within the first step holds the second and all later ones; one from beyond it does not."""
    step = 1 / job.fields["steps"]
    plain = Plain(webui, job)
    second, within, beyond = (window(webui, start * step, 1) for start in (1.0, 0.3, 1.1))
    told = [
        plain.effect_of(webui.draw(job, second), "from the second step", SLIGHT)[0],
        same_face(webui, job, (second,), (within,), "from 1 and from 0.3 steps"),
        different_face(webui, job, (second,), (beyond,), "the second step"),
        different_face(webui, job, (within,), (window(webui, 0, 1),), "the first step"),
    ]
    plain.expect(webui.draw(job, window(webui, 1 - 0.5 * step, 1)), "a window after the last step began")
    plain.expect_again()
    return "; ".join(told)


def _for_each_sampler(name: str, run: Any) -> None:
    SECTION.add(f"{name}, Euler", lambda webui: run(webui, webui.job()))
    SECTION.add(f"{name}, Heun", lambda webui: run(webui, webui.job(sampler_name="Heun")), sampler("Heun"))
    SECTION.add(f"{name}, img2img", lambda webui: run(webui, _all_steps(webui)))


def _all_steps(webui: WebUI) -> Job:
    """An img2img job whose pass has as many steps as it names: at full strength none is left out."""
    return webui.job().img2img().but(denoising_strength=1.0)


_for_each_sampler("the first steps", first_steps)
_for_each_sampler("the last steps", last_steps)


@SECTION.case("a window without a step")
def no_step(webui: WebUI) -> str:
    """The pictures are the plain ones, and the text says why."""
    job, unit = webui.job(), window(webui, 0.3 / webui.setup.steps, 0.6 / webui.setup.steps)
    plain = Plain(webui, job)
    drawn = webui.draw(job, unit)
    plain.expect(drawn, "a window without a step")
    found = infotext_field(drawn.text, NOTE) or ""
    if "window" not in found:
        raise Failed(f"the text says {found!r}; expected a remark on the window")
    plain.expect_again()
    return "same bits as plain, and a remark"


@SECTION.case("two windows that make one")
def union(webui: WebUI) -> str:
    """The same person twice, in the first half and in the second, is the person in the whole pass."""
    job, half = webui.job(), 0.5 / webui.setup.steps
    plain = Plain(webui, job)
    whole = webui.draw(job, window(webui, 0, 1))
    parts = webui.draw(job, window(webui, 0, 0.5), window(webui, 0.5 + half, 1))
    _, effect = plain.effect_of(whole)
    apart = differences(whole.pictures, parts.pictures)
    told = ensure_near(apart, [0.0] * len(apart), "whole and in two parts", effect)
    plain.expect_again()
    return told


@SECTION.case("hires fix counts each pass from 0")
def hires_passes(webui: WebUI) -> str:
    """With the first step alone the second pass acts as well, and it does at its own first step."""
    job = webui.job().hires()
    plain = Plain(webui, job)
    first = {"start": 0.0, "end": 0.0}
    told = [
        plain.effect_of(webui.draw(job, webui.unit(**first)), "the first step of both", SLIGHT)[0],
        different_face(
            webui, job, (webui.unit(**first),), (webui.unit(**first, hires_weight=0),), "the second pass's first step"
        ),
    ]
    plain.expect_again()
    return "; ".join(told)


@SECTION.case("the weight of hires fix")
def hires_weight(webui: WebUI) -> str:
    job = webui.job().hires()
    plain = Plain(webui, job)
    both, first, second = (
        webui.unit(**fields) for fields in ({}, {"hires_weight": 0}, {"weight": 0, "hires_weight": 1.0})
    )
    told = [
        same_face(webui, job, (both,), (webui.unit(hires_weight=1.0),), "no weight of its own and the same weight"),
        different_face(webui, job, (both,), (first,), "the second pass"),
        different_face(webui, job, (both,), (second,), "the first pass"),
        plain.effect_of(webui.draw(job, first), "the first pass alone", SLIGHT)[0],
        plain.effect_of(webui.draw(job, second), "the second pass alone", SLIGHT)[0],
    ]
    plain.expect_again()
    plain.expect_off(webui.unit(hires_weight=0))
    return "; ".join(told)


@SECTION.case("more weight, more effect")
def weights(webui: WebUI) -> str:
    job = webui.job()
    plain = Plain(webui, job)
    effects = [plain.effect_of(webui.draw(job, webui.unit(weight=w)), f"weight {w:g}") for w in (0.5, 1.0, 2.0)]
    plain.expect_again()
    if not effects[0][1] < effects[1][1]:
        raise Failed(f"weight 0.5 changes {effects[0][1]:.2f} and weight 1 changes {effects[1][1]:.2f}")
    return "; ".join(told for told, _ in effects)


@SECTION.case("layer factors")
def layers(webui: WebUI) -> str:
    """All 1 is no factors, all 0 is no face, and a half is neither."""
    count = 11 if webui.fit().base == "sdxl" else 16
    job = webui.job()
    plain = Plain(webui, job)
    told = [
        same_face(webui, job, (webui.unit(),), (webui.unit(layers=[1] * count),), "no factors and all 1"),
        different_face(webui, job, (webui.unit(),), (webui.unit(layers=[0.2] * count),), "all 0.2"),
    ]
    plain.expect(webui.draw(job, webui.unit(layers=[0] * count)), "all factors 0")
    plain.expect_again()
    return "; ".join(told)


@SECTION.case("a region mask")
def mask(webui: WebUI) -> str:
    """White everywhere is no mask, black everywhere is no face, half white is neither."""
    job = webui.job()
    plain = Plain(webui, job)
    white, black, left = (encode_picture(picture) for picture in (uniform(64, 255), uniform(64, 0), left_half(64)))
    told = [
        same_face(webui, job, (webui.unit(),), (webui.unit(mask=white),), "no mask and a white one"),
        different_face(webui, job, (webui.unit(),), (webui.unit(mask=left),), "half of the picture"),
        plain.effect_of(webui.draw(job, webui.unit(mask=left)), "a half mask")[0],
    ]
    plain.expect(webui.draw(job, webui.unit(mask=black)), "a black mask")
    plain.expect_again()
    return "; ".join(told)


# The LoRA.


@SECTION.case("the LoRA of the adapter")
def lora(webui: WebUI) -> str:
    """0 and 1 differ, 0 again is as before, and off leaves nothing of it."""
    job = webui.job()
    plain = Plain(webui, job)
    without = webui.draw(job, webui.unit(lora=0.0))
    told = [different_face(webui, job, (webui.unit(lora=0.0),), (webui.unit(lora=1.0),), "LoRA 1")]
    told.append(different_face(webui, job, (webui.unit(lora=0.5),), (webui.unit(lora=1.0),), "0.5 to 1"))
    plain.expect_again()
    again = webui.draw(job, webui.unit(lora=0.0))
    if max(differences(again.pictures, without.pictures)):
        raise Failed("LoRA 0 differs before and after LoRA 1")
    plain.expect_off(webui.unit(lora=1.0))
    return "; ".join(told)


@SECTION.case("the LoRA leaves nothing where the WebUI's own networks are switched off")
def lora_without_networks(webui: WebUI) -> str:
    """disable_extra_networks: nobody clears the WebUI's list of networks after such a job."""
    job = webui.job(disable_extra_networks=True)
    plain = Plain(webui, job)
    other = Plain(webui, webui.job())
    told = plain.effect_of(webui.draw(job, webui.unit(lora=1.0)), "LoRA 1")[0]
    plain.expect_again()
    other.expect_again()
    told_again = different_face(webui, job, (webui.unit(lora=0.0),), (webui.unit(lora=1.0),), "LoRA 0 to 1")
    plain.expect_again()
    return f"{told}; {told_again}"


@SECTION.case("the LoRA acts in both passes of hires fix")
def lora_hires(webui: WebUI) -> str:
    job = webui.job().hires()
    plain = Plain(webui, job)
    first = different_face(
        webui, job, (webui.unit(lora=0.0, hires_weight=0),), (webui.unit(lora=1.0, hires_weight=0),), "in the first"
    )
    second = different_face(
        webui,
        job,
        (webui.unit(lora=0.0, weight=0, hires_weight=1),),
        (webui.unit(lora=1.0, weight=0, hires_weight=1),),
        "in the second",
    )
    plain.expect_again()
    return f"{first}; {second}"


@SECTION.case("one LoRA for two people")
def lora_shared(webui: WebUI) -> str:
    """Two people of one adapter share its LoRA: it is not added twice."""
    job = webui.job()
    plain = Plain(webui, job)
    one = webui.draw(job, webui.unit(lora=1.0))
    both = webui.draw(job, webui.unit(lora=1.0), webui.unit(lora=1.0, weight=0.001, embeddings=vectors(1, seed=9)))
    _, effect = plain.effect_of(one)
    apart = differences(one.pictures, both.pictures)
    told = ensure_near(apart, [0.5] * len(apart), "with a second person of weight 0.001", effect)
    plain.expect_again()
    return told
