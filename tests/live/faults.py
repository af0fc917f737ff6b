"""Whatever goes wrong or changes in between, nothing stays: the next plain picture and everything that hangs on the
WebUI's modules are as before.

The inside is compared through the maintainers' extension (inside.py). With ``--bare ADDRESS`` the plain pictures are
also compared with those of a WebUI that never had the extension.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .case import Section, checkpoint, sampler, setting
from .checks import NOTE, Plain, ensure_told
from .client import Refused, infotext_field
from .compare import Failed, Skipped, differences, ensure_clear, ensure_same
from .during import MANY_STEPS, at_once, while_running
from .errors import check_sentence
from .fixtures import vectors
from .inside import ensure_untouched, inside, planted, read_state, read_usage, reload_page
from .job import Job
from .peers import attention_choices
from .webui import WebUI

SECTION = Section("faults")
_OPTIMISATION = "sub-quadratic"  # its title in the setting goes on
Act = Callable[[WebUI, Job, dict[str, Any]], str]


def case(name: str, *needs: Any, first: Callable[[WebUI], object] | None = None) -> Callable[[Act], Act]:
    """A case about what is left after ``act``: optional, because users' WebUIs have no inside view.

    ``first`` is done before anything is looked at: what the WebUI changes for good at its first time is its own doing.
    """

    def register(act: Act) -> Act:
        def run(webui: WebUI) -> str:
            if first is not None:
                first(webui)
            return _leaves_nothing(act, webui)

        SECTION.add(name, run, inside, *needs, optional=True, hosts="a1111")
        return act

    return register


def _leaves_nothing(act: Act, webui: WebUI) -> str:
    """A job with face and LoRA first: the WebUI's Lora extension keeps a copy of each weight from its first use on."""
    job, unit = webui.job(), webui.unit(lora=1.0)
    face = webui.draw(job, unit)
    plain = Plain(webui, job)
    bare = _ensure_bare(webui, plain)
    before = read_state(webui)
    told = act(webui, job, unit)
    plain.expect_again()
    ensure_untouched(before, read_state(webui))
    again = ensure_same(face.pictures, webui.draw(job, unit).pictures, "with the face before and after")
    plain.expect_again()
    ensure_untouched(before, read_state(webui))
    left = read_usage(webui)["patches"]
    if left:
        raise Failed(f"changes are left in place: {', '.join(left[:3])}")
    return f"{told}; {again}; {bare}inside as before ({len(before)} things)"


def _ensure_bare(webui: WebUI, plain: Plain) -> str:
    if webui.bare is None:
        return ""
    ensure_same(plain.drawn.pictures, webui.bare.draw(plain.job.mode, plain.job.body(())).pictures, "without FaceID")
    return "plain as in a WebUI without FaceID; "


def _fails(webui: WebUI, job: Job, unit: dict[str, Any], words: str) -> str:
    """Raises Failed unless the job ends with an error that the person is told."""
    try:
        webui.draw(job, unit)
    except Refused as error:
        if words not in error.detail:
            raise Failed(f"the answer {error.status} does not tell the error: {error.detail[:200]!r}") from error
        return f"answered {error.status}: {error.detail}"
    raise Failed("a picture came in spite of the error")


def _planted_case(name: str, kind: str, call: int, words: str) -> None:
    def act(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
        with planted(webui, kind, call):
            return _fails(webui, job, unit, words)

    case(name)(act)


# Calls in the middle of the job: the third UNet call; a tap of the second one; one of some 35 hooks.
_planted_case("an error in sampling", "sampling", 3, "an error in sampling")
_planted_case("out of memory in sampling", "memory", 3, "out of memory")
_planted_case("an error in a tap", "tap", 20, "in a tap")
_planted_case("an error in removal", "removal", 9, "in removal")


@case("an error of the sampler itself", sampler("UniPC"))
def sampler_error(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """UniPC cannot do 2 steps in A1111 1.10.1; no callback comes after its error."""
    try:
        webui.draw(job.but(sampler_name="UniPC", steps=2), unit)
    except Refused as error:
        return f"answered {error.status}: {error.detail[:80]}"
    raise Skipped("UniPC does 2 steps in this WebUI")


@case("a UNet without the attention modules")
def bypass(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """As with a TensorRT engine: told, and never a picture that silently has no face."""
    with planted(webui, "bypass"):
        plain = webui.draw(job)
        sentence = webui.refusal(job, unit)
        check_sentence(sentence, ("TensorRT", "switch it off"))
        drawn = webui.draw(job, unit | {"on_fail": "warn"})
    ensure_same(plain.pictures, drawn.pictures, "under warn")
    check_sentence(infotext_field(drawn.text, NOTE) or "", ("TensorRT",))
    return sentence


@case("a refused job")
def refused(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    return webui.refusal(job, unit | {"adapter": "no-such-adapter.bin"})


@case("interrupt")
def interrupt(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    return _ended(webui, job.but(n_iter=2), unit, "interrupt")


@case("skip")
def skip(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    return _ended(webui, job, unit, "skip")


def _ended(webui: WebUI, job: Job, unit: dict[str, Any], how: str) -> str:
    end = partial(webui.client.post, f"/sdapi/v1/{how}", {})
    _, step = while_running(webui, job.but(steps=MANY_STEPS), [unit], end)
    return f"ended after step {step} of {MANY_STEPS}"


@case("two jobs at once")
def two_jobs(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """They wait for each other, and each has its own face."""
    other = unit | {"embeddings": vectors(1, seed=9)}
    alone = [webui.draw(job, one) for one in (unit, other)]
    found = at_once(webui, [(job, (unit,)), (job, (other,)), (job, ())])
    ensure_clear(differences(alone[0].pictures, alone[1].pictures), "another person")
    return "; ".join(
        ensure_same(one.pictures, two.pictures, f"job {number}")
        for number, (one, two) in enumerate(zip(alone, found, strict=False), start=1)
    )


@case("extra networks disabled")
def no_networks(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """The LoRA of the adapter acts and is gone in the next job, though the WebUI clears nothing under this."""
    under = job.but(disable_extra_networks=True)
    plain, drawn = webui.draw(under), webui.draw(under, unit)
    ensure_same(webui.draw(job, unit).pictures, drawn.pictures, "with and without extra networks")
    ensure_same(plain.pictures, webui.draw(under).pictures, "plain, extra networks disabled")
    return ensure_clear(differences(plain.pictures, drawn.pictures), "effect")


@case("Reload UI")
def reload(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    reload_page(webui)
    if not webui.has_faceid():
        raise Failed("FaceID is not there after Reload UI")
    return "FaceID is there afterwards"


@case("the extension disabled, and enabled again", setting("disabled_extensions"))
def disabled(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """A WebUI in which it was disabled draws as one that never had it."""
    plain = webui.draw(job)
    usual = list(webui.client.get("/sdapi/v1/options")["disabled_extensions"])
    reload_page(webui, [*usual, read_usage(webui)["folder"]])
    try:
        scripts = [name.lower() for name in webui.client.get("/sdapi/v1/scripts")["txt2img"]]
        told = ensure_same(plain.pictures, webui.draw(job).pictures, "while it is disabled")
    finally:
        reload_page(webui, usual)
    if "faceid" in scripts:
        raise Failed("FaceID is still there after it was disabled")
    return told


def _switch_case(name: str, role: str) -> None:
    def act(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
        with webui.loaded(role):
            plain = webui.draw(job)
            drawn = webui.draw(job, webui.unit(lora=1.0))
            ensure_told(drawn)
            ensure_same(plain.pictures, webui.draw(job).pictures, "plain there")
        return ensure_clear(differences(plain.pictures, drawn.pictures), "effect there")

    case(name, checkpoint(role))(act)


_switch_case("a checkpoint with the same configuration, and back", "twin")
_switch_case("a checkpoint with another configuration, and back", "other")
_switch_case("a checkpoint of another base, and back", "sdxl")


@case("another checkpoint asked for while a job runs", checkpoint("other"))
def switch_during(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """The job is done with the checkpoint it began with; the next one has the other."""
    long = job.but(steps=MANY_STEPS)
    alone = webui.draw(long, unit)
    title = webui.checkpoint_title(webui.setup.checkpoints["other"])
    try:
        act = partial(webui.settings.hold, sd_model_checkpoint=title)
        drawn, step = while_running(webui, long, [unit], act)
        there = webui.draw(job, unit)
    finally:
        webui.settings.restore()
    ensure_clear(differences(there.pictures, webui.draw(job, unit).pictures), "the other checkpoint")
    return f"asked at step {step}; {ensure_same(alone.pictures, drawn.pictures, 'undisturbed')}"


def _other_optimisation(webui: WebUI) -> str:
    """One that this machine does not take by itself."""
    return next(choice for choice in attention_choices(webui) if choice.startswith(_OPTIMISATION))


def _change_optimisation(webui: WebUI) -> None:
    webui.settings.hold(cross_attention_optimization=_other_optimisation(webui))
    webui.draw(webui.job())
    webui.settings.restore()


@case(
    "another attention optimisation while a job runs",
    setting("cross_attention_optimization"),
    first=_change_optimisation,
)
def optimisation_during(webui: WebUI, job: Job, unit: dict[str, Any]) -> str:
    """The forward of all attention classes changes under the taps."""
    long = job.but(steps=MANY_STEPS)
    alone = webui.draw(long, unit)
    try:
        act = partial(webui.settings.hold, cross_attention_optimization=_other_optimisation(webui))
        drawn, step = while_running(webui, long, [unit], act)
    finally:
        webui.settings.restore()
    return f"changed at step {step}: {max(differences(alone.pictures, drawn.pictures)):.2f} from the undisturbed job"
