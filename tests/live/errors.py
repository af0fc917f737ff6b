"""Faults a person meets. Each is told in one sentence: with "stop" as answer 422, with "warn" in the picture's text.

Under "warn" the picture is the plain one, bit for bit, and after either the next plain picture is as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .case import Section, checkpoint
from .checks import NOTE, Plain, ensure_told
from .client import infotext_field
from .compare import Failed, Skipped, differences, ensure_same
from .fixtures import BASES, PACK, adapter_name, person_name, vectors
from .job import SCRIPT
from .photos import bomb, cut_short, no_image, nobody, robin
from .webui import WebUI

SECTION = Section("errors")
_PATH = re.compile(r"(?<![\w.~:/-])/(?:[\w.-]+/)+|\b[A-Za-z]:\\")
_LONGEST = 600  # characters of a sentence that is still read


@dataclass(frozen=True)
class Fault:
    """``unit``: what differs from a good unit. ``words``: what the sentence must name."""

    name: str
    unit: Callable[[WebUI], dict[str, Any]]
    words: tuple[str, ...]

    def __call__(self, webui: WebUI) -> str:
        """Try it under "stop" and under "warn"."""
        return check_fault(webui, webui.unit() | self.unit(webui), self.words)


def check_fault(webui: WebUI, unit: dict[str, Any], words: Sequence[str]) -> str:
    """Returns the sentence. Raises Failed."""
    job = webui.job()
    plain = Plain(webui, job)
    sentence = webui.refusal(job, unit | {"on_fail": "stop"})
    check_sentence(sentence, words)
    plain.expect_again()
    drawn = webui.draw(job, unit | {"on_fail": "warn"})
    plain.expect(drawn, "the picture under warn")
    for text in drawn.infotexts:
        check_sentence(infotext_field(text, NOTE) or "", words)
        if infotext_field(text, SCRIPT) is not None:
            raise Failed(f"the text of a picture without the face has a field {SCRIPT}")
    plain.expect_again()
    return sentence


def check_sentence(sentence: str, words: Sequence[str]) -> None:
    """Raises Failed unless this is a sentence for people that names what it must."""
    missing = [word for word in words if word.lower() not in sentence.lower()]
    problems = [
        *(f"does not say {word!r}" for word in missing),
        *(["does not end with a full stop"] if not sentence.endswith(".") else []),
        *(["is a traceback"] if "Traceback" in sentence or 'File "' in sentence else []),
        *(["holds a path"] if _PATH.search(sentence) else []),
        *([f"has {len(sentence)} characters"] if len(sentence) > _LONGEST else []),
    ]
    if problems:
        raise Failed(f"the sentence {sentence!r} {' and '.join(problems)}")


def other_base(webui: WebUI) -> str:
    """The base the loaded checkpoint is not."""
    return next(base for base in BASES if base != webui.fit().base)


def _photos(*photos: Callable[[], Any], **fields: Any) -> Callable[[WebUI], dict[str, Any]]:
    return lambda webui: {"images": [photo() for photo in photos], "embeddings": None, "pack": PACK, **fields}


def _fields(**fields: Any) -> Callable[[WebUI], dict[str, Any]]:
    return lambda webui: fields


FAULTS = (
    Fault("a photo without a face", _photos(nobody), ("Photo 1", "face")),
    Fault("the second photo without a face", _photos(robin, nobody), ("Photo 2", "face")),
    Fault("bytes that are no image", _photos(no_image), ("Photo 1",)),
    Fault("half of an image", _photos(cut_short), ("Photo 1",)),
    Fault("an image of 20000x20000 pixels in 50 KB", _photos(bomb), ("Photo 1", "megapixels")),
    Fault("text that is not base64", _photos(lambda: "§§§"), ("Photo 1", "base64")),
    Fault("an address", _photos(lambda: "https://example.org/a.png"), ("Photo 1", "address")),
    Fault("a path in place of a photo", _photos(lambda: "../config.json"), ("Photo 1",)),
    Fault("no photo at all", _fields(embeddings=None), ("photo",)),
    Fault("photos and vectors", lambda webui: {"images": [robin()]}, ("photos", "vectors")),
    Fault("65 photos", lambda webui: {"images": [robin()] * 65, "embeddings": None}, ("65", "64")),
    Fault("an unknown adapter", _fields(adapter="no-such-adapter.bin"), ("no-such-adapter.bin",)),
    Fault("a path as adapter", _fields(adapter="../config.json"), ("config.json",)),
    Fault("an unknown variant", _fields(variant="no-such-variant"), ("no-such-variant",)),
    Fault(
        "an adapter for another base",
        lambda webui: {"adapter": adapter_name("faceid", other_base(webui), narrow=webui.fit().narrow)},
        ("faceid-live-faceid_", "checkpoint"),
    ),
    Fault("an unknown saved person", _fields(embeddings=None, identity="no-such-person"), ("no-such-person",)),
    Fault("a path as saved person", _fields(embeddings=None, identity="../../config"), ("name",)),
    Fault("a forgotten digest", _fields(embeddings=None, identity="digest:0123456789abcdef"), ("photos",)),
    Fault(
        "a saved person of another base",
        lambda webui: {
            "embeddings": None,
            "identity": person_name(other_base(webui), narrow=webui.fit().narrow),
        },
        ("checkpoint",),
    ),
    Fault("an unknown face pack", _photos(robin, pack="no-such-pack"), ("no-such-pack",)),
    Fault("a path as face pack", _photos(robin, pack="../../ip-adapter"), ("face pack",)),
    Fault("an unknown field", _fields(wieght=1.0), ("wieght",)),
    Fault("a word for a number", _fields(weight="much"), ("weight", "number")),
    Fault("true for a number", _fields(weight=True), ("weight", "number")),
    Fault("a number out of range", _fields(weight=5), ("weight", "5", "3")),
    Fault("a number for a name", _fields(adapter=7), ("adapter",)),
    Fault("numbers for photos", _fields(images=[7], embeddings=None), ("photo",)),
    Fault("vectors that are too short", _fields(embeddings=[[0.5] * 511]), ("512",)),
    Fault("words for vectors", _fields(embeddings=[["a"] * 512]), ("512",)),
    Fault("an unknown way to combine", _fields(combine="sum"), ("combine", "concat")),
    Fault("start after end", _fields(start=0.8, end=0.2), ("start", "end")),
    Fault("three layer factors", _fields(layers=[1, 2, 3]), ("3", "layer")),
    Fault("a mask that is no image", lambda webui: {"mask": no_image()}, ("mask",)),
)
for _fault in FAULTS:
    SECTION.add(_fault.name, _fault)


@SECTION.case("FaceID Plus v2 with vectors alone")
def plus_without_photo(webui: WebUI) -> str:
    kind = "faceid-plusv2"
    if kind not in webui.adapters():
        raise Failed("the fixtures have no FaceID Plus v2 adapter for this checkpoint")
    return check_fault(webui, webui.unit(kind, embeddings=vectors()), ("photo",))


@SECTION.case("an adapter of other widths", optional=True)
def other_widths(webui: WebUI) -> str:
    """A small fixture on a true checkpoint, or the other way round; both sets of fixtures have to be there."""
    fit = webui.fit()
    unit = webui.unit(adapter=adapter_name("faceid", fit.base, narrow=not fit.narrow))
    if "no adapter" in webui.refusal(webui.job(), unit):
        raise Skipped("only one of the two sets of fixtures is there")
    return check_fault(webui, unit, (unit["adapter"],))


@SECTION.case("an unknown on_fail")
def unknown_on_fail(webui: WebUI) -> str:
    """Neither "stop" nor "warn" is asked for, so the answer is a refusal."""
    plain = Plain(webui, webui.job())
    sentence = webui.refusal(plain.job, webui.unit(on_fail="perhaps"))
    check_sentence(sentence, ("on_fail", "perhaps"))
    plain.expect_again()
    return sentence


@SECTION.case("a unit that is no object")
def no_object(webui: WebUI) -> str:
    plain = Plain(webui, webui.job())
    sentence = webui.refusal(plain.job, [webui.unit(), 7])
    check_sentence(sentence, ("object",))
    plain.expect_again()
    return sentence


@SECTION.case("a broken unit that is off")
def broken_and_off(webui: WebUI) -> str:
    """Nobody looks for what a unit would need that does nothing."""
    job = webui.job()
    plain = Plain(webui, job)
    plain.expect_off(webui.unit(adapter="no-such-adapter.bin"))
    plain.expect_again()
    return "same bits and text as plain"


@SECTION.case("one of two units, under warn")
def one_of_two(webui: WebUI) -> str:
    """The other person is in the picture as if alone, and the text tells of the missing one."""
    job = webui.job()
    plain = Plain(webui, job)
    good, bad = webui.unit(on_fail="warn"), webui.unit(adapter="no-such-adapter.bin", on_fail="warn")
    drawn, alone = webui.draw(job, good, bad), webui.draw(job, good)
    ensure_told(drawn, "no-such-adapter.bin")
    told = ensure_same(drawn.pictures, alone.pictures, "beside a missing person and alone")
    plain.expect_again()
    return f"{told}; changes {max(differences(drawn.pictures, plain.drawn.pictures)):.2f}"


@SECTION.case("one of two units, under stop")
def one_of_two_stops(webui: WebUI) -> str:
    plain = Plain(webui, webui.job())
    sentence = webui.refusal(plain.job, webui.unit(), webui.unit(adapter="no-such-adapter.bin"))
    check_sentence(sentence, ("no-such-adapter.bin",))
    plain.expect_again()
    return sentence


@SECTION.case("in hires fix, img2img and a batch count")
def everywhere(webui: WebUI) -> str:
    """A fault stops each kind of job, and none of them leaves anything."""
    bad = webui.unit(adapter="no-such-adapter.bin")
    for job in (webui.job().hires(), webui.job().img2img(), webui.job(n_iter=2)):
        plain = Plain(webui, job)
        check_sentence(webui.refusal(job, bad), ("no-such-adapter.bin",))
        plain.expect(webui.draw(job, bad | {"on_fail": "warn"}), "the picture under warn")
        plain.expect_again()
    return "three jobs refused, plain under warn"


@SECTION.case("a checkpoint of SD2", checkpoint("sd2"), optional=True)
def sd2(webui: WebUI) -> str:
    unit = webui.unit()
    with webui.loaded("sd2"):
        return check_fault(webui, unit, ("checkpoint", "SD1.5", "SDXL"))
