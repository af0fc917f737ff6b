"""The two ways in which CLIP towers are stored, and how each becomes the tensors of transformers' model.

"hf": transformers' own names. "open_clip": the names of open_clip and OpenAI, with the attention's three input
projections in one tensor and the last projection transposed (open_clip/transformer.py, VisionTransformer).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .spec import EncoderSpec, Layout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Landmarks:
    """Names from which the sizes are read. ``out_axis``: the axis of ``projection`` that is the pooled vector's."""

    tower: str
    patch: str
    position: str
    layer: str
    mlp: str
    projection: str
    out_axis: int


LANDMARKS: dict[Layout, Landmarks] = {
    "hf": Landmarks(
        tower="vision_model.",
        patch="vision_model.embeddings.patch_embedding.weight",
        position="vision_model.embeddings.position_embedding.weight",
        layer="vision_model.encoder.layers.",
        mlp="vision_model.encoder.layers.0.mlp.fc1.weight",
        projection="visual_projection.weight",
        out_axis=0,
    ),
    "open_clip": Landmarks(
        tower="visual.",
        patch="visual.conv1.weight",
        position="visual.positional_embedding",
        layer="visual.transformer.resblocks.",
        mlp="visual.transformer.resblocks.0.mlp.c_fc.weight",
        projection="visual.proj",
        out_axis=1,
    ),
}
# transformers before 4.31 saved this buffer; it only counts 0, 1, 2 …
POSITION_IDS = "vision_model.embeddings.position_ids"

_LAYER_PARTS = {
    "ln_1.": ("layer_norm1.",),
    "attn.in_proj_": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "attn.out_proj.": ("self_attn.out_proj.",),
    "ln_2.": ("layer_norm2.",),
    "mlp.c_fc.": ("mlp.fc1.",),
    "mlp.c_proj.": ("mlp.fc2.",),
}
_OUTER_PARTS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers spells it so
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}


@dataclass(frozen=True)
class Stored:
    """A tensor of the file, and the tensors of the model that its rows are, in equal parts; or their transpose."""

    name: str
    shape: Shape
    targets: tuple[str, ...]
    transposed: bool = False

    def unpack(self, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name in the model, tensor); parts share the memory of the whole."""
        whole = tensor.t().contiguous() if self.transposed else tensor
        yield from zip(self.targets, whole.chunk(len(self.targets)), strict=True)


def stored_tensors(spec: EncoderSpec) -> list[Stored]:
    """Every tensor of the tower, by its name in the file (prefix included)."""
    shapes = model_shapes(spec)
    if spec.layout == "hf":
        return [Stored(spec.prefix + name, shape, (name,)) for name, shape in shapes.items()]
    stored = [
        Stored(spec.prefix + name, _joined([shapes[target] for target in targets]), targets)
        for name, targets in _open_clip_names(spec.layers)
    ]
    projection = "visual_projection.weight"
    return [*stored, Stored(f"{spec.prefix}visual.proj", shapes[projection][::-1], (projection,), transposed=True)]


def model_shapes(spec: EncoderSpec) -> dict[str, Shape]:
    """Name -> shape of every weight of transformers' CLIPVisionModelWithProjection: 520 for ViT-H."""
    E, M = spec.hidden, spec.mlp
    parts: dict[str, Shape] = {f"self_attn.{name}": (E, E) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    parts |= {"layer_norm1": (E,), "layer_norm2": (E,), "mlp.fc1": (M, E), "mlp.fc2": (E, M)}
    shapes: dict[str, Shape] = {
        "vision_model.embeddings.class_embedding": (E,),
        "vision_model.embeddings.patch_embedding.weight": (E, 3, spec.patch, spec.patch),
        "vision_model.embeddings.position_embedding.weight": (spec.positions, E),
        "visual_projection.weight": (spec.projection, E),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"vision_model.{norm}.{kind}": (E,) for kind in ("weight", "bias")}
    for layer in range(spec.layers):
        start = f"vision_model.encoder.layers.{layer}"
        for part, shape in parts.items():
            shapes |= {f"{start}.{part}.weight": shape, f"{start}.{part}.bias": shape[:1]}
    return shapes


def _open_clip_names(layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name in the file, names in the model) of all but the last projection."""
    for name, target in _OUTER_PARTS.items():
        yield name, (target,)
    for layer in range(layers):
        theirs, ours = f"visual.transformer.resblocks.{layer}.", f"vision_model.encoder.layers.{layer}."
        for part, targets in _LAYER_PARTS.items():
            for kind in ("weight", "bias"):
                yield theirs + part + kind, tuple(ours + target + kind for target in targets)


def _joined(shapes: list[Shape]) -> Shape:
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def grid_side(positions: int) -> int | None:
    """Patches along one side of a square image with a class position; None where it is no square."""
    side = math.isqrt(max(positions - 1, 0))
    return side if side > 0 and side * side == positions - 1 else None
