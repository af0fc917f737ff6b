"""The key of a person: a digest of everything that decides the tokens. What is not in it may change for nothing.

Weight, window and structure are not: they act on the tokens. Files count by their contents, not by name or time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core.unet_map import Base
from ..face.choice import FaceChoice
from ..weights.adapter import Adapter
from .model_files import encoder_digests, pack_digests
from .place import Place
from .request import Unit

_LENGTH = 16  # hex digits of sha256; 64 bits
_SAVED = "saved:"  # cannot begin a digest, so "digest:…" never finds a saved person


def is_key(text: str) -> bool:
    """Whether this is a whole key of somebody made from photos or vectors; a part of one names nobody."""
    return len(text) == _LENGTH and all(digit in "0123456789abcdef" for digit in text)


def key_of(unit: Unit, choices: Sequence[FaceChoice], adapter: Adapter, place: Place) -> str:
    """For people made from photos (``choices``: the face meant in each) or vectors. Raises BrokenWeights."""
    models = replace(place.models, pack_name=unit.pack)
    photos = list(zip(unit.images, choices, strict=True))
    parts: dict[str, Any] = {
        "version": __version__,  # another version may find another face, or arrange the tokens in another way
        "photos": [[photo.digest, photo.weight, *_words_of(choice)] for photo, choice in photos],
        "vectors": None if unit.embeddings is None else _hex(unit.embeddings),
        "adapter": [adapter.digest, adapter.variant],
        "combine": unit.combine,
        "pack": pack_digests(models.pack(adapter.variant)) if photos else [],
        "encoder": encoder_digests(adapter, models) if photos and adapter.needs_clip else [],
    }
    return _digest(parts)


def key_of_file(path: Path, base: Base) -> str:
    """For a saved person, from the state of its file; a file that is written anew is another file (inode)."""
    state = path.stat()
    return _SAVED + _digest([str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino, base])


def _words_of(choice: FaceChoice) -> list[Any]:
    return [choice.how, choice.number, None if choice.vector is None else _hex(choice.vector), choice.box]


def _hex(numbers: Any) -> str:
    return np.asarray(numbers, dtype=np.float32).tobytes().hex()


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]
