"""The FaceID LoRA through PEFT, for diffusers UNets whose weights cannot be changed in place.

Merging (weights/merge.py) costs nothing in a step and is the way wherever weights are plain numbers in memory. PEFT
computes the change beside the weight instead, so it also works where that is stored in 8 bits, quantised, or offloaded
layer by layer.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.patch import SharedPatch, do_all
from ..core.unet_map import BASE_TITLES, UNetLayers
from ..engine.ports import HeldLora
from ..errors import WrongBase, WrongWeights
from ..weights.lora import Lora, LoraTarget
from ..weights.merge import LoraMerge, find_attention, find_linear


def place_lora(layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> HeldLora:
    """A merge where every weight can be changed, otherwise an adapter of PEFT (where that is installed)."""
    is_diffusers = hasattr(unet, "config") and importlib.util.find_spec("peft") is not None
    if not is_diffusers or lora.base != layers.base or all(map(_is_plain, _linears(layers, unet, lora))):
        return LoraMerge(layers, unet, lora, strength)
    return PeftLora(layers, unet, lora, strength)


class PeftLora(SharedPatch):
    """The pairs of a LoRA as a PEFT adapter of their own while installed.

    The adapters that somebody else loaded stay loaded, with the weights they have, and active where they are; those
    that are switched off stay off. On removal the modules, their active adapters and ``requires_grad`` are what they
    were, and no layer of PEFT is left where there was none. Raises, before the UNet is touched, WrongBase for other
    layers or sizes and WrongWeights where PEFT's result would not be used.
    """

    def __init__(self, layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> None:
        super().__init__(f"{lora.path.name}: LoRA at {strength:g} through PEFT")
        self.unet, self.lora, self.strength = unet, lora, strength
        self.name = f"faceid_{lora.digest()[:12]}"
        self._layers = layers
        self._wrapped: list[_Wrapped] = []
        self._gradients: list[tuple[nn.Parameter, bool]] = []

    def _install(self) -> None:
        for target, shape in self.lora.shapes.items():
            self._check(target, shape)
        self._wrapped = [_Wrapped(self._parent(target), target, self.name) for target in self.lora.shapes]
        self._gradients = [(weight, weight.requires_grad) for weight in self.unet.parameters()]
        try:
            self._inject()
            self._fill()
            for wrapped in self._wrapped:
                wrapped.activate(self.strength)
            self._restore_gradients()
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        wrapped, self._wrapped = self._wrapped, []
        try:
            do_all([*(item.restore for item in wrapped), self._forget_config, self._restore_gradients])
        finally:
            self._gradients = []

    def _inject(self) -> None:
        """Empty pairs in every module; PEFT chooses the layer that suits a quantised weight."""
        from peft import LoraConfig, inject_adapter_in_model

        names = [f"{self._attention_name(target)}.{target.linear}" for target in self.lora.shapes]
        rank = self.lora.rank
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights=False)
        try:
            with warnings.catch_warnings():  # that there are other adapters already is meant
                warnings.simplefilter("ignore", UserWarning)
                inject_adapter_in_model(config, self.unet, adapter_name=self.name, low_cpu_mem_usage=True)
        except ValueError as error:
            raise WrongWeights(
                f"PEFT cannot put the LoRA of {self.lora.path.name} into this UNet ({error}). Use a 16 or 32 bit UNet, "
                "or lora=0."
            ) from error

    def _fill(self) -> None:
        dtype = _compute_dtype(self.unet)
        for pair in self.lora.pairs():
            wrapper = cast(Any, self._module(pair.target))
            device = _device_of(wrapper.get_base_layer(), self.unet)
            for place, value in ((wrapper.lora_A, pair.down), (wrapper.lora_B, pair.up)):
                place[self.name].weight = nn.Parameter(value.to(device, dtype), requires_grad=False)

    def _check(self, target: LoraTarget, shape: tuple[int, int]) -> None:
        if self.lora.base != self._layers.base:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} is for {BASE_TITLES[self.lora.base]} and this UNet is "
                f"{BASE_TITLES[self._layers.base]}. Use the adapter made for this checkpoint's base."
            )
        linear = cast(Any, find_linear(self._layers, self.unet, target))
        found = (linear.out_features, linear.in_features)  # the stored shape of a quantised weight is another
        if found != shape:
            raise WrongBase(
                f"The LoRA in {self.lora.path.name} changes {target.diffusers} of shape {shape}, and this UNet has "
                f"{found} there. Use the adapter made for this checkpoint."
            )
        if getattr(find_attention(self._layers, self.unet, target), "fused_projections", False):
            raise WrongWeights(
                f"The LoRA of {self.lora.path.name} cannot act on this UNet: q, k and v were fused. Call "
                "unfuse_qkv_projections() first, or lora=0."
            )
        if getattr(self._module(target), "merged_adapters", None):
            raise WrongWeights(
                f"The LoRA of {self.lora.path.name} cannot act on this UNet: another LoRA was fused into "
                f"{target.diffusers}, which is not a 16 or 32 bit weight. Call unfuse_lora() first, or lora=0."
            )

    def _attention_name(self, target: LoraTarget) -> str:
        return self._layers.names[target.n].removesuffix("attn2") + target.attention

    def _parent(self, target: LoraTarget) -> nn.Module:
        return self.unet.get_submodule(f"{self._attention_name(target)}.{target.linear}".rpartition(".")[0])

    def _module(self, target: LoraTarget) -> nn.Module:
        return find_attention(self._layers, self.unet, target).get_submodule(target.linear)

    def _forget_config(self) -> None:
        configs = vars(self.unet).get("peft_config")
        if configs is not None:
            configs.pop(self.name, None)
            if not configs:
                del self.unet.peft_config

    def _restore_gradients(self) -> None:
        for weight, before in self._gradients:
            weight.requires_grad_(before)


class _Wrapped:
    """One linear in its place, and which adapters acted on it before ours came."""

    def __init__(self, parent: nn.Module, target: LoraTarget, name: str) -> None:
        self._parent, self._key, self._name = parent, target.linear.rpartition(".")[2], name
        found = cast(Any, self._module)
        self._was_wrapped = hasattr(found, "base_layer")
        self._before: Any = found._active_adapter if self._was_wrapped else None
        self._was_off = bool(self._was_wrapped and found._disable_adapters)
        self._ours: list[str] = []

    @property
    def _module(self) -> nn.Module:
        return cast(nn.Module, self._parent._modules[self._key])

    def activate(self, strength: float) -> None:
        """Ours beside those that act; alone where the others were switched off."""
        wrapper = cast(Any, self._module)
        before = [self._before] if isinstance(self._before, str) else list(self._before or ())
        self._ours = [*([] if self._was_off else before), self._name]
        wrapper._active_adapter, wrapper._disable_adapters = self._ours, False
        wrapper.scaling[self._name] = strength

    def restore(self) -> None:
        """Take ours out. What somebody else switched on or off meanwhile stays as they left it."""
        wrapper = cast(Any, self._module)
        if self._name not in getattr(wrapper, "lora_A", {}):
            return
        untouched = not self._ours or wrapper._active_adapter is self._ours
        left = self._before if untouched else [item for item in wrapper.active_adapters if item != self._name]
        wrapper._active_adapter = []  # otherwise PEFT switches another adapter on in place of the deleted one
        wrapper.delete_adapter(self._name)
        if not wrapper.lora_A and not wrapper.lora_embedding_A and not self._was_wrapped:
            setattr(self._parent, self._key, wrapper.get_base_layer())
            return
        wrapper._active_adapter = [] if left is None else left
        if untouched:
            wrapper._disable_adapters = self._was_off


def _linears(layers: UNetLayers, unet: nn.Module, lora: Lora) -> Iterator[nn.Module]:
    return (find_linear(layers, unet, target) for target in lora.shapes)


def _is_plain(linear: nn.Module) -> bool:
    """True for a weight that is a matrix of at least 16 bit numbers in memory."""
    weight = cast(Tensor, linear.weight)
    return not weight.is_meta and weight.numel() > 0 and weight.is_floating_point() and weight.itemsize >= 2


def _compute_dtype(unet: nn.Module) -> torch.dtype:
    """What the UNet computes in: the widest kind it stores, because norms are never stored in 8 bits."""
    kinds = {weight.dtype for weight in unet.parameters() if weight.is_floating_point()}
    return max(kinds, key=lambda kind: kind.itemsize, default=torch.float32)


def _device_of(linear: Any, unet: nn.Module) -> torch.device:
    """Where a linear computes; accelerate knows it for one whose weight is elsewhere between its calls."""
    device = getattr(getattr(linear, "_hf_hook", None), "execution_device", None)
    if device is not None:
        return torch.device(device)
    return linear.weight.device if not linear.weight.is_meta else cast(Any, unet).device
