"""What a person asks for: one ``Unit`` for each person or adapter in the picture, and the table of its fields.

Panel, infotext and API are views of ``FIELDS``; a job is a list of units. A unit is built from plain values, wherever
they come from, by ``read_unit``; nothing else decides what a value may be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import BadRequest
from ..library.photos import PhotoData
from .fields import (
    LARGEST,
    MANY,
    Field,
    Range,
    Vectors,
    read_choice,
    read_face,
    read_factors,
    read_flag,
    read_mask,
    read_number,
    read_optional_number,
    read_photos,
    read_text,
    read_vectors,
    short,
)

AUTO = "auto"
TOGETHER = "together"
DIGEST = "digest:"  # before the key of a person in Unit.identity
OnFail = Literal["stop", "warn"]


@dataclass(frozen=True)
class Unit:
    """One person, or one adapter, at work in a picture. The defaults are the panel's: the preset "Balanced".

    images: photos of the person; embeddings: their ArcFace vectors (k, 512) instead; identity: the name of a saved
    person, or ``digest:…`` for one that was made from photos before. Exactly one of the three says who it is.
    adapter, variant, pack: "auto", or the file name of an adapter, the key of a variant (for a renamed file), the
    folder name of a face pack.
    weight: factor on the image branch (the official scale); 0 switches the unit off, its LoRA included. hires_weight:
    the same for the second pass of hires fix, None for the same as ``weight``. structure: share of pose and light from
    the photo, FaceID Plus v2 only. lora: strength of the LoRA the adapter was trained with. start, end: fractions of
    each sampling pass between which it acts, both included.
    layers: factors by attention in the order of execution (16 for SD1.5, 11 for SDXL), None for 1 everywhere.
    combine: several photos as "mean" or "concat", "auto" as the adapter was trained. face: which face of a photo is
    meant: "largest", "leftmost", its number as text (largest first), "like:NAME" for the one most like a saved person,
    or "box:x0,y0,x1,y1" in pixels where no face is found (a drawn one). seed_mode: the photos "together" show one
    person; "cycle" takes the next photo for each picture of a job, "random" one by the picture's seed.
    mask: a picture, white where the unit acts. on_fail: stop the job, or warn and make the picture without the face.
    """

    enabled: bool = True
    images: tuple[PhotoData, ...] = ()
    embeddings: Vectors | None = None
    identity: str = ""
    adapter: str = AUTO
    variant: str = AUTO
    pack: str = AUTO
    weight: float = 0.8
    structure: float = 1.0
    lora: float = 0.65
    start: float = 0.2
    end: float = 1.0
    hires_weight: float | None = None
    layers: tuple[float, ...] | None = None
    combine: str = AUTO
    face: str = LARGEST
    seed_mode: str = TOGETHER
    mask: PhotoData | None = None
    on_fail: OnFail = "stop"

    def by_photo(self) -> list[Unit]:
        """One unit for each photo or vector where each makes a person of its own, otherwise this one alone."""
        if self.seed_mode == TOGETHER:
            return [self]
        if self.images:
            return [
                dataclasses.replace(self, images=(dataclasses.replace(photo, weight=1.0),), seed_mode=TOGETHER)
                for photo in self.images
            ]
        return [
            dataclasses.replace(self, embeddings=(vector,), seed_mode=TOGETHER) for vector in self.embeddings or ()
        ] or [self]

    @property
    def is_off(self) -> bool:
        """True when the unit changes no picture."""
        return not self.enabled or not (self.weight or self.hires_weight)

    def weight_in(self, hires_pass: bool) -> float:
        """The weight of a sampling pass."""
        return self.weight if not hires_pass or self.hires_weight is None else self.hires_weight


def ensure_someone(unit: Unit) -> None:
    """Raises BadRequest unless a unit says in exactly one way who is to be shown.

    Photos beside ``digest:…`` are the one exception: they are the photos that a pasted picture asked for.
    """
    saved = unit.identity if unit.identity and not unit.identity.startswith(DIGEST) else ""
    vectors = unit.embeddings is not None
    if saved and (unit.images or vectors):
        also = "photos" if unit.images else "face vectors"
        raise BadRequest(f"FaceID was given the saved person {saved} and {also} as well. Remove one of the two.")
    if unit.images and vectors:
        raise BadRequest("FaceID was given photos and face vectors as well. Send one of the two.")
    if not (unit.identity.removeprefix(DIGEST) or unit.images or vectors):
        raise BadRequest("FaceID is on and has nobody to show. Add a photo, choose a saved person, or untick FaceID.")


@dataclass(frozen=True)
class Preset:
    """Weight, window and LoRA that go together; ``source`` says where the numbers come from."""

    name: str
    weight: float
    start: float
    end: float
    lora: float
    source: str


PRESETS = (
    Preset("Subtle", 0.5, 0.4, 0.9, 0.65, "a late, weak push: the prompt decides composition and style"),
    Preset("Balanced", 0.8, 0.2, 1.0, 0.65, "the first fifth of the steps belongs to the prompt"),
    Preset("Strong", 1.2, 0.2, 1.0, 0.65, "above the trained strength; likeness before variety"),
    Preset("Official", 1.0, 0.0, 1.0, 1.0, "as the adapters were trained and published (scale 1, LoRA 1, all steps)"),
)


WEIGHTS = Range(0.0, 3.0, 0.05)  # peers offer 0 to 3 (ComfyUI_IPAdapter_plus, weight of IPAdapterFaceID)
LORA_STRENGTHS = Range(0.0, 2.0, 0.05)
PARTS = Range(0.0, 1.0, 0.01)
_PANEL, _INFO, _BOTH = frozenset({"panel"}), frozenset({"infotext"}), frozenset({"panel", "infotext"})

_TABLE = (
    Field("enabled", "FaceID", read_flag, _PANEL),
    Field("images", "Photos", read_photos, _BOTH),
    Field("embeddings", "Face vectors", read_vectors, _INFO),
    Field("identity", "Person", read_text, _BOTH),
    Field("adapter", "Adapter", read_text, _BOTH),
    Field("variant", "Variant", read_text, _INFO),
    Field("pack", "Face pack", read_text, _INFO),
    Field("weight", "Weight", read_number, _BOTH, range=WEIGHTS),
    Field("structure", "Likeness of pose and light", read_number, _BOTH, range=Range(0.0, 2.0, 0.05)),
    Field("lora", "LoRA strength", read_number, _BOTH, range=LORA_STRENGTHS),
    Field("start", "Start", read_number, _BOTH, range=PARTS),
    Field("end", "End", read_number, _BOTH, range=PARTS),
    Field("hires_weight", "Weight in hires fix", read_optional_number, _BOTH, range=WEIGHTS),
    Field("layers", "Layer factors", read_factors, _INFO),
    Field("combine", "Several photos", read_choice, _INFO, choices=(AUTO, "mean", "concat")),
    Field("face", "Face in the photo", read_face, _BOTH),
    Field("seed_mode", "Several photos are", read_choice, _PANEL, choices=(TOGETHER, "cycle", "random")),
    Field("mask", "Region mask", read_mask, _INFO),
    Field("on_fail", "If the face cannot be applied", read_choice, _PANEL, choices=("stop", "warn")),
)
_DEFAULTS = {item.name: item.default for item in dataclasses.fields(Unit)}
FIELDS: tuple[Field, ...] = tuple(dataclasses.replace(item, default=_DEFAULTS[item.name]) for item in _TABLE)
_BY_NAME = {item.name: item for item in FIELDS}


def field(name: str) -> Field:
    """The field of this name. Raises KeyError."""
    return _BY_NAME[name]


def read_unit(values: Mapping[str, Any]) -> Unit:
    """A unit from plain values; what is not named has its default. Raises BadRequest or BadPhoto with the sentence."""
    unknown = sorted(set(values) - set(_BY_NAME))
    if unknown:
        raise BadRequest(f"FaceID does not know the field {unknown[0]!r}; it knows {', '.join(_BY_NAME)}.")
    unit = Unit(**{name: _BY_NAME[name].read(_BY_NAME[name], value) for name, value in values.items()})
    if unit.enabled and unit.start > unit.end:
        raise BadRequest(f"Start is {unit.start:g} and End is {unit.end:g}; expected Start at or before End.")
    return unit


def read_units(values: Sequence[Any]) -> list[Unit]:
    """Units as the API takes them: objects side by side, or one list of them. Raises BadRequest or BadPhoto."""
    flat: list[Any] = []
    for value in values:
        flat.extend(cast("list[Any]", value) if isinstance(value, list) else [value])
    wrong = [value for value in flat if not isinstance(value, Mapping)]
    if wrong:
        raise BadRequest(f"A FaceID unit is an object with fields such as images and weight; found {short(wrong[0])}.")
    if len(flat) > MANY:
        raise BadRequest(f"{len(flat)} FaceID units were sent; expected at most {MANY}.")
    return [read_unit(value) for value in flat]
