"""One job of a WebUI: its units, the people found for them, and what has to be said about them.

A job lives as long as one call of the host's ``process_images``. Nothing here touches a UNet; what does gets the acts
of each sampling pass from here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..core.unet_map import find_layers
from ..engine.acts import Act
from ..engine.extract import ModelFolder
from ..engine.infotext import LABEL, NOTE, join_notes, label, write
from ..engine.people import People, Person
from ..engine.place import Place
from ..engine.request import Unit
from ..engine.turns import Picture, places_of, turn_of
from ..errors import FaceIDError, UnsupportedUNet

_NOT_APPLIED = "The face was not applied: "
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


@dataclass(frozen=True)
class Shown:
    """Somebody of a unit. ``count`` people of the unit take turns, and this is number ``turn`` of them, from 0."""

    number: int
    unit: Unit
    person: Person
    turn: int = 0
    count: int = 1

    def places(self, pictures: Sequence[Picture]) -> frozenset[int] | None:
        """The places in a batch where it is this one's turn; None for everywhere."""
        return None if self.count == 1 else places_of(self.turn, pictures, self.count, self.unit.seed_mode)


@dataclass
class Job:
    """Units at work on the pictures of one job. ``stop`` is why it must make none, empty while there is no reason.

    ``kept`` is for what a host makes once for all passes of a job, ``armed`` for its pass that comes next or runs.
    """

    units: Sequence[Unit]
    people: People
    models: ModelFolder
    outlet: Outlet
    stop: str = ""
    _found: dict[Place, list[Shown]] = field(default_factory=dict[Place, "list[Shown]"])
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    armed: Any = None
    _texts: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
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

    def prepare(self, unet: nn.Module, pictures: Sequence[Picture]) -> None:
        """Find everybody for the UNet's base and write them to the infotext of the job's pictures."""
        self._texts.clear()
        for shown in self._everybody(unet):
            self._texts.setdefault(label(shown.number), []).append(write(shown.unit, shown.person))
        self._write(pictures)

    def acts(self, unet: nn.Module, pictures: Sequence[Picture], *, hires_pass: bool) -> list[Act]:
        """Who acts in a sampling pass on these pictures, and how. Empty when nobody does, or the job is to stop."""
        acts: list[Act] = []
        for shown in self._everybody(unet):
            try:
                act = shown.person.act(shown.unit, hires_pass=hires_pass)
                acts.append(replace(act, images=shown.places(pictures)))
            except FaceIDError as error:
                self.fail(str(error), [shown.unit])
        return [] if self.stop else [act for act in acts if not act.strength.is_off and act.images != frozenset()]

    def fail(self, sentence: str, units: Sequence[Unit] = (), *, lasting: bool = True) -> None:
        """These units (none named: all) cannot be in the picture: the job stops, or goes on without them."""
        units = units or self.units
        if any(unit.on_fail == "stop" for unit in units):
            self.stop_for(sentence)
            return
        for number, unit in enumerate(self.units, start=1):
            if any(unit is failed for failed in units):
                self.outlet.info.pop(label(number), None)
                if lasting:
                    self._texts.pop(label(number), None)
        self._note(f"{_NOT_APPLIED}{self._without_name(sentence)}", lasting=lasting)
        self._say(f"{_NOT_APPLIED}{sentence}")

    def stop_for(self, sentence: str) -> None:
        """The pass has failed and cannot go on, whatever the units would rather have."""
        self.stop = self.stop or without_path(sentence, self.models)
        self._say(sentence)

    def withdraw(self, sentence: str) -> None:
        """Nobody can be in the picture, and the job cannot be stopped either."""
        for name in self._texts:
            self.outlet.info.pop(name, None)
        self.tell(f"{_NOT_APPLIED}{sentence}")

    def tell(self, sentence: str, *, lasting: bool = False) -> None:
        """A remark that belongs to the picture: shown, logged and kept in its text.

        ``lasting``: it is true for every batch of the job, otherwise for the one that is made now.
        """
        self._note(sentence, lasting=lasting)
        self._say(sentence)

    def begin_batch(self, pictures: Sequence[Picture]) -> None:
        """A new batch: what was said about the sampling of the one before is not its own.

        ``pictures`` are all of the job; another script may have changed their seeds since it began.
        """
        self._passing.clear()
        self._write(pictures)

    def _everybody(self, unet: nn.Module) -> list[Shown]:
        """The people of all units, found once for each base."""
        try:
            place = Place.of(find_layers(unet), self.models)
        except UnsupportedUNet as error:
            self.fail(str(error))
            return []
        if place not in self._found:
            self._found[place] = [
                Shown(number, unit, person, turn, len(people))
                for number, unit in enumerate(self.units, start=1)
                for people in (self._find(unit, place),)
                for turn, person in enumerate(people)
            ]
        return self._found[place]

    def _find(self, unit: Unit, place: Place) -> list[Person]:
        """The one person of a unit, or those who take turns; nobody where one of them cannot be found."""
        people: list[Person] = []
        for part in unit.by_photo():
            try:
                person = self.people.find(part, place)
            except FaceIDError as error:
                self.fail(str(error), [unit])
                return []
            self._pass_on(person, unit, place, before=len(people))
            people.append(person)
        return people

    def _pass_on(self, person: Person, unit: Unit, place: Place, *, before: int) -> None:
        """Say what is to be known about a person whose first photo has number ``before + 1`` of the unit."""
        for remark in person.remarks:
            number = before + remark.photo
            name = unit.images[number - 1].label if number <= len(unit.images) else ""
            self._note(f"Photo {number} {remark.words}", lasting=True)
            self._say(f"{name or f'Photo {number}'} {remark.words}")
        if person.lacks_lora and unit.lora:
            self.tell(
                f"The LoRA is in {person.identity.origin.adapter_name}, which is not in {place.adapters_title}, so the "
                "likeness is weaker than it could be. Put the file there.",
                lasting=True,
            )

    def _note(self, sentence: str, *, lasting: bool) -> None:
        (self._lasting if lasting else self._passing).append(without_path(sentence, self.models))
        self._write_notes()

    def _write(self, pictures: Sequence[Picture]) -> None:
        """Each picture's text names the one who is in it (A1111: a list has one value for each picture of the job)."""
        modes = {label(number): unit.seed_mode for number, unit in enumerate(self.units, start=1)}
        for name, several in self._texts.items():
            turns = [turn_of(picture, len(several), modes[name]) for picture in pictures]
            self.outlet.info[name] = several[0] if len(several) == 1 else [several[turn] for turn in turns]
        self._write_notes()

    def _write_notes(self) -> None:
        notes = join_notes([*self._lasting, *self._passing])
        self.outlet.info.pop(NOTE, None)
        if notes:
            self.outlet.info[NOTE] = notes

    def _say(self, sentence: str) -> None:
        sentence = without_path(sentence, self.models)
        logger.warning("%s: %s", LABEL, sentence)
        self.outlet.say(f"{LABEL}: {sentence}")

    def _without_name(self, sentence: str) -> str:
        """Pictures do not say how their owner calls a photo. Of two with one name the first is meant.

        A name without a dot is only looked for at the beginning: a photo may be called "a".
        """
        named = {photo.label: n for unit in self.units for n, photo in reversed([*enumerate(unit.images, start=1)])}
        for name in sorted(filter(None, named), key=len, reverse=True):
            where = rf"(?<!\w){re.escape(name)}(?!\w)" if "." in name else rf"^{re.escape(name)}(?= )"
            sentence = re.sub(where, f"Photo {named[name]}", sentence)
        return sentence


def without_path(sentence: str, models: ModelFolder) -> str:
    """The sentence with ``models/…`` for files: pictures are shared, and the folders before it name their owner."""
    return sentence.replace(str(models.root), models.root.name)
