"""The tap: two hooks on every cross-attention that add an identity to what the host's own attention produced.

``attn2(x, text) = to_out(softmax(q K_textᵀ/√d) V_text)`` becomes ``to_out(… + Σ_j s_j · M_j ⊙ softmax(q K_jᵀ/√d)
V_j)``, the formula of tencent-ailab/IP-Adapter (ip_adapter/attention_processor.py:282-412). A forward hook on
``attn2.to_q`` sees q with whatever LoRA or autocast the host applies; a forward pre-hook on ``attn2.to_out[0]`` adds.
The host's attention runs untouched, so other extensions keep their effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from torch import Tensor, nn

from ..errors import FaceIDError, FaceNotApplied, WrongBase
from .attend import Form, Gain, Pick
from .calls import CallSource
from .entries import Entry
from .patch import HookPatch, PatchSet, weakly
from .session import Firing, OnError, Session
from .unet_map import BASE_TITLES, UNetLayers, linear_sizes


def _heard(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook whose errors go to the session's ``on_error``, where there is one."""

    @wraps(hook)
    def run(self: Any, *args: Any) -> Any:
        try:
            return hook(self, *args)
        except FaceIDError as error:
            if self.session.on_error is None:
                raise
            self.session.on_error(error)
            return None

    return run


class Taps(PatchSet):
    """The entries on one UNet: all their hooks as one patch set, installed and removed as a pair.

    Everything is checked in the constructor, before the UNet is touched. Raises WrongBase when an entry lacks a layer
    of the UNet or has other channels. ``firing`` tells afterwards what was reached. ``on_error`` is called with what
    goes wrong while the UNet runs, and may remove the taps; without it, it is raised.
    """

    def __init__(
        self,
        unet: nn.Module,
        layers: UNetLayers,
        entries: Sequence[Entry],
        source: CallSource,
        on_error: OnError | None = None,
    ) -> None:
        _check_channels(layers, entries)
        acting = [n for n in range(len(layers.attentions)) if any(entry.strength.acts_on(n) for entry in entries)]
        self.session = Session(entries, source, expected=len(acting), on_error=on_error)
        self._taps = tuple(_Tap(self.session, n, layers.attentions[n], layers.names[n]) for n in acting)
        begin, finish = weakly(self._begin), weakly(self._finish)
        first = HookPatch("unet", unet, lambda m: m.register_forward_pre_hook(begin, with_kwargs=True))
        last = HookPatch("unet", unet, lambda m: m.register_forward_hook(finish, always_call=True))
        super().__init__([first, *(patch for tap in self._taps for patch in tap.patches), last])

    @property
    def firing(self) -> Firing:
        """Counts of UNet calls and of layers reached."""
        return self.session.firing

    def install(self) -> None:
        """Seat all hooks, or none."""
        for tap in self._taps:
            tap.aim()
        super().install()

    def remove(self) -> None:
        """Take all hooks away and let go of every tensor."""
        try:
            super().remove()
        finally:
            self.session.clear()
            for tap in self._taps:
                tap.clear()

    @_heard
    def _begin(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before every UNet call: whose rows are these, how far is the pass, do the hooks still sit where q is made."""
        self.session.call = None
        sample = args[0] if args else kwargs.get("sample", kwargs.get("x"))
        if not isinstance(sample, Tensor) or sample.ndim < 3:
            raise FaceNotApplied(f"{type(unet).__name__} was called without a latent as its first argument.")
        for tap in self._taps:
            tap.aim()
        timestep = args[1] if len(args) > 1 else kwargs.get("timestep", kwargs.get("timesteps"))
        self.session.begin(sample.shape[0], (sample.shape[-2], sample.shape[-1]), timestep)

    @_heard
    def _finish(self, unet: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """After every UNet call; ``output`` is None when it failed, which is then not our subject."""
        reached = self.session.finish(failed=output is None)
        if reached != 0 or not self._taps:
            return
        raise FaceNotApplied(
            f"{type(unet).__name__} ran without the attention modules the identity is added to. An engine that "
            "replaces them (TensorRT, a compiled or cached UNet, a processor that uses weights instead of modules) is "
            "active; switch it off for FaceID."
        )


class _Tap:
    """The pair of hooks on one cross-attention, with the one slot they share.

    The slot is None until q was seen, and then holds what is to be added: nothing, where the strength is 0.
    """

    def __init__(self, session: Session, n: int, attention: nn.Module, name: str) -> None:
        self.session, self._n, self._attention = session, n, attention
        self._slot: list[tuple[Form, Tensor, Pick, Gain]] | None = None
        self._forms: tuple[Form, ...] = ()
        seen, added = weakly(self._on_query), weakly(self._on_output)
        self._query = HookPatch(f"{name}.to_q", self._to_q, lambda m: m.register_forward_hook(seen))
        self._output = HookPatch(f"{name}.to_out.0", self._to_out, lambda m: m.register_forward_pre_hook(added))
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
        self._slot, self._forms = None, ()

    @_heard
    def _on_query(self, module: nn.Module, args: tuple[Any, ...], q: Tensor) -> None:
        self._slot = None
        if module is not self._to_q:  # wrapped since the call began: this is not the whole q
            return
        pick, gains = self.session.rows_and_gains(self._n, q)
        self._slot = [
            (form, form.attend(q, pick, gain), pick, gain)
            for form, gain in zip(self._forms_for(q), gains, strict=True)
            if isinstance(gain, Tensor) or gain != 0.0
        ]

    @_heard
    def _on_output(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        slot, self._slot = self._slot, None
        if slot is None:
            return None
        x, *rest = args
        for form, pending, pick, gain in slot:
            if x.shape[:2] != pending.shape[:2]:
                raise FaceNotApplied(
                    f"Cross-attention {self._n} made {tuple(pending.shape[:2])} queries but {tuple(x.shape[:2])} "
                    "results, so the identity cannot be added. Another extension changes the attention in between; "
                    "switch it off for FaceID."
                )
            x = form.add(x, pending, pick, gain)
        self.session.reached(self._n, added=bool(slot))
        return (x, *rest)

    def _forms_for(self, q: Tensor) -> tuple[Form, ...]:
        if not self._forms or (self._forms[0].k.device, self._forms[0].k.dtype) != (q.device, q.dtype):
            heads = int(self._attention.heads)  # type: ignore[arg-type]
            self._forms = self.session.build(self._n, heads, q)
        return self._forms


def _check_channels(layers: UNetLayers, entries: Sequence[Entry]) -> None:
    title = BASE_TITLES[layers.base]
    for entry in entries:
        if len(entry.kv) != len(layers.attentions):
            raise WrongBase(
                f"The identity holds keys and values for {len(entry.kv)} layers and this {title} UNet has "
                f"{len(layers.attentions)}: they belong to different base models. Use an adapter for this checkpoint's "
                "base."
            )
        for n, attention in enumerate(layers.attentions):
            found, expected = entry.kv[n].k.shape[-1], linear_sizes(attention, "to_q")[1]
            if found != expected:
                raise WrongBase(
                    f"The identity has {found} channels for layer {n} and this {title} UNet has {expected} there: "
                    "they were made for models of different size. Use an adapter made for this checkpoint."
                )
