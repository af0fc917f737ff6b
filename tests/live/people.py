"""Who is in the picture: from photos, from vectors, saved, remembered, several at once, by each kind of adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_faceid.engine.turns import Picture, turn_of

from .case import Section, adapter
from .checks import NOTE, Plain, check_row, different_face, ensure_told, same_face
from .client import infotext_field
from .compare import Failed, differences, ensure_near, ensure_same
from .fixtures import PACK, vectors
from .job import SCRIPT
from .photos import kim, nobody, robin, two_people
from .webui import WebUI

SECTION = Section("people")


def shown(webui: WebUI, *photos: str, **fields: Any) -> dict[str, Any]:
    """A unit with photos, which the stand-in face pack reads."""
    return webui.unit(images=list(photos), pack=PACK, **fields)


@SECTION.case("from a photo")
def photo(webui: WebUI) -> str:
    told = check_row(webui, webui.job(), unit=shown(webui, robin()))
    return f"{told}; {different_face(webui, webui.job(), (shown(webui, robin()),), (shown(webui, kim()),), 'Kim')}"


@SECTION.case("from a photo with its data address")
def data_address(webui: WebUI) -> str:
    spelled = shown(webui, f"data:image/png;base64,{robin()}")
    return same_face(webui, webui.job(), (shown(webui, robin()),), (spelled,), "with data:image/png and without")


@SECTION.case("from several photos")
def several(webui: WebUI) -> str:
    """Of two people, so that it shows what was done with the second."""
    unit = shown(webui, robin(), kim())
    told = check_row(webui, webui.job(), unit=unit)
    apart = different_face(webui, webui.job(), (unit,), (unit | {"combine": "concat"},), "tokens side by side")
    first = different_face(webui, webui.job(), (unit,), (shown(webui, robin()),), "the second photo")
    return f"{told}; {first}; {apart}"


@SECTION.case("from a photo of two people")
def two_faces(webui: WebUI) -> str:
    return check_row(webui, webui.job(), unit=shown(webui, two_people()), note="2 faces")


@SECTION.case("the other of two people in a photo")
def other_face(webui: WebUI) -> str:
    """By number; the largest has number 1, and is also the leftmost here."""
    job = webui.job()
    first, second, left = (shown(webui, two_people(), face=face) for face in ("1", "2", "leftmost"))
    told = check_row(webui, job, unit=second, note="number 2 was taken")
    usual = same_face(webui, job, (first,), (shown(webui, two_people()),), "number 1 and the largest")
    leftmost = same_face(webui, job, (first,), (left,), "number 1 and the leftmost")
    return f"{told}; {usual}; {leftmost}; {different_face(webui, job, (first,), (second,), 'number 2')}"


@SECTION.case("a face that is only pointed at")
def box(webui: WebUI) -> str:
    """A box in a photo in which no face is found."""
    job = webui.job()
    unit = shown(webui, nobody(), face=[120, 120, 360, 360])
    told = check_row(webui, job, unit=unit, note="Photo 1")
    elsewhere = unit | {"face": [10, 10, 100, 100]}
    return f"{told}; {different_face(webui, job, (unit,), (elsewhere,), 'another box')}"


@SECTION.case("several photos with weights")
def weighted(webui: WebUI) -> str:
    job = webui.job()
    even = shown(webui, robin(), kim())
    same = [{"image": robin(), "weight": 2}, {"image": kim(), "weight": 2}]
    lean = [{"image": robin(), "weight": 3}, {"image": kim(), "weight": 1}]
    told = same_face(webui, job, (even,), (even | {"images": same},), "equal weights and none")
    return f"{told}; {different_face(webui, job, (even,), (even | {'images': lean},), 'three to one')}"


@SECTION.case("one photo for each picture")
def cycle(webui: WebUI) -> str:
    """Three people in turn over two batches: each picture is the one that its person makes alone."""
    return _in_turn(webui, "cycle", lambda number: number % 3)


@SECTION.case("one photo for each picture, by its seed")
def by_seed(webui: WebUI) -> str:
    seed = webui.job().fields["seed"]
    return _in_turn(webui, "random", lambda number: turn_of(Picture(number, seed + number), 3, "random"))


def _in_turn(webui: WebUI, mode: str, turn: Callable[[int], int]) -> str:
    job = webui.job(n_iter=2)
    plain = Plain(webui, job)
    people = vectors(3, seed=11)
    drawn = webui.draw(job, webui.unit(embeddings=people, seed_mode=mode))
    ensure_told(drawn)
    if len(set(drawn.infotexts)) != 4:
        raise Failed("the texts of the pictures do not name each its own person")
    told, effect = plain.effect_of(drawn)
    alone = [webui.draw(job.alone(k), webui.unit(embeddings=[people[turn(k)]])).pictures[0] for k in range(4)]
    bare = [webui.draw(job.alone(k)).pictures[0] for k in range(4)]
    near = ensure_near(
        differences(drawn.pictures, alone), differences(plain.drawn.pictures, bare), "each person alone", effect
    )
    plain.expect_again()
    return f"{told}; {near}"


@SECTION.case("saved")
def saved(webui: WebUI) -> str:
    unit = {"identity": webui.saved_person(), "weight": 1.0, "start": 0.0, "lora": 0.0}
    told = check_row(webui, webui.job(), unit=unit)
    same = same_face(webui, webui.job(), (unit,), (webui.unit(),), "saved and from the vector it was made of")
    return f"{told}; {same}"


@SECTION.case("remembered by the digest in the picture's text")
def remembered(webui: WebUI) -> str:
    """What pasting a picture's text sends: the key of a person instead of photos."""
    job = webui.job()
    plain = Plain(webui, job)
    unit = shown(webui, robin())
    drawn = webui.draw(job, unit)
    line = infotext_field(drawn.text, SCRIPT) or ""
    key = next((part.partition(": ")[2] for part in line.split(", ") if part.startswith("key: ")), "")
    if not key:
        raise Failed(f"the text names no key: {line!r}")
    again = webui.draw(job, webui.unit(identity=f"digest:{key}"))
    told = ensure_same(drawn.pictures, again.pictures, "from the photo and by its digest")
    plain.expect_again()
    return told


@SECTION.case("two at once, in either order")
def two_units(webui: WebUI) -> str:
    job = webui.job()
    plain = Plain(webui, job)
    one, other = webui.unit(), webui.unit(embeddings=vectors(1, seed=9))
    first, second = webui.draw(job, one, other), webui.draw(job, other, one)
    ensure_told(first)
    if infotext_field(first.text, f"{SCRIPT} 2") is None:
        raise Failed(f"the text has no field {SCRIPT} 2: {first.text[-300:]!r}")
    told, effect = plain.effect_of(first)
    apart = differences(first.pictures, second.pictures)
    near = ensure_near(apart, [0.0] * len(apart), "in the other order", effect)
    alone = different_face(webui, job, (one, other), (one,), "the second person")
    plain.expect_again()
    return "; ".join((told, near, alone))


@SECTION.case("two in one list")
def one_list(webui: WebUI) -> str:
    """Units side by side in ``args``, or in one list there."""
    pair = (webui.unit(), webui.unit(embeddings=vectors(1, seed=9)))
    return same_face(webui, webui.job(), pair, (list(pair),), "side by side and in a list")


@SECTION.case("two at once, one of them off")
def one_of_two(webui: WebUI) -> str:
    pair = (webui.unit(), webui.unit(embeddings=vectors(1, seed=9), enabled=False))
    return same_face(webui, webui.job(), pair, pair[:1], "with one switched off and without it")


@SECTION.case("by an adapter chosen automatically")
def automatic(webui: WebUI) -> str:
    """Any adapter in the folder may be the one; the picture's text names it."""
    job = webui.job()
    plain = Plain(webui, job)
    drawn = webui.draw(job, shown(webui, robin(), adapter="auto"))
    line = infotext_field(drawn.text, SCRIPT) or ""
    chosen = next((part for part in line.split(", ") if part.startswith("adapter: ")), "")
    if not chosen:
        raise Failed(f"the text names no adapter: {line!r}; remark: {infotext_field(drawn.text, NOTE)!r}")
    plain.expect_again()
    return f"{chosen}; changes {max(differences(drawn.pictures, plain.drawn.pictures)):.2f}"


@SECTION.case("FaceID Plus v2", adapter("faceid-plusv2"), optional=True)
def plus(webui: WebUI) -> str:
    unit = shown(webui, robin(), kind="faceid-plusv2")
    told = check_row(webui, webui.job(), unit=unit)
    return f"{told}; {different_face(webui, webui.job(), (unit,), (unit | {'structure': 0.0},), 'structure 0')}"


@SECTION.case("FaceID Portrait", adapter("portrait"))
def portrait(webui: WebUI) -> str:
    return check_row(webui, webui.job(), unit=webui.unit("portrait", embeddings=vectors(2)))


@SECTION.case("the picture's text names what made it, and no path")
def text(webui: WebUI) -> str:
    unit = shown(webui, robin(), weight=0.7, start=0.1, end=0.9)
    drawn = webui.draw(webui.job(), unit)
    line = infotext_field(drawn.text, SCRIPT) or ""
    wanted = (unit["adapter"], "weight: 0.7", "start: 0.1", "end: 0.9", f"pack: {PACK}", "photos: ", "version: ")
    missing = [words for words in wanted if words not in line]
    if missing or "/" in line or "\\" in line:
        raise Failed(f"the text is {line!r}; it lacks {missing} or holds a path")
    return line
