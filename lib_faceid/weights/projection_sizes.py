"""The sizes of ``image_proj``, read from its tensors' names and shapes.

No width is known beforehand. Two numbers are constants: 512 in a face vector, and heads of 64, which no file shows
(ip_adapter/resampler.py:32 upstream).
"""

from __future__ import annotations

import re

from ..core.projections import (
    HEAD_WIDTH,
    FullMLPSpec,
    IDMLPSpec,
    IDPerceiverSpec,
    ImageProjSpec,
    PerceiverSpec,
    ProjectionSpec,
    ResamplerSpec,
    build_projection,
)
from ..errors import BrokenWeights, NotAnAdapter
from .inventory import Inventory, Shape, shorten
from .variants import Family

FACE_WIDTH = 512  # of a face vector: every ArcFace recogniser in use (buffalo_l, antelopev2, AuraFace)

_IMAGE = "image_proj."
_PERCEIVER = "image_proj.perceiver_resampler."

# The first prefix that any tensor of image_proj has names the family; each is enough even if a neighbour is missing.
_FAMILY_MARKS: tuple[tuple[str, Family], ...] = (
    ("perceiver_resampler.", "id-perceiver"),
    ("id_embedding_mapping.", "pulid-v1.1"),
    ("body.", "pulid-v1"),
    ("latents", "clip-resampler"),
    ("layers.", "clip-resampler"),
    ("proj_in.", "clip-resampler"),
    ("proj.3.", "full-mlp"),
    ("proj.0.", "id-mlp"),
    ("proj.2.", "id-mlp"),
    ("proj.", "image-proj"),
)


def read_family(inventory: Inventory) -> Family:
    """Raises NotAnAdapter when ``image_proj`` is of no known architecture."""
    inner = [name.removeprefix(_IMAGE) for name in inventory.shapes if name.startswith(_IMAGE)]
    found: list[Family] = [family for mark, family in _FAMILY_MARKS if any(name.startswith(mark) for name in inner)]
    if not found:
        raise NotAnAdapter(
            f"{inventory.title} has an image_proj of an unknown kind (first tensor: {shorten(inner[0])}). "
            "Choose one of the published IP-Adapter files."
        )
    if found[0] == "clip-resampler" and inventory.size(f"{_IMAGE}proj_in.weight", 1) == FACE_WIDTH:
        return "id-resampler"
    return found[0]


def read_projection(inventory: Inventory, family: Family) -> ProjectionSpec:
    """Raises BrokenWeights when a tensor that shows a size is missing, or when sizes do not divide."""
    if family == "image-proj":
        return _read_image_proj(inventory)
    if family == "full-mlp":
        size = inventory.size
        return FullMLPSpec(width=size(f"{_IMAGE}proj.3.weight", 0), clip_width=size(f"{_IMAGE}proj.0.weight", 1))
    if family == "id-mlp":
        return _read_id_mlp(inventory)
    if family == "id-perceiver":
        return IDPerceiverSpec(_read_id_mlp(inventory), _read_perceiver(inventory, _PERCEIVER))
    return ResamplerSpec(inventory.size(f"{_IMAGE}latents", 1), _read_perceiver(inventory, _IMAGE))


def _read_image_proj(inventory: Inventory) -> ImageProjSpec:
    width = inventory.size(f"{_IMAGE}norm.weight", 0)
    tokens = _divide(inventory, f"{_IMAGE}proj.weight", width, f"tokens of {width} numbers")
    return ImageProjSpec(tokens, width, clip_width=inventory.size(f"{_IMAGE}proj.weight", 1))


def _read_id_mlp(inventory: Inventory) -> IDMLPSpec:
    width = inventory.size(f"{_IMAGE}norm.weight", 0)
    tokens = _divide(inventory, f"{_IMAGE}proj.2.weight", width, f"tokens of {width} numbers")
    first = f"{_IMAGE}proj.0.weight"
    return IDMLPSpec(tokens, width, id_width=inventory.size(first, 1), hidden=inventory.size(first, 0))


def _read_perceiver(inventory: Inventory, prefix: str) -> PerceiverSpec:
    size = inventory.size
    blocks = [int(match[1]) for match in inventory.find(rf"{re.escape(prefix)}layers\.(\d{{1,2}})\.")]
    return PerceiverSpec(
        features=size(f"{prefix}proj_in.weight", 1),
        dim=size(f"{prefix}proj_in.weight", 0),
        out=size(f"{prefix}proj_out.weight", 0),
        heads=_divide(inventory, f"{prefix}layers.0.0.to_q.weight", HEAD_WIDTH, f"heads of {HEAD_WIDTH}"),
        depth=max(blocks, default=0) + 1,
        ff=size(f"{prefix}layers.0.1.1.weight", 0),
    )


def _divide(inventory: Inventory, name: str, width: int, parts: str) -> int:
    rows = inventory.size(name, 0)
    if rows % width:
        raise BrokenWeights(
            f"{inventory.title} is damaged: {name} has {rows} rows, expected a whole number of {parts}. "
            "Get the file again."
        )
    return rows // width


def expected_projection(spec: ProjectionSpec) -> dict[str, Shape]:
    """Names and shapes of ``image_proj``, as the module itself has them."""
    return {f"{_IMAGE}{name}": tuple(tensor.shape) for name, tensor in build_projection(spec).state_dict().items()}


def token_sizes(spec: ProjectionSpec) -> tuple[int, int]:
    """(number of tokens, their width); 0 tokens: one for each CLIP position."""
    if isinstance(spec, FullMLPSpec):
        return 0, spec.width
    if isinstance(spec, IDPerceiverSpec):
        return spec.id.tokens, spec.perceiver.out
    if isinstance(spec, ResamplerSpec):
        return spec.tokens, spec.perceiver.out
    return spec.tokens, spec.width


def heads_fill(spec: PerceiverSpec) -> bool:
    """Whether the heads together are as wide as the perceiver: true of every published one but that of Kolors."""
    return spec.heads * HEAD_WIDTH == spec.dim
