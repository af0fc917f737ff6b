"""Photos as people give them, made into upright RGB arrays; what cannot be one is refused before it is decoded."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import BadPhoto
from ..face.photo import MAX_PIXELS, check_photo
from .pixels import HEAD_BYTES, check_size, explain_head, upright

# Pillow knows many more, among them EPS, which it hands to Ghostscript: a program in a file called photo.jpg.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "AVIF", "HEIF")
# Larger than any camera's file; what is more is not read into memory.
MAX_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class NamedPhoto:
    """``pixels`` (H, W, 3) uint8 RGB, upright, and what sentences call it."""

    pixels: NDArray[np.uint8]
    label: str


@dataclass(frozen=True)
class PhotoData:
    """A photo as it was handed over, not decoded yet: the file's bytes, and what sentences call it.

    ``weight`` is its share among several photos of one person; ``face`` says which face to take from this photo alone,
    empty: as for all photos.
    """

    data: bytes
    label: str
    weight: float = 1.0
    face: str = ""

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def of_file(cls, path: str | os.PathLike[str], label: str = "", *, contents: bool = True) -> PhotoData:
        """Without ``contents`` the file is only looked for, and ``data`` is empty.

        Raises BadPhoto when the file cannot be read or is far larger than a photo.
        """
        file = Path(path)
        name = label or file.name
        try:
            if file.stat().st_size > MAX_BYTES:
                raise BadPhoto(f"{name} is larger than {MAX_BYTES >> 20} MB, so it is not read. Make it smaller.")
            return cls(file.read_bytes() if contents else b"", name)
        except OSError as error:
            raise BadPhoto(f"{name} cannot be read ({error.strerror}). Add the photo again.") from error

    @classmethod
    def of_base64(cls, text: str, label: str) -> PhotoData:
        """Base64 with or without ``data:image/…;base64,`` before it. Addresses are refused: nothing is fetched.

        Raises BadPhoto.
        """
        if text[:8].lower().startswith(("http:", "https:")):
            raise BadPhoto(f"{label} is an address; nothing is fetched from the net. Send the picture as base64.")
        if len(text) > MAX_BYTES * 4 // 3:
            raise BadPhoto(f"{label} is larger than {MAX_BYTES >> 20} MB, so it is not read. Make it smaller.")
        body = text.partition(",")[2] if text.startswith("data:") else text
        try:
            data = base64.b64decode("".join(body.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadPhoto(f"{label} is not base64 ({error}). Send the bytes of an image file as base64.") from error
        if not data:
            raise BadPhoto(f"{label} is empty. Send the bytes of an image file as base64.")
        return cls(data, label)


def read_photo(source: object, number: int = 1) -> NamedPhoto:
    """A path, PhotoData, a PIL image or a uint8 RGB array as a photo; the camera's orientation mark is applied.

    ``number`` names a photo that has no file name. Raises BadPhoto when there is no such file, when it is no picture,
    is damaged, or has more pixels than are searched (known from its header, before memory is spent on it).
    """
    if isinstance(source, np.ndarray):
        label = f"Photo {number}"
        return NamedPhoto(check_photo(cast("object", source), label), label)
    if isinstance(source, Image.Image):
        with _explained(f"Photo {number}"):
            return NamedPhoto(check_photo(upright(source, f"Photo {number}"), f"Photo {number}"), f"Photo {number}")
    if isinstance(source, PhotoData):
        return NamedPhoto(_decode(io.BytesIO(source.data), source.label), source.label)
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        return NamedPhoto(_read_file(path), path.name)
    raise BadPhoto(f"Photo {number} is a {type(source).__name__}; give a file name, a PIL image or an RGB array.")


def check_header(photo: PhotoData) -> None:
    """Raises BadPhoto, as read_photo does, for what is no picture or too large; no pixel is decoded."""
    with _explained(photo.label), _open(io.BytesIO(photo.data), photo.label):
        pass


def _read_file(path: Path) -> NDArray[np.uint8]:
    if not path.exists():
        raise BadPhoto(f"There is no photo {path}. Check the name.")
    return _decode(path, path.name)


def _decode(source: Path | io.BytesIO, label: str) -> NDArray[np.uint8]:
    with _explained(label), _open(source, label) as image:
        return check_photo(upright(image, label), label)


@contextmanager
def _open(source: Path | io.BytesIO, label: str) -> Generator[Image.Image, None, None]:
    """The file with its header read. Raises BadPhoto when it is no picture; the rest as Pillow raises it."""
    try:
        image = cast(
            "Image.Image", cast(Any, Image).open(source, formats=_formats())
        )
    except UnidentifiedImageError as error:
        raise BadPhoto(f"{label} {explain_head(_head(source))}") from error
    with image:
        check_size(image, label)
        yield image


def _formats() -> list[str]:
    """The kinds of pictures that are read here and now; HEIF only where somebody registered a plugin for it."""
    Image.init()
    return [name for name in _FORMATS if name in cast("dict[str, object]", Image.OPEN)]


def _head(source: Path | io.BytesIO) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:HEAD_BYTES]
    with source.open("rb") as file:
        return file.read(HEAD_BYTES)


@contextmanager
def _explained(label: str) -> Generator[None, None, None]:
    """Pillow's errors as sentences; ValueError is what it raises for some damaged files and unknown kinds of pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked here, more strictly; Pillow warns of odd tags besides
            yield
    except BadPhoto:
        raise
    except Image.DecompressionBombError as error:
        most = f"at most {MAX_PIXELS // 1_000_000} megapixels are searched"
        raise BadPhoto(f"{label} has more pixels than any photo; {most}. Make it smaller.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        raise BadPhoto(f"{label} is damaged or cannot be read ({error}). Save it again, or use another.") from error
