"""Jobs inside jobs, jobs that end early, and checkpoints that come and go: the face is there when asked for, and only
then."""

from __future__ import annotations

from functools import partial
from typing import Any

from .case import Section, checkpoint, script
from .checks import NOTE, Plain, check_row, ensure_told
from .client import Drawn, Picture, infotext_field
from .compare import ROUNDING, Failed, Skipped, difference, differences, ensure_same, show
from .during import MANY_STEPS, while_running
from .fixtures import vectors
from .job import SCRIPT, Job
from .webui import WebUI

SECTION = Section("lifecycle")
_XYZ = "x/y/z plot"


@SECTION.case("the same job again")
def again(webui: WebUI) -> str:
    job = webui.job()
    plain = Plain(webui, job)
    first, second = (webui.draw(job, webui.unit()) for _ in range(2))
    told = ensure_same(first.pictures, second.pictures, "twice")
    plain.expect_again()
    return told


@SECTION.case("people in turn")
def in_turn(webui: WebUI) -> str:
    """One person, another, and the first again: each as if alone in the world."""
    job = webui.job()
    plain = Plain(webui, job)
    one, other = webui.unit(), webui.unit(embeddings=vectors(1, seed=9))
    first, second, third = (webui.draw(job, unit) for unit in (one, other, one))
    told = ensure_same(first.pictures, third.pictures, "before and after another person")
    if min(differences(first.pictures, second.pictures)) == 0:
        raise Failed("two people make the same picture")
    plain.expect_again()
    return told


@SECTION.case("X/Y/Z plot over seeds and steps", script(_XYZ))
def xyz(webui: WebUI) -> str:
    """Each cell is the picture that the same job makes alone."""
    steps = webui.setup.steps
    job, unit = webui.job(batch_size=1), webui.unit()
    plain = Plain(webui, job)
    drawn = webui.draw(_plot(webui, job, ("Seed", "1, 2"), ("Steps", f"{steps}, {steps + 1}")), unit)
    cells = [job.but(seed=seed, steps=count) for count in (steps, steps + 1) for seed in (1, 2)]
    wanted = [webui.draw(cell, unit).pictures[0] for cell in cells]
    told = _find_all(drawn, wanted)
    plain.expect_again()
    return told


@SECTION.case("X/Y/Z plot with a fault", script(_XYZ))
def xyz_fault(webui: WebUI) -> str:
    """The script swallows refusals and leaves the cell empty; nothing of the job stays."""
    job = webui.job(batch_size=1)
    plain = Plain(webui, job)
    webui.draw(_plot(webui, job, ("Seed", "1, 2"), ("Nothing", "")), webui.unit(adapter="no-such-adapter.bin"))
    plain.expect_again()
    return "plain afterwards"


@SECTION.case("X/Y/Z plot over checkpoints", script(_XYZ), checkpoint("other"), optional=True)
def xyz_checkpoints(webui: WebUI) -> str:
    """The checkpoint changes between cells, and each has the face."""
    job, unit = webui.job(batch_size=1), webui.unit()
    plain = Plain(webui, job)
    other = webui.checkpoint_title(webui.setup.checkpoints["other"])
    drawn = webui.draw(_plot(webui, job, ("Checkpoint name", [webui.checkpoint_now(), other]), ("Nothing", "")), unit)
    here = webui.draw(job, unit).pictures[0]
    with webui.loaded("other"):
        there = webui.draw(job, unit).pictures[0]
    told = _find_all(drawn, [here, there])
    plain.expect_again()
    return told


def _plot(webui: WebUI, job: Job, across: tuple[str, Any], down: tuple[str, Any]) -> Job:
    """A plot with its single pictures beside the grid. An axis is its label and its values, as text or a list."""
    choices = webui.script_choices(_XYZ, 0)
    axes: list[Any] = []
    for label, values in (across, down, ("Nothing", "")):
        if label not in choices:
            raise Skipped(f"the script has no axis {label}")
        axes += [choices.index(label), values if isinstance(values, str) else "", values]
    # draw legend, single pictures, sub-grids, keep -1, vary seeds for x, y and z, margin, values as text
    return job.through(_XYZ, *axes, False, True, False, False, False, False, False, 0, False)


@SECTION.case("prompts from file", script("prompts from file or textbox"))
def prompts_from_file(webui: WebUI) -> str:
    job, unit = webui.job(prompt="", batch_size=1), webui.unit()
    plain = Plain(webui, job)
    lines = ("a photo of a cat", "a green train AND a dog", "--prompt 'a red house' --steps 3")
    drawn = webui.draw(job.through("prompts from file or textbox", False, False, "start", "\n".join(lines)), unit)
    cells = [job.but(prompt=lines[0]), job.but(prompt=lines[1]), job.but(prompt="a red house", steps=3)]
    told = _find_all(drawn, [webui.draw(cell, unit).pictures[0] for cell in cells])
    plain.expect_again()
    return told


@SECTION.case("loopback", script("loopback", "img2img"))
def loopback(webui: WebUI) -> str:
    """The first loop is the picture of the plain img2img job, and the face is in each."""
    job, unit = webui.job().img2img().but(batch_size=1), webui.unit()
    plain = Plain(webui, job)
    through = job.through("loopback", 2, 0.5, "Linear", "None")
    drawn, bare = webui.draw(through, unit), webui.draw(through)
    told = _find_all(drawn, [webui.draw(job, unit).pictures[0]])
    apart = differences(drawn.images, bare.images)
    if min(apart) == 0:
        raise Failed("a loop has no face")
    plain.expect_again()
    return f"{told}; loops change by {min(apart):.2f} to {max(apart):.2f}"


@SECTION.case("batch count and batch size")
def count_and_size(webui: WebUI) -> str:
    """Four pictures in two batches, each as alone, and each with a text of its own."""
    job, unit = webui.job(n_iter=2), webui.unit()
    drawn = webui.draw(job, unit)
    told = check_row(webui, job, unit=unit)
    ensure_told(drawn)
    apart = differences(drawn.pictures, [webui.draw(job.alone(place), unit).pictures[0] for place in range(4)])
    if max(apart) > ROUNDING:
        raise Failed(f"pictures of a batch differ from the same ones alone by {max(apart):.2f}")
    return f"{told}; alone {max(apart):.2f}"


@SECTION.case("a remark belongs to its own job")
def remark(webui: WebUI) -> str:
    """A fault under warn, then a good job: its text has no remark any more; nor has a plain one."""
    job = webui.job()
    plain = Plain(webui, job)
    webui.draw(job, webui.unit(adapter="no-such-adapter.bin", on_fail="warn"))
    ensure_told(webui.draw(job, webui.unit()))
    drawn = webui.draw(job)
    if infotext_field(drawn.text, NOTE) or infotext_field(drawn.text, SCRIPT):
        raise Failed(f"the text of a plain picture names FaceID: {drawn.text[-200:]!r}")
    plain.expect_again()
    return "no remark left"


@SECTION.case("interrupt")
def interrupt(webui: WebUI) -> str:
    return _ended_early(webui, webui.job(steps=MANY_STEPS, n_iter=2), "interrupt")


@SECTION.case("skip")
def skip(webui: WebUI) -> str:
    return _ended_early(webui, webui.job(steps=MANY_STEPS), "skip")


@SECTION.case("interrupt with a LoRA in hires fix")
def interrupt_hires(webui: WebUI) -> str:
    job = webui.job(
        steps=MANY_STEPS, enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.9, batch_size=1
    )
    return _ended_early(webui, job, "interrupt", lora=1.0)


@SECTION.case("interrupt in the second pass of hires fix")
def interrupt_second_pass(webui: WebUI) -> str:
    job = webui.job(batch_size=1).hires().but(hr_second_pass_steps=MANY_STEPS, denoising_strength=0.9)
    return _ended_early(webui, job, "interrupt", part=1, lora=1.0)


def _ended_early(webui: WebUI, long: Job, how: str, part: int = 0, **fields: Any) -> str:
    """Start a long job, end it from outside, and look whether anything stayed."""
    plain = Plain(webui, webui.job())
    face = webui.draw(plain.job, webui.unit())
    end = partial(webui.client.post, f"/sdapi/v1/{how}", {})
    _, steps = while_running(webui, long, [webui.unit(**fields)], end, part)
    plain.expect_again()
    after = webui.draw(plain.job, webui.unit())
    told = ensure_same(face.pictures, after.pictures, "with the face before and after")
    plain.expect_again()
    return f"ended after step {steps} of {MANY_STEPS}; {told}"


@SECTION.case("another checkpoint and back", checkpoint("other"), optional=True)
def switch(webui: WebUI) -> str:
    return _there_and_back(webui, "other")


@SECTION.case("a checkpoint of another base and back", checkpoint("sdxl"), optional=True)
def switch_base(webui: WebUI) -> str:
    return _there_and_back(webui, "sdxl")


@SECTION.case("another checkpoint for one request", checkpoint("other"), optional=True)
def override(webui: WebUI) -> str:
    job = webui.job()
    plain = Plain(webui, job)
    title = webui.checkpoint_title(webui.setup.checkpoints["other"])
    told = check_row(webui, job.under(sd_model_checkpoint=title))
    plain.expect_again()
    return told


def _there_and_back(webui: WebUI, role: str) -> str:
    job, unit = webui.job(), webui.unit()
    plain = Plain(webui, job)
    before = webui.draw(job, unit)
    with webui.loaded(role):
        told = check_row(webui, job)
    plain.expect_again()
    same = ensure_same(before.pictures, webui.draw(job, unit).pictures, "before and after")
    plain.expect_again()
    return f"there: {told}; back: {same}"


@SECTION.case("the checkpoint unloaded and loaded again")
def reload(webui: WebUI) -> str:
    job, unit = webui.job(), webui.unit(lora=1.0)
    plain = Plain(webui, job)
    before = webui.draw(job, unit)
    webui.client.post("/sdapi/v1/unload-checkpoint", {})
    webui.client.post("/sdapi/v1/reload-checkpoint", {})
    told = ensure_same(before.pictures, webui.draw(job, unit).pictures, "before and after")
    plain.expect_again()
    return told


def _find_all(drawn: Drawn, wanted: list[Picture]) -> str:
    """Raises Failed unless each wanted picture is among the images that came back."""
    apart: list[float] = []
    for picture in wanted:
        alike = [image for image in drawn.images if image.shape == picture.shape]
        apart.append(min((difference(image, picture) for image in alike), default=255.0))
    told = f"{len(wanted)} of {len(drawn.images)} images, from the same alone {show(apart)}"
    if max(apart) > ROUNDING:
        raise Failed(f"{told}; expected at most {ROUNDING:.2f}")
    return told
