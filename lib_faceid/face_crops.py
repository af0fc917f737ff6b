"""The faces of photos as picture files, numbered as a person chooses them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .errors import BadRequest, FaceIDError
from .face.numbered import number_faces
from .face.types import Found, Photo
from .files import write_file
from .library.photos import read_photo

SIZE = 224
"""Pixels: what CLIP is shown."""


def write_crops(folder: Path, photos: Sequence[str], found: Sequence[Found]) -> list[Path]:
    """Write every face of every photo as ``1-anna-2.png``: the second face of the first photo, anna.jpg.

    The folder is made; the paths are returned. Raises FaceIDError, before anything is written, when a name
    is taken, and for adapters that look for no face.
    """
    if not found:
        raise BadRequest("This adapter looks at the whole picture, so there are no faces to write. Leave out --crops.")
    rows = [
        [folder / f"{number}-{Path(photo).stem}-{face.index}.png" for face in item.faces]
        for number, (photo, item) in enumerate(zip(photos, found, strict=True), start=1)
    ]
    taken = next((path for row in rows for path in row if path.exists()), None)
    if taken is not None:
        raise FaceIDError(f"{taken} exists already and is left as it is. Choose another folder for the crops.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path for row in zip(rows, photos, found, strict=True) for path in _write_row(*row)]
    except OSError as error:
        raise FaceIDError(f"The crops cannot be written to {folder} ({error.strerror}). Choose another.") from error


def _write_row(places: list[Path], photo: str, found: Found) -> list[Path]:
    faces = number_faces(read_photo(photo).pixels, found, SIZE)
    return [write_file(path, _png(face.crop)) for path, face in zip(places, faces, strict=True)]


def _png(crop: Photo) -> bytes:
    data = io.BytesIO()
    Image.fromarray(crop).save(data, format="PNG")
    return data.getvalue()
