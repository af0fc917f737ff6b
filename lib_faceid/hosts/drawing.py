"""A request for pictures, and drawing them with a diffusers pipeline while an identity acts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..engine.acts import Together
from ..errors import FaceIDError
from .checkpoint_parts import Task
from .standalone import applied

_GRID = 8  # pixels of a picture for one of the latent
_SEEDS = 2**32


@dataclass(frozen=True)
class Drawing:
    """Everything about pictures but the person. Raises FaceIDError for values that make no picture.

    size: (width, height) in pixels, multiples of 8; None is the base's own size, or that of ``init``. batch: pictures,
    whose seeds follow each other. init: the picture to start from (img2img). mask: white where ``init`` is drawn anew
    (inpaint). strength: how much of ``init`` is replaced, above 0 to 1. guidance 1 or less is none.
    """

    prompt: str = ""
    negative: str = ""
    seed: int = 0
    steps: int = 25
    guidance: float = 7.0
    size: tuple[int, int] | None = None
    batch: int = 1
    init: Image.Image | None = None
    mask: Image.Image | None = None
    strength: float = 0.75

    def __post_init__(self) -> None:
        problem = _problem_in_numbers(self) or _problem_in_pictures(self)
        if problem:
            raise FaceIDError(problem)

    @property
    def task(self) -> Task:
        """The kind of pipeline that draws it."""
        if self.init is None:
            return "txt2img"
        return "img2img" if self.mask is None else "inpaint"

    @property
    def seeds(self) -> list[int]:
        """One for each picture; after the highest seed comes 0."""
        return [(self.seed + number) % _SEEDS for number in range(self.batch)]


@dataclass(frozen=True)
class Picture:
    """A drawn picture (RGB) and the seed that draws it again."""

    image: Image.Image
    seed: int


def draw(pipe: Any, drawing: Drawing, likeness: Together | None = None) -> Iterator[Picture]:
    """Draw one picture after the other; each is there as soon as it is done.

    Each has a random generator of its own on the CPU and a UNet call of its own, so picture i of a batch is, to the
    last bit, what its seed gives alone. ``pipe`` is what ``load_pipeline`` made for ``drawing.task``; ``likeness`` None
    draws nobody. Raises what ``applied`` raises, and FaceIDError when the graphics card is too small.
    """
    with _acting(pipe, likeness):
        for seed in drawing.seeds:
            yield Picture(_draw_one(pipe, drawing, seed), seed)


def _acting(pipe: Any, likeness: Together | None) -> AbstractContextManager[object]:
    if likeness is None:
        return nullcontext()
    start, end = likeness.window
    return applied(
        pipe,
        likeness.people,
        adapter=likeness.adapter,
        weight=likeness.weight,
        start=start,
        end=end,
        mask=likeness.mask,
        lora=likeness.lora,
    )


def _draw_one(pipe: Any, drawing: Drawing, seed: int) -> Image.Image:
    pictures, mask = _pictures(drawing), drawing.mask
    try:
        image = pipe(
            prompt=drawing.prompt,
            negative_prompt=drawing.negative,
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pil",
            **pictures,
        ).images[0]
    except torch.cuda.OutOfMemoryError as error:
        raise FaceIDError("The graphics card has too little memory for this size; choose a smaller one.") from error
    if mask is None:
        return image
    # the VAE changes every pixel a little; those that were to stay are put back
    return Image.composite(image, pictures["image"], pictures["mask_image"])


def _pictures(drawing: Drawing) -> dict[str, Any]:
    """What a pipeline takes beside the prompt: a size, or pictures of that size."""
    if drawing.init is None:
        return {} if drawing.size is None else {"width": drawing.size[0], "height": drawing.size[1]}
    width, height = drawing.size or (side - side % _GRID for side in drawing.init.size)
    init = drawing.init.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    if drawing.mask is None:
        return {"image": init, "strength": drawing.strength}
    mask = drawing.mask.convert("L").resize((width, height), Image.Resampling.BILINEAR)
    return {"image": init, "mask_image": mask, "strength": drawing.strength, "width": width, "height": height}


def _problem_in_numbers(drawing: Drawing) -> str:
    if not 0 <= drawing.seed < _SEEDS:
        return f"A seed is a whole number from 0 to {_SEEDS - 1}; found {drawing.seed}."
    if drawing.steps < 1 or drawing.batch < 1:
        return f"At least 1 step and 1 picture are needed; found {drawing.steps} steps and {drawing.batch} pictures."
    if not math.isfinite(drawing.guidance):
        return f"Guidance is a number, 7 for example; found {drawing.guidance}."
    width, height = drawing.size or (_GRID, _GRID)
    if min(width, height) < _GRID or width % _GRID or height % _GRID:
        return f"Width and height are multiples of {_GRID}; found {width}x{height}."
    return ""


def _problem_in_pictures(drawing: Drawing) -> str:
    if drawing.init is None:
        return "" if drawing.mask is None else "A mask says where to draw a picture anew; give that picture as init."
    if min(drawing.init.size) < _GRID:
        return f"The picture to start from is {drawing.init.width}x{drawing.init.height} pixels; give a larger one."
    if not 0 < drawing.strength <= 1:
        return f"The denoising strength is above 0 and at most 1; found {drawing.strength:g}."
    if drawing.steps * drawing.strength < 1:
        return (
            f"{drawing.steps} steps at a denoising strength of {drawing.strength:g} are less than one step; use more "
            "of either."
        )
    return ""
