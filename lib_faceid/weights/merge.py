"""LoRAs merged into a live UNet for a while, and taken out again to the last bit, in whatever order they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from ..core.patch import SharedPatch, do_all, live_patches
from ..core.unet_map import BASE_TITLES, UNetLayers
from ..errors import WrongBase, WrongWeights, warn_user
from .lora import Lora, LoraPair, LoraTarget


class LoraMerge(SharedPatch):
    """Adds ``strength * up @ down`` to every weight of a LoRA while installed.

    The bits from before the first merge are kept on the CPU, once for all merges on a UNet. When one leaves, they are
    written back and the others are merged anew, so what remains is what there would be without it. Changes that
    somebody else made to a weight meanwhile stay (exact up to rounding) and are told in a warning. Everything that can
    be checked is checked before the UNet is touched: raises WrongBase for a UNet with other layers or sizes,
    WrongWeights where weights are quantised, offloaded or fused.
    """

    def __init__(self, layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> None:
        super().__init__(f"{lora.path.name}: LoRA at {strength:g}")
        self.unet, self.lora, self.strength = unet, lora, strength
        self._layers = layers
        self._stack = _Stack()

    def _install(self) -> None:
        linears = {target: find_linear(self._layers, self.unet, target) for target in self._checked_targets()}
        others = merges_on(self.unet)
        self._stack = others[0]._stack if others else _Stack()
        self._stack.keep(linears)
        self._stack.active.append(self)
        try:
            self._stack.apply(self)
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        stack, self._stack = self._stack, _Stack()
        disturbed = stack.leave(self)
        if disturbed:
            warn_user(
                f"{len(disturbed)} weights (such as {disturbed[0]}) were changed by somebody else while the LoRA of "
                f"{self.lora.path.name} was merged. Their change was kept; reload the checkpoint if pictures look "
                "wrong."
            )

    def _checked_targets(self) -> Iterable[LoraTarget]:
        if self.lora.base != self._layers.base:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} is for {BASE_TITLES[self.lora.base]} and this UNet is "
                f"{BASE_TITLES[self._layers.base]}. Use the adapter made for this checkpoint's base."
            )
        for target, shape in self.lora.shapes.items():
            self._check(target, shape)
        return self.lora.shapes

    def _check(self, target: LoraTarget, shape: tuple[int, int]) -> None:
        weight = cast(Tensor, find_linear(self._layers, self.unet, target).weight)
        found, obstacle = tuple(weight.shape), _obstacle(weight, find_attention(self._layers, self.unet, target))
        if obstacle:
            raise WrongWeights(
                f"The LoRA of {self.lora.path.name} cannot be merged into this UNet: {target.diffusers} {obstacle}, "
                "or lora=0."
            )
        if found != shape:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} changes {target.diffusers} of shape {shape}, and this UNet has "
                f"{found} there. Use the adapter made for this checkpoint."
            )


@dataclass
class _Kept:
    """A weight as it was before any merge, and a checksum of what we last wrote to it."""

    module: nn.Module
    weight: Tensor
    before: Tensor
    checksum: int

    @property
    def is_ours(self) -> bool:
        """False when the module has got another weight meanwhile (a checkpoint was loaded into it)."""
        return self.module.weight is self.weight

    def write(self, value: Tensor) -> None:
        with torch.inference_mode(self.weight.is_inference()), torch.no_grad():
            self.weight.copy_(value)
        self.checksum = _checksum(self.weight)


class _Stack:
    """The merges on one UNet in the order they came, and the weights from before all of them."""

    def __init__(self) -> None:
        self.active: list[LoraMerge] = []
        self._kept: dict[LoraTarget, _Kept] = {}

    def keep(self, linears: dict[LoraTarget, nn.Module]) -> None:
        """Remember the bits of weights that are not remembered yet."""
        for target, module in linears.items():
            if target not in self._kept:
                weight = cast(Tensor, module.weight)
                before = weight.detach().to("cpu", copy=True)
                self._kept[target] = _Kept(module, weight, before, _checksum(weight))

    def apply(self, merge: LoraMerge) -> None:
        """Add one merge's changes to the weights as they are."""
        for pair in merge.lora.pairs():
            kept = self._kept.get(pair.target)
            if kept is not None:
                kept.write(_changed(kept.weight, pair, merge.strength))

    def leave(self, merge: LoraMerge) -> list[str]:
        """Restore, then merge the others anew. Returns the names of weights that somebody else changed.

        Every weight gets its turn even if one fails; the first failure is raised at the end.
        """
        replaced = [target for target, kept in self._kept.items() if not kept.is_ours]
        for target in replaced:
            del self._kept[target]
        foreign = [target for target, kept in self._kept.items() if _checksum(kept.weight) != kept.checksum]
        if foreign:
            self._rebase(set(foreign))
        self.active.remove(merge)
        try:
            do_all(chain(self._restorations(), (partial(self.apply, other) for other in self.active)))
        finally:
            if not self.active:
                self._kept.clear()
        return [target.diffusers for target in (*foreign, *replaced)]

    def _restorations(self) -> list[Callable[[], None]]:
        return [partial(kept.write, kept.before) for kept in self._kept.values()]

    def _rebase(self, foreign: set[LoraTarget]) -> None:
        """Take all merges out of changed weights by subtraction: what is left is the old weight with their change."""
        values = {target: self._kept[target].weight.detach().to(torch.float32, copy=True) for target in foreign}
        for merge in self.active:
            for pair in merge.lora.pairs():
                if pair.target in foreign:
                    values[pair.target] -= pair.delta(merge.strength, values[pair.target].device)
        for target, value in values.items():
            kept = self._kept[target]
            kept.before = value.to("cpu", kept.before.dtype)


def merges_on(unet: nn.Module) -> list[LoraMerge]:
    """The LoRAs of ours that are merged into the UNet now."""
    return [patch for patch in live_patches() if isinstance(patch, LoraMerge) and patch.unet is unet]


def name_in_peft(layers: UNetLayers, unet: nn.Module, lora: Lora) -> str | None:
    """The active PEFT adapter that is this LoRA (its first pair has the same values), or None."""
    pair = next(lora.pairs())
    wrapper = find_attention(layers, unet, pair.target).get_submodule(pair.target.linear)
    for name in getattr(wrapper, "active_adapters", ()):
        down = getattr(wrapper, "lora_A", {})[name].weight
        if down.shape == pair.down.shape and torch.equal(down.to("cpu", pair.down.dtype), pair.down):
            return str(name)
    return None


def find_attention(layers: UNetLayers, unet: nn.Module, target: LoraTarget) -> nn.Module:
    """The attention module a LoRA target is in, in ldm or diffusers naming."""
    return unet.get_submodule(layers.names[target.n].removesuffix("attn2") + target.attention)


def find_linear(layers: UNetLayers, unet: nn.Module, target: LoraTarget) -> nn.Module:
    """The linear module a LoRA target means, under PEFT's wrapper if there is one."""
    module = find_attention(layers, unet, target).get_submodule(target.linear)
    return getattr(module, "base_layer", module)


def _obstacle(weight: Tensor, attention: nn.Module) -> str:
    """Why a change of this weight would not reach the picture, with the remedy; empty when it would."""
    if weight.is_meta or weight.numel() == 0:
        return "is not in memory (it is offloaded layer by layer or to disk). Use model offload"
    if not weight.is_floating_point() or weight.itemsize < 2:
        return f"is stored as {str(weight.dtype).removeprefix('torch.')}. Use a 16 or 32 bit UNet"
    if getattr(attention, "fused_projections", False):
        return "is not used, because q, k and v were fused. Call unfuse_qkv_projections() first"
    return ""


def _changed(weight: Tensor, pair: LoraPair, strength: float) -> Tensor:
    delta = pair.delta(strength, weight.device)
    return (weight.detach().to(torch.float32) + delta).to(weight.dtype)


def _checksum(weight: Tensor) -> int:
    """Sum of the bits read as integers: changes with any rewrite that is not a permutation."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return int(weight.detach().contiguous().view(kinds[weight.itemsize]).sum(dtype=torch.int64).item())
