"""Fields of a request: what people call each, and how a plain value becomes it or is refused with a sentence.

Values come from a panel, from JSON or from the text of a picture; the same functions read them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ..errors import BadRequest
from ..library.photos import PhotoData

LARGEST = "largest"
_FACES = f'"{LARGEST}", "leftmost", a number from 1, "like:" and a saved person, or "box:" and four numbers'
Vectors = tuple[tuple[float, ...], ...]
VECTOR_WIDTH = 512  # of an ArcFace vector (insightface, w600k_r50 and its peers)
MANY = 64  # photos, vectors or units in one request; more is a mistake
_PICTURES = "pictures as base64"
_PHOTOS = 'pictures as base64, alone or as {"image": base64, "weight": number, "face": choice}'
_MOST_DIGITS = 4  # of the number of a face
_MOST_LAYERS = 16  # attentions of SD1.5; SDXL has 11
_VECTORS = f"face vectors of {VECTOR_WIDTH} numbers"


@dataclass(frozen=True)
class Range:
    """Smallest and largest value, and the step of a slider."""

    low: float
    high: float
    step: float


@dataclass(frozen=True)
class Field:
    """One field of a unit: what people call it, how a plain value becomes it, and whether infotext carries it.

    ``where`` says which views show it beside the API, which has all of them: "panel", "infotext".
    """

    name: str
    label: str
    read: Callable[[Field, Any], Any]
    where: frozenset[str]
    default: Any = None
    range: Range | None = None
    choices: tuple[str, ...] = ()


_SHARES = Range(0.0, 100.0, 0.1)  # weights of photos: only how they compare counts


def read_flag(field: Field, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(field, value, "true or false")


def read_text(field: Field, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 255:  # the longest name a file system allows
        raise _wrong(field, value, "a name")
    return value.strip() or field.default


def read_choice(field: Field, value: Any) -> str:
    if value in field.choices:
        return value
    raise _wrong(field, value, " or ".join(f'"{choice}"' for choice in field.choices))


def read_number(field: Field, value: Any) -> float:
    limits = cast(Range, field.range)
    number = _float(value)
    if number is None or not limits.low <= number <= limits.high:
        raise _wrong(field, value, f"a number from {limits.low:g} to {limits.high:g}")
    return number


def read_optional_number(field: Field, value: Any) -> float | None:
    return None if value is None or value == "" else read_number(field, value)


def read_photos(field: Field, value: Any) -> tuple[PhotoData, ...]:
    items = _items(value)
    several = items if items is not None else [] if value is None else [value]
    if len(several) > MANY:
        raise _wrong(field, f"{len(several)} of them", f"at most {MANY} photos")
    return tuple(_described_photo(field, item, f"Photo {number}") for number, item in enumerate(several, start=1))


def _photo(field: Field, value: Any, label: str, expected: str = _PICTURES) -> PhotoData:
    if isinstance(value, PhotoData):
        return value
    if isinstance(value, str):
        return PhotoData.of_base64(value, label)
    raise _wrong(field, value, expected)


def _described_photo(field: Field, value: Any, label: str) -> PhotoData:
    """A picture, or ``{"image": base64, "weight": 2, "face": "2"}``: with a weight or a face of its own."""
    if not isinstance(value, dict):
        return _photo(field, value, label, _PHOTOS)
    described = cast("dict[str, Any]", value)
    if set(described) - {"image", "weight", "face"} or "image" not in described:
        raise _wrong(field, described, _PHOTOS)
    photo = _photo(field, described["image"], label)
    share = replace(field, label=f"The weight of {label}", range=_SHARES)
    weight = read_number(share, described.get("weight", 1.0))
    chosen = replace(field, label=f"The face in {label}")
    face = read_face(chosen, described["face"]) if "face" in described else ""
    return replace(photo, weight=weight, face=face)


def read_mask(field: Field, value: Any) -> PhotoData | None:
    return None if value is None or value == "" else _photo(field, value, "The region mask")


def read_face(field: Field, value: Any) -> str:
    """A choice as text; numbers, and boxes as lists, are also taken."""
    corners = _floats(value) if _items(value) is not None else None
    text = f"box:{','.join(f'{corner:g}' for corner in corners)}" if corners else str(value).strip()
    if isinstance(value, bool) or not isinstance(value, (str, int, list, tuple)):
        raise _wrong(field, value, _FACES)
    kind, _, rest = text.partition(":")
    if text in ("", LARGEST, "leftmost") or (kind == "like" and rest.strip()):
        return text or LARGEST
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) > 0
    if is_number or (kind == "box" and read_box(rest) is not None):
        return text
    raise _wrong(field, value, _FACES)


def read_box(text: str) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 from "10,20,110,140"; None unless these are four numbers with an area between them."""
    numbers = _floats(text.split(","))
    if numbers is None or len(numbers) != 4 or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def read_vectors(field: Field, value: Any) -> Vectors | None:
    rows = _items(value)
    if rows is None and value is not None:
        raise _wrong(field, value, _VECTORS)
    if not rows:
        return None
    if _items(rows[0]) is None:
        rows = [rows]  # one vector may stand alone
    if len(rows) > MANY:
        raise _wrong(field, f"{len(rows)} of them", f"at most {MANY}")
    return tuple(_vector(field, row) for row in rows)


def _vector(field: Field, row: Any) -> tuple[float, ...]:
    numbers = _floats(row)
    if numbers is None or len(numbers) != VECTOR_WIDTH:
        raise _wrong(field, f"{len(_items(row) or ())} values or something else than numbers", _VECTORS)
    return numbers


def read_factors(field: Field, value: Any) -> tuple[float, ...] | None:
    numbers = _floats([] if value is None else value)
    if numbers is None or len(numbers) > _MOST_LAYERS:
        raise _wrong(field, value, "one number for each attention (16 for SD1.5, 11 for SDXL)")
    return numbers or None


def _items(value: Any) -> list[Any] | None:
    """The items of a list, a tuple or an array; None for anything else."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return list(cast("Sequence[Any]", plain)) if isinstance(plain, (list, tuple)) else None


def _floats(value: Any) -> tuple[float, ...] | None:
    """Finite numbers, or None where one of the items is none."""
    items = _items(value)
    numbers = [None] if items is None else [_float(item) for item in items]
    return None if None in numbers else tuple(cast("list[float]", numbers))


def _float(value: Any) -> float | None:
    """A finite number, or None. True and False are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _wrong(field: Field, value: Any, expected: str) -> BadRequest:
    return BadRequest(f"{field.label} ({field.name}) is {short(value)}; expected {expected}.")


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
