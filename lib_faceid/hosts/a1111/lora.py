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
from . import webui

_PREFIX = "diffusion_model_"  # of the UNet in the names of network_layer_mapping
_COMPARED = 3  # modules that are enough to tell two LoRAs apart
# Two files of one LoRA may differ in dtype: half precision keeps 11 bits.
_RELATIVE, _ABSOLUTE = 2.0**-10, 1e-6


def placing(tell: Callable[[str], None], kept: dict[str, Any]) -> PlaceLora:
    """How a LoRA gets into A1111's UNet; ``tell`` hears when the prompt has it already, or nothing can load it.

    ``kept`` holds the networks that were built for a job: making one takes a second for SDXL, and a pass is one of
    several.
    """

    def place(layers: UNetLayers, unet: nn.Module, lora: Lora, strength: float) -> HeldLora:
        networks = webui.lora_networks()
        if networks is None:
            tell(
                "The WebUI's own Lora extension is switched off, so the LoRA of the adapter is not used and the "
                "likeness is weaker. Switch it on, or set LoRA strength to 0."
            )
            return AlreadyThere(unet, lora, strength)
        twin = find_twin(networks.loaded_networks, lora)
        if twin is None:
            key = f"{id(unet)} {network_name(lora)}"
            kept[key] = network = kept.get(key) or build_network(networks, lora)
            return HostLora(networks, network, unet, strength, lora)
        tell(
            f"The LoRA of {lora.path.name} is in the prompt already as {twin.name}, strength "
            f"{twin.unet_multiplier:g}; it is not added twice."
        )
        return AlreadyThere(unet, lora, strength)

    return place


class HostLora(SharedPatch):
    """A network of ours in the extension's list of loaded networks."""

    def __init__(self, networks: Any, network: Any, unet: nn.Module, strength: float, lora: Lora) -> None:
        super().__init__(f"LoRA of {lora.path.name}")
        self.unet, self.lora, self.strength = unet, lora, strength
        self._networks, self._network = networks, network

    def _install(self) -> None:
        self._network.te_multiplier = self._network.unet_multiplier = self.strength
        self._networks.loaded_networks.append(self._network)

    def _remove(self) -> None:
        loaded = self._networks.loaded_networks
        loaded[:] = [network for network in loaded if network is not self._network]


def lora_errors(kept: dict[str, Any]) -> list[str]:
    """Sentences on layers the extension could not merge: it keeps such errors to itself (networks.py, ``errors``)."""
    networks = webui.lora_networks()
    counted: dict[str, int] = getattr(getattr(networks, "extra_network_lora", None), "errors", {})
    failed = sum(counted.pop(network.name, 0) for network in kept.values())
    if not failed:
        return []
    return [f"The WebUI could not apply the LoRA of the adapter to {failed} layers, so the likeness is weaker."]


class OnDisk:
    """What the extension asks of a network's file. Its own class would note ours in the WebUI's cache of hashes."""

    def __init__(self, name: str, lora: Lora) -> None:
        self.name = self.alias = name
        self.filename = str(lora.path)
        self.metadata: dict[str, str] = {}
        self.hash = self.shorthash = ""

    def read_hash(self) -> None:
        """It has none to show: ours is not part of the prompt."""

    def get_alias(self) -> str:
        return self.name


class AlreadyThere:
    """The LoRA is active by the person's own doing, or cannot be: nothing to hold, nothing to release."""

    def __init__(self, unet: nn.Module, lora: Lora, strength: float) -> None:
        self.unet, self.lora, self.strength = unet, lora, strength

    def hold(self) -> None: ...

    def release(self) -> None: ...


def network_name(lora: Lora) -> str:
    """What the extension tells networks apart by."""
    return f"faceid:{lora.digest()[:12]}"


def build_network(networks: Any, lora: Lora) -> Any:
    """A network of the Lora extension from the pairs of a LoRA. Raises FaceIDError when a layer is not known to it."""
    network_class, weights_class = webui.lora_network_classes()
    network = network_class(network_name(lora), OnDisk(network_name(lora), lora))
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
