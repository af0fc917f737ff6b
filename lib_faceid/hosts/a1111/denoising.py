"""Which rows a UNet call of A1111 works on, and how far the sampling pass is.

``CFGDenoiser.forward`` (modules/sd_samplers_cfg_denoiser.py) makes one batch of all rows, the positive ones grouped by
picture, then the negative ones, tells the ``on_cfg_denoiser`` callbacks, and then calls its inner model with
consecutive slices of that batch: all at once, one prompt side after the other, or chunks that cross pictures. So all
rows are labelled at the first call of the inner model, and each call takes the next slice of the labels. Whatever UNet
calls happen inside work on that slice, or on tiles of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ...core.patch import HookPatch, weakly
from ...core.tokens import Row
from ...errors import RowsMismatch


class Denoising:
    """The rows of the running denoiser call, slice by slice: a CallSource.

    A hook sits on the denoiser's inner model while a pass runs. ``on_begin`` is called with the denoiser at the first
    call of the inner model: there, unlike in the callback, an error is not swallowed by the host.
    """

    def __init__(self, on_begin: Callable[[Any], None]) -> None:
        self._on_begin = on_begin
        self._announced: Any = None
        self._labels: tuple[Row, ...] = ()
        self._slice: tuple[Row, ...] = ()
        self._taken = 0
        self._progress = 0.0
        self._hook: HookPatch | None = None

    def announce(self, params: Any) -> None:
        """A denoiser call begins: sit on its inner model."""
        self._labels, self._slice, self._taken = (), (), 0
        self._announced = params
        self._sit_on(params.denoiser.inner_model)

    def end(self) -> None:
        """The pass is over."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._announced, self._labels, self._slice = None, None, (), ()

    def rows(self, batch: int) -> Sequence[Row]:
        """Rows of a UNet call. Raises RowsMismatch when the call is not a multiple of the slice that is worked on."""
        rows = self._slice
        if not rows or batch % len(rows):
            raise RowsMismatch(
                f"The UNet was called with {batch} rows where {len(rows)} of this step's {len(self._labels)} rows were "
                "expected, so positive and negative prompt cannot be told apart. Another extension changes how "
                "sampling calls the UNet; switch it off for FaceID."
            )
        return rows

    def progress(self, timestep: object) -> float:
        """Fraction of the pass at the running denoiser call."""
        del timestep  # the denoiser counts its own steps
        return self._progress

    def _sit_on(self, inner_model: nn.Module) -> None:
        """Follow a refiner switch, which wraps the new model anew."""
        if self._hook is None:
            take = weakly(self._take)
            self._hook = HookPatch("denoiser", inner_model, lambda m: m.register_forward_pre_hook(take))
            self._hook.install()
        elif self._hook.module is not inner_model:
            self._hook.move_to(inner_model)

    def _take(self, inner_model: nn.Module, args: tuple[Any, ...]) -> None:
        """Before a call of the inner model: its rows are the next ones."""
        params, self._announced = self._announced, None
        if params is not None:
            self._labels = label_rows(rows_in(params.text_cond), params.x.shape[0], pictures_of(params.denoiser))
            self._progress = progress_of(params.denoiser)
            self._on_begin(params.denoiser)
        count = args[0].shape[0]
        self._slice = self._labels[self._taken : self._taken + count]
        self._taken += count
        if len(self._slice) != count:
            self._slice = ()  # ``rows`` says so, if the UNet is called at all


def label_rows(positive: int, total: int, pictures: Sequence[int]) -> tuple[Row, ...]:
    """Labels of all rows of a denoiser call: ``positive`` rows grouped by picture, then the negative ones.

    pictures: how many positive rows (prompts joined by AND) each picture has. Instruct-pix2pix has two negative rows
    for each picture, in two rounds.
    """
    owners = [image for image, count in enumerate(pictures) for _ in range(count)]
    if len(owners) != positive:  # not known: as many for each picture
        owners = [row * len(pictures) // positive for row in range(positive)] if pictures else [0] * positive
    batch = max(1, len(pictures))
    negative = [Row("uncond", row % batch) for row in range(total - positive)]
    return (*(Row("cond", image) for image in owners), *negative)


def rows_in(text: Any) -> int:
    """Rows of a conditioning: a tensor, or SDXL's dictionary of them."""
    return int((text["crossattn"] if isinstance(text, dict) else text).shape[0])


def pictures_of(denoiser: Any) -> list[int]:
    """Prompts of each picture of the batch (``MulticondLearnedConditioning.batch``); empty where that is not found."""
    cond = (getattr(denoiser.sampler, "sampler_extra_args", None) or {}).get("cond")
    return [len(prompts) for prompts in getattr(cond, "batch", ())]


def progress_of(denoiser: Any) -> float:
    """Step of the solver / number of steps, at most 1.

    ``step`` counts denoiser calls and ``total_steps`` is how many are expected: twice the steps for solvers of second
    order, whose two calls belong to one step and so have one progress.
    """
    steps = int(denoiser.steps or 0)
    total = int(denoiser.total_steps or steps)
    if not steps or not total:
        return 0.0
    return min(1.0, denoiser.step * steps // total / steps)
