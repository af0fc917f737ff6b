"""Identities at work on a UNet: everything is checked, put in place, counted, and taken away again."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from ..core.tap import Firing, Taps
from ..core.unet_map import BASE_TITLES, UNetLayers, find_layers
from ..errors import FaceIDError, FaceIDWarning, WrongBase
from ..library.identity import Identity
from ..weights.adapter import Adapter, load_adapter
from ..weights.lora import Lora
from ..weights.merge import LoraMerge, find_merge
from .acts import Act
from .ports import Target

# Strength of the FaceID LoRA when nobody says otherwise. Trained at 1.0 (upstream); users' habit is 0.6 to 0.7 because
# the LoRA also stiffens poses, and ComfyUI_IPAdapter_plus' unified loader takes 0.6.
DEFAULT_LORA = 0.65


@contextmanager
def acting(target: Target, acts: Sequence[Act]) -> Generator[Firing]:
    """Put the acts to work on the target's UNet for the time of the block.

    A weight of 0 switches an act off, its LoRA included. Everything is checked before the UNet is touched, and on
    leaving, whatever happened, the UNet is bit for bit what it was. Raises WrongBase, UnsupportedUNet, MaskMismatch,
    FaceIDError; warns (FaceIDWarning) when some layers were never reached, or when a LoRA the identity was made with is
    not at hand.
    """
    active = [act for act in acts if not act.strength.is_off]
    if not active:
        yield Firing(expected=0)
        return
    layers = find_layers(target.unet)
    for act in active:
        ensure_fit(act.identity, layers)
    taps = Taps(target.unet, layers, [act.entry() for act in active], target.source)
    with ExitStack() as stack:
        for merge in _merges(active, layers, target.unet):
            stack.callback(merge.remove)
            merge.install()
        stack.enter_context(taps)
        yield taps.firing
    _tell_missed(taps.firing)


def ensure_fit(identity: Identity, layers: UNetLayers) -> None:
    """Raises WrongBase when the identity was made for another base than the UNet's."""
    if (identity.base, identity.context_width) != (layers.base, layers.context_width):
        raise WrongBase(
            f"{identity.origin.adapter_name} is an adapter for {BASE_TITLES[identity.base]} (context "
            f"{identity.context_width}) "
            f"and this checkpoint's UNet is {BASE_TITLES[layers.base]} (context {layers.context_width}, expected "
            f"{identity.context_width}). Choose an adapter for this checkpoint's base, or another checkpoint."
        )


def _merges(acts: Sequence[Act], layers: UNetLayers, unet: nn.Module) -> list[LoraMerge]:
    """One merge for each LoRA file that is wanted and not in place yet."""
    merges: dict[str, LoraMerge] = {}
    for act in acts:
        lora = _wanted_lora(act)
        if lora is not None and lora.digest() not in merges and find_merge(unet, lora.digest()) is None:
            strength = DEFAULT_LORA if act.lora is None else act.lora
            merges[lora.digest()] = LoraMerge(layers, unet, lora, strength)
    return list(merges.values())


def _wanted_lora(act: Act) -> Lora | None:
    if act.lora == 0.0:
        return None
    adapter, origin = act.adapter, act.identity.origin
    if adapter is None and origin.has_lora and act.identity.adapter_path is not None:
        adapter = load_adapter(act.identity.adapter_path, variant=origin.variant)
    if adapter is not None:
        return _lora_of(adapter, asked=act.lora is not None)
    if act.lora is not None:
        raise FaceIDError(
            f"lora={act.lora:g} was asked for, but the LoRA that belongs to this identity is not at hand: pass "
            "adapter=, the "
            f"loaded {origin.adapter_name}, or lora=0."
        )
    if origin.has_lora:
        warnings.warn(
            f"This identity was made with {origin.adapter_name} (sha256 {origin.adapter_sha256[:12]}), whose LoRA is "
            "not at "
            "hand, so the likeness will be weaker. Pass adapter=, or lora=0.0 to do without.",
            FaceIDWarning,
            stacklevel=5,
        )
    return None


def _lora_of(adapter: Adapter, *, asked: bool) -> Lora | None:
    lora = adapter.lora()
    if lora is None and asked:
        raise FaceIDError(f"{adapter.path.name} ({adapter.title}) carries no LoRA; leave lora out, or set it to 0.")
    return lora


def _tell_missed(firing: Firing) -> None:
    if firing.fewest is not None and firing.fewest < firing.expected:
        warnings.warn(
            f"The identity reached only {firing.fewest} of {firing.expected} layers in some steps: something (a "
            "caching, "
            "compiling or TensorRT extension) passes the others by. Switch it off for the full likeness.",
            FaceIDWarning,
            stacklevel=4,
        )
