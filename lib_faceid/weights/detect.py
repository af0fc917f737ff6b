"""Which adapter a file is: everything tensors can tell, then digest, file name or the user for what they cannot.

Some variants have equal tensors: FaceID Plus v1 and v2; InstantID and Portrait (unnorm); Plus, Plus Face, Composition.
A wrong guess there gives a wrong face without an error, so where nothing is known the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ..core.projections import IDMLPSpec, IDPerceiverSpec, ProjectionSpec, ResamplerSpec
from ..core.unet_map import BASE_TITLES, Base
from ..errors import AmbiguousWeights, BrokenWeights, UnsupportedAdapter, WrongWeights
from .inventory import take_inventory
from .keys import AdapterKeys, find_keys
from .layer_sizes import LayerSizes, expected_layers, read_layers
from .projection_sizes import (
    FACE_WIDTH,
    expected_projection,
    heads_fill,
    read_family,
    read_projection,
    token_sizes,
)
from .read import TensorFile, TensorInfo
from .variants import KNOWN_FILES, NAME_MARKS, UNSUPPORTED, VARIANTS, Family, KnownFile, Variant, choices, variant_title

BY_DIGEST = "by its sha256"
BY_NAME = "by its file name"
BY_CHOICE = "as you chose"
BY_TENSORS = "by its tensors"

_PORTRAIT_TOKENS = 16  # per face; FaceID has 4 (ip_adapter_faceid_separate.py upstream)


@dataclass(frozen=True)
class Recognised:
    """An adapter this version runs, with every size read from the file.

    ``tokens`` is 0 where there is one for each CLIP position (full-face), ``lora_rank`` 0 where the file has no LoRA,
    ``how`` ends the sentence "recognised as FaceID Plus v2 …".
    """

    variant: Variant
    base: Base
    context_width: int
    projection: ProjectionSpec
    tokens: int
    lora_rank: int
    how: str
    keys: AdapterKeys


@dataclass(frozen=True)
class _Evidence:
    """What bears on the variant, besides the digest. ``name`` is the file name, without folders."""

    name: str
    family: Family
    layers: LayerSizes
    tokens: int
    all_float32: bool

    @property
    def title(self) -> str:
        return f"'{self.name}'"


def recognise(file: TensorFile, *, variant: str | None = None, digest: Callable[[], str]) -> Recognised:
    """Variant and sizes of an adapter file; reads no tensor.

    ``digest`` gives the file's sha256 in hex and is called only when tensors leave a question. Raises NotAnAdapter,
    BrokenWeights (a tensor missing, too many or of the wrong shape), UnsupportedAdapter (InstantID, PuLID, Kolors),
    AmbiguousWeights (pass ``variant``), and WrongWeights for a ``variant`` that does not exist or cannot be this file.
    """
    _ensure_variant(variant)
    keys = find_keys(file)
    tensors = {name: file.tensors[full] for name, full in keys.flat().items()}
    inventory = take_inventory(f"'{file.path.name}'", tensors)
    family = read_family(inventory)
    if family in UNSUPPORTED:  # PuLID's families have the keys of its rows there
        raise _unsupported(inventory.title, family, BY_TENSORS)
    projection, layers = read_projection(inventory, family), read_layers(inventory)
    inventory.check(expected_projection(projection) | expected_layers(layers))
    _ensure_fitting(inventory.title, projection, layers)
    tokens = token_sizes(projection)[0]
    evidence = _Evidence(file.path.name, family, layers, tokens, _all_float32(tensors.values()))
    key, how = _decide(evidence, variant, digest)
    if key in UNSUPPORTED:
        raise _unsupported(inventory.title, key, how)
    return Recognised(VARIANTS[key], layers.base, layers.context, projection, tokens, layers.rank, how, keys)


def _ensure_variant(variant: str | None) -> None:
    if variant is not None and variant not in VARIANTS and variant not in UNSUPPORTED:
        raise WrongWeights(f"There is no variant '{variant}'. Choose one of {', '.join(VARIANTS)}, or leave it out.")


def _ensure_fitting(title: str, spec: ProjectionSpec, layers: LayerSizes) -> None:
    """Every part is complete by itself; do the parts fit each other, the UNet and a face vector?"""
    if isinstance(spec, IDPerceiverSpec):
        _ensure_one_width(title, spec)
    width = token_sizes(spec)[1]
    if layers.base == "sdxl" and isinstance(spec, ResamplerSpec) and not heads_fill(spec.perceiver):
        raise _unsupported(title, "kolors-plus", BY_TENSORS)
    if layers.base == "sdxl" and isinstance(spec, IDPerceiverSpec) and width != layers.context:
        raise _unsupported(title, "kolors-faceid-plus", BY_TENSORS)
    if width != layers.context:
        raise BrokenWeights(
            f"{title} does not fit together: image_proj makes tokens of {width} numbers and the layers of ip_adapter "
            f"take {layers.context}. Get the file again."
        )
    face = _face_vector_width(spec)
    if face not in (None, FACE_WIDTH):
        raise UnsupportedAdapter(
            f"{title} takes vectors of {face} numbers, and face recognisers give {FACE_WIDTH}. Choose another adapter."
        )


def _face_vector_width(spec: ProjectionSpec) -> int | None:
    if isinstance(spec, IDPerceiverSpec):
        return spec.id.id_width
    return spec.id_width if isinstance(spec, IDMLPSpec) else None


def _ensure_one_width(title: str, spec: IDPerceiverSpec) -> None:
    """ID tokens are the perceiver's latents and, in v2, are added to what comes out: three equal widths."""
    widths = (spec.id.width, spec.perceiver.dim, spec.perceiver.out)
    if len(set(widths)) > 1:
        raise BrokenWeights(
            f"{title} does not fit together: its ID tokens, its perceiver and what comes out of it are {widths[0]}, "
            f"{widths[1]} and {widths[2]} wide, expected one width. Get the file again."
        )


def _all_float32(tensors: Iterable[TensorInfo]) -> bool:
    return all(info.dtype == torch.float32 for info in tensors)


def _decide(evidence: _Evidence, variant: str | None, digest: Callable[[], str]) -> tuple[str, str]:
    """Key of the variant and how it was found, by the strongest witness there is."""
    possible = choices(evidence.family)
    if variant is not None and variant not in possible:
        raise WrongWeights(_contradict_tensors(evidence, variant, possible))
    told = _told_by_tensors(evidence)
    if told is not None and variant in (None, told):
        return told, BY_TENSORS
    known = KNOWN_FILES.get(digest().lower())
    if known is not None and known.variant in possible:
        if variant is not None and variant != known.variant:
            raise WrongWeights(_contradict_digest(evidence, variant, known))
        return known.variant, BY_DIGEST
    if variant is not None:
        return variant, BY_CHOICE
    return _guess(evidence, possible)


def _told_by_tensors(evidence: _Evidence) -> str | None:
    """The variant, where the tensors leave no choice or no reasonable one."""
    possible = choices(evidence.family)
    if evidence.family == "id-mlp":
        portrait = evidence.tokens == _PORTRAIT_TOKENS and not evidence.layers.rank
        return "portrait" if portrait else "faceid"
    if evidence.family == "id-perceiver" and evidence.layers.base == "sdxl":
        return "faceid-plusv2"  # there is no FaceID Plus v1 for SDXL
    return possible[0] if len(possible) == 1 else None


def _guess(evidence: _Evidence, possible: tuple[str, ...]) -> tuple[str, str]:
    """By the file name, then by what published files are like; AmbiguousWeights where that would be a bet."""
    marks = NAME_MARKS.get(evidence.family, ())
    named = next((key for mark, key in marks if mark.search(evidence.name.lower())), None)
    if named is not None:
        return named, BY_NAME
    if evidence.family == "clip-resampler":
        return "plus", BY_TENSORS  # the three differ in how the photo is framed, not in how they are run
    if evidence.family == "id-resampler" and evidence.all_float32:
        return "instantid", BY_TENSORS  # published in float32; Portrait (unnorm) has K and V in float16
    titles = " or ".join(variant_title(key) for key in possible)
    keys = " or ".join(f"'{key}'" for key in possible)
    raise AmbiguousWeights(
        f"{evidence.title} is {titles}; their tensors are alike and the file name does not tell. "
        f"Choose {keys} as the variant."
    )


def _contradict_tensors(evidence: _Evidence, variant: str, possible: tuple[str, ...]) -> str:
    titles = " or ".join(variant_title(key) for key in possible)
    return (
        f"{evidence.title} cannot be used as {variant_title(variant)}: its tensors are those of {titles} for "
        f"{BASE_TITLES[evidence.layers.base]}. Leave the variant out, or choose another file."
    )


def _contradict_digest(evidence: _Evidence, variant: str, known: KnownFile) -> str:
    return (
        f"{evidence.title} cannot be used as {variant_title(variant)}: by its sha256 it is {known.name}, "
        f"which is {variant_title(known.variant)}. Leave the variant out, or choose another file."
    )


def _unsupported(title: str, key: str, how: str) -> UnsupportedAdapter:
    family = UNSUPPORTED[key]
    alike = choices(family.family) if family.family and how != BY_CHOICE else ()
    others = [other for other in alike if other in VARIANTS]
    hint = f" If it is {variant_title(others[0])}, choose '{others[0]}' as the variant." if others else ""
    return UnsupportedAdapter(
        f"{title} is {family.title} ({how}), which {family.reason}; this version does not run it yet.{hint}"
    )
