"""The FaceID LoRA through A1111's own Lora extension: it joins the networks of the prompt for one sampling pass.

The extension compares the list of loaded networks with what is merged into a layer whenever the layer runs, and merges
anew from its own backup copy (extensions-builtin/Lora/networks.py:network_apply_weights). Its key for a network is the
name, so ours is named by digest: with a fixed name another file would keep the old one merged. It clears the list only
when prompts with LoRAs are activated, so ours is taken out at the end of the pass. Nothing goes through a file or the
prompt: the network is built from the tensors of the adapter, which A1111's own reader could not load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...core.patch import SharedPatch
from ...core.unet_map import UNetLayers
from ...engine.ports import HeldLora, PlaceLora
from ...errors import FaceIDError
from ...weights.lora import Lora, LoraPair
from ...weights.merge import LoraMerge
from . import webui

_PREFIX = "diffusion_model_"  # of the UNet in the names of network_layer_mapping
_COMPARED = 3  # modules that are enough to tell two LoRAs apart
# Two files of one LoRA may differ in dtype: half precision keeps 11 bits.
_RELATIVE, _ABSOLUTE = 2.0**-10, 1e-6


def placing(tell: Callable[[str], None]) -> PlaceLora:
    """How a LoRA gets into A1111's UNet; ``tell`` hears when the prompt has it already."""

    def place(layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> HeldLora:
        networks = webui.lora_networks()
        if networks is None:  # the Lora extension is switched off: nothing else merges into the weights
            return LoraMerge(layers, unet, lora, strength)
        twin = find_twin(networks.loaded_networks, lora)
        if twin is None:
            return HostLora(networks, unet, lora, strength)
        tell(
            f"The LoRA of {lora.path.name} is in the prompt already as {twin.name}, strength "
            f"{twin.unet_multiplier:g}; it is not added twice."
        )
        return AlreadyThere(unet, lora, float(twin.unet_multiplier))

    return place


class HostLora(SharedPatch):
    """A network of ours in the extension's list of loaded networks."""

    def __init__(self, networks: Any, unet: nn.Module, lora: Lora, strength: float) -> None:
        super().__init__(f"LoRA of {lora.path.name}")
        self.unet, self.lora, self.strength = unet, lora, strength
        self._networks = networks
        self._network: Any = None

    def _install(self) -> None:
        self._network = build_network(self._networks, self.lora)
        self._network.te_multiplier = self._network.unet_multiplier = self.strength
        self._networks.loaded_networks.append(self._network)

    def _remove(self) -> None:
        loaded, ours, self._network = self._networks.loaded_networks, self._network, None
        loaded[:] = [network for network in loaded if network is not ours]


class AlreadyThere:
    """The LoRA is active by the person's own doing: nothing to hold, nothing to release."""

    def __init__(self, unet: nn.Module, lora: Lora, strength: float) -> None:
        self.unet, self.lora, self.strength = unet, lora, strength

    def hold(self) -> None: ...

    def release(self) -> None: ...


def network_name(lora: Lora) -> str:
    """What the extension tells networks apart by."""
    return f"faceid:{lora.digest()[:12]}"


def build_network(networks: Any, lora: Lora) -> Any:
    """A network of the Lora extension from the pairs of a LoRA. Raises FaceIDError when a layer is not known to it."""
    network_class, on_disk_class, weights_class = webui.lora_network_class()
    network = network_class(network_name(lora), on_disk_class(network_name(lora), str(lora.path)))
    mapping = webui.layer_mapping()
    for pair in lora.pairs():
        key = layer_name(pair)
        module = mapping.get(key)
        if module is None:
            raise FaceIDError(
                f"The LoRA of {lora.path.name} changes the layer {key}, which the WebUI's Lora extension does not know "
                "in this checkpoint. Set LoRA strength to 0 to do without it."
            )
        tensors = {"lora_up.weight": pair.up, "lora_down.weight": pair.down}
        weights = weights_class(network_key=pair.target.kohya, sd_key=key, w=tensors, sd_module=module)
        network.modules[key] = _create(networks, network, weights)
    return network


def layer_name(pair: LoraPair) -> str:
    """The layer a pair changes, as ``network_layer_mapping`` calls it."""
    return _PREFIX + pair.target.ldm.replace(".", "_")


def find_twin(loaded: list[Any], lora: Lora) -> Any | None:
    """A loaded network with the same numbers, whatever its file is called and however it is stored."""
    pairs = [pair for pair, _ in zip(lora.pairs(), range(_COMPARED), strict=False)]
    return next((network for network in loaded if pairs and all(_has(network, pair) for pair in pairs)), None)


def _has(network: Any, pair: LoraPair) -> bool:
    module = network.modules.get(layer_name(pair))
    found = [getattr(getattr(module, part, None), "weight", None) for part in ("down_model", "up_model")]
    return all(_alike(tensor, ours) for tensor, ours in zip(found, (pair.down, pair.up), strict=True))


def _alike(found: Any, ours: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != ours.shape:
        return False
    return torch.allclose(found.detach().cpu().float(), ours.float(), rtol=_RELATIVE, atol=_ABSOLUTE)


def _create(networks: Any, network: Any, weights: Any) -> Any:
    made: Iterator[Any] = (kind.create_module(network, weights) for kind in networks.module_types)
    return next(module for module in made if module is not None)
