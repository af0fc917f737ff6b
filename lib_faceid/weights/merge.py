"""A LoRA merged into a live UNet for a while, and taken out again to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..core.patch import Patch, live_patches
from ..core.unet_map import BASE_TITLES, UNetLayers
from ..errors import WrongBase, WrongWeights
from .lora import Lora, LoraPair, LoraTarget


@dataclass
class _Merged:
    """A changed weight: its bits before, and the tensor version in which we left it."""

    module: nn.Module
    before: Tensor
    version: int | None


class LoraMerge(Patch):
    """Adds ``strength * up @ down`` to every weight of a LoRA while installed.

    The old weights are kept on the CPU and copied back on removal, so they return bit for bit. A weight that somebody
    else changed meanwhile (``disturbed`` lists them) gets the LoRA subtracted instead, which is exact up to rounding.
    Raises WrongBase when the UNet has other layers or sizes, WrongWeights when its weights are quantised; the UNet is
    then as it was.
    """

    def __init__(self, layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> None:
        super().__init__(f"{lora.path.name}: LoRA at {strength:g}")
        self.unet, self.lora, self.strength = unet, lora, strength
        self.disturbed: list[str] = []
        self._layers = layers
        self._merged: dict[LoraTarget, _Merged] = {}

    def _install(self) -> None:
        if self.lora.base != self._layers.base:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} is for {BASE_TITLES[self.lora.base]} and this UNet is "
                f"{BASE_TITLES[self._layers.base]}. Use the adapter made for this checkpoint's base."
            )
        try:
            for pair in self.lora.pairs():
                self._merged[pair.target] = self._merge(pair)
        except BaseException:
            self._remove()
            raise

    def _merge(self, pair: LoraPair) -> _Merged:
        module = find_linear(self._layers, self.unet, pair.target)
        weight = cast(Tensor, module.weight)
        self._check(weight, pair)
        before = weight.detach().to("cpu", copy=True)
        delta = pair.delta(self.strength).to(weight.device)
        _write(weight, (weight.detach().to(torch.float32) + delta).to(weight.dtype))
        return _Merged(module, before, _version(weight))

    def _check(self, weight: Tensor, pair: LoraPair) -> None:
        expected = (pair.up.shape[0], pair.down.shape[1])
        if weight.is_meta:
            raise WrongWeights(
                f"The LoRA of {self.lora.path.name} cannot be merged into this UNet: {pair.target.diffusers} is not in "
                "memory (sequential CPU offload loads it layer by layer). Use model offload, or lora=0."
            )
        if not weight.is_floating_point() or weight.itemsize < 2:
            raise WrongWeights(
                f"The LoRA of {self.lora.path.name} cannot be merged into this UNet: {pair.target.diffusers} is "
                "stored as "
                f"{str(weight.dtype).removeprefix('torch.')}. Use a 16 or 32 bit UNet, or lora=0."
            )
        if tuple(weight.shape) != expected:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} changes {pair.target.diffusers} of shape {expected}, and this "
                "UNet has "
                f"{tuple(weight.shape)} there. Use the adapter made for this checkpoint."
            )

    def _remove(self) -> None:
        merged, self._merged = self._merged, {}
        foreign = {
            target: item
            for target, item in merged.items()
            if item.version is not None and _version(cast(Tensor, item.module.weight)) != item.version
        }
        self.disturbed = [target.diffusers for target in foreign]
        for target, item in merged.items():
            if target not in foreign:
                _write(cast(Tensor, item.module.weight), item.before)
        if foreign:
            self._subtract(foreign)

    def _subtract(self, foreign: dict[LoraTarget, _Merged]) -> None:
        for pair in self.lora.pairs():
            if pair.target in foreign:
                weight = cast(Tensor, foreign[pair.target].module.weight)
                delta = pair.delta(self.strength).to(weight.device)
                _write(weight, (weight.detach().to(torch.float32) - delta).to(weight.dtype))


def find_merge(unet: nn.Module, digest: str) -> LoraMerge | None:
    """The merge of the LoRA file with this sha256 that is in place on the UNet now, or None: a LoRA goes in once."""
    merges = (patch for patch in live_patches() if isinstance(patch, LoraMerge))
    return next((merge for merge in merges if merge.unet is unet and merge.lora.digest() == digest), None)


def find_linear(layers: UNetLayers, unet: nn.Module, target: LoraTarget) -> nn.Module:
    """The linear module a LoRA target means in this UNet, in ldm or diffusers naming, under PEFT's wrapper if there is
    one.
    """
    block = layers.names[target.n].removesuffix(".attn2")
    module = unet.get_submodule(f"{block}.{target.attention}.{target.linear}")
    return getattr(module, "base_layer", module)


def _write(weight: Tensor, value: Tensor) -> None:
    """Copy in place, whatever mode the weight was made in."""
    with torch.inference_mode(weight.is_inference()), torch.no_grad():
        weight.copy_(value)


def _version(weight: Tensor) -> int | None:
    """torch's count of in-place changes; inference tensors have none."""
    return None if weight.is_inference() else weight._version
