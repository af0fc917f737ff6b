"""A saved person: one file with an identity for each base, a thumbnail, and what people want to know.

``thumbnail`` is (H, W, 3) uint8 in the file; ``note`` is in its metadata. The rest is as in identity.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..core.unet_map import BASE_TITLES, Base
from ..errors import BadIdentity
from . import identity_file
from .identity import Identity, bases_in, metadata_of, other_base, read_identity, tensors_of, values_of
from .identity_file import PersonFile
from .parts import Origin, read_origin

THUMBNAIL_SIDE = 160  # px; 77 KB at most, under a twentieth of the smallest person's file and tokens
MAX_NOTE = 2000  # characters


@dataclass(frozen=True, eq=False)
class SavedPerson:
    """What one file holds: identities of one person, at most one per base, and what people want to know about it.

    ``thumbnail`` is (H, W, 3) uint8 of at most 160 px or None; ``note`` is the person's consent or anything else;
    ``created`` is ISO 8601. Raises BadIdentity when made of parts that do not fit.
    """

    name: str
    identities: tuple[Identity, ...]
    thumbnail: NDArray[np.uint8] | None = None
    note: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        if not self.identities or len(set(self.bases)) != len(self.bases):
            found = ", ".join(BASE_TITLES[base] for base in self.bases) or "none"
            raise BadIdentity(f"A saved person has one identity for each base; found {found}. Leave the others out.")
        if len(self.note) > MAX_NOTE:
            raise BadIdentity(f"The note has {len(self.note)} characters, at most {MAX_NOTE} are kept. Shorten it.")
        if self.thumbnail is not None:
            _check_thumbnail(self.thumbnail)

    @property
    def bases(self) -> tuple[Base, ...]:
        """The bases it can be used with."""
        return tuple(identity.base for identity in self.identities)

    @property
    def vector(self) -> NDArray[np.float32]:
        """(512,): the mean of its face vectors, each divided by its length. Raises BadIdentity where it has none."""
        rows = next((identity.vectors for identity in self.identities if identity.vectors is not None), None)
        if rows is None:
            raise BadIdentity(
                f"{self.name or 'This person'} was saved without face vectors, so nobody can be compared with it. Save "
                "it with an adapter that uses them, such as FaceID."
            )
        wide = rows.numpy().astype(np.float64)
        return np.asarray((wide / np.linalg.norm(wide, axis=1, keepdims=True)).mean(axis=0), np.float32)

    def for_base(self, base: Base) -> Identity:
        """The identity for a base. Raises BadIdentity that names the bases it holds."""
        found = next((identity for identity in self.identities if identity.base == base), None)
        if found is None:
            raise other_base(self.name or "This person", self.bases, base)
        return found

    def with_identity(self, identity: Identity) -> SavedPerson:
        """The same person with this identity added, in place of the one for its base where there is one."""
        others = [other for other in self.identities if other.base != identity.base]
        both = sorted([*others, identity], key=lambda item: list(BASE_TITLES).index(item.base))
        return replace(self, identities=tuple(both))

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write one file, whole or not at all. Raises FaceIDError when the name is taken, or the disk refuses."""
        tensors = {} if self.thumbnail is None else {"thumbnail": torch.tensor(self.thumbnail)}
        metadata = {"name": self.name, "note": self.note, "created": self.created}
        for identity in self.identities:
            tensors |= tensors_of(identity)
            metadata |= metadata_of(identity)
        return identity_file.write(path, tensors, metadata, overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class Card:
    """What a list shows of a saved person, from the header and the thumbnail alone; ``size`` is the file's in bytes."""

    name: str
    origins: Mapping[Base, Origin]
    thumbnail: NDArray[np.uint8] | None
    note: str
    created: str
    size: int


def make_thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 made small enough to be kept; its shape is kept, and a small picture is not enlarged."""
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return np.array(small)


def load_person(path: str | os.PathLike[str]) -> SavedPerson:
    """Read everything a file holds. Raises BadIdentity."""
    with identity_file.opened(Path(path)) as file:
        identities = tuple(read_identity(file, base) for base in bases_in(file))
        return SavedPerson(identities=identities, **_facts(file))


def read_card(path: str | os.PathLike[str]) -> Card:
    """What a list shows; no identity is read. Raises BadIdentity."""
    with identity_file.opened(Path(path)) as file:
        origins: dict[Base, Origin] = {base: read_origin(values_of(file, base)) for base in bases_in(file)}
        return Card(origins=origins, size=Path(path).stat().st_size, **_facts(file))


def _facts(file: PersonFile) -> dict[str, Any]:
    created = json.loads(file.metadata["created"]) if file.is_old else file.metadata.get("created", "")
    return {
        "name": file.metadata["name"],
        "thumbnail": file.picture("thumbnail", THUMBNAIL_SIDE),
        "note": file.metadata.get("note", "")[:MAX_NOTE],
        "created": str(created),
    }


def _check_thumbnail(picture: NDArray[np.uint8]) -> None:
    shape = picture.shape
    is_picture = picture.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
    if not is_picture or not 0 < min(shape) <= max(shape) <= THUMBNAIL_SIDE:
        raise BadIdentity(
            f"A thumbnail is (height, width, 3) uint8 of at most {THUMBNAIL_SIDE} px; found {picture.dtype} {shape}."
        )
