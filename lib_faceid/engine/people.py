"""From a unit to a person ready to act: the adapter is chosen, the identity made once, and kept for the next picture.

Vectors, tokens, keys and values are kept, in memory and, where a host says so, on disk; never a photo. The second time
no model runs and no weights are read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from ..errors import BadIdentity, BadRequest
from ..face.choice import FaceChoice
from ..library.cache import DiskCache
from ..library.identity import Identity, load_identity
from ..weights.adapter import Adapter
from ..weights.catalog import list_adapters, with_digest
from ..weights.digest import remember_digests
from .choice import choose_adapter
from .extract import Extracted, ModelFolder, extract
from .face_choices import face_choices
from .features import RawFeatures
from .kept_people import KeptPeople
from .person import Person
from .person_key import key_of, key_of_file
from .place import Place, identities_folder, saved_path
from .prepare import Combine, make_identity
from .readers import Readers
from .request import AUTO, DIGEST, Unit, ensure_someone

__all__ = ["People", "Person"]

# Bytes of people in memory: about 60 of plain FaceID for SDXL, three of Full Face with its 257 tokens.
_KEPT = 512 * 1024 * 1024
CACHE = ".cache"  # in the folder of saved people, whose list it is not in
_DIGESTS = "digests.json"


class People:
    """Makes people and keeps the last of them. Safe to use from several threads; one person is made at a time.

    ``readers`` are its open face packs, for whoever looks at photos beside it.
    """

    def __init__(self, kept: int = _KEPT, disk: DiskCache | None = None) -> None:  # kept: bytes in memory
        self.readers = Readers()
        self._known, self._lock = KeptPeople(kept, disk), threading.Lock()

    def keep_on_disk(self, models: ModelFolder) -> None:
        """Keep people in the models folder from now on, and digests of weight files. Cheap; call it as often as you
        like.
        """
        folder = identities_folder(models) / CACHE
        disk = self._known.disk
        if disk is not None and disk.folder == folder:
            return  # without waiting for a face that is being read
        with self._lock:
            if self._known.disk is None or self._known.disk.folder != folder:
                self._known.disk = DiskCache(folder)
                remember_digests(folder / _DIGESTS, models.root)

    def find(self, unit: Unit, place: Place) -> Person:
        """The person of a unit. Raises BadRequest, BadPhoto, BadIdentity, NoFaceFound, WrongWeights."""
        ensure_someone(unit)
        with self._lock:
            if unit.identity and not unit.identity.startswith(DIGEST):
                return self._load(unit, place)
            if not unit.images and unit.embeddings is None:
                return self._remembered(unit, place)
            return self._made(unit, place)

    def knows(self, key: str) -> bool:
        """Whether a person made from photos is kept under a key that begins like this."""
        return self._known.knows(key)

    def forget(self) -> None:
        """Let go of everybody, on disk as well, and of the models that read photos.

        Raises FaceIDError when a file cannot be removed.
        """
        with self._lock:
            self.readers.release()
            self._known.forget()

    def forget_person(self, who: str, identities: Iterable[Identity] = ()) -> None:
        """Somebody is to be gone: a saved person's name, or ``digest:…`` for one made from photos.

        ``identities`` are those of a saved person, read before its file was deleted: what was made from the same photos
        is forgotten with it. Other photos of the person cannot be known. Raises FaceIDError when a file cannot be
        removed.
        """
        with self._lock:
            self._known.forget_person(who, identities)

    def _remembered(self, unit: Unit, place: Place) -> Person:
        key = unit.identity.removeprefix(DIGEST)
        person = self._known.made(key)
        if person is not None:
            return self._known.keep(_with_adapter(person, place))
        raise BadIdentity(
            f"The person {key} of the pasted picture was made from photos, and photos are not kept in pictures. "
            "Add the same photos again."
        )

    def _load(self, unit: Unit, place: Place) -> Person:
        path = saved_path(unit.identity, place.identities)
        key = key_of_file(path, place.base)
        person = self._known.in_memory(key) or Person(load_identity(path, place.base), key, None)
        return self._known.keep(replace(_with_adapter(person, place), name=path.stem))

    def _made(self, unit: Unit, place: Place) -> Person:
        adapter, choices = choose_adapter(unit, place), face_choices(unit, place)
        key = key_of(unit, choices, adapter, place)
        known = self._known.get(key, adapter)
        if known is not None:
            return known if _is_at_hand(known) else self._known.keep(replace(known, adapter=adapter))
        extracted = self._extract(unit, choices, adapter, place)
        combine = None if unit.combine == AUTO else cast(Combine, unit.combine)
        self.readers.count("weight_files")
        identity = make_identity(adapter, **vars(extracted.raw), combine=combine)
        made = Person(
            identity,
            key,
            adapter,
            photos=tuple(photo.digest for photo in unit.images),
            remarks=extracted.notes,
            likeness=() if extracted.likeness is None else tuple(map(float, extracted.likeness)),
        )
        return self._known.keep_made(made)

    def _extract(self, unit: Unit, choices: Sequence[FaceChoice], adapter: Adapter, place: Place) -> Extracted:
        if unit.embeddings is None:
            models = replace(place.models, pack_name=unit.pack)
            return extract(adapter, unit.images, models, choices=choices, readers=self.readers)
        if adapter.needs_clip:
            raise BadRequest(
                f"{adapter.title} looks at the photo as well, and only face vectors were sent. Send photos, or choose "
                "a plain FaceID adapter."
            )
        return Extracted((), RawFeatures(embeddings=np.asarray(unit.embeddings, dtype=np.float32)))


def _is_at_hand(person: Person) -> bool:
    """Whether the adapter's file is still where it was."""
    return person.adapter is not None and person.adapter.path.is_file()


def _with_adapter(person: Person, place: Place) -> Person:
    """With the file that holds its LoRA, which may have come, gone or got another name since."""
    origin = person.identity.origin
    if not origin.has_lora or _is_at_hand(person):
        return person
    adapter = with_digest(list_adapters(place.adapters), origin.adapter_sha256, origin.adapter_name, origin.variant)
    return replace(person, adapter=adapter)
