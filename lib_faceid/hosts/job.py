"""One job of a WebUI: its units, the people found for them, and what has to be said about them.

A job lives as long as one call of the host's ``process_images``. Nothing here touches a UNet; what does gets the acts
of each sampling pass from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..core.unet_map import find_layers
from ..engine.acts import Act
from ..engine.extract import ModelFolder
from ..engine.infotext import LABEL, NOTE, join_notes, label, write
from ..engine.people import People, Person
from ..engine.place import Place
from ..engine.request import Unit
from ..errors import FaceIDError, UnsupportedUNet

logger = logging.getLogger("faceid")


class FaceIDStopped(FaceIDError):
    """Ends a job. WebUIs answer an HTTP request with ``status_code`` and ``detail``, found in ``vars(error)``.

    An exception in a script's callback is only printed by the hosts; one that carries these attributes and is raised
    while sampling reaches the person (A1111 1.10.1, modules/api/api.py:handle_exception).
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.status_code = 422  # Unprocessable Content: the request is understood and cannot be served
        self.detail = sentence


FaceIDStopped.__name__ = LABEL  # A1111 shows "<name>: <sentence>" to the person (modules/call_queue.py)


@dataclass(frozen=True)
class Outlet:
    """Where a job speaks: ``say`` shows a remark to the person, ``info`` is the table a picture's text is made of."""

    say: Callable[[str], None]
    info: dict[str, Any]


@dataclass
class Job:
    """Units at work on the pictures of one job. ``stop`` is why it must make none, empty while there is no reason."""

    units: Sequence[Unit]
    people: People
    models: ModelFolder
    outlet: Outlet
    stop: str = ""
    _found: dict[Place, list[tuple[Unit, Person]]] = field(default_factory=dict[Place, "list[tuple[Unit, Person]]"])
    _lines: dict[str, str] = field(default_factory=dict[str, str])
    _lasting: list[str] = field(default_factory=list[str])
    _passing: list[str] = field(default_factory=list[str])

    @property
    def is_lenient(self) -> bool:
        """True when every unit would rather have a picture without the face than none."""
        return all(unit.on_fail == "warn" for unit in self.units)

    def refuse(self, sentence: str) -> None:
        """The request itself cannot be read: nobody is looked for."""
        self.fail(sentence)
        self.units = ()

    def prepare(self, unet: nn.Module) -> None:
        """Find everybody for the UNet's base and write them to the infotext."""
        people = {id(unit): person for unit, person in self._everybody(unet)}
        known = [(number, unit) for number, unit in enumerate(self.units, start=1) if id(unit) in people]
        self._lines = {label(number): write(unit, people[id(unit)]) for number, unit in known}
        self._write()

    def acts(self, unet: nn.Module, *, hires_pass: bool) -> list[Act]:
        """Who acts in a sampling pass, and how. Empty when nobody does, or the job is to stop."""
        acts: list[Act] = []
        for unit, person in self._everybody(unet):
            try:
                acts.append(person.act(unit, hires_pass=hires_pass))
            except FaceIDError as error:
                self.fail(str(error), [unit])
        return [] if self.stop else [act for act in acts if not act.strength.is_off]

    def fail(self, sentence: str, units: Sequence[Unit] = (), *, lasting: bool = True) -> None:
        """These units (none named: all) cannot be in the picture: the job stops, or goes on without them."""
        sentence, units = self._without_path(sentence), units or self.units
        if any(unit.on_fail == "stop" for unit in units):
            self.stop = self.stop or sentence
            self._say(sentence)
            return
        for number, unit in enumerate(self.units, start=1):
            if any(unit is failed for failed in units):
                self.outlet.info.pop(label(number), None)
                if lasting:
                    self._lines.pop(label(number), None)
        self.tell(f"The face was not applied: {sentence}", lasting=lasting)

    def withdraw(self, sentence: str) -> None:
        """Nobody can be in the picture, and the job cannot be stopped either."""
        for name in self._lines:
            self.outlet.info.pop(name, None)
        self.tell(f"The face was not applied: {sentence}")

    def tell(self, sentence: str, *, lasting: bool = False) -> None:
        """A remark that belongs to the picture: shown, logged and kept in its text.

        ``lasting``: it is true for every batch of the job, otherwise for the one that is made now.
        """
        sentence = self._without_path(sentence)
        (self._lasting if lasting else self._passing).append(self._without_names(sentence))
        self._write_notes()
        self._say(sentence)

    def begin_batch(self) -> None:
        """A new batch: what was said about the sampling of the one before is not its own."""
        self._passing.clear()
        self._write()

    def _everybody(self, unet: nn.Module) -> list[tuple[Unit, Person]]:
        """The people of all units that have one, found once for each base."""
        try:
            place = Place.of(find_layers(unet), self.models)
        except UnsupportedUNet as error:
            self.fail(str(error))
            return []
        if place not in self._found:
            found = [(unit, self._find(unit, place)) for unit in self.units]
            self._found[place] = [(unit, person) for unit, person in found if person is not None]
        return self._found[place]

    def _find(self, unit: Unit, place: Place) -> Person | None:
        try:
            person = self.people.find(unit, place)
        except FaceIDError as error:
            self.fail(str(error), [unit])
            return None
        for remark in person.remarks:
            self.tell(remark, lasting=True)
        return person

    def _write(self) -> None:
        self.outlet.info.update(self._lines)
        self._write_notes()

    def _write_notes(self) -> None:
        notes = join_notes([*self._lasting, *self._passing])
        self.outlet.info.pop(NOTE, None)
        if notes:
            self.outlet.info[NOTE] = notes

    def _say(self, sentence: str) -> None:
        logger.warning("%s: %s", LABEL, sentence)
        self.outlet.say(f"{LABEL}: {sentence}")

    def _without_names(self, sentence: str) -> str:
        """What goes into a picture does not say how its owner calls the photos."""
        for unit in self.units:
            for number, photo in enumerate(unit.images, start=1):
                sentence = sentence.replace(photo.label, f"Photo {number}")
        return sentence

    def _without_path(self, sentence: str) -> str:
        return without_path(sentence, self.models)


def without_path(sentence: str, models: ModelFolder) -> str:
    """The sentence with ``models/…`` for files: pictures are shared, and the folders before it name their owner."""
    return sentence.replace(str(models.root), models.root.name)
