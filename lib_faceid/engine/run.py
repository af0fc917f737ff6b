"""Identities at work on a UNet: everything is checked, put in place, counted, and taken away again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from ..core.session import Firing
from ..core.tap import Taps
from ..core.unet_map import BASE_TITLES, UNetLayers, find_layers, linear_sizes
from ..errors import FaceIDError, WrongBase
from ..library.identity import Identity
from ..weights.merge import name_in_peft
from .acts import Act
from .own_lora import find_lora
from .ports import HeldLora, Target, held_loras

# Strength of the FaceID LoRA when nobody says otherwise. Trained at 1.0 (upstream); users' habit is 0.6 to 0.7 because
# the LoRA also stiffens poses, and ComfyUI_IPAdapter_plus' unified loader takes 0.6.
DEFAULT_LORA = 0.65


@contextmanager
def acting(target: Target, acts: Sequence[Act]) -> Generator[Firing]:
    """``placed``, and afterwards the target is told when the identity did not reach all of the picture."""
    with placed(target, acts) as firing:
        yield firing
    for sentence in describe_shortfall(firing, acts):
        target.tell(sentence)


@contextmanager
def placed(target: Target, acts: Sequence[Act]) -> Generator[Firing]:
    """Put the acts to work on the target's UNet for the time of the block.

    A weight of 0 switches an act off, its LoRA included. Everything is checked before the UNet is touched, and on
    leaving, whatever happened, the UNet is bit for bit what it was. Raises WrongBase, WrongWeights, UnsupportedUNet,
    MaskMismatch, FaceIDError. The target is told when a LoRA an identity was made with is not at hand.
    """
    active = [act for act in acts if not act.strength.is_off]
    if not active:
        yield Firing(expected=0)
        return
    layers = find_layers(target.unet)
    for act in active:
        ensure_fit(act.identity, layers)
    taps = Taps(target.unet, layers, [act.entry() for act in active], target.source, target.on_error)
    with ExitStack() as stack:
        for held in _find_loras(target, active, layers):
            held.hold()
            stack.callback(held.release)
        stack.enter_context(taps)
        yield taps.firing


def ensure_fit(identity: Identity, layers: UNetLayers) -> None:
    """Raises WrongBase when the identity was made for another base, or another width, than the UNet's."""
    if (identity.base, identity.context_width) != (layers.base, layers.context_width):
        raise WrongBase(
            f"{identity.origin.adapter_name} is an adapter for {BASE_TITLES[identity.base]} (context "
            f"{identity.context_width}) and this checkpoint's UNet is {layers.title} (context {layers.context_width}, "
            f"expected {identity.context_width}). Choose an adapter for this checkpoint's base, or another checkpoint."
        )
    for n, attention in enumerate(layers.attentions):
        made, found = identity.main.kv[n].k.shape[-1], linear_sizes(attention, "to_q")[1]
        if made != found:
            raise WrongBase(
                f"{identity.origin.adapter_name} was made for a smaller or larger {layers.title} model than this "
                f"checkpoint's: {made} channels in layer {n}, where the UNet has {found}. Choose another adapter, or "
                "the checkpoint it was made for."
            )


def _find_loras(target: Target, acts: Sequence[Act], layers: UNetLayers) -> list[HeldLora]:
    """One for each LoRA file: the one in place already, or a new one; none where PEFT has the file loaded."""
    known = {held.lora.digest(): held for held in held_loras(target.unet)}
    wanted: dict[str, HeldLora] = {}
    for act in acts:
        lora = find_lora(act, target.tell)
        if lora is None:
            continue
        held = known.get(lora.digest())
        if held is None and (name := name_in_peft(layers, target.unet, lora)) is not None:
            target.tell(
                f"The LoRA of {lora.path.name} is active already as PEFT adapter {name!r}; it is not added twice."
            )
            continue
        if held is None:
            held = target.place_lora(layers, target.unet, lora, DEFAULT_LORA if act.lora is None else act.lora)
        elif act.lora not in (None, held.strength):
            raise FaceIDError(
                f"The LoRA of {lora.path.name} is active at {held.strength:g} and cannot be at {act.lora:g} as well. "
                "Use one strength for everybody who shares it."
            )
        known[lora.digest()] = wanted[lora.digest()] = held
    return list(wanted.values())


def describe_shortfall(firing: Firing, acts: Sequence[Act]) -> list[str]:
    """Sentences on what of the picture the identity did not reach; none when all was reached, or nobody acts."""
    acts = [act for act in acts if not act.strength.is_off]
    if not acts:
        return []
    if firing.fewest is None:
        return ["The UNet was not called inside the block, so nothing was drawn with the identity."]
    if firing.fewest < firing.expected:
        return [
            f"The identity reached only {firing.fewest} of {firing.expected} layers in some steps: something (a "
            "caching, compiling or TensorRT extension) passes the others by. Switch it off for the full likeness."
        ]
    if not firing.acted:
        windows = " and ".join(sorted({f"{act.strength.start:g} to {act.strength.end:g}" for act in acts}))
        return [
            f"None of the {firing.calls} steps falls in the window from start to end ({windows}), so the identity was "
            "not added. Widen the window or use more steps."
        ]
    return []
