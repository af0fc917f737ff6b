"""The tap: two hooks on every cross-attention that add an identity to what the host's own attention produced.

``attn2(x, text) = to_out(softmax(q K_textᵀ/√d) V_text)`` becomes ``to_out(… + Σ_j s_j · M_j ⊙ softmax(q K_jᵀ/√d)
V_j)``, the formula of tencent-ailab/IP-Adapter (ip_adapter/attention_processor.py:282-412). A forward hook on
``attn2.to_q`` sees q with whatever LoRA or autocast the host applies; a forward pre-hook on ``attn2.to_out[0]`` adds.
The host's attention runs untouched, so other extensions keep their effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FaceNotApplied, WrongBase
from .attend import Form, Gain, Pick, choose_form
from .calls import Call, Calls, CallSource
from .entries import Arrangement, Entry, Run
from .patch import HookPatch, PatchSet
from .unet_map import BASE_TITLES, UNetLayers, linear_sizes


@dataclass
class Firing:
    """How often the taps were reached: UNet calls seen, taps installed, and the fewest taps that fired in one call."""

    expected: int
    calls: int = 0
    fewest: int | None = None

    def note(self, fired: int) -> None:
        self.calls += 1
        self.fewest = fired if self.fewest is None else min(self.fewest, fired)


class Taps:
    """The entries on one UNet. ``install`` and ``remove`` are a pair; also a context manager.

    Everything is checked in the constructor, before the UNet is touched. Raises WrongBase when an entry lacks a layer
    of the UNet or has other channels. ``firing`` tells afterwards what was reached.
    """

    def __init__(self, unet: nn.Module, layers: UNetLayers, entries: Sequence[Entry], source: CallSource) -> None:
        _check_channels(layers, entries)
        self._arrangement = Arrangement(tuple(entries))
        self.calls = Calls(self._arrangement, source)
        self._taps = tuple(
            _Tap(self, n, attention, layers.names[n])
            for n, attention in enumerate(layers.attentions)
            if any(entry.strength.weight and _factor(entry, n) for entry in entries)
        )
        self.firing = Firing(expected=len(self._taps))
        self._call: Call | None = None
        begin = HookPatch("unet", unet, lambda m: m.register_forward_pre_hook(self._begin, with_kwargs=True))
        finish = HookPatch("unet", unet, lambda m: m.register_forward_hook(self._finish))
        self._patches = PatchSet([begin, *(patch for tap in self._taps for patch in tap.patches), finish])

    def install(self) -> None:
        """Seat all hooks, or none."""
        for tap in self._taps:
            tap.aim()
        self._patches.install()

    def remove(self) -> None:
        """Take all hooks away and let go of every tensor."""
        try:
            self._patches.remove()
        finally:
            self._call = None
            self.calls.clear()
            for tap in self._taps:
                tap.clear()

    def __enter__(self) -> Taps:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _begin(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before every UNet call: whose rows are these, how far is the pass, do the hooks still sit where q is made."""
        sample = args[0] if args else kwargs.get("sample", kwargs.get("x"))
        if not isinstance(sample, Tensor) or sample.ndim < 3:
            raise FaceNotApplied(f"{type(unet).__name__} was called without a latent as its first argument.")
        for tap in self._taps:
            tap.aim()
        timestep = args[1] if len(args) > 1 else kwargs.get("timestep", kwargs.get("timesteps"))
        self._call = self.calls.begin(sample.shape[0], (sample.shape[-2], sample.shape[-1]), timestep)

    def _finish(self, unet: nn.Module, args: tuple[Any, ...], output: object) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        self.firing.note(len(call.fired))
        if not call.fired and self._taps:
            raise FaceNotApplied(
                f"{type(unet).__name__} ran without its attention modules, so the identity could not be added. An "
                "engine that replaces "
                "the UNet (TensorRT, a compiled or cached one) is active; switch it off for FaceID."
            )

    def state_of(self, n: int, q: Tensor) -> Call:
        """The call that layer n belongs to; made up from q when the UNet's own ``__call__`` was bypassed."""
        call = self._call or self.calls.begin(q.shape[0], None)
        call.fired.add(n)
        return call

    def build(self, run: Run, n: int, heads: int, q: Tensor) -> Form:
        """Keys and values of layer n as q needs them; ordinary tensors even when the host runs in inference mode."""
        with torch.inference_mode(False), torch.no_grad():
            k, v = run.keys_values(n, self._arrangement.kinds)
            form = choose_form(run.tokens, len(run.groups), k.shape[-1])(k, v, heads)
            form.k, form.v = form.k.to(q.device, q.dtype), form.v.to(q.device, q.dtype)
            return form

    @property
    def runs(self) -> tuple[Run, ...]:
        return self._arrangement.runs


class _Tap:
    """The pair of hooks on one cross-attention, with the one slot they share."""

    def __init__(self, taps: Taps, n: int, attention: nn.Module, name: str) -> None:
        self._taps, self._n, self._attention = taps, n, attention
        self._slot: list[tuple[Form, Tensor, Pick, Gain]] = []
        self._forms: tuple[Form, ...] = ()
        self._query = HookPatch(f"{name}.to_q", self._to_q, lambda m: m.register_forward_hook(self._on_query))
        self._output = HookPatch(
            f"{name}.to_out.0", self._to_out, lambda m: m.register_forward_pre_hook(self._on_output)
        )
        self.patches = (self._query, self._output)

    @property
    def _to_q(self) -> nn.Module:
        return self._attention.to_q  # type: ignore[return-value]

    @property
    def _to_out(self) -> nn.Module:
        return self._attention.to_out[0]  # type: ignore[index, return-value]

    def aim(self) -> None:
        """Follow a library that has put a wrapper (PEFT's LoRA layers) in the place of a hooked module."""
        for patch, module in ((self._query, self._to_q), (self._output, self._to_out)):
            if patch.module is module:
                continue
            if patch.installed:
                patch.move_to(module)
            else:
                patch.module = module

    def clear(self) -> None:
        self._slot, self._forms = [], ()

    def _on_query(self, module: nn.Module, args: tuple[Any, ...], q: Tensor) -> None:
        self._slot = []
        if module is not self._to_q:  # wrapped since the call began: this is not the whole q
            return
        call = self._taps.state_of(self._n, q)
        pick = self._taps.calls.pick(call, q)
        for run, form in zip(self._taps.runs, self._forms_for(q), strict=True):
            gain = self._taps.calls.gain(run, self._n, call, q)
            if isinstance(gain, Tensor) or gain != 0.0:
                self._slot.append((form, form.attend(q, pick, gain), pick, gain))

    def _on_output(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        slot, self._slot = self._slot, []
        if not slot:
            return None
        x, *rest = args
        for form, pending, pick, gain in slot:
            if x.shape[:2] != pending.shape[:2]:
                raise FaceNotApplied(
                    f"Cross-attention {self._n} made {tuple(pending.shape[:2])} queries but {tuple(x.shape[:2])} "
                    "results, so the identity "
                    "cannot be added. Another extension changes the attention in between; switch it off for FaceID."
                )
            x = form.add(x, pending, pick, gain)
        return (x, *rest)

    def _forms_for(self, q: Tensor) -> tuple[Form, ...]:
        if not self._forms or (self._forms[0].k.device, self._forms[0].k.dtype) != (q.device, q.dtype):
            heads = int(self._attention.heads)  # type: ignore[arg-type]
            self._forms = tuple(self._taps.build(run, self._n, heads, q) for run in self._taps.runs)
        return self._forms


def _factor(entry: Entry, n: int) -> float:
    return 1.0 if entry.strength.by_layer is None else entry.strength.by_layer[n]


def _check_channels(layers: UNetLayers, entries: Sequence[Entry]) -> None:
    title = BASE_TITLES[layers.base]
    for entry in entries:
        if len(entry.kv) != len(layers.attentions):
            raise WrongBase(
                f"The identity holds keys and values for {len(entry.kv)} layers and this {title} UNet has "
                f"{len(layers.attentions)}: "
                "they belong to different base models. Use an adapter for this checkpoint's base."
            )
        for n, attention in enumerate(layers.attentions):
            found, expected = entry.kv[n].k.shape[-1], linear_sizes(attention, "to_q")[1]
            if found != expected:
                raise WrongBase(
                    f"The identity has {found} channels for layer {n} and this {title} UNet has {expected} there: "
                    "they belong to different "
                    "models. Use an adapter for this checkpoint's base."
                )
