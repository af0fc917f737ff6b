"""What a diffusers pipeline tells about the calls of its UNet: the prompt side of each row, and the step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..core.patch import AttributePatch
from ..core.tokens import Row, Side
from ..errors import FaceIDError, RowsMismatch

# Pipelines whose rows are known (diffusers 0.42.1), by class name, their own or that of a class they derive from:
# negative rows first under guidance, a second positive part with PAG. Others (Panorama, for one) order their rows
# differently.
_PLAIN = re.compile(
    r"StableDiffusion(XL)?(Adapter|ControlNet(Union|XS)?)?(PAG)?(Img2Img|Inpaint)?Pipeline"
    r"|LatentConsistencyModel(Img2Img)?Pipeline"
)
# prompt, image and unconditional part: pipeline_stable_diffusion_instruct_pix2pix.py, _encode_prompt
_INSTRUCT = re.compile(r"StableDiffusionInstructPix2PixPipeline")


class PipelineCalls:
    """The CallSource of a pipeline. The pipeline must be the one that is called: another that shares its UNet knows
    better.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._timesteps: Tensor | None = None
        self._values: list[float] = []
        self._first = self._index = -1

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Notice when the UNet is called by another pipeline than this one.

        A pipeline stores its guidance scale when it is called; until then a marker stands in its place.
        """
        marker = AttributePatch(self._pipe, "_guidance_scale", _NotCalled(1.0))
        marker.install()
        try:
            yield
        finally:
            marker.remove()

    def rows(self, batch: int) -> Sequence[Row]:
        """Rows of a call with ``batch`` rows. Raises RowsMismatch when the pipeline's order is not known or cannot
        be.
        """
        sides = self._sides()
        if batch % len(sides):
            raise RowsMismatch(
                f"{self._name} called its UNet with {batch} rows, which is not a multiple of the {len(sides)} parts "
                "its guidance has, so positive and negative rows cannot be told apart. Pass rows=."
            )
        images = batch // len(sides)
        return [Row(side, image) for side in sides for image in range(images)]

    def _sides(self) -> list[Side]:
        if isinstance(getattr(self._pipe, "_guidance_scale", None), _NotCalled):
            raise RowsMismatch(
                f"The UNet was called by something else than the {self._name} that was given to applied(), so its rows "
                "are not known. Give the pipeline that is called, or pass rows=."
            )
        names = [kind.__name__ for kind in type(self._pipe).__mro__]
        guided = bool(getattr(self._pipe, "do_classifier_free_guidance", False))
        if any(map(_INSTRUCT.fullmatch, names)):
            return ["cond", "uncond", "uncond"] if guided else ["cond"]
        if not any(map(_PLAIN.fullmatch, names)):
            raise RowsMismatch(
                f"How {self._name} orders the rows of its UNet calls is not known. Pass rows=, for example "
                'rows=["uncond", "cond"].'
            )
        extra: list[Side] = ["cond"] if getattr(self._pipe, "do_perturbed_attention_guidance", False) else []
        return [*(("uncond", "cond") if guided else ("cond",)), *extra]

    def progress(self, timestep: object) -> float:
        """Step index of this pass / number of its steps."""
        if timestep is None:
            raise FaceIDError(
                f"{self._name} called its UNet without a timestep; start and end need it. Pass progress=."
            )
        value = float(timestep)  # type: ignore[arg-type]
        timesteps = self._pipe.scheduler.timesteps
        if timesteps is not self._timesteps:
            self._timesteps = timesteps
            values = [float(item) for item in timesteps.tolist()]
            if values != self._values:
                self._values, self._first = values, -1
        index = self._next(value) if self._first >= 0 else None
        if index is None:
            index = self._first = self._find_first(value)
        self._index = index
        return (index - self._first) / max(1, self._count())

    def _next(self, value: float) -> int | None:
        """The next index with this timestep (second-order samplers visit one twice in a row), or the same index
        again.
        """
        for index in range(self._index + 1, len(self._values)):
            if self._values[index] == value:
                return index
        return self._index if self._values[self._index] == value else None

    def _find_first(self, value: float) -> int:
        """Where this pass begins: img2img and refiners enter a scheduler's list in the middle."""
        entered = len(self._values) - self._count()
        if 0 <= entered < len(self._values) and self._values[entered] == value:
            return entered
        if value in self._values:
            return self._values.index(value)
        raise FaceIDError(
            f"{self._name} ran timestep {value:g}, which its scheduler does not list; start and end need it. Pass "
            "progress=."
        )

    def _count(self) -> int:
        """Steps of this pass, as the pipeline counts them."""
        return int(getattr(self._pipe, "num_timesteps", None) or len(self._values))

    @property
    def _name(self) -> str:
        return type(self._pipe).__name__


class _NotCalled(float):
    """A guidance scale that no call has stored."""
