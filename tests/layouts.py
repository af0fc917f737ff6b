"""Names and shapes of every published adapter, made from rules instead of files, at the published or at a narrow size.

The numbering is written down here a second time on purpose: as an oracle for ``core/unet_map.py`` it imports nothing
from it. Attention processors are numbered down blocks, up blocks, middle block; in each transformer block the
self-attention comes first, so self-attentions are even and cross-attentions odd.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

Shape = tuple[int, ...]
Layout = dict[str, Shape]

# (UNet level, attentions, transformer blocks in each) of down blocks, up blocks and the middle block, in this order.
_TOPOLOGY = {
    "sd15": ((0, 2, 1), (1, 2, 1), (2, 2, 1), (2, 3, 1), (1, 3, 1), (0, 3, 1), (2, 1, 1)),
    "sdxl": ((1, 2, 2), (2, 2, 10), (2, 3, 10), (1, 3, 2), (2, 1, 10)),
}


@dataclass(frozen=True)
class Scale:
    """Every size of an adapter. ``dim`` is a resampler's width, ``hidden`` that of the layer in an ID-MLP.

    ``heads`` None: as many of 64 as fill the perceiver. ``tokens`` None: what the kind has. ``token_width`` None:
    ``context``.
    """

    widths: tuple[int, int, int] = (320, 640, 1280)
    context: int = 768
    rank: int = 128
    clip: int = 1280
    dim: int = 768
    hidden: int = 1024
    face: int = 512
    heads: int | None = None
    tokens: int | None = None
    token_width: int | None = None

    @property
    def out(self) -> int:
        """Width of the tokens."""
        return self.token_width or self.context


PUBLISHED = {"sd15": Scale(), "sdxl": Scale(context=2048, dim=1280)}
NARROW = {
    "sd15": Scale((32, 64, 128), context=64, rank=4, clip=80, dim=128, hidden=96),
    "sdxl": Scale((32, 64, 128), context=128, rank=4, clip=80, dim=64, hidden=96),
}


def layout(
    kind: str, base: str = "sd15", scale: Scale | None = None, lora: bool | None = None, **changes: Any
) -> Layout:
    """Flat name (``image_proj.…``, ``ip_adapter.…``) -> shape.

    ``kind`` is a key of KINDS; ``scale`` None means the published sizes; ``changes`` are fields of Scale; ``lora`` None
    means as published.
    """
    known = KINDS[kind]
    scale = replace(PUBLISHED[base], **known.published) if scale is None else scale
    scale = replace(scale, tokens=known.tokens if scale.tokens is None else scale.tokens)
    scale = replace(scale, **changes)
    rank = scale.rank if (known.lora if lora is None else lora) else 0
    image = {f"image_proj.{name}": shape for name, shape in known.projection(scale)}
    return image | {f"ip_adapter.{name}": shape for name, shape in _attentions(base, scale, rank)}


def channels_in_file_order(base: str, widths: tuple[int, int, int]) -> list[int]:
    """Channels of each cross-attention: 16 numbers for SD1.5, 70 for SDXL."""
    return [widths[level] for level, attentions, depth in _TOPOLOGY[base] for _ in range(attentions * depth)]


def _attentions(base: str, scale: Scale, rank: int) -> Iterator[tuple[str, Shape]]:
    for n, channels in enumerate(channels_in_file_order(base, scale.widths)):
        for side in ("k", "v"):
            yield f"{2 * n + 1}.to_{side}_ip.weight", (channels, scale.context)
        if rank:
            yield from _lora(2 * n, channels, channels, rank)
            yield from _lora(2 * n + 1, channels, scale.context, rank)


def _lora(number: int, channels: int, context: int, rank: int) -> Iterator[tuple[str, Shape]]:
    for part, inputs in {"q": channels, "k": context, "v": context, "out": channels}.items():
        yield f"{number}.to_{part}_lora.down.weight", (rank, inputs)
        yield f"{number}.to_{part}_lora.up.weight", (channels, rank)


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _image_proj(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield from _linear("proj", scale.clip, (scale.tokens or 0) * scale.out)
    yield from _norm("norm", scale.out)


def _full_mlp(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield from _linear("proj.0", scale.clip, scale.clip)
    yield from _linear("proj.2", scale.clip, scale.out)
    yield from _norm("proj.3", scale.out)


def _id_mlp(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield from _linear("proj.0", scale.face, scale.hidden)
    yield from _linear("proj.2", scale.hidden, (scale.tokens or 0) * scale.out)
    yield from _norm("norm", scale.out)


def _id_perceiver(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield from _id_mlp(scale)
    inside = replace(scale, dim=scale.out)
    yield from ((f"perceiver_resampler.{name}", shape) for name, shape in _perceiver(inside, scale.clip))


def _clip_resampler(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield "latents", (1, scale.tokens or 0, scale.dim)
    yield from _perceiver(scale, scale.clip)


def _id_resampler(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield "latents", (1, scale.tokens or 0, scale.dim)
    yield from _perceiver(scale, scale.face)


def _perceiver(scale: Scale, features: int) -> Iterator[tuple[str, Shape]]:
    yield from _linear("proj_in", features, scale.dim)
    yield from _linear("proj_out", scale.dim, scale.out)
    yield from _norm("norm_out", scale.out)
    for block in range(4):
        yield from _perceiver_block(f"layers.{block}", scale.dim, scale.heads or scale.dim // 64)


def _perceiver_block(name: str, dim: int, heads: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.0.norm1", dim)
    yield from _norm(f"{name}.0.norm2", dim)
    yield from _linear(f"{name}.0.to_q", dim, heads * 64, bias=False)
    yield from _linear(f"{name}.0.to_kv", dim, heads * 128, bias=False)
    yield from _linear(f"{name}.0.to_out", heads * 64, dim, bias=False)
    yield from _norm(f"{name}.1.0", dim)
    yield from _linear(f"{name}.1.1", dim, 4 * dim, bias=False)
    yield from _linear(f"{name}.1.3", 4 * dim, dim, bias=False)


def _pulid_mlp(name: str, inputs: int, hidden: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    """Linear, norm, LeakyReLU twice, then a linear: indices 0, 1, 3, 4, 6."""
    yield from _linear(f"{name}.0", inputs, hidden)
    yield from _norm(f"{name}.1", hidden)
    yield from _linear(f"{name}.3", hidden, hidden)
    yield from _norm(f"{name}.4", hidden)
    yield from _linear(f"{name}.6", hidden, outputs)


def _pulid_v1(scale: Scale) -> Iterator[tuple[str, Shape]]:
    yield from _pulid_mlp("body", scale.clip, scale.hidden, 5 * scale.context)
    for number in range(5):
        for name in (f"mapping_{number}", f"mapping_patch_{number}"):
            yield from _pulid_mlp(name, scale.hidden, scale.hidden, scale.context)


def _pulid_v11(scale: Scale) -> Iterator[tuple[str, Shape]]:
    dim = scale.hidden
    yield "latents", (1, 32, dim)
    yield "proj_out", (dim, scale.context)
    for block in range(10):
        yield from _perceiver_block(f"layers.{block}", dim, dim // 64)
    for number in range(5):
        yield from _pulid_mlp(f"mapping_{number}", dim, dim, dim)
    yield from _pulid_mlp("id_embedding_mapping", scale.clip, dim, 5 * dim)


@dataclass(frozen=True)
class Kind:
    """How one kind of adapter is built: projection, tokens, LoRA, and where its published sizes differ from Scale's."""

    projection: Callable[[Scale], Iterator[tuple[str, Shape]]]
    tokens: int = 4
    lora: bool = False
    published: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "faceid": Kind(_id_mlp, lora=True),
    "faceid-plus": Kind(_id_perceiver, lora=True),
    "faceid-plusv2": Kind(_id_perceiver, lora=True),
    "portrait": Kind(_id_mlp, tokens=16),
    "portrait-unnorm": Kind(_id_resampler, tokens=16),
    "base": Kind(_image_proj, published={"clip": 1024}),
    "plus": Kind(_clip_resampler, tokens=16),
    "plus-face": Kind(_clip_resampler, tokens=16),
    "composition": Kind(_clip_resampler, tokens=16),
    "full-face": Kind(_full_mlp, tokens=0),
    "instantid": Kind(_id_resampler, tokens=16),
    "kolors-plus": Kind(_clip_resampler, tokens=16, published={"clip": 1024, "dim": 2048, "heads": 12}),
    "kolors-faceid-plus": Kind(_id_perceiver, tokens=6, published={"clip": 1024, "token_width": 4096}),
    "pulid-v1": Kind(_pulid_v1),
    "pulid-v1.1": Kind(_pulid_v11),
}

# The eighteen layouts in circulation: file, kind, base, what differs from the kind's usual sizes.
PUBLISHED_FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ip-adapter-faceid_sd15.bin": ("faceid", "sd15", {}),
    "ip-adapter-faceid-plusv2_sd15.bin": ("faceid-plusv2", "sd15", {}),
    "ip-adapter-faceid-portrait-v11_sd15.bin": ("portrait", "sd15", {}),
    "ip-adapter-faceid_sdxl.bin": ("faceid", "sdxl", {}),
    "ip-adapter-faceid-plusv2_sdxl.bin": ("faceid-plusv2", "sdxl", {}),
    "ip-adapter-faceid-portrait_sdxl.bin": ("portrait", "sdxl", {}),
    "ip-adapter_sd15.safetensors": ("base", "sd15", {}),
    "ip-adapter_sd15_vit-G.safetensors": ("base", "sd15", {"clip": 1280}),
    "ip-adapter-plus_sd15.safetensors": ("plus", "sd15", {}),
    "ip-adapter-full-face_sd15.safetensors": ("full-face", "sd15", {}),
    "ip-adapter_sdxl.safetensors": ("base", "sdxl", {"clip": 1280}),
    "ip-adapter_sdxl_vit-h.safetensors": ("base", "sdxl", {}),
    "ip-adapter-plus_sdxl_vit-h.safetensors": ("plus", "sdxl", {}),
    "instantid_ip-adapter.bin": ("instantid", "sdxl", {}),
    "kolors_ip-adapter-plus.bin": ("kolors-plus", "sdxl", {}),
    "kolors_ipa-faceid-plus.bin": ("kolors-faceid-plus", "sdxl", {}),
    "pulid_v1.safetensors": ("pulid-v1", "sdxl", {}),
    "pulid_v1.1.safetensors": ("pulid-v1.1", "sdxl", {}),
}


def published_layout(file_name: str) -> Layout:
    """The layout of one of PUBLISHED_FILES at its published size."""
    kind, base, changes = PUBLISHED_FILES[file_name]
    return layout(kind, base, **changes)


def random_tensors(
    shapes: Mapping[str, Shape], seed: int = 0, dtype: torch.dtype | Callable[[str], torch.dtype] = torch.float32
) -> dict[str, torch.Tensor]:
    """Weights of a plausible size: about 1/sqrt(inputs), norms near 1. A tensor depends on seed and name alone."""
    return {
        name: _random(name, shape, seed).to(dtype if isinstance(dtype, torch.dtype) else dtype(name))
        for name, shape in shapes.items()
    }


def _random(name: str, shape: Shape, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise / shape[-1] ** 0.5
    return 1 + 0.1 * noise if name.endswith(".weight") else 0.1 * noise


def nest(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat names -> ``{"image_proj": {…}, "ip_adapter": {…}}``, as a .bin holds them."""
    nested: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        group, _, inner = name.partition(".")
        nested[group][inner] = tensor
    return nested


def as_training(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The names of a training checkpoint, without the UNet it also holds."""
    groups = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
    split = ((name.partition("."), tensor) for name, tensor in tensors.items())
    return {f"{groups[group]}.{inner}": tensor for (group, _, inner), tensor in split}


def as_pulid(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The names of PuLID's own files."""
    groups = {"image_proj": "id_adapter", "ip_adapter": "id_adapter_attn_layers"}
    split = ((name.partition("."), tensor) for name, tensor in tensors.items())
    renamed = {f"{groups[group]}.{inner}": tensor for (group, _, inner), tensor in split}
    return {name.replace("to_k_ip", "id_to_k").replace("to_v_ip", "id_to_v"): t for name, t in renamed.items()}
