"""From photos (or features of them) to an identity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Literal, cast

import torch
from torch import Tensor

from ..core.projections import IDPerceiver, Projection
from ..core.tokens import KV, LayerKV, Tokens, project_kv
from ..errors import BadIdentity
from ..library.identity import Identity, Origin, Part
from ..weights.adapter import Adapter
from ..weights.variants import Variant
from .extract import ModelFolder, extract
from .features import Array, Features, RawFeatures, check_features

Combine = Literal["mean", "concat"]
_TOGETHER = "together"  # the photos are rows of one resampler, as portrait-unnorm was trained


def make_identity(
    adapter: Adapter,
    *,
    images: object = None,
    embeddings: Array | None = None,
    clip_hidden: Array | None = None,
    clip_pooled: Array | None = None,
    clip_uncond: Array | None = None,
    weights: Array | None = None,
    structure: float = 1.0,
    combine: Combine | None = None,
    face_pack: str | os.PathLike[str] | None = None,
    clip_encoder: str | os.PathLike[str] | None = None,
) -> Identity:
    """Tokens, keys and values of one person for the adapter's base.

    images: photos as paths, PIL images or uint8 RGB arrays; the largest face of each is taken. face_pack and
        clip_encoder name the folder and the file that read them; otherwise they are looked for in the folder of the
        variable FACEID_MODELS, or ``models``: face packs in ``insightface``, encoders in ``clip_vision``.
    embeddings: instead of images, (k, 512) face vectors of k photos as the recogniser gives them; divided by their
        length here, except for portrait-unnorm, which was trained on raw ones. clip_hidden: (k, n, E) penultimate CLIP
        features of the aligned face crops; clip_pooled: (k, E); clip_uncond: (n, E), the encoder's penultimate features
        of zero pixel values (zero *after* normalisation, as in training: tutorial_train_plus.py:395-403 upstream).
        Numpy arrays, tensors or nested lists; any float dtype; float32 inside.
    weights: (k,) from 0 up, how much each of several photos counts; only how they compare matters. In a mean they weigh
        the features, side by side ("concat") the values of each photo's tokens.
    structure: factor on the CLIP part; only FaceID Plus v2 has one, others ignore it.
    combine: for several photos, "mean" (of normed vectors, not normed again, and of CLIP features) or "concat" (the
        tokens of all photos side by side); None is what the variant was trained with.

    Raises BadIdentity when inputs do not fit the adapter, BadPhoto and NoFaceFound for photos.
    """
    if combine not in (None, "mean", "concat"):
        raise BadIdentity(f"combine is 'mean', 'concat' or None; found {combine!r}.")
    raw = RawFeatures(embeddings, clip_hidden, clip_pooled, clip_uncond, weights)
    if images is not None:
        if any(value is not None for value in (embeddings, clip_hidden, clip_pooled, clip_uncond)):
            raise BadIdentity("Give images, or embeddings and CLIP features, not both.")
        raw = extract(adapter, _several(images), ModelFolder.default(face_pack, clip_encoder)).raw
        raw = raw if weights is None else replace(raw, weights=weights)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        features = check_features(adapter, raw)
        how = combine or adapter.recognised.variant.several
        main, clip = _tokens(adapter, features, how)
        parts = [main] if clip is None else [main, clip]
        kvs = [_weighed(kv, features, how) for kv in project_kv(parts, adapter.layer_weights())]
    made = [Part(tokens, kv) for tokens, kv in zip(parts, kvs, strict=True)]
    return Identity(
        base=adapter.base,
        context_width=adapter.recognised.context_width,
        origin=_origin(adapter, features.photos),
        main=made[0],
        clip=made[1] if clip is not None else None,
        structure=float(structure),
        vectors=features.vectors,
        adapter_path=adapter.path,
    )


def _several(images: object) -> list[object]:
    """One photo or several."""
    several = list(cast("Sequence[object]", images)) if isinstance(images, (list, tuple)) else [images]
    if not several:
        raise BadIdentity("No photo was given.")
    return several


def _origin(adapter: Adapter, photos: int) -> Origin:
    lora = adapter.lora()
    return Origin(
        variant=adapter.variant,
        title=adapter.title,
        adapter_name=adapter.path.name,
        adapter_sha256=adapter.digest,
        has_lora=adapter.has_lora,
        photos=photos,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        lora_sha256="" if lora is None else lora.digest(),
    )


def _tokens(adapter: Adapter, features: Features, how: str) -> tuple[Tokens, Tokens | None]:
    """Tokens of the main part and, for FaceID Plus v2, of the part the structure factor scales."""
    variant = adapter.recognised.variant
    vectors, clip = _arrange(features, how)
    zeros = torch.zeros_like(vectors) if vectors is not None else None
    empty = features.clip_uncond.expand_as(clip) if clip is not None and features.clip_uncond is not None else None
    module = adapter.projection()
    cond, uncond = _project(module, variant, vectors, clip), _project(module, variant, zeros, empty)
    pairs = [Tokens(_join(c), _join(u)) for c, u in zip(cond, uncond, strict=True)]
    return pairs[0], pairs[1] if len(pairs) > 1 else None


def _arrange(features: Features, how: str) -> tuple[Tensor | None, Tensor | None]:
    """Vectors and CLIP features as rows for the projection: one row for the mean, one per photo for concat.

    "together" keeps the photos as (1, k, 512), rows of one resampler.
    """
    if how == "mean":
        return features.mean()
    if how == _TOGETHER and features.vectors is not None:
        return features.vectors[None], features.clip
    return features.vectors, features.clip


def _weighed(kv: KV, features: Features, how: str) -> KV:
    """Photos side by side: the values (2, k·T, C) of each photo's tokens times its share, on both prompt sides.

    Keys stay, so how much attention a photo gets stays too; its share is of what is added for it.
    """
    if features.shares is None or how == "mean":
        return kv
    if how == _TOGETHER:
        raise BadIdentity(
            "This adapter looks at all photos at once, so a photo cannot have a weight of its own. Leave the weights "
            'out, or combine the photos by "mean" or "concat".'
        )
    shares = features.shares
    return {n: LayerKV(one.k, one.v * _per_token(shares, one.v)) for n, one in kv.items()}


def _per_token(shares: Tensor, values: Tensor) -> Tensor:
    """(k·T, 1) factors for values (2, k·T, C)."""
    return shares.to(values.dtype).repeat_interleave(values.shape[1] // len(shares))[:, None]


def _project(module: Projection, variant: Variant, vectors: Tensor | None, clip: Tensor | None) -> tuple[Tensor, ...]:
    """One or two sets of tokens, each (rows, T, X)."""
    if isinstance(module, IDPerceiver):
        id_tokens, refined = module.parts(cast(Tensor, vectors), cast(Tensor, clip))
        return (id_tokens, refined) if variant.shortcut else (refined,)
    fed = cast(Tensor, vectors if variant.vector != "none" else clip)
    if variant.vector == "raw" and fed.ndim == 2:
        fed = fed[:, None]  # a resampler takes face vectors as a sequence
    return (module(fed),)


def _join(tokens: Tensor) -> Tensor:
    """(rows, T, X) -> (rows * T, X): the tokens of several photos side by side."""
    return tokens.flatten(0, 1)
