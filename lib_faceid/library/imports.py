"""Photos from a zip file, read in memory with bounds on everything; nothing is ever unpacked to the disk."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import BadPhoto
from .photos import MAX_BYTES, PhotoData, check_header

MAX_PHOTOS = 64  # a likeness gains nothing from more, and each costs a search for faces
MAX_ENTRIES = 10_000
MAX_ZIP = 1 << 30  # bytes; 64 photos of 16 MB
MAX_UNPACKED = 512 << 20  # bytes of all photos together, which are held in memory
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
)

_ENTRY = b"PK\1\2"  # APPNOTE 6.3, section 4.3.12: every line of the directory begins so
_CHUNK = 1 << 20
_ENCRYPTED = 1  # bit of the flags, section 4.4.4
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others a block at a time, however large
_LABEL = 80  # characters
_TOLD = 20  # sentences; nobody reads ten thousand
# What systems add unasked; nobody wants to be told about it.
_UNASKED = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
# Everything that zipfile and zlib raise for damaged files, found by feeding them such.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError,
    OverflowError, IndexError,
)  # fmt: skip


@dataclass(frozen=True)
class ZipPhotos:
    """The photos in the order of the file, and a sentence for each entry that was passed over, the first of them."""

    photos: tuple[PhotoData, ...]
    skipped: tuple[str, ...]


def read_zip(source: str | os.PathLike[str] | bytes, label: str = "") -> ZipPhotos:
    """Photos of a zip file, given as a path or as its bytes; of a name inside only the last part matters.

    Raises BadPhoto when the file is no zip, is damaged, has no photo, too many, or would take too much memory.
    """
    name = label or ("The zip file" if isinstance(source, bytes) else Path(source).name)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            _check_extent(file, name)
            with zipfile.ZipFile(file) as archive:
                return _read_photos(archive, name)
    except BadPhoto:
        raise
    except FileNotFoundError as error:
        raise BadPhoto(f"There is no zip file {source}. Check the name.") from error
    except _DAMAGE as error:
        raise BadPhoto(f"{name} is not a zip file or is damaged ({error}). Pack the photos again.") from error


def _check_extent(file: BinaryIO, name: str) -> None:
    """Count the entries before the library makes an object of each. Raises BadPhoto."""
    size = file.seek(0, io.SEEK_END)
    if size > MAX_ZIP:
        raise BadPhoto(f"{name} has {size >> 20} MB, at most {MAX_ZIP >> 20} are read. Pack fewer photos.")
    file.seek(0)
    count, tail = 0, b""
    while chunk := file.read(_CHUNK):
        count += (tail + chunk).count(_ENTRY)
        tail = chunk[-len(_ENTRY) + 1 :]
        if count > MAX_ENTRIES:
            raise BadPhoto(f"{name} has more than {MAX_ENTRIES:,} entries. Pack the photos of one person alone.")
    file.seek(0)


def _read_photos(archive: zipfile.ZipFile, name: str) -> ZipPhotos:
    skipped: list[str] = []
    wanted: list[zipfile.ZipInfo] = []
    for info in archive.infolist():
        refusal = _refusal(info)
        if refusal is None:
            wanted.append(info)
        elif refusal:
            skipped.append(f"{_label(info)} {refusal}")
    _check_amount(wanted, name)
    photos: list[PhotoData] = []
    for info in wanted:
        try:
            photos.append(_read_photo(archive, info))
        except BadPhoto as error:
            skipped.append(str(error))
    if not photos:
        raise BadPhoto(f"{name} holds no photo that can be read. {_why(skipped)}")
    more = len(skipped) - _TOLD
    return ZipPhotos(tuple(photos), (*skipped[:_TOLD], *([f"{more} more were left out."] if more > 0 else [])))


def _why(skipped: Sequence[str]) -> str:
    return " ".join(skipped[:2]) or "Pack JPEG, PNG or WebP files."


def _refusal(info: zipfile.ZipInfo) -> str | None:
    """Why an entry is passed over, as the end of a sentence: None where it is not, "" where nobody needs to know."""
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    if info.is_dir() or not parts or any(part in _UNASKED or part.startswith("._") for part in parts):
        return ""
    if PurePosixPath(parts[-1]).suffix.lower() not in SUFFIXES:
        return "is not a photo by its name, so it was left out."
    if info.flag_bits & _ENCRYPTED:
        return "is protected by a password, so it was left out. Pack it without one."
    if info.compress_type not in _METHODS:
        return "is packed by an unusual method, so it was left out. Pack it as an ordinary zip file."
    return None


def _check_amount(wanted: list[zipfile.ZipInfo], name: str) -> None:
    if len(wanted) > MAX_PHOTOS:
        raise BadPhoto(f"{name} has {len(wanted)} photos, at most {MAX_PHOTOS} are used. Pack the best ones.")
    total = sum(info.file_size for info in wanted)
    if total > MAX_UNPACKED:
        raise BadPhoto(
            f"{name} holds photos of {total >> 20} MB together, at most {MAX_UNPACKED >> 20} are read. Pack fewer or "
            "smaller ones."
        )


def _read_photo(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> PhotoData:
    """Raises BadPhoto for an entry that is damaged, larger than it says, or no picture."""
    label = _label(info)
    if info.file_size > MAX_BYTES:
        raise BadPhoto(f"{label} is larger than {MAX_BYTES >> 20} MB, so it is not read. Make it smaller.")
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)
    except _DAMAGE as error:
        raise BadPhoto(f"{label} is damaged or not what the zip file says ({error}). Pack it again.") from error
    if len(data) != info.file_size:
        raise BadPhoto(f"{label} has not the {info.file_size} bytes that the zip file says. Pack it again.")
    photo = PhotoData(data, label)
    check_header(photo)
    return photo


def _label(info: zipfile.ZipInfo) -> str:
    """The last part of the entry's name, fit for a sentence."""
    name = info.filename.replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = "".join(character for character in name if unicodedata.category(character)[0] != "C")
    return plain if len(plain) <= _LABEL else f"{plain[: _LABEL - 1]}…"
