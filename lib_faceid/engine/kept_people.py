"""People made before: the last of them in memory, more of them on disk where there is a cache for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..library.cache import DiskCache
from ..library.identity import Identity
from ..weights.adapter import Adapter
from .person import Person
from .person_entry import person_of, share_a_photo, tensors_of, text_of
from .person_key import is_key
from .request import DIGEST


class KeptPeople:
    """By key, those not used for longest let go of first. ``limit``: bytes in memory. Not for threads to share."""

    def __init__(self, limit: int, disk: DiskCache | None) -> None:
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._limit = limit
        self.disk = disk

    def get(self, key: str, adapter: Adapter) -> Person | None:
        """The person made with this adapter under exactly this key."""
        person = self._people.get(key) or self._from_disk(key, adapter)
        return None if person is None else self.keep(person)

    def in_memory(self, key: str) -> Person | None:
        """A saved person's file is not copied to the cache."""
        return self._people.get(key)

    def made(self, key: str) -> Person | None:
        """Somebody made from photos under this whole key; of those on disk the adapter is not known."""
        if not is_key(key):
            return None
        return self._people.get(key) or self._from_disk(key)

    def knows(self, key: str) -> bool:
        """The same question, cheaper; it may be asked while others are at work."""
        return is_key(key) and (key in self._people or (self.disk is not None and self.disk.find(key) is not None))

    def keep(self, person: Person) -> Person:
        """In memory, as the one used last."""
        self._people[person.key] = person
        self._people.move_to_end(person.key)
        while len(self._people) > 1 and sum(known.nbytes for known in self._people.values()) > self._limit:
            self._people.popitem(last=False)
        return person

    def keep_made(self, person: Person) -> Person:
        """In memory and on disk."""
        if self.disk is not None:
            self.disk.put(person.key, tensors_of(person.identity), text_of(person))
        return self.keep(person)

    def forget(self) -> None:
        """Everybody, on disk as well. Raises FaceIDError when a file cannot be removed."""
        self._people.clear()
        if self.disk is not None:
            self.disk.forget()

    def forget_person(self, who: str, identities: Iterable[Identity]) -> None:
        """Those who are meant, and everybody made from a photo that they or ``identities`` were made from."""
        meant = [person.identity for person in self._people.values() if _is_meant(person, who)]
        key = who.removeprefix(DIGEST)
        on_disk = self._from_disk(key) if who != key and is_key(key) else None
        gone = [*identities, *meant, *([on_disk.identity] if on_disk is not None else [])]

        def matches(person: Person | None) -> bool:
            if person is None:  # written by another version: nobody can say whose it is
                return True
            return _is_meant(person, who) or any(share_a_photo(person.identity, identity) for identity in gone)

        for key in [key for key, person in self._people.items() if matches(person)]:
            del self._people[key]
        if self.disk is not None:
            self.disk.forget(lambda entry: matches(person_of(entry)))

    def _from_disk(self, key: str, adapter: Adapter | None = None) -> Person | None:
        entry = self.disk.get(key) if self.disk is not None else None
        return None if entry is None else person_of(entry, adapter)


def _is_meant(person: Person, who: str) -> bool:
    """``who`` as in Unit.identity: a saved person's name, or ``digest:…``."""
    key = who.removeprefix(DIGEST)
    return person.key == key if key != who else bool(who) and person.name == who
