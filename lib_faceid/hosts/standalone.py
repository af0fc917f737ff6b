"""No WebUI: a diffusers pipeline, or a bare UNet of diffusers, ldm or sgm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..core.tap import Firing
from ..core.tokens import SIDES, Row, Side
from ..engine.acts import People, Together
from ..engine.ports import Target
from ..engine.run import acting
from ..errors import RowsMismatch
from ..weights.adapter import Adapter

RowLike = Side | tuple[Side, int] | Row


@contextmanager
def applied(
    pipe_or_unet: Any,
    identity: People,
    *,
    adapter: Adapter | None = None,
    weight: float | Sequence[float] = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    mask: Tensor | Sequence[Tensor | None] | None = None,
    rows: Sequence[RowLike] | None = None,
    lora: float | None = None,
    progress: Callable[[], float] | None = None,
) -> Iterator[Firing]:
    """Within the block the UNet draws with the identity; afterwards it is bit for bit what it was.

    pipe_or_unet: a diffusers pipeline with a ``unet`` and a ``scheduler``: rows follow its own classifier-free guidance
        (negative half first), steps its own timesteps. Or a UNet2DConditionModel, or an ldm or sgm UNetModel.
    identity: one, or several that act together (each with its own softmax; the results add up).
    weight: factor on the image branch, official meaning; one number, or one for each identity. 0 is off, LoRA included.
    start, end: fractions of the sampling pass, both ends included.
    mask: (H, W) region in picture proportions, 1 here and 0 not; one, or one for each identity.
    rows: bare UNet only: "cond" or "uncond" for every row of a call, or (side, image); required for more than one row.
        A call with a multiple of these rows repeats them as a whole.
    lora: strength of the LoRA inside the adapter file; None is 0.65 where there is one. ``adapter`` is where it is read
        from; not needed for an identity made in this process.
    progress: bare UNet only, needed for start and end: returns the fraction of the pass, 0..1.

    Yields counts of what was reached. Raises ValueError (RowsMismatch, MaskMismatch) and other FaceIDErrors; a call of
    the UNet inside the block raises RowsMismatch when its rows cannot be told apart.
    """
    acts = Together(identity, weight, (start, end), mask, lora, adapter).acts()
    if isinstance(pipe_or_unet, nn.Module):
        timed = any(act.strength.is_timed for act in acts)
        target = Target(pipe_or_unet, BareCalls(rows, progress, timed=timed))
    else:
        target = Target(pipe_or_unet.unet, PipelineCalls(pipe_or_unet))
    with acting(target, acts) as firing:
        yield firing


class BareCalls:
    """Calls of a UNet without a pipeline: rows are fixed, progress is asked for."""

    def __init__(self, rows: Sequence[RowLike] | None, progress: Callable[[], float] | None, *, timed: bool) -> None:
        if timed and progress is None:
            raise ValueError(
                "start and end on a bare UNet need progress, a function that returns 0..1; none was given."
            )
        self._rows = None if rows is None else [read_row(row) for row in rows]
        self._progress = progress

    def rows(self, batch: int) -> Sequence[Row]:
        if self._rows is not None:
            return self._rows
        if batch == 1:
            return [Row("cond")]
        raise RowsMismatch(
            f"The UNet was called with {batch} rows; say which are positive and which negative, for example "
            'rows=["uncond", "cond"].'
        )

    def progress(self, timestep: object) -> float:
        return 0.0 if self._progress is None else self._progress()


def read_row(row: RowLike) -> Row:
    """ "cond", ("cond", 2) or Row. Raises ValueError for anything else."""
    side, image = (row, 0) if isinstance(row, str) else row
    if side not in SIDES:
        raise ValueError(f"A row is 'cond' or 'uncond', alone or with a picture number; found {row!r}.")
    return Row(side, image)


class PipelineCalls:
    """Calls made by a diffusers pipeline: its own guidance tells the rows, its own timesteps the progress."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._timesteps: Tensor | None = None
        self._values: list[float] = []
        self._first = self._index = 0

    def rows(self, batch: int) -> Sequence[Row]:
        """Negative rows first, as all diffusers pipelines for Stable Diffusion order them; PAG adds a positive part."""
        sides: list[Side] = ["uncond", "cond"] if self._pipe.do_classifier_free_guidance else ["cond"]
        if getattr(self._pipe, "do_perturbed_attention_guidance", False):
            sides.append("cond")
        if batch % len(sides):
            raise RowsMismatch(
                f"{type(self._pipe).__name__} called its UNet with {batch} rows, which is not a multiple of the "
                f"{len(sides)} "
                "parts its guidance has, so positive and negative rows cannot be told apart."
            )
        images = batch // len(sides)
        return [Row(side, image) for side in sides for image in range(images)]

    def progress(self, timestep: object) -> float:
        """Step index of this pass / number of its timesteps."""
        value = float(timestep)  # type: ignore[arg-type]
        if self._pipe.scheduler.timesteps is not self._timesteps:
            self._begin_pass(value)
        self._index = self._find(value, self._index)
        total = getattr(self._pipe, "num_timesteps", None) or len(self._values) - self._first
        return (self._index - self._first) / total

    def _begin_pass(self, value: float) -> None:
        """``set_timesteps`` makes a new tensor for every pass; img2img begins in the middle of it."""
        self._timesteps = self._pipe.scheduler.timesteps
        self._values = [float(item) for item in self._timesteps.tolist()]  # type: ignore[union-attr]
        self._first = self._index = -1
        self._first = self._find(value, -1)

    def _find(self, value: float, after: int) -> int:
        """The next index with this timestep: second-order samplers visit a timestep twice, in a row."""
        later = (i for i in range(after + 1, len(self._values)) if self._values[i] == value)
        if (found := next(later, None)) is not None:
            return found
        if 0 <= after < len(self._values) and self._values[after] == value:
            return after
        raise RowsMismatch(
            f"The pipeline ran timestep {value:g}, which its scheduler does not list; start and end need it."
        )
