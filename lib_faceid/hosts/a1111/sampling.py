"""One sampling pass of A1111 with the face in it: everything goes in when the sampler starts, and out when it ends.

The pass lives inside a wrapper of ``launch_sampling`` on the sampler *instance*. That is the last thing A1111 calls
before the first step, and the only place where an exception reaches the person instead of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from ...core.patch import AttributePatch, do_all, weakly
from ...core.session import Firing
from ...core.tokens import Row
from ...engine.acts import Act
from ...engine.ports import Target
from ...engine.run import describe_shortfall, placed
from ...errors import FaceIDError
from ..job import FaceIDStopped, Job
from . import culprits, webui
from .denoising import Denoising
from .lora import lora_errors, placing

_running: list[Pass] = []
"""Passes between their first and last step: one, as A1111 makes one picture at a time."""


def on_denoise(params: Any) -> None:
    """Callback of every denoiser call of the WebUI; only those of a pass of ours matter."""
    for running in _running:
        if running.sampler is params.denoiser.sampler:
            running.denoise(params)


class Pass:
    """A sampling pass: ``arm`` wraps the sampler, and the wrapper does the rest when the sampler starts."""

    def __init__(self, job: Job, p: Any) -> None:
        self.sampler = p.sampler
        self.over = False
        self._job, self._p = job, p
        self._denoising = Denoising(weakly(self._follow))
        self._stack = ExitStack()
        self._unet: nn.Module | None = None
        self._acts: list[Act] = []
        self._firings: list[Firing] = []
        self._denoised = False
        self._original: Callable[..., Any] = p.sampler.launch_sampling
        self._patch = AttributePatch(p.sampler, "launch_sampling", self._launch)

    def arm(self) -> None:
        """Wrap the sampler's ``launch_sampling``."""
        self._patch.install()

    def disarm(self) -> None:
        """Take the wrapper away; does nothing when the pass is over."""
        self._patch.remove()

    def denoise(self, params: Any) -> None:
        """A denoiser call begins."""
        if self._unet is not None:
            self._denoised = True
            self._denoising.announce(params)

    def rows(self, batch: int) -> Sequence[Row]:
        """Rows of a UNet call, for the taps."""
        return self._denoising.rows(batch)

    def progress(self, timestep: object) -> float:
        """Fraction of the pass, for the taps."""
        return self._denoising.progress(timestep)

    def _launch(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of ``launch_sampling(steps, func)``."""
        if not self._patch.installed:  # somebody else's wrapper still holds ours after the pass
            return self._original(*args, **kwargs)
        try:
            return self._sample(*args, **kwargs)
        finally:
            self.over = True
            self._acts, self._firings = [], []  # the person's tensors need not wait for the garbage collector
            self._patch.remove()
            self._patch.value = None  # it is a method of this object: nothing is to wait for the garbage collector
            if self._patch.disturbed:
                self._job.tell(culprits.describe_wrapper(vars(self.sampler).get("launch_sampling")))

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        try:
            self._start()
            if self._job.stop:
                raise FaceIDStopped(self._job.stop)
            result = self._original(*args, **kwargs)
        except FaceIDStopped:
            raise
        except FaceIDError as error:
            self._job.stop_for(str(error))
            raise FaceIDStopped(self._job.stop) from error
        finally:
            self._leave()
        self._report()
        return result

    def _start(self) -> None:
        """Put everything in place; nothing where nobody acts in this pass."""
        try:
            unet = webui.unet(self._p)
            hires_pass = bool(getattr(self._p, "is_hr_pass", False))
            self._acts = self._job.acts(unet, webui.pictures_of_batch(self._p), hires_pass=hires_pass)
            if self._acts:
                self._enter(unet)
        except FaceIDError as error:
            self._job.fail(str(error), lasting=False)
        if self._unet is not None:
            _running.append(self)

    def _enter(self, unet: nn.Module) -> None:
        place_lora = placing(self._job.tell, self._job.kept)
        target = Target(unet, self, self._job.tell, place_lora=place_lora, on_error=weakly(self._give_up))
        self._firings.append(self._stack.enter_context(placed(target, self._acts)))
        self._unet = unet

    def _leave(self) -> None:
        """Take everything away; harmless where there is nothing."""
        if self in _running:
            _running.remove(self)
        self._unet = None
        do_all([self._denoising.end, self._stack.close])

    def _follow(self, denoiser: Any) -> None:
        """At the first UNet call of a denoiser call: a refiner may have loaded another UNet."""
        before = self._unet
        try:
            unet = webui.unet(self._p)
            if unet is before or before is None:
                return
            self._unet = None
            self._stack.close()
            self._enter(unet)
        except FaceIDError as error:
            self._leave()
            self._job.tell(
                f"From step {denoiser.step + 1} of {denoiser.total_steps} on ({webui.checkpoint_name(self._p)}) the "
                f"picture was made without the face: {error}"
            )

    def _give_up(self, error: FaceIDError) -> None:
        """The face cannot be applied from here on. Raises the error unless the person would rather have a picture."""
        if not self._job.is_lenient:
            raise error
        self._leave()
        self._firings.clear()
        self._job.fail(str(error), lasting=False)

    def _report(self) -> None:
        """Say what of the picture the face did not reach."""
        for sentence in lora_errors(self._job.kept):
            self._job.tell(sentence)
        if not self._firings or webui.was_interrupted():
            return
        firing = _sum(self._firings)
        if firing.fewest is None and not self._denoised:
            self._job.tell("The sampler made no step, so the face was not added. Use more steps or denoising strength.")
            return
        if firing.fewest is None:
            sentence = "The UNet was not called while sampling; something makes pictures without it."
            self._job.fail(sentence, lasting=False)
            if self._job.stop:
                raise FaceIDStopped(self._job.stop)
            return
        for sentence in describe_shortfall(firing, self._acts):
            self._job.tell(" ".join([sentence, *culprits.describe(webui.unet(self._p))]))


def _sum(firings: list[Firing]) -> Firing:
    """What was reached in all parts of a pass together."""
    reached = [firing.fewest for firing in firings if firing.fewest is not None]
    return Firing(
        expected=max(firing.expected for firing in firings),
        calls=sum(firing.calls for firing in firings),
        acted=sum(firing.acted for firing in firings),
        fewest=min(reached) if reached else None,
    )
