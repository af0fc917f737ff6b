"""A small stand-in of A1111's built-in Lora extension, for fake_webui.py.

As there, a linear layer looks at every forward whether what is merged into it is what is loaded now, and if not merges
anew from its own copy of the weight. Networks are told apart by name and multipliers alone, and the list of loaded ones
is cleared only when the networks of a prompt are activated. New weights in a layer make it forget its copy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import Made
from ..models_folder import sd15_checkpoint
from ..oracle_ldm import file_order
from .fake_webui import Host


class NetworkOnDisk:
    def __init__(self, name: str, filename: str) -> None:
        self.name, self.filename = name, filename


class NetworkWeights(NamedTuple):
    network_key: str
    sd_key: str
    w: dict[str, Tensor]
    sd_module: nn.Module


class Network:
    def __init__(self, name: str, network_on_disk: NetworkOnDisk) -> None:
        self.name, self.network_on_disk = name, network_on_disk
        self.te_multiplier = self.unet_multiplier = 1.0
        self.dyn_dim: int | None = None
        self.modules: dict[str, Pair] = {}


class Pair:
    """The change of one layer, multiplier * up @ down."""

    def __init__(self, network: Network, weights: NetworkWeights) -> None:
        self.network = network
        self.up_model = SimpleNamespace(weight=weights.w["lora_up.weight"])
        self.down_model = SimpleNamespace(weight=weights.w["lora_down.weight"])

    def delta(self) -> Tensor:
        return self.network.unet_multiplier * (self.up_model.weight.float() @ self.down_model.weight.float())


class PairType:
    def create_module(self, network: Network, weights: NetworkWeights) -> Pair | None:
        return Pair(network, weights) if "lora_up.weight" in weights.w else None


class OtherType:
    """A kind of network that ours is not; it is asked first."""

    def create_module(self, network: Network, weights: NetworkWeights) -> Pair | None:
        return None


def install(host: Host) -> Any:
    """Switch the extension on; returns its module ``networks``."""
    networks = host.add_module(
        "networks",
        loaded_networks=[],
        module_types=[OtherType(), PairType()],
        assign_network_names_to_compvis_modules=assign_names,
    )
    host.add_module("network", Network=Network, NetworkOnDisk=NetworkOnDisk, NetworkWeights=NetworkWeights)
    host.lora = networks

    def forward(layer: nn.Linear, x: Tensor) -> Tensor:
        _merge(layer, networks.loaded_networks)
        return F.linear(x, layer.weight, layer.bias)

    host.monkeypatch.setattr(nn.Linear, "forward", forward)
    load = nn.Linear._load_from_state_dict

    def load_weight(layer: nn.Linear, *args: Any) -> None:
        for name in ("network_current_names", "network_weights_backup"):
            vars(layer).pop(name, None)
        load(layer, *args)

    host.monkeypatch.setattr(nn.Linear, "_load_from_state_dict", load_weight)
    return networks


def assign_names(sd_model: Any) -> None:
    """Done by the extension whenever a checkpoint is loaded."""
    mapping: dict[str, nn.Module] = {}
    for name, module in sd_model.model.named_modules():
        mapping[name.replace(".", "_")] = module
        module.network_layer_name = name.replace(".", "_")
    sd_model.network_layer_mapping = mapping


def prompt_network(host: Host, made: Made, name: str, strength: float = 1.0) -> Network:
    """The LoRA of an adapter as a person loads it by ``<lora:name:strength>``, from a file of its own."""
    network = Network(name, NetworkOnDisk(name, f"{name}.safetensors"))
    network.unet_multiplier = network.te_multiplier = strength
    if not hasattr(host.shared.sd_model, "network_layer_mapping"):
        assign_names(host.shared.sd_model)
    names = {module: key for key, module in host.shared.sd_model.network_layer_mapping.items()}
    for n, cross in enumerate(file_order(host.unet)):
        key = names[cross]
        for number, attention in ((2 * n, key.replace("attn2", "attn1")), (2 * n + 1, key)):
            for part in ("to_q", "to_k", "to_v", "to_out"):
                layer = f"{attention}_{part}" + ("_0" if part == "to_out" else "")
                stored = {end: made.tensors[f"ip_adapter.{number}.{part}_lora.{end}.weight"] for end in ("up", "down")}
                w = {f"lora_{end}.weight": tensor for end, tensor in stored.items()}
                network.modules[layer] = Pair(network, NetworkWeights(layer, layer, w, nn.Identity()))
    return network


def other_weights(host: Host) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """A refiner of the kind of the first checkpoint, which A1111 loads into the same modules: weights, and how."""
    weights, unet = sd15_checkpoint(seed=1).state_dict(), host.unet

    def load() -> None:
        unet.load_state_dict(weights)
        host.load(unet)

    return weights, load


def _merge(layer: Any, loaded: list[Network]) -> None:
    name = getattr(layer, "network_layer_name", None)
    wanted = tuple((item.name, item.te_multiplier, item.unet_multiplier, item.dyn_dim) for item in loaded)
    if name is None or wanted == getattr(layer, "network_current_names", ()):
        return
    if getattr(layer, "network_weights_backup", None) is None:
        layer.network_weights_backup = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(layer.network_weights_backup)
        for network in loaded:
            if name in network.modules:
                layer.weight.add_(network.modules[name].delta())
    layer.network_current_names = wanted
