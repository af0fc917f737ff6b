"""Writing files so that nothing of the person's is lost: whole or not at all, and never over another file unasked."""

from __future__ import annotations

import os
import uuid
from itertools import count
from pathlib import Path

from .errors import FaceIDError


def write_file(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False) -> Path:
    """Write ``data`` under a name that is free or, with ``overwrite``, in place of the file that has it. Returns the
    path.

    The bytes go to a temporary file in the same folder, which gets the name in one step when it is complete. Raises
    FaceIDError when the folder is missing, or when the name is taken and ``overwrite`` is False.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FaceIDError(f"{target.name} cannot be written: there is no folder {target.parent}. Create it first.")
    if target.exists() and not overwrite:
        raise FaceIDError(f"{target} exists already and is left as it is. Choose another name or move it away.")
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def free_name(wanted: Path) -> Path:
    """``wanted``, or the first of wanted-2, wanted-3 … that no file has."""
    numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in count(2))
    return wanted if not wanted.exists() else next(name for name in numbered if not name.exists())
