"""What made a picture, as one line of its text, and back again: names and digests, never a photo and never a path.

A value is ``key: value`` pairs joined by commas; commas, colons and quotes inside a value are written as in addresses
(%2C). The first unit is under "FaceID", the second under "FaceID 2"; remarks and failures are under "FaceID note".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from .. import __version__
from ..library.photos import PhotoData
from .fields import LARGEST
from .people import Person
from .request import AUTO, DIGEST, FIELDS, Unit

LABEL = "FaceID"
NOTE = "FaceID note"
_DIGITS = 12  # of a sha256, as the WebUIs shorten theirs
_BETWEEN = "+"  # between the digests of several photos
_FACTORS = "/"  # between factors, which may have a plus in their exponent
_ESCAPED = '%,:"\\\n'


def label(number: int) -> str:
    """The name of a unit's line; numbers begin at 1."""
    return LABEL if number == 1 else f"{LABEL} {number}"


def write(unit: Unit, person: Person) -> str:
    """The line of a unit that acted. Fields that had no part in the picture are left out."""
    origin = person.identity.origin
    mask = unit.mask.digest[:_DIGITS] if unit.mask else None
    layers = None if unit.layers is None else _FACTORS.join(_number(factor) for factor in unit.layers)
    pairs: dict[str, Any] = {
        "person": person.name or None,
        "key": None if person.name else person.key,
        "photos": _BETWEEN.join(digest[:_DIGITS] for digest in person.photos) or None,
        "adapter": f"{origin.adapter_name} {origin.adapter_sha256[:_DIGITS]}",
        "variant": origin.variant,
        "weight": _number(unit.weight),
        "hires weight": None if unit.hires_weight is None else _number(unit.hires_weight),
        "structure": _number(unit.structure) if person.identity.has_structure else None,
        "lora": None if (lora := person.lora(unit)) is None else _number(lora),
        "start": _number(unit.start),
        "end": _number(unit.end),
        "pack": None if unit.pack == AUTO else unit.pack,
        "combine": None if unit.combine == AUTO else unit.combine,
        "face": None if unit.face == LARGEST or not unit.images else unit.face,
        "photo weights": _of_photos(unit, lambda photo: "" if photo.weight == 1 else _number(photo.weight)),
        "photo faces": _of_photos(unit, lambda photo: photo.face),
        "layers": layers,
        "mask": mask,
        "version": __version__,
    }
    return ", ".join(f"{key}: {_escape(str(value))}" for key, value in pairs.items() if value is not None)


def _of_photos(unit: Unit, value: Callable[[PhotoData], str]) -> str | None:
    """What each photo has of its own, in their order, "-" for nothing; None where none has anything."""
    values = [value(photo) for photo in unit.images]
    return _FACTORS.join(each or "-" for each in values) if any(values) else None


def read(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plain values for ``read_unit`` from a picture's text, one for each unit; empty where FaceID had no part.

    What the text does not say has the default of a unit. Photos and masks are not in the text: a person made from
    photos comes back as ``digest:…``. ``adapter_sha256`` (the first digits) is added for those who look the file up.
    """
    units: list[dict[str, Any]] = []
    while isinstance(line := params.get(label(len(units) + 1)), str):
        units.append(_values(_pairs(line)))
    return units


def _values(pairs: Mapping[str, str]) -> dict[str, Any]:
    names = {"hires weight": "hires_weight", "person": "identity"}
    if "key" in pairs:
        pairs = {**pairs, "person": f"{DIGEST}{pairs['key']}"}
    known = {field.name for field in FIELDS if "infotext" in field.where} - {"images", "embeddings", "mask"}
    values: dict[str, Any] = {names.get(key, key): value for key, value in pairs.items()}
    name, _, digest = values.get("adapter", "").rpartition(" ")
    if "layers" in values:
        values["layers"] = values["layers"].split(_FACTORS)
    return {
        **{key: value for key, value in values.items() if key in known},
        "adapter": name or digest or AUTO,
        "adapter_sha256": digest if name else "",
    }


def _pairs(line: str) -> dict[str, str]:
    found = (part.partition(":") for part in line.split(","))
    return {key.strip(): unquote(value.strip()) for key, colon, value in found if colon}


def clear(info: dict[str, Any]) -> None:
    """Take our lines out of a table of infotext: a host may hand the table of one job to the next (X/Y/Z plot)."""
    for key in [key for key in info if key in (LABEL, NOTE) or re.fullmatch(rf"{LABEL} \d+", key)]:
        del info[key]


def join_notes(notes: Sequence[str]) -> str:
    """Sentences as one value, each once."""
    return " ".join(dict.fromkeys(notes))


def _number(value: float) -> str:
    """As short as it can be and still the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _escape(value: str) -> str:
    return "".join(f"%{ord(letter):02X}" if letter in _ESCAPED else letter for letter in value)
