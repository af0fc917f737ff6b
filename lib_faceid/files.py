"""Digests of files, and writing them so that nothing of the person's is lost: whole or not at all, and never over
another file unasked.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import uuid
from contextlib import suppress
from itertools import count
from pathlib import Path

from .errors import FaceIDError

# What a process leaves behind that was killed while it wrote.
UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")
UNFINISHED_AGE = 60.0  # seconds; every write renews the time of the file, so one this old is nobody's any more
_CHUNK = 1 << 20  # bytes of a file in memory at a time


def sha256_of(path: Path) -> str:
    """Hex sha256 of the file's bytes, read now. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_file(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False, durable: bool = False) -> Path:
    """Write ``data`` under a name that is free or, with ``overwrite``, in place of the file that has it. Returns the
    path.

    The bytes go to a temporary file in the same folder, which gets the name in one step when it is complete;
    ``durable`` waits until the disk has them, so that a power cut leaves the old file or the new one as well. Raises
    FaceIDError when the folder is missing, or when the name is taken and ``overwrite`` is False.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FaceIDError(f"{target.name} cannot be written: there is no folder {target.parent}. Create it first.")
    if target.exists() and not overwrite:
        raise _taken(target)
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _give_free_name(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def free_name(wanted: Path) -> Path:
    """``wanted``, or the first of wanted-2, wanted-3 … that no file has."""
    numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in count(2))
    return wanted if not wanted.exists() else next(name for name in numbered if not name.exists())


def sweep(folder: Path) -> int:
    """Remove what killed writes left in the folder; returns how many. Only files of our own pattern, and only old ones:
    a young one may belong to a write that is going on.
    """
    swept = 0
    with suppress(OSError):
        for path in [item for item in folder.iterdir() if UNFINISHED.fullmatch(item.name)]:
            with suppress(OSError):
                state = path.lstat()
                if stat.S_ISREG(state.st_mode) and time.time() - state.st_mtime > UNFINISHED_AGE:
                    path.unlink()
                    swept += 1
    return swept


def _give_free_name(temporary: Path, target: Path) -> None:
    """A link fails where a replacement would swallow a file that another process wrote just now."""
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a file system without links, as on memory cards and some network shares
        if target.exists():
            raise _taken(target) from None
        temporary.replace(target)


def _taken(target: Path) -> FaceIDError:
    return FaceIDError(f"{target} exists already and is left as it is. Choose another name or move it away.")
