"""The inputs of an identity, checked: face vectors and CLIP features as float32 tensors of the right sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.projections import FullMLPSpec, IDMLPSpec, IDPerceiverSpec, ImageProjSpec, ProjectionSpec
from ..errors import BadIdentity
from ..weights.adapter import Adapter

Array = Tensor | np.ndarray | Sequence[object]

# Shapes in words, for messages.
_WORDS = {
    "embeddings": "(photos, {width}) face vectors as the recogniser gives them",
    "clip_hidden": "(photos, positions, {width}) penultimate CLIP features",
    "clip_pooled": "(photos, {width}) pooled CLIP features",
    "clip_uncond": "(positions, {width}) penultimate CLIP features of zero pixel values",
}
_DIMS = {"embeddings": 2, "clip_hidden": 3, "clip_pooled": 2, "clip_uncond": 2}


@dataclass(frozen=True)
class Features:
    """What an adapter is fed for k photos: vectors (k, 512) and clip (k, n, E) or (k, E), with clip of zero pixels.

    shares: (k,) how much each photo counts, 1 on average; None where all count the same.
    """

    photos: int
    vectors: Tensor | None
    clip: Tensor | None
    clip_uncond: Tensor | None
    shares: Tensor | None = None

    def mean(self) -> tuple[Tensor | None, Tensor | None]:
        """One row (1, …) of vectors and one of clip for all photos: sum of w·v over sum of w."""
        return self._mean_of(self.vectors), self._mean_of(self.clip)

    def _mean_of(self, rows: Tensor | None) -> Tensor | None:
        if rows is None or self.shares is None:
            return None if rows is None else rows.mean(dim=0, keepdim=True)
        return (rows * self.shares.view(-1, *[1] * (rows.ndim - 1))).mean(dim=0, keepdim=True)


@dataclass(frozen=True)
class RawFeatures:
    """The same as the caller gave them. weights: (k,) from 0 up, how much each photo counts; None for all the same."""

    embeddings: Array | None = None
    clip_hidden: Array | None = None
    clip_pooled: Array | None = None
    clip_uncond: Array | None = None
    weights: Array | None = None


def check_features(adapter: Adapter, raw: RawFeatures) -> Features:
    """Features for the adapter; vectors are divided by their length unless the variant wants them raw.

    Raises BadIdentity when something the variant needs is missing, has another shape, differs in the number of photos,
    or contains values that are not numbers, and for weights that are not one for each photo, from 0 up.
    """
    variant, (vector_width, clip_width) = adapter.recognised.variant, input_widths(adapter.recognised.projection)
    vectors = _need(adapter, "embeddings", raw.embeddings, vector_width) if variant.vector != "none" else None
    clip: Tensor | None = None
    uncond: Tensor | None = None
    if variant.clip == "hidden":
        clip = _need(adapter, "clip_hidden", raw.clip_hidden, clip_width)
        uncond = _need(adapter, "clip_uncond", raw.clip_uncond, clip_width)
        _ensure_positions(clip, uncond)
    elif variant.clip == "pooled":
        clip = _need(adapter, "clip_pooled", raw.clip_pooled, clip_width)
        uncond = torch.zeros_like(clip[0])  # tutorial_train.py:375-381 upstream drops the pooled vector itself
    if vectors is not None and variant.vector == "normed":
        vectors = vectors / _lengths(vectors)
    photos = _count(vectors, clip)
    return Features(photos, vectors, clip, uncond, _shares(raw.weights, photos))


def input_widths(spec: ProjectionSpec) -> tuple[int, int]:
    """(width of a face vector, width of CLIP features); 0 where the projection takes none."""
    if isinstance(spec, IDMLPSpec):
        return spec.id_width, 0
    if isinstance(spec, IDPerceiverSpec):
        return spec.id.id_width, spec.perceiver.features
    if isinstance(spec, (ImageProjSpec, FullMLPSpec)):
        return 0, spec.clip_width
    return spec.perceiver.features, spec.perceiver.features  # the variant says which of the two it is fed


def _need(adapter: Adapter, name: str, value: Array | None, width: int) -> Tensor:
    wanted = f"{name} of shape {_WORDS[name].format(width=width)}"
    if value is None:
        raise BadIdentity(f"{adapter.title} ({adapter.path.name}) needs {wanted}; none were given.")
    tensor = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).to("cpu", torch.float32)
    if name == "clip_uncond" and tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != _DIMS[name] or tensor.shape[-1] != width or tensor.numel() == 0:
        raise BadIdentity(f"{adapter.title} needs {wanted}; found shape {tuple(tensor.shape)}.")
    if not torch.isfinite(tensor).all():
        raise BadIdentity(f"The {name} contain values that are not numbers; extract them again.")
    return tensor.detach().clone()


def _lengths(vectors: Tensor) -> Tensor:
    """L2 norms (k, 1). Raises BadIdentity for a vector of zeros, which no face gives."""
    squares = (vectors * vectors).sum(dim=-1, keepdim=True)
    empty = [str(i + 1) for i in range(len(vectors)) if squares[i].item() == 0.0]
    if empty:
        raise BadIdentity(
            f"Face vector {', '.join(empty)} is all zeros, so no face was found in that photo; leave it out."
        )
    return squares.sqrt()


def _count(vectors: Tensor | None, clip: Tensor | None) -> int:
    counts = [len(item) for item in (vectors, clip) if item is not None]
    if len(set(counts)) > 1:
        raise BadIdentity(
            f"There are {counts[0]} face vectors and {counts[1]} sets of CLIP features; give one of each for a photo."
        )
    return counts[0]


def _shares(weights: Array | None, photos: int) -> Tensor | None:
    """Weights divided by their mean: only how they compare counts, as the strength of all has a setting of its own."""
    if weights is None:
        return None
    given = np.asarray(weights, np.float64)
    if given.shape != (photos,):
        sizes = "x".join(map(str, given.shape)) or "1"
        raise BadIdentity(f"There are {photos} photos and {sizes} weights; give one for each photo.")
    if not (np.all(np.isfinite(given)) and np.all(given >= 0) and np.any(given > 0)):
        found = ", ".join(f"{value:g}" for value in given)
        raise BadIdentity(f"The weights of photos are numbers from 0 up, and not all of them 0; found {found}.")
    if np.all(given == given[0]):
        return None
    shares = given / given.max()  # so that no sum is too large
    return torch.as_tensor(np.asarray(shares / shares.mean(), np.float32))


def _ensure_positions(clip: Tensor, uncond: Tensor) -> None:
    if clip.shape[1] != uncond.shape[0]:
        raise BadIdentity(
            f"clip_hidden has {clip.shape[1]} positions and clip_uncond {uncond.shape[0]}; both come from one encoder."
        )
