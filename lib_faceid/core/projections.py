"""The five projections that turn a face vector or CLIP features into identity tokens.

Module attribute names equal the published state-dict keys (prefix ``image_proj.``), so a file loads with
``strict=True``. Every size is read from the file's shapes and carried by a frozen spec. All LayerNorms use eps 1e-5,
all GELUs are the exact erf form, as in tencent-ailab/IP-Adapter 62e4af9d (ip_adapter/resampler.py,
ip_adapter/ip_adapter_faceid.py, ip_adapter/ip_adapter.py).

Weights keep the dtype of the file, all arithmetic is float32.

Letters in shapes: B batch, T identity tokens, X cross-attention context width, E width of the CLIP features, n CLIP
sequence length, D inner width of a perceiver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

# dim_head of every published perceiver (ip_adapter/resampler.py:35); only heads * 64 is visible in a file
HEAD_WIDTH = 64


@dataclass(frozen=True)
class ImageProjSpec:
    """Pooled CLIP features (B, clip_width) to tokens (B, tokens, width): base, light, vit-G."""

    tokens: int
    width: int
    clip_width: int


@dataclass(frozen=True)
class FullMLPSpec:
    """CLIP features (B, n, clip_width) to tokens (B, n, width): full-face; one token for each CLIP position."""

    width: int
    clip_width: int


@dataclass(frozen=True)
class IDMLPSpec:
    """Face vector (B, id_width) to tokens (B, tokens, width): FaceID and Portrait."""

    tokens: int
    width: int
    id_width: int
    hidden: int


@dataclass(frozen=True)
class PerceiverSpec:
    """Sizes of a perceiver: features (B, n, features) attended by latents of width dim, result of width out."""

    features: int
    dim: int
    out: int
    heads: int
    depth: int
    ff: int


@dataclass(frozen=True)
class IDPerceiverSpec:
    """Face vector and CLIP features to tokens: FaceID Plus. ``shortcut`` True is v2; files of v1 and v2 have equal
    shapes.
    """

    id: IDMLPSpec
    perceiver: PerceiverSpec


@dataclass(frozen=True)
class ResamplerSpec:
    """Features (B, n, E) to tokens (B, tokens, out): Plus (CLIP features), portrait-unnorm (face vectors as rows)."""

    tokens: int
    perceiver: PerceiverSpec


ProjectionSpec = ImageProjSpec | FullMLPSpec | IDMLPSpec | IDPerceiverSpec | ResamplerSpec


class Linear(nn.Linear):
    """Works in float32 whatever its weights are stored in, one matrix at a time: a 16-bit file is never held twice."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(torch.float32)  # type: ignore[redundant-expr]
        return functional.linear(input, self.weight.to(torch.float32), bias)


class LayerNorm(nn.LayerNorm):
    """The same for LayerNorm; eps 1e-5."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.to(torch.float32), self.bias.to(torch.float32)
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class ImageProj(nn.Module):
    """Linear, reshape, LayerNorm (ip_adapter.py:28-46)."""

    def __init__(self, spec: ImageProjSpec) -> None:
        super().__init__()
        self.spec = spec
        self.proj = Linear(spec.clip_width, spec.tokens * spec.width)
        self.norm = LayerNorm(spec.width)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, E) -> (B, T, X)."""
        tokens = self.proj(pooled).reshape(-1, self.spec.tokens, self.spec.width)
        return self.norm(tokens)


class FullMLP(nn.Module):
    """Two linears and a LayerNorm on each CLIP position (ip_adapter.py:49-63)."""

    def __init__(self, spec: FullMLPSpec) -> None:
        super().__init__()
        self.spec = spec
        self.proj = nn.Sequential(
            Linear(spec.clip_width, spec.clip_width),
            nn.GELU(),
            Linear(spec.clip_width, spec.width),
            LayerNorm(spec.width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, n, E) -> (B, n, X)."""
        return self.proj(hidden)


class IDMLP(nn.Module):
    """Two linears on the face vector, reshape, LayerNorm (ip_adapter_faceid.py:64-82)."""

    def __init__(self, spec: IDMLPSpec) -> None:
        super().__init__()
        self.spec = spec
        self.proj = nn.Sequential(
            Linear(spec.id_width, spec.hidden),
            nn.GELU(),
            Linear(spec.hidden, spec.tokens * spec.width),
        )
        self.norm = LayerNorm(spec.width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, 512) -> (B, T, X)."""
        tokens = self.proj(vectors).reshape(-1, self.spec.tokens, self.spec.width)
        return self.norm(tokens)


class PerceiverAttention(nn.Module):
    """Latents attend to the features and to themselves (resampler.py:34-78); no projection has a bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        inner = heads * HEAD_WIDTH
        self.heads = heads
        self.norm1 = LayerNorm(dim)
        self.norm2 = LayerNorm(dim)
        self.to_q = Linear(dim, inner, bias=False)
        self.to_kv = Linear(dim, inner * 2, bias=False)
        self.to_out = Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """features (B, n, D), latents (B, T, D) -> (B, T, D), to be added to the latents."""
        features, latents = self.norm1(features), self.norm2(latents)
        q = self._split(self.to_q(latents))
        k, v = (self._split(part) for part in self.to_kv(torch.cat((features, latents), dim=1)).chunk(2, dim=-1))
        scale = HEAD_WIDTH**-0.25  # on q and on k: the same as 1/8 on the product, with less fp16 range
        scores = (q * scale) @ (k * scale).transpose(-2, -1)  # (B, heads, T, n + T)
        weights = torch.softmax(scores.float(), dim=-1).to(scores.dtype)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, m, heads * 64) -> (B, heads, m, 64)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, HEAD_WIDTH).transpose(1, 2)


def _feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """LayerNorm, widen, GELU, narrow (resampler.py:13-20)."""
    return nn.Sequential(LayerNorm(dim), Linear(dim, hidden, bias=False), nn.GELU(), Linear(hidden, dim, bias=False))


class Perceiver(nn.Module):
    """Features in, given latents refined by ``depth`` blocks, projected and normed (ip_adapter_faceid.py:27-61)."""

    def __init__(self, spec: PerceiverSpec) -> None:
        super().__init__()
        self.proj_in = Linear(spec.features, spec.dim)
        self.proj_out = Linear(spec.dim, spec.out)
        self.norm_out = LayerNorm(spec.out)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(spec.dim, spec.heads), _feed_forward(spec.dim, spec.ff)])
            for _ in range(spec.depth)
        )

    def refine(self, latents: Tensor, features: Tensor) -> Tensor:
        """latents (B, T, D), features (B, n, features) -> (B, T, out)."""
        features = self.proj_in(features)
        for block in self.layers:
            attend, feed = cast(nn.ModuleList, block)
            latents = attend(features, latents) + latents
            latents = feed(latents) + latents
        return self.norm_out(self.proj_out(latents))


class Resampler(Perceiver):
    """A perceiver with learned latents (resampler.py:81-147)."""

    def __init__(self, spec: ResamplerSpec) -> None:
        super().__init__(spec.perceiver)
        self.spec = spec
        self.latents = nn.Parameter(torch.zeros(1, spec.tokens, spec.perceiver.dim))

    def forward(self, features: Tensor) -> Tensor:
        """(B, n, E) -> (B, T, X)."""
        latents = self.latents.to(torch.float32).expand(features.shape[0], -1, -1)
        return self.refine(latents, features)


class IDPerceiver(IDMLP):
    """FaceID Plus: the ID tokens are the latents of a perceiver over CLIP features (ip_adapter_faceid.py:85-117)."""

    def __init__(self, spec: IDPerceiverSpec) -> None:
        super().__init__(spec.id)
        self.perceiver_resampler = Perceiver(spec.perceiver)

    def parts(self, vectors: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """vectors (B, 512), hidden (B, n, E) -> ID tokens x and refined tokens r, both (B, T, X).

        v1 uses r alone; v2 uses x + structure * r (the shortcut of ip_adapter_faceid.py:115-117).
        """
        id_tokens = super().forward(vectors)
        return id_tokens, self.perceiver_resampler.refine(id_tokens, hidden)


Projection = ImageProj | FullMLP | IDMLP | IDPerceiver | Resampler


def build_projection(spec: ProjectionSpec) -> Projection:
    """The module for a spec, with uninitialised weights on the meta device; load a state dict with ``assign=True``."""
    with torch.device("meta"):
        if isinstance(spec, ImageProjSpec):
            return ImageProj(spec)
        if isinstance(spec, FullMLPSpec):
            return FullMLP(spec)
        if isinstance(spec, IDMLPSpec):
            return IDMLP(spec)
        if isinstance(spec, IDPerceiverSpec):
            return IDPerceiver(spec)
        return Resampler(spec)
