"""A person made from photos as an entry of a cache, and back: tensors by name, and the rest as JSON.

Names of photos are not part of it: remarks have numbers, and a photo is known by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core.unet_map import BASE_TITLES, Base
from ..errors import FaceIDError
from ..face.similarity import cosine_matrix
from ..library.cache import Entry
from ..library.identity import Identity
from ..library.parts import part_tensors, read_origin, read_part
from ..weights.adapter import Adapter
from .fields import VECTOR_WIDTH
from .notes import Note
from .person import Person

_TEXT = "person"
# Two vectors of one photo differ by rounding (1e-4 between the runners of face packs); two photos of one person taken
# one after the other have a cosine around 0.95.
_SAME_PHOTO = 0.999


def tensors_of(identity: Identity) -> dict[str, Tensor]:
    """Everything of an identity that is numbers, by name."""
    tensors = {} if identity.vectors is None else {"vectors": identity.vectors}
    for name, part in (("main", identity.main), ("clip", identity.clip)):
        if part is not None:
            tensors |= part_tensors(name, part)
    return tensors


def text_of(person: Person) -> dict[str, str]:
    """The rest."""
    identity = person.identity
    values = {
        "base": identity.base,
        "structure": identity.structure,
        "origin": asdict(identity.origin),
        "photos": person.photos,
        "remarks": [[remark.photo, remark.words] for remark in person.remarks],
        "likeness": person.likeness,
    }
    return {_TEXT: json.dumps(values)}


def person_of(entry: Entry, adapter: Adapter | None = None) -> Person | None:
    """The person with the adapter it was made with; None for an entry that another version has written."""
    try:
        values = cast("Mapping[str, Any]", json.loads(entry.metadata[_TEXT]))
        identity = _identity(values, entry.tensors)
        return Person(
            replace(identity, adapter_path=adapter.path if adapter is not None else None),
            entry.key,
            adapter,
            photos=tuple(map(str, values["photos"])),
            remarks=tuple(Note(int(number), str(words)) for number, words in values["remarks"]),
            likeness=tuple(map(float, values["likeness"])),
        )
    except (KeyError, ValueError, TypeError, IndexError, RecursionError, FaceIDError):
        return None


def share_a_photo(one: Identity, other: Identity) -> bool:
    """True when two identities were made from the same photo, whatever adapter read it."""
    if one.vectors is not None and other.vectors is not None:
        cosines = cosine_matrix(one.vectors.numpy(), other.vectors.numpy())
        return bool(np.max(cosines) > _SAME_PHOTO)
    tokens = one.main.tokens.cond, other.main.tokens.cond
    return tokens[0].shape == tokens[1].shape and bool((tokens[0] == tokens[1]).all())


def _identity(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Identity:
    """Raises KeyError, ValueError or TypeError."""
    base: Base = values["base"]
    if base not in BASE_TITLES:
        raise ValueError(f"unknown base {base!r}")
    vectors = tensors.get("vectors")
    if vectors is not None and (vectors.dtype != torch.float32 or vectors.shape[1:] != (VECTOR_WIDTH,)):
        raise ValueError(f"face vectors {tuple(vectors.shape)} {vectors.dtype}")
    parts = [read_part(name, base, tensors) for name in ("main", "clip") if f"{name}.cond" in tensors]
    return Identity(
        base=base,
        context_width=parts[0].tokens.cond.shape[1],
        origin=read_origin(values["origin"]),
        main=parts[0],
        clip=parts[1] if len(parts) > 1 else None,
        structure=float(values["structure"]),
        vectors=vectors,
    )
