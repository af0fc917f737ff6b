"""A CLIP image tower in use: loaded, asked for features, released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import BadIdentity, FaceIDError
from .casting import cast_layer
from .layouts import POSITION_IDS, stored_tensors
from .spec import EncoderSpec
from .weight_file import WeightFile

_AT_ONCE = 4  # photos in one forward: the hidden states of all layers, 43 MB a photo in ViT-H, live until it ends


@dataclass(frozen=True)
class Features:
    """float32 on the CPU. ``hidden`` (B, positions, hidden width): what the last layer but one gives, not normalised
    after it; ``pooled`` (B, projection width): the image embedding.
    """

    hidden: Tensor
    pooled: Tensor


class Encoder:
    """transformers' CLIPVisionModelWithProjection with the weights of a file; ``with`` releases it at the end."""

    def __init__(self, model: nn.Module, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> None:
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self._model: nn.Module | None = model

    @classmethod
    def load(
        cls, file: WeightFile, spec: EncoderSpec, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> Encoder:
        """The tower that ``recognise_encoder`` found in ``file``. On the CPU its weights stay mapped from the file.

        ``dtype`` computes: None is float32 on the CPU, where 16 bits are slow and, before torch 2.2, impossible, and
        the stored dtype elsewhere. Layers keep the stored dtype and are cast one at a time. Raises FaceIDError where
        transformers is not installed, BrokenWeights where the file changed.
        """
        device = torch.device(device)
        dtype = dtype or _usual_dtype(file, spec, device)
        model = _build_model(spec)
        _load_weights(model, spec, _place_weights(file, spec, device, dtype))
        for layer in cast(Any, model).vision_model.encoder.layers:
            cast_layer(layer, dtype)
        return cls(model.eval().requires_grad_(False), spec, device, dtype)

    def features(self, pixels: Tensor) -> Features:
        """Features of ``pixels`` (B, 3, image, image), floating point as ``pixels.prepare`` makes them.

        Raises BadIdentity for another shape.
        """
        model = self._ensure_loaded()
        size = self.spec.image
        fits = pixels.ndim == 4 and len(pixels) > 0 and pixels.shape[1:] == (3, size, size)
        if not fits or not pixels.is_floating_point():
            raise BadIdentity(
                f"{self.spec.name} takes normalised pixels of shape (photos, 3, {size}, {size}); found "
                f"{tuple(pixels.shape)} of {str(pixels.dtype).removeprefix('torch.')}. Prepare the photos for its size."
            )
        with torch.no_grad(), _no_autocast(self.device):
            parts = [self._run(model, part) for part in pixels.split(_AT_ONCE)]
        return Features(torch.cat([part.hidden for part in parts]), torch.cat([part.pooled for part in parts]))

    def uncond(self) -> Features:
        """Features of one image whose pixels are zero after normalisation, which is what the published adapters were
        trained with where the photo was dropped (IP-Adapter tutorial_train_plus.py:395-403).
        """
        return self.features(torch.zeros(1, 3, self.spec.image, self.spec.image))

    def release(self) -> None:
        """Let go of all weights; a second call does nothing. ``features`` raises RuntimeError from here on."""
        model, self._model = self._model, None
        if model is not None:
            model.to("meta")  # whoever may still refer to the modules, the memory is free now

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _run(self, model: nn.Module, pixels: Tensor) -> Features:
        output = model(pixel_values=pixels.to(self.device, self.dtype), output_hidden_states=True)
        return Features(_result(output.hidden_states[-2]), _result(output.image_embeds))

    def _ensure_loaded(self) -> nn.Module:
        if self._model is None:
            raise RuntimeError("the encoder was released")
        return self._model


def _usual_dtype(file: WeightFile, spec: EncoderSpec, device: torch.device) -> torch.dtype:
    stored = file.tensors[stored_tensors(spec)[0].name].dtype
    return torch.float32 if device.type == "cpu" or stored == torch.float64 else stored


def _build_model(spec: EncoderSpec) -> nn.Module:
    """transformers' model without any memory for weights."""
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except (ImportError, RuntimeError) as error:  # RuntimeError: transformers is there, a package it uses is broken
        raise FaceIDError(
            f"CLIP features need the package transformers, which cannot be imported ({error}). "
            "Install or repair it in the Python that runs this program."
        ) from error
    config = CLIPVisionConfig(
        hidden_size=spec.hidden,
        intermediate_size=spec.mlp,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        patch_size=spec.patch,
        image_size=spec.image,
        projection_dim=spec.projection,
        hidden_act=spec.act,
        layer_norm_eps=spec.eps,
    )
    with torch.device("meta"):
        return cast(nn.Module, CLIPVisionModelWithProjection(config))


def _place_weights(
    file: WeightFile, spec: EncoderSpec, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """(name in the model, tensor on the device): layers as stored, the little around them in ``dtype``."""
    stored = {item.name: item for item in stored_tensors(spec)}
    for name, tensor in file.load_many(stored):
        for target, part in stored[name].unpack(tensor):
            in_layer = target.startswith("vision_model.encoder.layers.")
            yield target, part.to(device) if in_layer else part.to(device, dtype)


def _load_weights(model: nn.Module, spec: EncoderSpec, weights: Iterator[tuple[str, Tensor]]) -> None:
    """Put the weights in the model's places. ``position_ids`` is a weight of transformers up to 4.30, and a buffer
    that would stay on the meta device in later ones.
    """
    state = dict(weights)
    embeddings = cast(Any, model).vision_model.embeddings
    device = next(iter(state.values())).device
    embeddings.position_ids = torch.arange(spec.positions, device=device).expand(1, -1)
    if POSITION_IDS in model.state_dict():
        state[POSITION_IDS] = embeddings.position_ids
    model.load_state_dict(state, strict=True, assign=True)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Hosts may call from inside autocast, which would compute in 16 bits whatever the dtype of the weights is."""
    return torch.autocast(device.type, enabled=False) if device.type in {"cpu", "cuda"} else nullcontext()


def _result(features: Tensor) -> Tensor:
    return features.to("cpu", torch.float32)
