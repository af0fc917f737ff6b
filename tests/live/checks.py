"""What cases have in common: a plain picture to come back to, a face that shows, two ways to one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .client import Drawn, infotext_field
from .compare import CLEAR, SLIGHT, Failed, Skipped, are_identical, differences, ensure_clear, ensure_near, show
from .fixtures import vectors
from .job import SCRIPT, Job
from .webui import WebUI

NOTE = f"{SCRIPT} note"


class Plain:
    """The pictures of a job without FaceID, which must come again bit for bit whenever no face acts.

    Where the WebUI itself does not repeat them (9-channel inpainting, some attention optimisations on a GPU), they must
    come again within twice what two of its own runs differ by; ``noise`` is that difference.
    """

    def __init__(self, webui: WebUI, job: Job) -> None:
        self._webui, self.job = webui, job
        self.drawn = webui.draw(job)
        self.noise = 0.0

    def expect(self, drawn: Drawn, what: str, wanted: Drawn | None = None) -> None:
        """Raises Failed unless these are the plain pictures, or those ``wanted`` instead: the same job done before."""
        before, name = (self.drawn, "the plain picture") if wanted is None else (wanted, "the same before")
        if are_identical(drawn.pictures, before.pictures):
            return
        apart = max(differences(drawn.pictures, before.pictures))
        self.noise = max(self.noise, self._measure_noise())
        if apart > 2 * self.noise:
            raise Failed(f"{what}: {apart:.2f} from {name}; expected at most {2 * self.noise:.2f}")

    def _measure_noise(self) -> float:
        """The job again after another one and after itself: what came before may leave the WebUI's own random numbers
        elsewhere. Whatever an extension has left behind would be the same in all of them."""
        runs: list[Drawn] = []
        for number in range(1, 4):
            self._webui.draw(self.job.but(seed=self.job.fields["seed"] + 100 * number))
            runs += [self._webui.draw(self.job) for _ in range(2)]
        return max(max(differences(one.pictures, runs[0].pictures)) for one in runs[1:])

    def expect_again(self) -> None:
        """Raises Failed unless a plain picture drawn now is the one from the beginning."""
        self.expect(self._webui.draw(self.job), "the plain picture afterwards")

    def expect_off(self, unit: dict[str, Any]) -> None:
        """Raises Failed unless the unit, switched off, leaves the picture alone and its text without a word."""
        for what, off in {"weight 0": {"weight": 0}, "enabled false": {"enabled": False}}.items():
            drawn = self._webui.draw(self.job, unit | off)
            self.expect(drawn, what)
            if SCRIPT in drawn.text and SCRIPT not in self.drawn.text:
                raise Failed(f"{what}: the picture's text names {SCRIPT}: {drawn.text[-200:]!r}")

    def effect_of(self, drawn: Drawn, what: str = "effect", least: float = CLEAR) -> tuple[str, float]:
        """Numbers, and the least change of a picture. Raises Failed unless every picture is changed by ``least``."""
        effects = differences(drawn.pictures, self.drawn.pictures)
        return ensure_clear(effects, what, self.noise, least), min(effects)


@dataclass(frozen=True)
class Twin:
    """Another way to the same pictures: to those at ``places`` of the job, or to all of them."""

    what: str
    job: Job
    places: tuple[int, ...] = ()


def alone(job: Job, *places: int) -> list[Twin]:
    """Each of these pictures of a batch, drawn by itself."""
    return [Twin(f"picture {place + 1} alone", job.alone(place), (place,)) for place in places]


def check_row(
    webui: WebUI,
    job: Job,
    *twins: Twin,
    unit: dict[str, Any] | None = None,
    note: str = "",
    negative: bool = True,
) -> str:
    """Plain, off, with the face, each twin, each side, plain again. Raises Failed where one is not as it must be.

    ``note``: words of the remark that the picture's text must have; without them it must have none. ``negative``:
    the negative prompt takes part in every step.
    """
    unit = unit or webui.unit()
    plain = Plain(webui, job)
    plain.expect_off(unit)
    drawn = webui.draw(job, unit)
    told, effect = plain.effect_of(drawn)
    ensure_told(drawn, note)
    numbers = [told, *(_compare(webui, plain, drawn, twin, (unit, effect)) for twin in twins)]
    if "embeddings" in unit:
        numbers.append(_ensure_sides(webui, plain, drawn, unit, negative))
    plain.expect_again()
    return "; ".join([*numbers, *([f"two plain runs {plain.noise:.2f}"] if plain.noise else [])])


def check_beside(
    webui: WebUI, job: Job, beside: Job, *twins: Twin, unit: dict[str, Any] | None = None, silent: str = ""
) -> str:
    """``beside`` is the job with something else at work, such as another extension. Raises Failed unless both effects
    are there, the rows are right, and switching either off gives the other alone.

    ``silent``: why the other may have no effect even without FaceID; the case is skipped then. What it leaves behind by
    itself is none of FaceID's doing: the plain picture to come back to is one that was drawn after it.
    """
    unit = unit or webui.unit()
    before, other = webui.draw(job), webui.draw(beside)
    bare = Plain(webui, job)
    face = webui.draw(job, unit)
    told = [bare.effect_of(face, "the face alone")[0], _ensure_heard(bare, other, silent)]
    told.append(check_row(webui, beside, *twins, unit=unit))
    together = differences(webui.draw(beside, unit).pictures, face.pictures)
    told.append(ensure_clear(together, "the other beside the face", bare.noise))
    bare.expect(webui.draw(job, unit), "the face alone afterwards", face)
    bare.expect_again()
    left = max(differences(before.pictures, bare.drawn.pictures))
    if left > max(bare.noise, SLIGHT):
        told.append(f"by itself the other leaves the plain picture {left:.2f} away")
    return "; ".join(told)


def _ensure_heard(bare: Plain, other: Drawn, silent: str) -> str:
    """Raises Failed, or Skipped with the reason ``silent``, where the other has no effect without FaceID either."""
    try:
        return bare.effect_of(other, "the other alone")[0]
    except Failed as error:
        if silent:
            raise Skipped(f"{error}; {silent}") from error
        raise


def _compare(webui: WebUI, plain: Plain, drawn: Drawn, twin: Twin, face: tuple[dict[str, Any], float]) -> str:
    unit, effect = face
    places = twin.places or range(len(drawn.pictures))
    bare, other = webui.draw(twin.job), webui.draw(twin.job, unit)
    plainly = differences(_at(plain.drawn, places), bare.pictures)
    apart = differences(_at(drawn, places), other.pictures)
    return ensure_near(apart, [max(value, plain.noise) for value in plainly], twin.what, effect)


def _ensure_sides(webui: WebUI, plain: Plain, drawn: Drawn, unit: dict[str, Any], negative: bool) -> str:
    """Raises Failed unless each prompt side has the tokens that are its own.

    At a guidance of 0 a picture is made of the negative side alone, whose tokens come from no face: there everybody
    gets the same picture. With guidance another person is another picture.
    """
    other = unit | {"embeddings": vectors(len(unit["embeddings"]), seed=9)}
    changed = differences(drawn.pictures, webui.draw(plain.job, other).pictures)
    told = ensure_clear(changed, "another person", plain.noise, SLIGHT)
    if negative:
        job = plain.job.but(cfg_scale=0)
        apart = max(differences(*(webui.draw(job, one).pictures for one in (unit, other))))
        if apart > 2 * plain.noise:
            raise Failed(f"a face reaches the negative side: {apart:.2f} between two people; expected 0.00")
    return told


def _at(drawn: Drawn, places: Sequence[int]) -> list[Any]:
    return [drawn.pictures[place] for place in places]


def ensure_told(drawn: Drawn, note: str = "") -> None:
    """Raises Failed unless the text of every picture says that FaceID acted, and has the expected remark or none."""
    for text in drawn.infotexts:
        if infotext_field(text, SCRIPT) is None:
            raise Failed(f"the picture's text has no field {SCRIPT}: {text[-200:]!r}")
        found = infotext_field(text, NOTE)
        if (found or "") and not note:
            raise Failed(f"the picture's text has a remark: {found!r}")
        if note and note not in (found or ""):
            raise Failed(f"the picture's text has the remark {found!r}; expected one with {note!r}")


def same_face(webui: WebUI, job: Job, first: tuple[Any, ...], second: tuple[Any, ...], what: str) -> str:
    """Raises Failed unless two lists of units make the same pictures bit for bit."""
    one, other = webui.draw(job, *first), webui.draw(job, *second)
    if not are_identical(one.pictures, other.pictures):
        apart = show(differences(one.pictures, other.pictures))
        raise Failed(f"{what}: {apart} apart; expected the same bits")
    return f"{what}: same bits"


def different_face(webui: WebUI, job: Job, first: tuple[Any, ...], second: tuple[Any, ...], what: str) -> str:
    """Raises Failed unless two lists of units make different pictures; what makes the difference may act late."""
    one, other = webui.draw(job, *first), webui.draw(job, *second)
    return ensure_clear(differences(one.pictures, other.pictures), what, least=SLIGHT)
