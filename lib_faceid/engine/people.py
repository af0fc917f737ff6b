"""From a unit to a person ready to act: the adapter is chosen, the identity made once, and kept for the next picture.

Vectors and tokens are kept, never a photo. The key of a person is a digest of everything that decides the tokens.
Weight, window and structure are not among that, so they may change without anything being computed again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..core.strength import Strength, factors_by_turn
from ..core.unet_map import BASE_TITLES, Base, layers
from ..errors import BadIdentity, BadRequest
from ..library.identity import Identity, load_identity
from ..library.photos import read_photo
from ..weights.adapter import Adapter
from ..weights.catalog import list_adapters, with_digest
from ..weights.digest import file_digest
from .acts import Act
from .choice import choose_adapter
from .extract import Extracted, extract
from .features import RawFeatures
from .place import Place, saved_path
from .prepare import Combine, make_identity
from .request import AUTO, DIGEST, Unit, ensure_someone

_KEY_LENGTH = 16  # hex digits of sha256 that name a person; 64 bits
# Bytes of people in memory: about 60 of plain FaceID for SDXL, three of Full Face with its 257 tokens.
_KEPT = 512 * 1024 * 1024


@dataclass(frozen=True)
class Remark:
    """What a person should know about a photo (numbers begin at 1): the end of a sentence that begins with its name."""

    photo: int
    words: str


@dataclass(frozen=True, eq=False)
class Person:
    """An identity with what is to be told about it: its key, the digests of its photos, and remarks on them.

    ``name`` is a saved person's, otherwise empty; ``adapter`` the file it was made with, where that is at hand.
    """

    identity: Identity
    key: str
    adapter: Adapter | None
    name: str = ""
    photos: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def lacks_lora(self) -> bool:
        """True when the LoRA it was made with is not at hand."""
        return self.identity.origin.has_lora and self.adapter is None

    def lora(self, unit: Unit) -> float | None:
        """Strength of the LoRA in a picture; None where there is none."""
        return unit.lora if self.identity.origin.has_lora and self.adapter is not None else None

    def act(self, unit: Unit, *, hires_pass: bool = False) -> Act:
        """The person's part in a sampling pass. Raises BadRequest, BadPhoto or MaskMismatch."""
        identity = self.identity
        by_layer = None if unit.layers is None else _by_layer(identity.base, unit.layers)
        return Act(
            identity.with_structure(unit.structure) if identity.has_structure else identity,
            Strength(unit.weight_in(hires_pass), unit.start, unit.end, by_layer),
            mask=None if unit.mask is None else _read_mask(unit),
            lora=self.lora(unit) or 0.0,
            adapter=self.adapter,
        )


def _by_layer(base: Base, factors: tuple[float, ...]) -> tuple[float, ...]:
    """Factors by layer from factors by attention in the order of execution. Raises BadRequest for a wrong number."""
    expected = 1 + max(layer.turn for layer in layers(base))
    if len(factors) != expected:
        raise BadRequest(f"Layer factors (layers) has {len(factors)} numbers; {BASE_TITLES[base]} needs {expected}.")
    return factors_by_turn(base, dict(enumerate(factors)))


def _read_mask(unit: Unit) -> NDArray[np.uint8]:
    return read_photo(unit.mask).pixels.mean(axis=2).astype(np.uint8)


class People:
    """Makes people and keeps the last of them. Safe to use from several threads; one person is made at a time."""

    def __init__(self, kept: int = _KEPT) -> None:  # bytes
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._kept, self._lock = kept, threading.Lock()

    def find(self, unit: Unit, place: Place) -> Person:
        """The person of a unit. Raises BadRequest, BadPhoto, BadIdentity, NoFaceFound, WrongWeights."""
        ensure_someone(unit)
        with self._lock:
            if unit.identity and not unit.identity.startswith(DIGEST):
                return self._load(unit, place)
            if not unit.images and unit.embeddings is None:
                return self._remembered(unit)
            return self._made(unit, place)

    def knows(self, key: str) -> bool:
        """Whether a person with this key is kept."""
        return any(known.startswith(key) for known in list(self._people)) if key else False

    def forget(self) -> None:
        """Let go of everybody."""
        with self._lock:
            self._people.clear()

    def _keep(self, person: Person) -> Person:
        self._people[person.key] = person
        self._people.move_to_end(person.key)
        while len(self._people) > 1 and sum(_size(known) for known in self._people.values()) > self._kept:
            self._people.popitem(last=False)
        return person

    def _remembered(self, unit: Unit) -> Person:
        key = unit.identity.removeprefix(DIGEST)
        person = next((person for known, person in self._people.items() if key and known.startswith(key)), None)
        if person is not None:
            return self._keep(person)
        raise BadIdentity(
            f"The person {key} of the pasted picture was made from photos, and photos are not kept in pictures. "
            "Add the same photos again."
        )

    def _load(self, unit: Unit, place: Place) -> Person:
        path = saved_path(unit.identity, place.identities)
        key = file_digest(path)[:_KEY_LENGTH]
        person = self._people.get(key) or Person(load_identity(path), key, None)
        if person.lacks_lora:  # it may have been put there since
            origin = person.identity.origin
            listed = list_adapters(place.adapters)
            adapter = with_digest(listed, origin.adapter_sha256, origin.adapter_name, origin.variant)
            person = replace(person, adapter=adapter)
        return self._keep(replace(person, name=path.stem))

    def _made(self, unit: Unit, place: Place) -> Person:
        adapter = choose_adapter(unit, place)
        key = _key(unit, adapter, place)
        if key in self._people:
            return self._keep(self._people[key])
        extracted = _extract(unit, adapter, place)
        combine = None if unit.combine == AUTO else cast(Combine, unit.combine)
        identity = make_identity(adapter, **vars(extracted.raw), combine=combine)
        photos = tuple(photo.digest for photo in unit.images)
        return self._keep(Person(identity, key, adapter, photos=photos, remarks=_remarks(extracted)))


def _extract(unit: Unit, adapter: Adapter, place: Place) -> Extracted:
    models = replace(place.models, pack_name=unit.pack)
    if unit.embeddings is None:
        return extract(adapter, unit.images, models)
    if adapter.needs_clip:
        raise BadRequest(
            f"{adapter.title} looks at the photo as well, and only face vectors were sent. Send photos, or choose a "
            "plain FaceID adapter."
        )
    vectors = np.asarray(unit.embeddings, dtype=np.float32)
    return Extracted((), RawFeatures(embeddings=vectors))


def _size(person: Person) -> int:
    """Bytes of keys and values."""
    parts = [part for part in (person.identity.main, person.identity.clip) if part is not None]
    return sum(kv.k.nbytes + kv.v.nbytes for part in parts for kv in part.kv.values())


def _remarks(extracted: Extracted) -> tuple[Remark, ...]:
    """Which of several faces was taken."""
    counts = [(number, len(found.faces)) for number, found in enumerate(extracted.found, start=1)]
    return tuple(Remark(n, f"shows {count} faces; the largest was taken.") for n, count in counts if count > 1)


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """What lies in a folder of models: a file that was replaced must not be taken for the one before."""
    try:
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError:
        return []
    return [(str(path.relative_to(folder)), state.st_size, state.st_mtime_ns) for path, state in files]


def _key(unit: Unit, adapter: Adapter, place: Place) -> str:
    """Digest of everything that decides the tokens."""
    vectors = None if unit.embeddings is None else np.asarray(unit.embeddings, dtype=np.float32).tobytes().hex()
    parts: list[Any] = [
        [photo.digest for photo in unit.images],
        vectors,
        adapter.digest,
        adapter.variant,
        unit.combine,
        _state_of(replace(place.models, pack_name=unit.pack).pack(adapter.variant)) if unit.images else [],
        _state_of(place.models.root / "clip_vision") if adapter.needs_clip else [],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_KEY_LENGTH]
