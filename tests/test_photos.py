"""Photos as people have them: formats, orientation marks, transparency, and files that are none."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lib_faceid.errors import BadPhoto
from lib_faceid.library.photos import read_photo


@pytest.fixture
def drawn():
    """32 wide, 24 high; the upper left pixel is red."""
    pixels = np.full((24, 32, 3), 90, np.uint8)
    pixels[0, 0] = (255, 0, 0)
    return pixels


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tiff"])
def test_files(tmp_path, drawn, ending):
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(drawn).save(tmp_path / f"photo.{ending}", **options)
    photo = read_photo(tmp_path / f"photo.{ending}")
    assert np.array_equal(photo.pixels, drawn)
    assert photo.label == f"photo.{ending}"


def test_arrays_and_pil_images(drawn):
    assert np.array_equal(read_photo(drawn, 2).pixels, drawn)
    assert np.array_equal(read_photo(Image.fromarray(drawn)).pixels, drawn)
    assert read_photo(drawn, 2).label == "Photo 2"


@pytest.mark.parametrize(("mark", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_orientation_marks(tmp_path, drawn, mark, turns):
    """EXIF 6: the camera was held so that the picture must be turned right by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = mark
    Image.fromarray(drawn).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "photo.png").pixels, np.rot90(drawn, turns))


def test_transparency_is_white():
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert (read_photo(clear).pixels == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_colour_modes(mode):
    photo = read_photo(Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode))
    assert photo.pixels.shape == (32, 32, 3)
    assert (photo.pixels >= 254).all()


def bomb(path, side):
    """A PNG that is small on disk and large when decoded."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_bomb_is_not_decoded(tmp_path, side):
    path = bomb(tmp_path / "bomb.png", side)
    assert path.stat().st_size < 60_000
    with pytest.raises(BadPhoto, match=r"bomb\.png .*(megapixels|too many pixels)"):
        read_photo(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a picture that can be read"),
        (b"hello", "not a picture that can be read"),
        (b"\x89PNG\r\n\x1a\n", "damaged|not a picture"),
        (None, "There is no photo"),
    ],
)
def test_files_that_are_no_photos(tmp_path, content, sentence):
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadPhoto, match=sentence):
        read_photo(path)


def test_a_truncated_file(tmp_path, drawn):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadPhoto, match=r"photo\.png is damaged or cannot be read"):
        read_photo(path)


def test_a_folder_and_a_number(tmp_path):
    with pytest.raises(BadPhoto, match="damaged or cannot be read"):
        read_photo(tmp_path)
    with pytest.raises(BadPhoto, match="Photo 3 is a int"):
        read_photo(7, 3)
