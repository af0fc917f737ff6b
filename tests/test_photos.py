"""Photos as people have them: formats, orientation marks, transparency, and files that are none."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lib_faceid.errors import BadPhoto
from lib_faceid.library.photos import PhotoData, check_header, read_photo
from lib_faceid.library.pixels import explain_head


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


def png(head, rows):
    """The bytes of a PNG, from its header and compressed rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb(path, side):
    """A PNG that is small on disk and large when decoded."""
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    path.write_bytes(png(struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), rows))
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
        (b"", "is empty: it has 0 bytes"),
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


class TestSixteenBits:
    """Scaled to 8 bits, 65535 to 255; Pillow's own conversion cuts off at 255."""

    RAMP = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    EXPECTED = (RAMP / 257 + 0.5).astype(np.uint8)

    @pytest.mark.parametrize("ending", ["png", "tiff"])
    def test_grey(self, tmp_path, ending):
        Image.fromarray(self.RAMP).save(tmp_path / f"photo.{ending}")
        with Image.open(tmp_path / f"photo.{ending}") as image:
            assert image.mode != "L"  # else this would test nothing
        assert np.array_equal(read_photo(tmp_path / f"photo.{ending}").pixels, self.EXPECTED[..., None].repeat(3, 2))

    @pytest.mark.parametrize("dtype", ["<u2", ">u2"])
    def test_pil_images(self, dtype):
        image = Image.frombytes("I;16" if dtype == "<u2" else "I;16B", (32, 24), self.RAMP.astype(dtype).tobytes())
        assert np.array_equal(read_photo(image).pixels[..., 1], self.EXPECTED)

    def test_the_camera_was_turned(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(self.RAMP).save(tmp_path / "photo.png", exif=exif)
        assert np.array_equal(read_photo(tmp_path / "photo.png").pixels[..., 0], np.rot90(self.EXPECTED, 3))

    def test_a_dark_file_stays_dark(self, tmp_path):
        Image.fromarray(np.full((24, 32), 200, np.uint16)).save(tmp_path / "photo.png")
        assert (read_photo(tmp_path / "photo.png").pixels == 1).all()

    @pytest.mark.parametrize("colours", [3, 4])
    def test_colour(self, tmp_path, colours):
        """A PNG of 16 bits for each colour, written by hand: Pillow cannot."""
        pixels = np.full((24, 32, colours), 65535, np.uint16)
        pixels[..., :3] = (65535, 32896, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        head = struct.pack(">IIBBBBB", 32, 24, 16, 2 if colours == 3 else 6, 0, 0, 0)
        (tmp_path / "photo.png").write_bytes(png(head, zlib.compress(rows)))
        assert (read_photo(tmp_path / "photo.png").pixels == (255, 128, 0)).all()

    def test_wide_integers(self):
        wide = self.RAMP.astype(np.int32)
        assert np.array_equal(read_photo(Image.fromarray(wide)).pixels[..., 2], self.EXPECTED)
        assert (read_photo(Image.new("L", (32, 32), 200).convert("I")).pixels == 200).all()
        for value in (-1, 65536):
            with pytest.raises(BadPhoto, match=r"Photo 1 has grey values from .*, more than 16 bits\. Give a JPEG"):
                read_photo(Image.fromarray(np.full((32, 32), value, np.int32)))

    def test_floating_point(self, tmp_path):
        Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "photo.tiff")
        with pytest.raises(BadPhoto, match=r"^photo\.tiff is a picture of floating-point numbers.*Give a JPEG"):
            read_photo(tmp_path / "photo.tiff")


class TestKindsOfFile:
    @pytest.mark.parametrize("ending", ["jpg", "tiff"])
    def test_cmyk(self, tmp_path, ending):
        Image.new("RGB", (32, 32), (200, 30, 60)).convert("CMYK").save(tmp_path / f"photo.{ending}")
        with Image.open(tmp_path / f"photo.{ending}") as image:
            assert image.mode == "CMYK"
        found = read_photo(tmp_path / f"photo.{ending}").pixels.astype(int)
        assert np.abs(found - (200, 30, 60)).max() <= 4

    @pytest.mark.parametrize("transparent", [False, True])
    def test_palette(self, tmp_path, transparent):
        image = Image.new("P", (32, 32), 1)
        image.putpalette([1, 2, 3, 250, 100, 50])
        image.save(tmp_path / "photo.png", **({"transparency": 1} if transparent else {}))
        expected = (255, 255, 255) if transparent else (250, 100, 50)
        assert (read_photo(tmp_path / "photo.png").pixels == expected).all()

    @pytest.mark.parametrize("ending", ["gif", "png", "webp"])
    def test_of_an_animation_the_first_picture(self, tmp_path, ending):
        frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if ending == "webp" else {}
        frames[0].save(tmp_path / f"photo.{ending}", save_all=True, append_images=frames[1:], duration=50, **options)
        with Image.open(tmp_path / f"photo.{ending}") as image:
            assert image.n_frames == 3
        assert (read_photo(tmp_path / f"photo.{ending}").pixels == (255, 0, 0)).all()

    @pytest.mark.parametrize("kind", [PhotoData, "file"])
    def test_empty(self, tmp_path, kind):
        (tmp_path / "photo.jpg").write_bytes(b"")
        source = tmp_path / "photo.jpg" if kind == "file" else PhotoData(b"", "photo.jpg")
        with pytest.raises(BadPhoto, match=r"^photo\.jpg is empty: it has 0 bytes\. Add the photo again\."):
            read_photo(source)

    @pytest.mark.parametrize(
        ("brands", "sentence"),
        [
            (b"heic\0\0\0\0mif1heic", r"is a HEIC picture, the format of iPhones.*Save or export it as JPEG"),
            (b"mif1\0\0\0\0mif1heic", r"is a HEIC picture"),
            (b"msf1\0\0\0\0msf1hevc", r"is a HEIC picture"),
            (b"isom\0\0\0\0isommp42", r"is a video or a picture in a format that cannot be read here\. Give a JPEG"),
        ],
    )
    def test_what_phones_make(self, tmp_path, brands, sentence):
        content = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0" * 200
        (tmp_path / "IMG_1.HEIC").write_bytes(content)
        for source in (tmp_path / "IMG_1.HEIC", PhotoData(content, "IMG_1.HEIC")):
            with pytest.raises(BadPhoto, match=rf"^IMG_1\.HEIC {sentence}"):
                read_photo(source)

    def test_avif_without_a_reader(self):
        head = struct.pack(">I", 24) + b"ftypmif1\0\0\0\0mif1avif"
        assert explain_head(head).startswith("is an AVIF picture, which this version of Pillow cannot read")
        assert explain_head(head[:16] + b"\0" * 8 + b"heic" * 9).startswith("is a video or")  # outside of the first box

    def test_a_truncated_jpeg_in_every_form(self, tmp_path, drawn):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG")
        cut = file.getvalue()[:1500]
        (tmp_path / "photo.jpg").write_bytes(cut)
        sources = {
            "photo.jpg": tmp_path / "photo.jpg",
            "sent.jpg": PhotoData(cut, "sent.jpg"),
            "Photo 4": Image.open(io.BytesIO(cut)),
        }
        for label, source in sources.items():
            with pytest.raises(BadPhoto, match=rf"^{label} is damaged or cannot be read \(.*\)\. Save it again"):
                read_photo(source, 4)

    def test_damage_anywhere_is_a_sentence_or_a_photo(self, drawn):
        """Bytes changed at random in every format: Pillow raises a dozen kinds of error."""
        rng = random.Random(7)
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "ICO", "PPM"):
            file = io.BytesIO()
            Image.fromarray(drawn).save(file, kind)
            for _ in range(60):
                content = bytearray(file.getvalue())
                for _ in range(rng.randint(1, 6)):
                    content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
                del content[rng.randrange(len(content) // 2, len(content) + 1) :]
                with contextlib.suppress(BadPhoto):
                    assert read_photo(PhotoData(bytes(content), "x")).pixels.dtype == np.uint8

    def test_a_header_alone_is_checked_without_decoding(self, tmp_path):
        path = bomb(tmp_path / "bomb.png", 9_000)
        with pytest.raises(BadPhoto, match=r"bomb\.png is 9000x9000 px"):
            check_header(PhotoData(path.read_bytes(), "bomb.png"))
        with pytest.raises(BadPhoto, match="x is not a picture"):
            check_header(PhotoData(b"hello", "x"))
        truncated = bomb(tmp_path / "bomb.png", 64).read_bytes()[:-30]
        check_header(PhotoData(truncated, "x"))
