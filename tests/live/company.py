"""FaceID beside other extensions: both effects are there, and switching either off gives the other alone, bit for bit.

Token merging comes first: a reference_* unit of ControlNet silences it for as long as the WebUI runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .case import Section, script, setting
from .checks import Plain, alone, check_beside, check_row
from .compare import SLIGHT, Skipped, differences, ensure_clear, ensure_near
from .job import Job
from .peers import (
    CONTROL,
    HYPERTILE,
    PERPENDICULAR,
    REFERENCES,
    SALIENT,
    STYLE,
    T2I,
    TILED,
    TOKEN_MERGING,
    WITH_CONTROLNET,
    Peer,
    attention_choices,
    controlnet_face,
    face_model,
    lora,
    lora_title,
    loras,
)
from .webui import WebUI

SECTION = Section("company")
_OPTIMISATION = "cross_attention_optimization"


def _run(peer: Peer) -> Callable[[WebUI], str]:
    def run(webui: WebUI) -> str:
        job = peer.bare(webui)
        beside = peer.join(webui, job)
        return check_beside(webui, job, beside, *(alone(beside, 1) if peer.alike else ()), silent=peer.silent)

    return run


for _peer in (TOKEN_MERGING, HYPERTILE, *TILED, PERPENDICULAR, SALIENT, STYLE):
    SECTION.add(_peer.name, _run(_peer), *_peer.needs, optional=True)


@SECTION.case("two LoRAs in the prompt", loras("style", "companion"), optional=True)
def two_loras(webui: WebUI) -> str:
    """One is the adapter's own, at a strength of the person's choice, while the adapter is used without it."""
    job = webui.job()
    beside = lora("companion", 0.6)(webui, lora("style", 0.6)(webui, job))
    return check_beside(webui, job, beside, *alone(beside, 1))


@SECTION.case("a LoRA in the prompt and the adapter's own", loras("style"), optional=True)
def style_and_own(webui: WebUI) -> str:
    job = webui.job()
    beside = STYLE.join(webui, job)
    return check_beside(webui, job, beside, *alone(beside, 1), unit=webui.unit(lora=1.0))


@SECTION.case("the adapter's LoRA in the prompt as well", loras("companion"), optional=True)
def companion(webui: WebUI) -> str:
    """It is not added twice, which the picture's text says: the picture is the one that either of them makes."""
    job, unit = webui.job(), webui.unit(lora=1.0)
    beside = lora("companion")(webui, job)
    bare, face = Plain(webui, job), webui.draw(job, unit)
    told = check_row(webui, beside, *alone(beside, 1), unit=unit, note=_added_once(webui))
    effects = differences(face.pictures, webui.draw(job, webui.unit()).pictures)
    apart = differences(webui.draw(beside, unit).pictures, face.pictures)
    near = ensure_near(apart, [0.0] * len(apart), "by the prompt and by the adapter", min(effects))
    bare.expect(webui.draw(job, unit), "the face alone afterwards", face)
    bare.expect_again()
    return f"{told}; {ensure_clear(effects, 'the LoRA')}; {near}"


def _added_once(webui: WebUI) -> str:
    return f"in the prompt already as {lora_title(webui, 'companion')}, strength 1; it is not added twice"


@SECTION.case("every attention optimisation", setting(_OPTIMISATION), optional=True, hosts="a1111")
def optimisations(webui: WebUI) -> str:
    """The WebUI changes the forward of all attention modules at once, between two jobs: the same face with each."""
    job, unit = webui.job(), webui.unit()
    usual = Plain(webui, job)
    face = webui.draw(job, unit)
    effect = usual.effect_of(face)[1]
    told: list[str] = []
    for choice in attention_choices(webui):
        webui.settings.hold(**{_OPTIMISATION: choice})
        drawn = webui.draw(job, unit).pictures
        plainly = differences(webui.draw(job).pictures, usual.drawn.pictures)
        told.append(ensure_near(differences(drawn, face.pictures), plainly, choice, effect))
        check_row(webui, job, *alone(job, 1))
    webui.settings.restore()
    usual.expect(webui.draw(job, unit), "the face under the usual one again", face)
    usual.expect_again()
    return "; ".join(told)


for _peer in (*REFERENCES, CONTROL, T2I):
    SECTION.add(_peer.name, _run(_peer), *_peer.needs, optional=True)


@SECTION.case("ControlNet's own FaceID", WITH_CONTROLNET, face_model, optional=True, hosts="a1111")
def other_faceid(webui: WebUI) -> str:
    """With the same person and adapter it makes the same picture, and together with FaceID that of twice the weight."""
    job = webui.job()
    beside = controlnet_face(webui, job)
    told = check_beside(webui, job, beside, *alone(beside, 1))
    ours, double = (webui.draw(job, webui.unit(weight=weight)) for weight in (1.0, 2.0))
    theirs, both = webui.draw(beside), webui.draw(beside, webui.unit())
    none, effect = [0.0] * len(ours.pictures), min(differences(ours.pictures, double.pictures))
    same = ensure_near(differences(theirs.pictures, ours.pictures), none, "theirs and ours", effect)
    added = ensure_near(differences(both.pictures, double.pictures), none, "together and twice the weight", effect)
    return f"{told}; {same}; {added}"


def _like_theirs(peer: Peer) -> None:
    """ControlNet's FaceID in the company of another is an independent oracle, also where rows cannot be compared."""

    def run(webui: WebUI) -> str:
        job = peer.join(webui, webui.job())
        plain = Plain(webui, job)
        ours, theirs = webui.draw(job, webui.unit()), webui.draw(controlnet_face(webui, job))
        told, effect = plain.effect_of(ours)
        apart = differences(ours.pictures, theirs.pictures)
        plain.expect_again()
        return f"{told}; {ensure_near(apart, [0.0] * len(apart), 'theirs and ours', effect)}"

    needs = (WITH_CONTROLNET, face_model, *peer.needs)
    SECTION.add(f"ControlNet's own FaceID, and {peer.name}", run, *needs, optional=True, hosts="a1111")


for _peer in (*REFERENCES, CONTROL, STYLE):
    _like_theirs(_peer)


@SECTION.case(
    "another attention optimisation after ControlNet's FaceID",
    WITH_CONTROLNET,
    face_model,
    setting(_OPTIMISATION),
    optional=True,
    hosts="a1111",
)
def changed_after(webui: WebUI) -> str:
    """ControlNet leaves the old one on the cross-attentions, so that the two kinds of attention run different ones."""
    job = webui.job()
    webui.draw(controlnet_face(webui, job), webui.unit())
    before = Plain(webui, job)
    other = [choice for choice in attention_choices(webui) if choice not in ("Automatic", "None")][-1]
    webui.settings.hold(**{_OPTIMISATION: other})
    told = check_row(webui, job, *alone(job, 1))
    webui.settings.restore()
    before.expect_again()
    return f"{other}: {told}"


def _with_control(name: str, change: Callable[[Job], Job], weight: float = 1.0) -> None:
    def run(webui: WebUI) -> str:
        job = change(webui.job())
        beside = CONTROL.join(webui, job)
        return check_beside(webui, job, beside, *alone(beside, 1), unit=webui.unit(weight=weight))

    SECTION.add(name, run, *CONTROL.needs, optional=True)


# A mask leaves a quarter of the picture, and ControlNet of that little freedom: there the face is given more weight.
_with_control("ControlNet in img2img", lambda job: job.img2img())
_with_control("ControlNet in inpaint, whole picture", lambda job: job.inpaint(only_masked=False), weight=3.0)
_with_control("ControlNet in inpaint, only masked", lambda job: job.inpaint(only_masked=True), weight=3.0)
_with_control("ControlNet in hires fix", lambda job: job.hires().but(hr_second_pass_steps=2))


@SECTION.case("soft inpainting", script("soft inpainting", "img2img"), optional=True, hosts="a1111")
def soft_inpainting(webui: WebUI) -> str:
    job = webui.job().inpaint(only_masked=False)
    beside = job.beside("soft inpainting", True, 1, 0.5, 4, 0, 0.5, 2)
    return check_beside(webui, job, beside, *alone(beside, 1))


@SECTION.case("ControlNet and a LoRA", *CONTROL.needs, *STYLE.needs, optional=True)
def control_and_lora(webui: WebUI) -> str:
    return _check_together(webui, webui.job(), (CONTROL, STYLE), webui.unit(lora=1.0))


@SECTION.case("all at once, with hires fix", optional=True, hosts="a1111")
def all_at_once(webui: WebUI) -> str:
    """Whatever of these is here. Hypertile is left out: in a second pass it fails beside reference_only, also without
    FaceID.
    """
    asked = (REFERENCES[0], CONTROL, STYLE, PERPENDICULAR)
    here = [peer for peer in asked if not any(need(webui) for need in peer.needs)]
    if len(here) < 2:
        raise Skipped("fewer than two other extensions are here")
    job = webui.job(batch_size=1).hires().but(hr_second_pass_steps=2)
    return _check_together(webui, job, here, webui.unit(lora=1.0, weight=2.0))


def _check_together(webui: WebUI, job: Job, peers: Sequence[Peer], unit: dict[str, object]) -> str:
    """Raises Failed unless each has its effect in the company of all others and of FaceID."""
    beside = _joined(webui, job, peers)
    twins = alone(beside, 1) if all(peer.alike for peer in peers) else ()
    told = check_beside(webui, job, beside, *twins, unit=unit)
    drawn = webui.draw(beside, unit)
    for peer in peers:
        rest = [other for other in peers if other is not peer]
        without = webui.draw(_joined(webui, job, rest), unit)
        changed = differences(drawn.pictures, without.pictures)
        told += "; " + ensure_clear(changed, f"{peer.name} among them", least=SLIGHT)
    return told


def _joined(webui: WebUI, job: Job, peers: Sequence[Peer]) -> Job:
    for peer in peers:
        job = peer.join(webui, job)
    return job
