"""CLIP vision towers for tests: their sizes, their names and shapes in both layouts, and open_clip's forward.

The names are written down here a second time on purpose: nothing is imported from ``lib_faceid.vision``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layouts import Layout


@dataclass(frozen=True)
class Tower:
    """Sizes of an image tower. ``act``: "gelu" or "quick_gelu"."""

    hidden: int = 32
    mlp: int = 48
    layers: int = 3
    heads: int = 4
    patch: int = 4
    image: int = 16
    projection: int = 24
    act: str = "gelu"

    @property
    def positions(self) -> int:
        return (self.image // self.patch) ** 2 + 1

    def config(self) -> dict[str, Any]:
        """The tower's ``config.json``, as transformers writes it."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "patch_size": self.patch,
            "image_size": self.image,
            "projection_dim": self.projection,
            "hidden_act": self.act,
            "layer_norm_eps": 1e-5,
        }


TINY = Tower()
VIT_H = Tower(1280, 5120, 32, 16, 14, 224, 1024)
BIG_G = Tower(1664, 8192, 48, 16, 14, 224, 1280)
VIT_L_336 = Tower(1024, 4096, 24, 16, 14, 336, 768, "quick_gelu")


def hf_layout(tower: Tower) -> Layout:
    """The names and shapes of transformers' CLIPVisionModelWithProjection."""
    E = tower.hidden
    shapes: Layout = {
        "vision_model.embeddings.class_embedding": (E,),
        "vision_model.embeddings.patch_embedding.weight": (E, 3, tower.patch, tower.patch),
        "vision_model.embeddings.position_embedding.weight": (tower.positions, E),
        "vision_model.pre_layrnorm.weight": (E,),
        "vision_model.pre_layrnorm.bias": (E,),
    }
    for i in range(tower.layers):
        layer = f"vision_model.encoder.layers.{i}"
        for name, (rows, columns) in {
            "self_attn.k_proj": (E, E),
            "self_attn.v_proj": (E, E),
            "self_attn.q_proj": (E, E),
            "self_attn.out_proj": (E, E),
            "mlp.fc1": (tower.mlp, E),
            "mlp.fc2": (E, tower.mlp),
        }.items():
            shapes |= {f"{layer}.{name}.weight": (rows, columns), f"{layer}.{name}.bias": (rows,)}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (E,), f"{layer}.{name}.bias": (E,)}
    shapes |= {"vision_model.post_layernorm.weight": (E,), "vision_model.post_layernorm.bias": (E,)}
    return shapes | {"visual_projection.weight": (tower.projection, E)}


def open_clip_layout(tower: Tower) -> Layout:
    """The names and shapes of the image half of an open_clip or OpenAI model."""
    E = tower.hidden
    shapes: Layout = {
        "visual.class_embedding": (E,),
        "visual.positional_embedding": (tower.positions, E),
        "visual.proj": (E, tower.projection),
        "visual.conv1.weight": (E, 3, tower.patch, tower.patch),
    }
    norms = ["visual.ln_pre", "visual.ln_post"]
    for i in range(tower.layers):
        block = f"visual.transformer.resblocks.{i}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        shapes |= {f"{block}.attn.in_proj_weight": (3 * E, E), f"{block}.attn.in_proj_bias": (3 * E,)}
        shapes |= {f"{block}.attn.out_proj.weight": (E, E), f"{block}.attn.out_proj.bias": (E,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (tower.mlp, E), f"{block}.mlp.c_fc.bias": (tower.mlp,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (E, tower.mlp), f"{block}.mlp.c_proj.bias": (E,)}
    for norm in norms:
        shapes |= {f"{norm}.weight": (E,), f"{norm}.bias": (E,)}
    return shapes


HF_TEXT: Layout = {
    "logit_scale": (),
    "text_model.embeddings.token_embedding.weight": (100, 8),
    "text_model.encoder.layers.0.mlp.fc1.weight": (16, 8),
    "text_projection.weight": (24, 8),
}
OPEN_CLIP_TEXT: Layout = {
    "logit_scale": (),
    "token_embedding.weight": (100, 8),
    "transformer.resblocks.0.mlp.c_fc.weight": (16, 8),
    "text_projection": (8, 24),
}


def open_clip_forward(weights: Mapping[str, Tensor], tower: Tower, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(penultimate (B, n, E), pooled (B, P)) after open_clip/transformer.py (VisionTransformer)."""
    part = {name.removeprefix("visual."): tensor for name, tensor in weights.items()}
    patches = F.conv2d(pixels, part["conv1.weight"], stride=tower.patch).flatten(2).transpose(1, 2)
    start = part["class_embedding"].expand(len(pixels), 1, -1)
    x = _norm(torch.cat([start, patches], dim=1) + part["positional_embedding"], part, "ln_pre")
    penultimate = x
    for i in range(tower.layers):
        penultimate = x
        block = f"transformer.resblocks.{i}."
        x = _block({name.removeprefix(block): one for name, one in part.items() if name.startswith(block)}, tower, x)
    return penultimate, _norm(x[:, 0], part, "ln_post") @ part["proj"]


def _block(part: Mapping[str, Tensor], tower: Tower, x: Tensor) -> Tensor:
    attention = nn.MultiheadAttention(tower.hidden, tower.heads, batch_first=True)
    attention.load_state_dict({name[5:]: tensor for name, tensor in part.items() if name.startswith("attn.")})
    y = _norm(x, part, "ln_1")
    x = x + attention(y, y, y, need_weights=False)[0]
    y = F.linear(_norm(x, part, "ln_2"), part["mlp.c_fc.weight"], part["mlp.c_fc.bias"])
    y = F.gelu(y) if tower.act == "gelu" else y * torch.sigmoid(1.702 * y)
    return x + F.linear(y, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])


def _norm(x: Tensor, part: Mapping[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], part[f"{name}.weight"], part[f"{name}.bias"])
