"""Layers that rest in one dtype and compute in another, so that a 16-bit file is never widened as a whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CastLayer:
    """Two hooks on a layer: before its forward the weights become ``dtype``, after it they are the stored ones again.

    One layer of ViT-H takes 79 MB in float32, for the time it computes; the whole tower would take 2.5 GB.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._stored: dict[str, Tensor] = {}
        layer.register_forward_pre_hook(self._cast)
        layer.register_forward_hook(self._restore, always_call=True)  # also when the forward fails

    def _cast(self, layer: nn.Module, args: object) -> None:
        del args
        for name, parameter in layer.named_parameters():
            if parameter.dtype != self._dtype:
                self._stored[name] = parameter.data
                parameter.data = parameter.data.to(self._dtype)

    def _restore(self, layer: nn.Module, args: object, output: object) -> None:
        del args, output
        for name, parameter in layer.named_parameters():
            if name in self._stored:
                parameter.data = self._stored.pop(name)


def cast_layer(layer: nn.Module, dtype: torch.dtype) -> None:
    """Let ``layer`` compute in ``dtype``; nothing is installed where all its weights are of it already."""
    if any(parameter.dtype != dtype for parameter in layer.parameters()):
        CastLayer(layer, dtype)
