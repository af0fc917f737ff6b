"""Pictures of every kind as upright 8-bit RGB, and what a file is that Pillow does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import BadPhoto
from ..face.photo import MAX_PIXELS

HEAD_BYTES = 64  # the brands of an ISO media file stand in its first box
_ORIENTATION = 0x0112  # EXIF 2.32, table 4
_DEEP = 65535 // 255  # 257: white stays white, black stays black, everything else is rounded
_USE = "Give a JPEG, PNG or WebP file."
# Brands of ISO/IEC 23008-12 (HEIF) and of AVIF 1.1; mif1 and msf1 only say "some such picture".
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF = (b"avif", b"avis")


def check_size(image: Image.Image, label: str) -> None:
    """Raises BadPhoto for more pixels than are searched; only the header has been read."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPhoto(
            f"{label} is {width}x{height} px; at most {MAX_PIXELS // 1_000_000} megapixels are searched. Make it "
            "smaller."
        )


def upright(image: Image.Image, label: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, the camera's orientation mark applied, transparent parts white; of an animation the picture that
    is shown first. 16 bits are scaled to 8, not cut off. Raises BadPhoto, and whatever Pillow raises.
    """
    check_size(image, label)
    shallow = _in_8_bits(image, label) if image.mode[0] in "IF" else image
    return np.asarray(_on_white(ImageOps.exif_transpose(shallow)).convert("RGB"))


def _in_8_bits(image: Image.Image, label: str) -> Image.Image:
    """Grey pictures of 16 bits, which Pillow's own conversion would cut off at 255. Modes: I;16 and its kin, I, F."""
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "F":
        raise BadPhoto(f"{label} is a picture of floating-point numbers, which have no fixed white. {_USE}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadPhoto(f"{label} has grey values from {low} to {high}, more than 16 bits. {_USE}")
    from_memory = image.mode == "I" and image.format is None  # Image.convert("I") keeps 0-255; files of 8 bits are "L"
    grey = values if from_memory and high <= 255 else (values.astype(np.uint32) + _DEEP // 2) // _DEEP
    made = Image.fromarray(grey.astype(np.uint8))
    made.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return made


def _on_white(image: Any) -> Image.Image:
    """Transparent parts hold arbitrary colours; white is what people see behind them."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    opaque = image.convert("RGBA")
    paper = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(paper, opaque)


def explain_head(head: bytes) -> str:
    """The end of a sentence that begins with the name of a file Pillow does not know; ``head`` is how it begins."""
    if not head:
        return f"is empty: it has 0 bytes. Add the photo again. {_USE}"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), HEAD_BYTES)
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, length, 4))]
        if any(brand in _AVIF for brand in brands):
            return "is an AVIF picture, which this version of Pillow cannot read. Save it as JPEG, or update Pillow."
        if any(brand in _HEIC for brand in brands):
            return (
                "is a HEIC picture, the format of iPhones, which cannot be read here. Save or export it as JPEG (on an "
                "iPhone: Settings, Camera, Formats, Most Compatible)."
            )
        return f"is a video or a picture in a format that cannot be read here. {_USE}"
    return f"is not a picture that can be read. {_USE}"
