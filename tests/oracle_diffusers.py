"""diffusers' own IP-Adapter as an oracle: the same tensors loaded by its loader, run by its attention processors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .adapters import Made
from .layouts import nest


def load(unet: nn.Module, adapters: Sequence[Made], scales: Sequence[float | list[float]]) -> None:
    """Put diffusers' IP-Adapter processors and projections on the UNet."""
    unet._load_ip_adapter_weights([nest(adapter.tensors) for adapter in adapters], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = list(scales)


def image_embeds(
    unet: nn.Module, place: int, made: Made, features: dict[str, Tensor], rows: Sequence[str], structure: float = 1.0
) -> Tensor:
    """What diffusers' projection number ``place`` is fed: (rows, photos, ...), the zero input on "uncond" rows."""
    vectors, clip = _inputs(made, features)
    if made.kind in ("faceid-plus", "faceid-plusv2"):
        projection = unet.encoder_hid_proj.image_projection_layers[place]
        projection.shortcut = made.kind == "faceid-plusv2"
        projection.shortcut_scale = structure
        empty = features["clip_uncond"].expand_as(clip)
        projection.clip_embeds = torch.stack([clip if row == "cond" else empty for row in rows])
    if vectors is not None:
        return torch.stack([vectors if row == "cond" else torch.zeros_like(vectors) for row in rows])
    empty = features["clip_uncond"].expand_as(clip) if "clip_uncond" in features else torch.zeros_like(clip)
    return torch.stack([clip if row == "cond" else empty for row in rows])


def _inputs(made: Made, features: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
    vectors = features.get("embeddings")
    if vectors is not None and made.kind != "portrait-unnorm":
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    if made.kind == "portrait-unnorm":
        vectors = vectors[:, None]  # (photos, 1, 512): each photo a sequence of one row
    return vectors, features.get("clip_hidden", features.get("clip_pooled"))
