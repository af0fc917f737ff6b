"""One installation at work: the call that runs, the tables of each layer, and the count of what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FaceIDError
from .attend import Form, Gain, Pick, choose_form
from .calls import Call, Calls, CallSource
from .entries import Arrangement, Entry

OnError = Callable[[FaceIDError], None]


@dataclass
class Firing:
    """What was reached: UNet calls seen, those in which something was added, taps installed, fewest reached in a
    call.
    """

    expected: int
    calls: int = 0
    acted: int = 0
    fewest: int | None = None


class Session:
    """What all taps of an installation share. Knows no module, so that it keeps none alive."""

    def __init__(
        self, entries: Sequence[Entry], source: CallSource, expected: int, on_error: OnError | None = None
    ) -> None:
        self.arrangement = Arrangement(tuple(entries))
        self.calls = Calls(self.arrangement, source)
        self.firing = Firing(expected)
        self.call: Call | None = None
        self.on_error = on_error

    def begin(self, batch: int, latent: tuple[int, int], timestep: object) -> None:
        """A UNet call with ``batch`` rows and a latent of (height, width) begins."""
        self.call = self.calls.begin(batch, latent, timestep)

    def finish(self, *, failed: bool) -> int | None:
        """The call ended; returns how many layers it reached, None when it failed or none had begun."""
        call, self.call = self.call, None
        if call is None or failed:
            return None
        firing, reached = self.firing, len(call.reached)
        firing.calls += 1
        firing.acted += call.acted
        firing.fewest = reached if firing.fewest is None else min(firing.fewest, reached)
        return reached

    def rows_and_gains(self, n: int, q: Tensor) -> tuple[Pick, list[Gain]]:
        """Kinds of q's rows, and the strength of each run on layer n.

        Where the UNet's own ``__call__`` was bypassed no call has begun; one is then made up from q.
        """
        call = self.call or self.calls.begin(q.shape[0], None, None)
        gains = [self.calls.gain(run, n, call, q) for run in self.arrangement.runs]
        return self.calls.pick(call, q), gains

    def reached(self, n: int, *, added: bool) -> None:
        """Layer n gave its result to ``to_out``, with something added or not."""
        if self.call is not None:
            self.call.reached.add(n)
            self.call.acted = self.call.acted or added

    def build(self, n: int, heads: int, q: Tensor) -> tuple[Form, ...]:
        """Keys and values of layer n for every run, as q needs them; ordinary tensors even in inference mode."""
        forms: list[Form] = []
        with torch.inference_mode(False), torch.no_grad():
            for run in self.arrangement.runs:
                k, v = run.keys_values(n, self.arrangement.kinds)
                form = choose_form(run.tokens, len(run.groups), k.shape[-1])(k, v, heads)
                form.k, form.v = form.k.to(q.device, q.dtype), form.v.to(q.device, q.dtype)
                forms.append(form)
        return tuple(forms)

    def clear(self) -> None:
        """Let go of every tensor that is not the entries' own."""
        self.call = None
        self.calls.clear()
