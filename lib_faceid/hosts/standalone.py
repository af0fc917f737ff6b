"""No WebUI: a diffusers pipeline, or a bare UNet of diffusers, ldm or sgm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn

from ..core.calls import CallSource
from ..core.session import Firing
from ..core.tokens import SIDES, Row, Side
from ..engine.acts import Mask, People, Together
from ..engine.ports import Target
from ..engine.run import acting
from ..errors import RowsMismatch, UnsupportedUNet
from ..weights.adapter import Adapter
from .peft_lora import place_lora
from .pipeline_calls import PipelineCalls


@contextmanager
def applied(
    pipe_or_unet: Any,
    identity: People,
    *,
    adapter: Adapter | None = None,
    weight: float | Sequence[float] = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    mask: Mask | Sequence[Mask | None] | None = None,
    rows: Sequence[Side] | None = None,
    lora: float | None = None,
    progress: Callable[[], float] | None = None,
) -> Iterator[Firing]:
    """Within the block the UNet draws with the identity; afterwards it is bit for bit what it was.

    pipe_or_unet: a diffusers pipeline for SD1.5 or SDXL, the very one that is called inside the block: rows follow its
        own classifier-free guidance (negative half first), steps its own timesteps. Or a UNet2DConditionModel, or an
        ldm or sgm UNetModel.
    identity: one, or several that act together (each with its own softmax; the results add up).
    weight: factor on the image branch, official meaning; one number, or one for each identity. 0 is off, LoRA included.
    start, end: fractions of the sampling pass (step index / number of steps), both ends included.
    mask: (H, W) region in picture proportions, 1 (or 255) here and 0 not, as tensor, numpy array or PIL image; one, or
        one for each identity.
    rows: "cond" or "uncond" for every row of a UNet call; required for a bare UNet that is called with more than one
        row. A call with a multiple of these rows repeats them as a whole. For a pipeline it overrides what its guidance
        says.
    lora: strength of the LoRA inside the adapter file; None is 0.65 where there is one. ``adapter`` is where it is read
        from; not needed for an identity made in this process.
    progress: returns the fraction of the pass, 0..1; needed for start and end on a bare UNet, overrides a pipeline's
    own.

    Yields counts of what was reached, and warns (FaceIDWarning) when that is less than all. Raises ValueError
    (RowsMismatch, MaskMismatch) and other FaceIDErrors; a call of the UNet inside the block raises RowsMismatch when
    its rows cannot be told apart.
    """
    acts = Together(identity, weight, (start, end), mask, lora, adapter).acts()
    unet = pipe_or_unet if isinstance(pipe_or_unet, nn.Module) else getattr(pipe_or_unet, "unet", None)
    if not isinstance(unet, nn.Module):
        raise UnsupportedUNet(
            f"{type(pipe_or_unet).__name__} has no UNet; FaceID works with Stable Diffusion 1.x and SDXL pipelines, or "
            "with their UNet itself."
        )
    pipeline = None if unet is pipe_or_unet else PipelineCalls(pipe_or_unet)
    if pipeline is None and progress is None and any(act.strength.is_timed for act in acts):
        raise ValueError("start and end on a bare UNet need progress, a function that returns 0..1; none was given.")
    source = Calls(rows, progress, pipeline)
    target = Target(unet, source, place_lora=place_lora)
    with pipeline.watch() if pipeline and rows is None else nullcontext(), acting(target, acts) as firing:
        yield firing


class Calls:
    """Rows and progress as the caller gave them, otherwise as the pipeline knows them."""

    def __init__(
        self, rows: Sequence[Side] | None, progress: Callable[[], float] | None, pipeline: CallSource | None
    ) -> None:
        self._rows = None if rows is None else [read_row(row) for row in rows]
        self._progress, self._pipeline = progress, pipeline

    def rows(self, batch: int) -> Sequence[Row]:
        if self._rows is not None:
            return self._rows
        if self._pipeline is not None:
            return self._pipeline.rows(batch)
        if batch == 1:
            return [Row("cond")]
        raise RowsMismatch(
            f"The UNet was called with {batch} rows; say which are positive and which negative, for example "
            'rows=["uncond", "cond"].'
        )

    def progress(self, timestep: object) -> float:
        if self._progress is not None:
            return self._progress()
        return 0.0 if self._pipeline is None else self._pipeline.progress(timestep)


def read_row(row: Side) -> Row:
    """ "cond" or "uncond". Raises ValueError for anything else."""
    if row not in SIDES:
        raise ValueError(f"A row is 'cond' or 'uncond'; found {row!r}.")
    return Row(row)
