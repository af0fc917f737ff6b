"""Photos as people give them, made into upright RGB arrays; what cannot be one is refused before it is decoded."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BadPhoto
from ..face.photo import MAX_PIXELS, check_photo


@dataclass(frozen=True, eq=False)
class NamedPhoto:
    """``pixels`` (H, W, 3) uint8 RGB, upright, and what sentences call it."""

    pixels: NDArray[np.uint8]
    label: str


def read_photo(source: object, number: int = 1) -> NamedPhoto:
    """A path, a PIL image or a uint8 RGB array as a photo; the camera's orientation mark is applied.

    ``number`` names a photo that has no file name. Raises BadPhoto when there is no such file, when it is no picture,
    is damaged, or has more pixels than are searched (known from its header, before memory is spent on it).
    """
    if isinstance(source, np.ndarray):
        label = f"Photo {number}"
        return NamedPhoto(check_photo(cast("object", source), label), label)
    if isinstance(source, Image.Image):
        return NamedPhoto(_pixels(source, f"Photo {number}"), f"Photo {number}")
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        return NamedPhoto(_read_file(path), path.name)
    raise BadPhoto(f"Photo {number} is a {type(source).__name__}; give a file name, a PIL image or an RGB array.")


def _read_file(path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here, more strictly
            with cast(Any, Image).open(path) as image:  # its stubs leave the result open
                return _pixels(image, path.name)
    except FileNotFoundError as error:
        raise BadPhoto(f"There is no photo {path}. Check the name.") from error
    except Image.DecompressionBombError as error:
        raise BadPhoto(f"{path.name} has too many pixels to be a photo ({error}). Make it smaller.") from error
    except UnidentifiedImageError as error:
        raise BadPhoto(f"{path.name} is not a picture that can be read. Give a JPEG, PNG or WebP file.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadPhoto(f"{path.name} is damaged or cannot be read ({error}). Save it again, or use another.") from error


def _pixels(image: Image.Image, label: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPhoto(
            f"{label} is {width}x{height} px; at most {MAX_PIXELS // 1_000_000} megapixels are searched. Make it "
            "smaller."
        )
    upright = ImageOps.exif_transpose(image)
    return check_photo(np.asarray(_on_white(upright).convert("RGB")), label)


def _on_white(image: Any) -> Image.Image:
    """Transparent parts hold arbitrary colours; white is what people see behind them."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    opaque = image.convert("RGBA")
    paper = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(paper, opaque)
