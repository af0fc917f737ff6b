"""The folder of saved people: one file per person, whole or not at all, found by a name that leads nowhere else."""

from __future__ import annotations

import os
import threading
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.unet_map import BASE_TITLES
from ..errors import BadIdentity, FaceIDError
from ..files import sha256_of, sweep, write_file
from .identity import Identity
from .names import check_name, same_name
from .person import Card, SavedPerson, load_person, read_card

SUFFIX = ".safetensors"
_LISTED = 20  # names a sentence repeats
_changing = threading.RLock()  # one change at a time in this process, whichever Store makes it


@dataclass(frozen=True, eq=False)
class Removed:
    """What a deleted file was, so that caches can forget it: sha256 of its bytes, and the person unless damaged."""

    name: str
    digest: str
    person: SavedPerson | None


class Store:
    """Saved people in ``folder``, which is made by the first save.

    Names that differ only in upper and lower case are one person, as Windows and macOS see it. Every method with a name
    raises BadIdentity when it cannot be one (names.check_name).
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Everybody's name, sorted; nothing is read. Empty where there is no folder that can be read."""
        return sorted(self._files())

    def path(self, name: str) -> Path:
        """The file of a saved person. Raises BadIdentity when there is none."""
        files, wanted = self._files(), check_name(name)
        if wanted not in files:
            known = ", ".join(sorted(files)[:_LISTED]) or "nobody yet"
            raise BadIdentity(f"There is no saved person {wanted}. Saved are: {known}.")
        return files[wanted]

    def taken(self, name: str) -> str:
        """The name of somebody saved that is this one where upper and lower case are the same; empty if it is free."""
        name, names = check_name(name), self.names()
        return name if name in names else next((other for other in names if same_name(other, name)), "")

    def load(self, name: str) -> SavedPerson:
        """The person, under the name of the file. Raises BadIdentity when there is none, or the file is damaged."""
        person, called = load_person(self.path(name)), check_name(name)
        named = tuple(replace(identity, name=called) for identity in person.identities)
        return replace(person, name=called, identities=named)

    def card(self, name: str) -> Card:
        """What a list shows, without reading the identities. Raises BadIdentity."""
        return replace(read_card(self.path(name)), name=check_name(name))

    def save(self, person: SavedPerson, *, overwrite: bool = False) -> Path:
        """Write the person's file. Raises BadIdentity when the name is taken and ``overwrite`` is False, or taken by a
        name in other letters; FaceIDError when the disk refuses.
        """
        with _changing:
            name = check_name(person.name)
            taken = self.taken(name)
            if taken and (taken != name or not overwrite):
                raise _is_taken(taken)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _refused(f"The folder {self.folder.name} cannot be made", error) from error
            sweep(self.folder)
            return _named(person, name).write(self._files().get(name) or self._place(name), overwrite=overwrite)

    def add_base(self, name: str, identity: Identity, *, overwrite: bool = False) -> Path:
        """Add an identity for another base to a saved person. Raises BadIdentity when the person has that base already
        and ``overwrite`` is False.
        """
        with _changing:
            person = self.load(name)
            if identity.base in person.bases and not overwrite:
                raise BadIdentity(
                    f"{person.name} is saved for {BASE_TITLES[identity.base]} already and is left as it is. Ask to "
                    "overwrite it, or choose an adapter for another base."
                )
            return self.save(person.with_identity(identity), overwrite=True)

    def rename(self, name: str, new: str) -> Path:
        """Give a person another name, inside the file as well. Raises BadIdentity when the new name is taken."""
        with _changing:
            source, person, called = self.path(name), self.load(name), check_name(new)
            taken = self.taken(called)
            if taken and taken != check_name(name):
                raise _is_taken(taken)
            if not taken:
                target = self.save(replace(person, name=called))
                self._unlink(source)
                return target
            _named(person, called).write(source, overwrite=True)
            try:
                return source.rename(self._place(called))  # upper and lower case only: one file on some systems
            except OSError as error:
                raise _refused(f"{source.name} cannot be renamed", error) from error

    def delete(self, name: str) -> Removed:
        """Remove the person's file and what unfinished writes left. Raises FaceIDError when the disk refuses."""
        with _changing:
            path = self.path(name)
            person = None
            with suppress(BadIdentity):  # a damaged file can be deleted as well
                person = self.load(name)
            try:
                digest = sha256_of(path)
            except OSError as error:
                raise _refused(f"{path.name} cannot be read", error) from error
            self._unlink(path)
            sweep(self.folder)
            return Removed(check_name(name), digest, person)

    def export(self, name: str, target: str | os.PathLike[str]) -> Path:
        """Copy the person's file, byte for byte, to a path or into a folder; returns where it is. Raises FaceIDError
        when there is a file already, which is never overwritten.
        """
        path, place = self.path(name), Path(target)
        place = place / f"{check_name(name)}{SUFFIX}" if place.is_dir() else place
        place = place if place.suffix == SUFFIX else place.with_name(place.name + SUFFIX)
        try:
            return write_file(place, path.read_bytes(), durable=True)
        except OSError as error:
            raise _refused(f"{path.name} cannot be copied to {place.name}", error) from error

    def _files(self) -> dict[str, Path]:
        """Files by the name people use. What could not be chosen by its name is left out."""
        found: dict[str, Path] = {}
        with suppress(OSError):
            for path in sorted(self.folder.iterdir()):
                name = unicodedata.normalize("NFC", path.stem)
                with suppress(BadIdentity):
                    if path.suffix == SUFFIX and check_name(name) == name:
                        found.setdefault(name, path)
        return found

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:
            raise _refused(f"{path.name} cannot be removed", error) from error


def _named(person: SavedPerson, name: str) -> SavedPerson:
    return replace(person, name=name)


def _is_taken(name: str) -> BadIdentity:
    return BadIdentity(
        f"A person called {name} is saved already and is left as it is. Choose another name, or overwrite it under "
        "exactly this one."
    )


def _refused(what: str, error: OSError) -> FaceIDError:
    return FaceIDError(f"{what} ({error.strerror or error}). Check the disk and its rights.")
