"""Inpainting: the face acts inside the mask, and outside every pixel is the one of the run without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .case import Section, script
from .checks import Plain, ensure_told
from .client import Drawn
from .compare import Failed, ensure_clear
from .job import Job
from .photos import landscape, spot
from .webui import WebUI

SECTION = Section("inpaint")
SOFT = "soft inpainting"
# Mask blend power and scale, detail preservation, composite mask influence, difference threshold and contrast: what the
# script shows at first (extensions-builtin/soft-inpainting, default settings).
_SOFT_ARGS = (True, 1, 0.5, 4, 0, 0.5, 2)
Where = NDArray[np.bool_]


def reach_of(blur: int) -> int:
    """Pixels by which a blurred mask is larger: half of A1111's kernel (modules/processing.py, ``mask_blur_x``)."""
    return int(2.5 * blur + 0.5) if blur else 0


def grown(mask: Where, reach: int) -> Where:
    """A mask (H, W), larger by ``reach`` pixels on all sides, corners included."""
    padded = np.pad(mask, reach)
    steps = range(2 * reach + 1)
    rows = np.logical_or.reduce([padded[down : down + mask.shape[0]] for down in steps])
    return np.logical_or.reduce([rows[:, across : across + mask.shape[1]] for across in steps])


def measure_reach(drawn: Drawn, side: int) -> int:
    """How far beyond the mask pictures differ from the one that was redrawn."""
    mask = spot(side)[:, :, 0] > 0
    changed = np.logical_or.reduce([(picture != landscape(side)).any(axis=2) for picture in drawn.pictures])
    return next(reach for reach in range(side) if not changed[~grown(mask, reach)].any())


def check_inpaint(webui: WebUI, job: Job, reach: int | None) -> str:
    """``reach``: how far beyond the mask the WebUI itself may change a pixel; None: as far as without FaceID.

    Raises Failed.
    """
    unit = webui.unit()
    mask = spot(job.fields["width"])[:, :, 0] > 0
    reach = measure_reach(webui.draw(job), job.fields["width"]) if reach is None else reach
    touched = grown(mask, reach)
    if touched.all():
        raise Failed(
            f"a mask {reach} pixels larger leaves nothing outside, so this proves nothing; use a larger --size"
        )
    plain = Plain(webui, job)
    plain.expect_off(unit)
    drawn = webui.draw(job, unit)
    ensure_told(drawn)
    apart = list(_apart(drawn, plain.drawn))
    told = ensure_clear([float(one[mask].mean()) for one in apart], "inside", plain.noise)
    outside = max(int(one[~touched].max(initial=0)) for one in apart)
    if outside:
        raise Failed(f"outside the mask a pixel changes by {outside}; expected the same bits")
    plain.expect_again()
    return f"{told}; beyond {reach} px ({(~touched).mean():.0%} of the picture): same bits"


def _apart(one: Drawn, other: Drawn) -> Iterator[NDArray[np.int64]]:
    """For each picture (H, W), how far the farthest of the three colours is."""
    for first, second in zip(one.pictures, other.pictures, strict=True):
        yield np.abs(first.astype(np.int64) - second.astype(np.int64)).max(axis=2)


def _case(name: str, *needs: Any, only_masked: bool = False, blur: int = 4, soft: bool = False, **fields: Any) -> None:
    def run(webui: WebUI) -> str:
        side = webui.setup.size * (2 if soft else 1)
        job = webui.job(width=side, height=side).inpaint(only_masked=only_masked).but(mask_blur=blur, **fields)
        if soft:
            job = job.beside(SOFT, *_SOFT_ARGS)
        return check_inpaint(webui, job, None if soft else reach_of(blur))

    SECTION.add(name, run, *needs, optional=bool(needs))


_case("whole picture, no blur", blur=0)
_case("whole picture, blur 4")
_case("whole picture, blur 8, filled", blur=8, inpainting_fill=0)
_case("whole picture, latent noise", inpainting_fill=2)
_case("only masked, no blur, no padding", only_masked=True, blur=0, inpaint_full_res_padding=0)
_case("only masked, blur 4, padding 32", only_masked=True, inpaint_full_res_padding=32)
_case("only masked, blur 8, padding 8", only_masked=True, blur=8, inpaint_full_res_padding=8)
_case("soft inpainting, whole picture", script(SOFT, "img2img"), soft=True)
_case("soft inpainting, only masked", script(SOFT, "img2img"), only_masked=True, soft=True)


@SECTION.case("everything but the mask")
def inverted(webui: WebUI) -> str:
    """The mask turned round: the middle stays."""
    job = webui.job().inpaint(only_masked=False).but(inpainting_mask_invert=1, mask_blur=0)
    unit = webui.unit()
    mask = spot(webui.setup.size)[:, :, 0] > 0
    plain = Plain(webui, job)
    drawn = webui.draw(job, unit)
    apart = list(_apart(drawn, plain.drawn))
    told = ensure_clear([float(one[~mask].mean()) for one in apart], "around", plain.noise)
    if max(int(one[mask].max()) for one in apart):
        raise Failed("the middle, which is to stay, changes")
    plain.expect_again()
    return f"{told}; the middle: same bits"
