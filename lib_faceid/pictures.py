"""Picture files: reading a person's own with care, and writing drawn ones with what made them inside."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from .errors import FaceIDError
from .files import free_name, write_file

TEXT_NAME = "faceid"
_MAX_PIXELS = 8192 * 8192  # checked before decoding: a file of 48 KB can unpack to gigabytes
_SPARE_BYTES = 1 << 20


def read_picture(path: str | Path) -> Image.Image:
    """A picture file, upright as its camera meant it. Raises FaceIDError when it is missing, damaged or huge."""
    file = Path(path).expanduser()
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise FaceIDError(f"{file.name} is {image.width}x{image.height} pixels; give a smaller picture.")
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise FaceIDError(f"There is no picture at {file}.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise FaceIDError(f"{file.name} is not a readable picture. Give a PNG, JPEG or WebP file.") from error


def check_place(place: Path, pictures: int, size: tuple[int, int]) -> None:
    """Raises FaceIDError when the pictures cannot be written: no folder, no permission, or a full disk.

    place: a folder, or the name of a .png file in one.
    """
    folder = place.parent if _is_name(place) else place
    if not folder.is_dir():
        raise FaceIDError(f"There is no folder {folder} for the pictures. Create it first, or choose another --out.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FaceIDError(f"Pictures may not be written to {folder}. Change its permissions, or choose another --out.")
    needed = pictures * (size[0] * size[1] * 3 + _SPARE_BYTES)  # noise does not compress
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FaceIDError(
            f"The disk of {folder} has {free >> 20} MB free, and {pictures} pictures may need {needed >> 20} MB. Make "
            "room, or choose another --out."
        )


def write_picture(place: Path, image: Image.Image, record: Mapping[str, Any]) -> Path:
    """Write a PNG with the record as JSON in its text; under a name that is free. Returns the path.

    In a folder the name is faceid-SEED.png; what exists is never overwritten, -2, -3 … is added instead.
    """
    text = PngInfo()
    text.add_text(TEXT_NAME, json.dumps(record))  # ASCII, so that it becomes a plain tEXt chunk
    data = io.BytesIO()
    image.save(data, format="PNG", pnginfo=text)
    wanted = place if _is_name(place) else place / f"faceid-{record['seed']}.png"
    try:
        return write_file(free_name(wanted), data.getvalue())
    except OSError as error:
        raise FaceIDError(f"{wanted.name} cannot be written ({error.strerror}). Choose another --out.") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """What made a picture. Raises FaceIDError when it was not drawn here, or its text was stripped."""
    with read_picture(path) as image:
        text = image.info.get(TEXT_NAME)
    if not isinstance(text, str):
        raise FaceIDError(f"{Path(path).name} does not say what made it: it has no text called {TEXT_NAME!r}.")
    return json.loads(text)


def _is_name(place: Path) -> bool:
    return place.suffix.lower() == ".png" and not place.is_dir()
