"""How A1111 samples, for the stand-in in fake_webui.py: sampler, denoiser and what the denoiser calls.

Each denoiser call makes one batch of all rows, the positive ones grouped by picture and then the negative ones, shows
it to the callbacks, and works it off in slices. The rows are made here, so it is known whose each of them is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lib_faceid.core.tokens import Row


class Interrupted(Exception):
    """The person has asked to stop; the sampler takes what there is."""


@dataclass
class UNetCall:
    """One call of a UNet: what went in and came out, and whose rows these are."""

    unet: nn.Module
    pass_number: int
    step: int
    x: Tensor
    timestep: Tensor
    context: Tensor
    output: Tensor
    rows: tuple[Row, ...]


class InnerModel(nn.Module):
    """What the denoiser calls; a tiling extension makes several UNet calls of one call of it."""

    def __init__(self, host: Any) -> None:
        super().__init__()
        self.checkpoint, self._host = host.shared.sd_model, host

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor, rows: tuple[Row, ...], step: int) -> Tensor:
        unet, rules, done = self.checkpoint.model.diffusion_model, self._host.rules, list[Tensor]()
        tiles = x.chunk(rules.tiles, dim=-1)
        for first in range(0, len(tiles), rules.together):
            some = tiles[first : first + rules.together]
            into, at, text = torch.cat(some), sigma.repeat(len(some)), context.repeat(len(some), 1, 1)
            out = unet(into, at, context=text)
            number = self._host.passes
            self._host.calls.append(UNetCall(unet, number, step, into, at, text, out, rows * len(some)))
            done.extend(out.chunk(len(some)))
        return torch.cat(done, dim=-1)


class Denoiser:
    """One for each sampler, over all its passes. ``step`` counts the calls of a pass."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.p, self._host = sampler, sampler.p, sampler.p.host
        self.steps: int | None = None
        self.total_steps: int | None = None
        self.step = 0
        self._wrapped: InnerModel | None = None

    @property
    def inner_model(self) -> InnerModel:
        """Made when it is asked for, and anew after a refiner switch."""
        if self._wrapped is None:
            self._wrapped = InnerModel(self._host)
        return self._wrapped

    def __call__(self, x: Tensor) -> Tensor:
        state, rules = self._host.state, self._host.rules
        if self._host.during is not None:
            self._host.during(self)
        if state.interrupted or state.skipped:
            raise Interrupted
        self._switch_refiner()
        prompts = self.p.prompts
        positive = [Row("cond", image) for image, count in enumerate(prompts) for _ in range(count)]
        negative = [Row("uncond", image) for _ in range(1 + rules.edit) for image in range(len(prompts))]
        rows = (*positive, *negative)
        texts = (
            draw_text(positive, rules.cond_tokens, rules.width),
            draw_text(negative, rules.uncond_tokens, rules.width),
        )
        batch = torch.stack([x[row.image] for row in rows])
        sigma = torch.full((len(rows),), 900.0 - 100 * self.step)
        shown = SimpleNamespace(x=batch, sigma=sigma, text_cond=texts[0], text_uncond=texts[1], denoiser=self)
        self._host.denoise(shown)
        if rules.skips_uncond(self.step):
            batch, texts = batch[: len(positive)], (texts[0], None)
        outputs = list[Tensor]()
        for part, text in slices(batch, texts, chunk=len(prompts), together=rules.batch_cond_uncond):
            outputs.append(self.inner_model(batch[part], sigma[part], text, rows[part], self.step))
        self.step += 1
        return mix(torch.cat(outputs), rows, len(prompts))

    def _switch_refiner(self) -> None:
        if self.p.refiner is not None and self.p.refiner[0] == self.step:
            self.p.refiner[1]()
            self._wrapped = None


class Sampler:
    """``launch_sampling`` is the method that scripts can wrap; an interrupt ends inside it."""

    def __init__(self, p: Any) -> None:
        self.p = p
        self.model_wrap_cfg = Denoiser(self)
        self.sampler_extra_args: dict[str, Any] = {}
        self.last_latent: Tensor | None = None

    def sample(self, x: Tensor, steps: int) -> Tensor:
        self.p.host.passes += 1
        self.model_wrap_cfg.step, self.last_latent = 0, x
        batch = [[object()] * count for count in self.p.prompts]
        self.sampler_extra_args = {"cond": SimpleNamespace(batch=batch), "uncond": None}
        return self.launch_sampling(steps, lambda: SOLVERS[self.p.solver](self, x, steps))

    def launch_sampling(self, steps: int, func: Callable[[], Tensor]) -> Tensor:
        self.model_wrap_cfg.steps = steps
        self.model_wrap_cfg.total_steps = steps * (2 if self.p.solver == "heun" else 1)
        try:
            return func()
        except Interrupted:
            assert self.last_latent is not None
            return self.last_latent


def euler(sampler: Sampler, x: Tensor, steps: int) -> Tensor:
    """One denoiser call for each step."""
    for _ in range(steps):
        x = sampler.last_latent = x + 0.3 * sampler.model_wrap_cfg(x)
    return x


def heun(sampler: Sampler, x: Tensor, steps: int) -> Tensor:
    """Two denoiser calls for each step but the last."""
    for step in range(steps):
        change = sampler.model_wrap_cfg(x)
        if step < steps - 1:
            change = (change + sampler.model_wrap_cfg(x + 0.3 * change)) / 2
        x = sampler.last_latent = x + 0.3 * change
    return x


SOLVERS: dict[str, Callable[[Sampler, Tensor, int], Tensor]] = {"euler": euler, "heun": heun}


def slices(
    batch: Tensor, texts: tuple[Tensor, Tensor | None], *, chunk: int, together: bool
) -> list[tuple[slice, Tensor]]:
    """The parts a batch is worked off in, with the text of each. Where both texts have one length: all rows at once, or
    in chunks. Where they have not: chunks of the positive rows (twice as large), then all negative ones.

    ``together`` is the setting batch_cond_uncond, ``chunk`` the number of pictures; ``texts`` lacks skipped rows.
    """
    positive, negative = texts
    count = len(positive)
    if negative is None or positive.shape[1] == negative.shape[1]:
        text = positive if negative is None else torch.cat([positive, negative])
        size, rest = (len(batch) if together else chunk), []
    else:
        text, size, rest = positive, chunk * (2 if together else 1), [(slice(count, len(batch)), negative)]
    starts = range(0, len(text), size)
    return [*((slice(at, min(at + size, len(text))), text[at : at + size]) for at in starts), *rest]


def draw_text(rows: list[Row], tokens: int, width: int) -> Tensor:
    """Text of each row (rows, tokens, width): another for every row and side."""
    generator = torch.Generator().manual_seed(tokens + (1000 if rows[0].side == "cond" else 2000))
    return torch.randn(len(rows), tokens, width, generator=generator)


def mix(outputs: Tensor, rows: tuple[Row, ...], pictures: int) -> Tensor:
    """A picture's rows as one: positive minus negative ones. Rows that were left out are at the end."""
    mixed = list[Tensor]()
    for image in range(pictures):
        signed = [
            (1.0 if row.side == "cond" else -0.5) * output
            for row, output in zip(rows, outputs, strict=False)
            if row.image == image
        ]
        mixed.append(torch.stack(signed).sum(dim=0))
    return torch.stack(mixed)
