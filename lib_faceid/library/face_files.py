"""Face files of other extensions: the face vector in them, and nothing else, since nothing else is comparable.

ReActor (``save_face_model`` in scripts/reactor_helpers.py) and FaceSwapLab (``save_face`` in face_checkpoints.py) both
write a .safetensors of what insightface gives: ``embedding`` (512,), not divided by its length, ``gender`` (1: male)
and ``age``; ReActor adds ``bbox``, ``kps``, ``det_score``, ``pose`` and landmarks of the photo. A JSON file is an
object with these names, or a bare list of 512 numbers. FaceSwapLab's older .pkl files are programs and never opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from ..errors import BadIdentity
from .parts import VECTOR_WIDTH

MAX_BYTES = 1 << 20  # ReActor's files have 5 KB, a JSON of 512 numbers 12 KB
_EXPECTED = "Choose a face file of ReActor or FaceSwapLab (.safetensors), or a .json with an embedding of 512 numbers."
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ipadpt")


@dataclass(frozen=True, eq=False)
class FaceFile:
    """``vector`` (1, 512) float32 as the recogniser gave it; ``note`` is what else the file says, for people."""

    vector: NDArray[np.float32]
    note: str


def read_face_file(path: str | os.PathLike[str]) -> FaceFile:
    """The face in a file. Raises BadIdentity when it is missing, too large, unsafe, damaged or something else."""
    file = Path(path)
    data = _read(file)
    if file.suffix.lower() in _PICKLED or _is_pickled(data):
        convert = "Let FaceSwapLab load it once, which writes a .safetensors beside it. "
        raise BadIdentity(
            f"{file.name} is a pickled file, in which code can hide, so it was not opened. "
            f"{convert if file.suffix.lower() == '.pkl' else ''}{_EXPECTED}"
        )
    values = _from_json(file, data) if file.suffix.lower() == ".json" else _from_safetensors(file, data)
    if "embedding" not in values:
        found = ", ".join(sorted(map(str, values)))[:120] or "nothing"
        raise BadIdentity(f"{file.name} holds no face vector ('embedding'); found {found}. {_EXPECTED}")
    return FaceFile(_vector(file, values["embedding"]), _note(values))


def _is_pickled(data: bytes) -> bool:
    """By the first bytes: PROTO and its version, or the zip container that PyTorch puts a pickle into. The header of a
    .safetensors may be 0x0280 bytes long, which looks the same; it goes on with a brace.
    """
    return (data[:1] == b"\x80" and data[1:2] <= b"\5" and data[8:9] != b"{") or data[:4] == b"PK\3\4"


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadIdentity(f"There is no face file {file}. Check the name.") from error
    except OSError as error:
        raise BadIdentity(f"{file.name} cannot be read ({error.strerror or error}). Choose another file.") from error
    if not data:
        raise BadIdentity(f"{file.name} is empty: it has 0 bytes. {_EXPECTED}")
    if len(data) > MAX_BYTES:
        raise BadIdentity(f"{file.name} has more than {MAX_BYTES >> 20} MB, which no face file has. {_EXPECTED}")
    return data


def _from_safetensors(file: Path, data: bytes) -> Mapping[str, Any]:
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BadIdentity(f"{file.name} is not a readable .safetensors file ({error}). {_EXPECTED}") from error


def _from_json(file: Path, data: bytes) -> Mapping[str, Any]:
    try:
        content: object = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadIdentity(f"{file.name} is not readable as JSON ({error}). {_EXPECTED}") from error
    if isinstance(content, dict):
        return cast("dict[str, Any]", content)
    return {"embedding": content}


def _vector(file: Path, found: Any) -> NDArray[np.float32]:
    try:
        vector = np.asarray(found)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadIdentity(f"{file.name} has a face vector that is no list of numbers ({error}). {_EXPECTED}") from error
    if vector.dtype.kind not in "fiu" or vector.shape not in ((VECTOR_WIDTH,), (1, VECTOR_WIDTH)):
        raise BadIdentity(
            f"{file.name} has a face vector of {vector.dtype} {vector.shape[:4]}, expected {VECTOR_WIDTH} numbers. "
            f"{_EXPECTED}"
        )
    with np.errstate(over="ignore"):
        plain = np.array(vector, np.float32, ndmin=2)
    if not np.isfinite(plain).all() or not plain.any():
        raise BadIdentity(
            f"{file.name} has a face vector of zeros or of values that are no numbers, which no face gives. Make the "
            "file again from the photos."
        )
    return plain


def _note(values: Mapping[str, Any]) -> str:
    """What the file's maker estimated of the person, and who that was: only ReActor keeps the points of the face."""
    maker = "ReActor" if "kps" in values else "FaceSwapLab" if "gender" in values else "another program"
    gender, age = _whole(values.get("gender")), _whole(values.get("age"))
    estimates = [{0: "female", 1: "male"}.get(gender, "") if gender is not None else "", f"age {age}" if age else ""]
    said = ", ".join(estimate for estimate in estimates if estimate)
    return f"Imported from a face file of {maker}{f' (its estimate: {said})' if said else ''}."


def _whole(found: Any) -> int | None:
    """A number that stands alone, whatever shape it has; None for anything else."""
    array = np.asarray(found) if isinstance(found, (int, float, np.ndarray)) else np.empty(0)
    return int(array.item()) if array.size == 1 and array.dtype.kind in "fiu" and np.isfinite(array.item()) else None
