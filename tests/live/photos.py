"""Photos of the cases: people the stand-in face pack finds, and everything that goes wrong with photos."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np

from lib_faceid.demo.face_pack import draw_marker
from lib_faceid.demo.faces import GARDEN, KIM, ROBIN, Person, draw_photo

from .client import Picture, encode_bytes, encode_picture


def robin() -> str:
    return _photo(ROBIN)


def kim() -> str:
    return _photo(KIM)


def nobody() -> str:
    """A photo without a face: smooth, and nowhere magenta."""
    return encode_picture(landscape(480))


def two_people() -> str:
    """Two marked faces, the left one larger."""
    picture = landscape(480)
    draw_marker(picture, (24, 96, 240, 312), score=0.9)
    draw_marker(picture, (300, 96, 420, 216), score=0.9)
    return encode_picture(picture)


def landscape(side: int) -> Picture:
    """(side, side, 3): soft colours without magenta, different in each place."""
    down, across = np.mgrid[0:side, 0:side] / side
    colours = (90 + 80 * across, 120 + 90 * down, 60 + 50 * (1 - across * down))
    return np.stack(colours, axis=2).astype(np.uint8)


def spot(side: int) -> Picture:
    """(side, side, 3): a white square in the middle of black, half as wide: a mask for inpainting."""
    mask = np.zeros((side, side, 3), np.uint8)
    mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 255
    return mask


def uniform(side: int, level: int) -> Picture:
    """(side, side, 3) of one grey."""
    return np.full((side, side, 3), level, np.uint8)


def left_half(side: int) -> Picture:
    """(side, side, 3): the left half white, the right half black."""
    mask = uniform(side, 0)
    mask[:, : side // 2] = 255
    return mask


def no_image() -> str:
    """Bytes that are no image at all."""
    return encode_bytes(b"this is a letter, not a picture " * 40)


def cut_short() -> str:
    """The first half of a PNG."""
    whole = robin()
    return whole[: len(whole) // 8 * 4]


def bomb(side: int = 20000) -> str:
    """A PNG of side x side pixels of one colour: some 50 KB that unpack to 1.2 GB as RGB."""
    row = bytes(1 + side // 8)  # filter byte, then 1 bit per pixel
    pack = zlib.compressobj(9)
    data = b"".join([*(pack.compress(row) for _ in range(side)), pack.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return encode_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@cache
def _photo(person: Person) -> str:
    return encode_picture(draw_photo(person, GARDEN))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
