"""Whatever the host does with the rows of a batch, each gets the face of its own prompt side and picture.

Each case draws the job plain, with FaceID off (same bits), with the face (clearly different), in other ways that must
lead to the same picture, with only the negative side counting (the same for everybody), and plain again (same bits).
"""

from __future__ import annotations

from typing import Any

from .case import Section, checkpoint, sampler, script, setting
from .checks import Plain, Twin, alone, check_row
from .client import infotext_field
from .compare import Failed
from .fixtures import PACK
from .job import SCRIPT, Job
from .photos import robin
from .webui import WebUI

SECTION = Section("rows")
TWO = "a photo of a cat AND a photo of a dog"
THREE = f"{TWO} AND a green train"
LONG = ", ".join(["a photo of a cat with a blue hat"] * 20)  # some 180 tokens; a chunk has 75
LONG_THREE = f"{LONG} AND a photo of a dog AND a green train"


def split(job: Job) -> Twin:
    """Positive and negative rows in UNet calls of their own."""
    return Twin("split", job.under(batch_cond_uncond=False))


def joined(job: Job) -> Twin:
    """All rows in one UNet call."""
    return Twin("joined", job.under(batch_cond_uncond=True))


def padded(job: Job) -> Twin:
    """The shorter prompt side filled up, so that all rows go through the UNet together."""
    return Twin("padded", job.under(pad_cond_uncond=True))


def strong(webui: WebUI) -> dict[str, Any]:
    """Padding moves the plain picture too; at this weight a face on wrong rows stands out from that."""
    return webui.unit(weight=3.0)


@SECTION.case("plain")
def plain(webui: WebUI) -> str:
    job = webui.job()
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("cfg 1")
def cfg_one(webui: WebUI) -> str:
    job = webui.job(cfg_scale=1)
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("AND with 2")
def and_two(webui: WebUI) -> str:
    job = webui.job(prompt=TWO)
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("AND with 3", setting("batch_cond_uncond"), hosts="a1111")
def and_three(webui: WebUI) -> str:
    job = webui.job(prompt=THREE)
    return check_row(webui, job, split(job), *alone(job, 1))


@SECTION.case("AND, another number in each picture", script("prompt matrix"))
def and_uneven(webui: WebUI) -> str:
    """The script joins parts, so the four pictures of one batch have 1, 2, 2 and 3 prompts."""
    parts = ("a photo of a cat", "AND a photo of a dog", "AND a green train")
    job = webui.job(prompt="|".join(parts), batch_size=4)
    through = job.through("prompt matrix", False, True, "positive", "space", 0)
    prompts = [" ".join(parts[:1] + tuple(p for n, p in enumerate(parts[1:]) if k & 1 << n)) for k in range(4)]
    twins = [Twin(f"picture {k + 1} alone", job.alone(k).but(prompt=text), (k,)) for k, text in enumerate(prompts)]
    return check_row(webui, through, *twins)


@SECTION.case("NGMS, some steps", hosts="a1111")
def ngms(webui: WebUI) -> str:
    job = webui.job(s_min_uncond=15.0)
    return check_row(webui, job, *alone(job, 0, 1), negative=False)


@SECTION.case("NGMS, all steps", setting("s_min_uncond_all"), hosts="a1111")
def ngms_all(webui: WebUI) -> str:
    job = webui.job(s_min_uncond=15.0).under(s_min_uncond_all=True)
    return check_row(webui, job, *alone(job, 0, 1), negative=False)


@SECTION.case("NGMS, all steps, AND", setting("s_min_uncond_all"), hosts="a1111")
def ngms_all_and(webui: WebUI) -> str:
    job = webui.job(prompt=TWO, s_min_uncond=15.0).under(s_min_uncond_all=True)
    return check_row(webui, job, *alone(job, 0, 1), negative=False)


@SECTION.case("skip early CFG", setting("skip_early_cond"), hosts="a1111")
def skip_early(webui: WebUI) -> str:
    job = webui.job().under(skip_early_cond=0.5)
    return check_row(webui, job, *alone(job, 0, 1), negative=False)


@SECTION.case("batch_cond_uncond off", setting("batch_cond_uncond"), hosts="a1111")
def off(webui: WebUI) -> str:
    job = webui.job().under(batch_cond_uncond=False)
    return check_row(webui, job, joined(job), *alone(job, 1))


@SECTION.case("batch_cond_uncond off, AND with 3", setting("batch_cond_uncond"), hosts="a1111")
def off_and(webui: WebUI) -> str:
    job = webui.job(prompt=THREE).under(batch_cond_uncond=False)
    return check_row(webui, job, joined(job), *alone(job, 1))


@SECTION.case("long prompt", setting("pad_cond_uncond"), hosts="a1111")
def long(webui: WebUI) -> str:
    job = webui.job(prompt=LONG)
    return check_row(webui, job, padded(job), *alone(job, 0, 1), unit=strong(webui))


@SECTION.case("long prompt, padded", setting("pad_cond_uncond"), hosts="a1111")
def long_padded(webui: WebUI) -> str:
    job = webui.job(prompt=LONG).under(pad_cond_uncond=True)
    return check_row(webui, job, split(job), *alone(job, 1))


@SECTION.case("long prompt, padded as in v0", setting("pad_cond_uncond_v0"), hosts="a1111")
def long_v0(webui: WebUI) -> str:
    job = webui.job(prompt=LONG).under(pad_cond_uncond_v0=True)
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("long prompt, AND with 3", setting("pad_cond_uncond"), hosts="a1111")
def long_and(webui: WebUI) -> str:
    """Padding moves this picture too much to compare with; whose rows are whose shows in the negative side alone."""
    job = webui.job(prompt=LONG_THREE)
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("long negative prompt", setting("pad_cond_uncond"), hosts="a1111")
def long_negative(webui: WebUI) -> str:
    job = webui.job(negative_prompt=LONG, prompt="a dog")
    return check_row(webui, job, padded(job), *alone(job, 1), unit=strong(webui))


@SECTION.case("hires fix")
def hires_fix(webui: WebUI) -> str:
    job = webui.job().hires()
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("hires fix with another checkpoint", checkpoint("other"), optional=True)
def hires_other(webui: WebUI) -> str:
    job = webui.job().hires().but(hr_checkpoint_name=webui.checkpoint_title(webui.setup.checkpoints["other"]))
    return check_row(webui, job, *alone(job, 1))


@SECTION.case("refiner", checkpoint("other"), optional=True, hosts="a1111")
def refiner(webui: WebUI) -> str:
    title = webui.checkpoint_title(webui.setup.checkpoints["other"])
    job = webui.job(refiner_checkpoint=title, refiner_switch_at=0.5)
    return check_row(webui, job, split(job), *alone(job, 1))


@SECTION.case("refiner of another base", checkpoint("sdxl"), optional=True, hosts="a1111")
def refiner_of_another_base(webui: WebUI) -> str:
    """The steps before the switch have the face, the others have not, and the text says so."""
    title = webui.checkpoint_title(webui.setup.checkpoints["sdxl"])
    job = webui.job(refiner_checkpoint=title, refiner_switch_at=0.5)
    return check_row(webui, job, *alone(job, 1), note="without the face")


def _sampler_case(name: str, **fields: object) -> None:
    def run(webui: WebUI) -> str:
        job = webui.job(sampler_name=name, **fields)
        return check_row(webui, job, *alone(job, 0, 1))

    SECTION.add(f"sampler {name}", run, sampler(name), optional=True)


for _name in ("Heun", "DDIM", "UniPC", "DPM++ SDE", "DPM++ 2M", "Euler a", "DPM2"):
    _sampler_case(_name)
_sampler_case("LCM", cfg_scale=1.5)


@SECTION.case("batch 3")
def batch_three(webui: WebUI) -> str:
    job = webui.job(batch_size=3)
    return check_row(webui, job, *alone(job, 0, 1, 2))


@SECTION.case("batch 1")
def batch_one(webui: WebUI) -> str:
    job = webui.job(batch_size=1)
    return check_row(webui, job, Twin("again", job))


@SECTION.case("batch count 2")
def batch_count(webui: WebUI) -> str:
    job = webui.job(batch_size=1, n_iter=2)
    return check_row(webui, job, *alone(job, 0, 1), Twin("as a batch", webui.job()))


@SECTION.case("img2img")
def image_to_image(webui: WebUI) -> str:
    job = webui.job().img2img()
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("inpaint, whole picture")
def inpaint_whole(webui: WebUI) -> str:
    job = webui.job().inpaint(only_masked=False)
    return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("inpaint, only masked")
def inpaint_masked(webui: WebUI) -> str:
    """The photo is not cropped with the picture: it is the same person as without a mask."""
    unit = webui.unit(images=[robin()], pack=PACK)
    job = webui.job().inpaint(only_masked=True)
    told = check_row(webui, job, *alone(job, 0, 1), unit=unit)
    keys = {_key(infotext_field(webui.draw(one, unit).text, SCRIPT)) for one in (job, webui.job())}
    if len(keys) != 1:
        raise Failed(f"with a mask and without one it is not the same person: {sorted(keys)}")
    return told


def _key(field: str | None) -> str:
    pairs = dict(part.strip().partition(": ")[::2] for part in (field or "").split(","))
    return pairs.get("key", "")


@SECTION.case("inpainting checkpoint", checkpoint("inpaint"), optional=True)
def inpaint_checkpoint(webui: WebUI) -> str:
    with webui.loaded("inpaint"):
        whole = webui.job().inpaint(only_masked=False)
        return check_row(webui, whole, *alone(whole, 1))


@SECTION.case("instruct-pix2pix checkpoint", checkpoint("ip2p"), optional=True, hosts="a1111")
def ip2p_checkpoint(webui: WebUI) -> str:
    with webui.loaded("ip2p"):
        job = webui.job().img2img().but(image_cfg_scale=1.5)
        return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("SDXL", checkpoint("sdxl"), optional=True)
def sdxl(webui: WebUI) -> str:
    with webui.loaded("sdxl"):
        job = webui.job()
        return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("SDXL, AND with 3", checkpoint("sdxl"), optional=True)
def sdxl_and(webui: WebUI) -> str:
    with webui.loaded("sdxl"):
        job = webui.job(prompt=THREE)
        return check_row(webui, job, *alone(job, 0, 1))


@SECTION.case("SDXL, long prompt", checkpoint("sdxl"), setting("pad_cond_uncond"), optional=True, hosts="a1111")
def sdxl_long(webui: WebUI) -> str:
    with webui.loaded("sdxl"):
        job = webui.job(prompt=LONG)
        return check_row(webui, job, padded(job), *alone(job, 1), unit=strong(webui))


@SECTION.case("SDXL, batch_cond_uncond off", checkpoint("sdxl"), setting("batch_cond_uncond"), optional=True)
def sdxl_off(webui: WebUI) -> str:
    with webui.loaded("sdxl"):
        job = webui.job().under(batch_cond_uncond=False)
        return check_row(webui, job, joined(job), *alone(job, 1))


@SECTION.case("SDXL, hires fix", checkpoint("sdxl"), optional=True)
def sdxl_hires(webui: WebUI) -> str:
    with webui.loaded("sdxl"):
        job = webui.job().hires()
        return check_row(webui, job, *alone(job, 1))


@SECTION.case("weights stored in 8 bits", setting("fp8_storage"), checkpoint("other"), optional=True, hosts="a1111")
def fp8(webui: WebUI) -> str:
    """A1111 itself comes back from 8 bits to the very same weights only by way of another checkpoint."""
    before = Plain(webui, webui.job())
    webui.settings.hold(fp8_storage="Enable")
    try:
        job = webui.job()
        told = check_row(webui, job, *alone(job, 0, 1))
    finally:
        webui.settings.restore()
        with webui.loaded("other"):
            webui.draw(webui.job())
    before.expect_again()
    return told
