"""Photos from zip files, honest and hostile; nothing is ever written."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_faceid.errors import BadPhoto
from lib_faceid.library import imports
from lib_faceid.library.imports import read_zip
from lib_faceid.library.photos import PhotoData, read_photo


def picture(seed=0, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


A, B = picture(1), picture(2, "JPEG")


def make_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name) if not data else name, data)
    return path


def patched(path, old, new, count=-1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))
    return path


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    """The library's own ways to the disk are closed while a test runs in an empty folder."""
    for name in ("extract", "extractall", "_extract_member"):
        monkeypatch.setattr(zipfile.ZipFile, name, lambda *_, **__: pytest.fail("something was extracted"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield
    assert os.listdir(tmp_path / "empty") == []  # noqa: PTH208


class TestHonest:
    def test_photos_in_order_from_nested_folders(self, tmp_path):
        path = make_zip(tmp_path / "anna.zip", [("x/y/b.jpg", B), ("a.PNG", A), ("x/", b"")])
        found = read_zip(path)
        assert found.photos == (PhotoData(B, "b.jpg"), PhotoData(A, "a.PNG"))
        assert found.skipped == ()
        assert read_photo(found.photos[1]).pixels.shape == (24, 20, 3)
        assert read_zip(path.read_bytes()) == found

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_both_usual_methods(self, tmp_path, method):
        assert len(read_zip(make_zip(tmp_path / "a.zip", [("a.png", A)], method)).photos) == 1

    def test_what_is_left_out_is_told(self, tmp_path):
        entries = [
            ("readme.txt", b"hi"),
            ("noname", A),
            ("a.png", A),
            ("in.zip", b"x"),
            ("fake.jpg", b"no jpeg"),
            ("e.png", b""),
        ]
        found = read_zip(make_zip(tmp_path / "anna.zip", entries))
        assert [photo.label for photo in found.photos] == ["a.png"]
        assert found.skipped == (
            "readme.txt is not a photo by its name, so it was left out.",
            "noname is not a photo by its name, so it was left out.",
            "in.zip is not a photo by its name, so it was left out.",
            "fake.jpg is not a picture that can be read. Give a JPEG, PNG or WebP file.",
            "e.png is empty: it has 0 bytes. Add the photo again. Give a JPEG, PNG or WebP file.",
        )

    def test_what_systems_add_is_not_worth_a_word(self, tmp_path):
        entries = [
            ("__MACOSX/._a.png", b"x"),
            ("p/._a.png", b"x"),
            (".DS_Store", b"x"),
            ("p/Thumbs.db", b"x"),
            ("a.png", A),
        ]
        assert read_zip(make_zip(tmp_path / "a.zip", entries)).skipped == ()

    def test_names_in_any_letters(self, tmp_path):
        found = read_zip(make_zip(tmp_path / "a.zip", [("安娜/фото\u202e.png", A), ("x" * 200 + ".png", B)]))
        assert found.photos[0].label == "фото.png"
        assert len(found.photos[1].label) == 80


class TestRefused:
    def test_no_zip(self, tmp_path):
        for content in (b"", b"hello", A, b"PK\5\6", b"PK\3\4" + b"\0" * 100):
            path = tmp_path / "anna.zip"
            path.write_bytes(content)
            with pytest.raises(BadPhoto, match=r"^anna\.zip is not a zip file or is damaged .*Pack the photos"):
                read_zip(path)
        with pytest.raises(BadPhoto, match="There is no zip file"):
            read_zip(tmp_path / "none.zip")
        with pytest.raises(BadPhoto, match="is not a zip file or is damaged"):
            read_zip(tmp_path)
        with pytest.raises(BadPhoto, match=r"^The zip file is not a zip file"):
            read_zip(b"hello")

    def test_nothing_to_use(self, tmp_path):
        with pytest.raises(BadPhoto, match=r"^a\.zip holds no photo that can be read\. Pack JPEG, PNG or WebP"):
            read_zip(make_zip(tmp_path / "a.zip", []))
        path = make_zip(tmp_path / "b.zip", [(f"{n}.txt", b"x") for n in range(50)])
        with pytest.raises(BadPhoto, match=r"holds no photo.*0\.txt is not a photo by its name") as caught:
            read_zip(path)
        assert len(str(caught.value)) < 250

    def test_many_photos(self, tmp_path):
        entries = [(f"{n}.png", A) for n in range(65)]
        with pytest.raises(BadPhoto, match=r"^a\.zip has 65 photos, at most 64 are used\. Pack the best ones\.$"):
            read_zip(make_zip(tmp_path / "a.zip", entries))
        assert len(read_zip(make_zip(tmp_path / "b.zip", entries[:64])).photos) == 64

    def test_many_entries_are_counted_before_they_are_listed(self, tmp_path, monkeypatch):
        path = make_zip(tmp_path / "a.zip", [(f"{n}.txt", b"x") for n in range(10_001)])
        monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
        for chunk in (1 << 20, 1000):  # entries are found across the borders of what is read at once
            monkeypatch.setattr(imports, "_CHUNK", chunk)
            with pytest.raises(BadPhoto, match=r"^a\.zip has more than 10,000 entries"):
                read_zip(path)

    def test_ten_thousand_entries_are_still_read(self, tmp_path):
        entries = [(f"{n}.txt", b"") for n in range(9_999)]
        found = read_zip(make_zip(tmp_path / "a.zip", [*entries, ("a.png", A)]))
        assert (len(found.photos), len(found.skipped)) == (1, 21)
        assert found.skipped[-1] == "9979 more were left out."

    def test_a_large_zip_is_not_read(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", [("a.png", A)])
        with path.open("ab") as file:
            file.truncate(imports.MAX_ZIP + 1)  # sparse
        with pytest.raises(BadPhoto, match="has 1024 MB, at most 1024 are read"):
            read_zip(path)


class TestBombs:
    @pytest.fixture(autouse=True)
    def small_limits(self, monkeypatch):
        monkeypatch.setattr(imports, "MAX_UNPACKED", 3_000_000)
        monkeypatch.setattr(imports, "MAX_BYTES", 2_000_000)

    def test_by_what_it_declares_together(self, tmp_path, monkeypatch):
        path = make_zip(tmp_path / "a.zip", [(f"{n}.png", A + b"\0" * 1_100_000) for n in range(3)])
        assert path.stat().st_size < 20_000
        monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
        with pytest.raises(BadPhoto, match=r"^a\.zip holds photos of 3 MB together, at most 2 are read\."):
            read_zip(path)

    def test_by_what_one_declares(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", [("a.png", A + b"\0" * 2_100_000), ("b.png", A)])
        found = read_zip(path)
        assert len(found.photos) == 1
        assert found.skipped == ("a.png is larger than 1 MB, so it is not read. Make it smaller.",)

    def test_by_what_it_does_not_declare(self, tmp_path, monkeypatch):
        """50 MB that say they are 1000 bytes: no more than that is taken, and it is passed over."""
        path = make_zip(tmp_path / "a.zip", [("a.png", b"\0" * 50_000_000), ("b.png", A)])
        patched(path, struct.pack("<L", 50_000_000), struct.pack("<L", 1000))
        taken = []
        unpacker = zlib.decompressobj

        class Counted:
            def __init__(self, *args):
                self.inner = unpacker(*args)

            def decompress(self, *args):
                data = self.inner.decompress(*args)
                taken.append(len(data))
                return data

            def __getattr__(self, name):
                return getattr(self.inner, name)

        monkeypatch.setattr(zlib, "decompressobj", Counted)
        found = read_zip(path)
        assert [photo.label for photo in found.photos] == ["b.png"]
        assert found.skipped[0].startswith("a.png is damaged or not what the zip file says")
        assert sum(taken) < 100_000

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_methods_that_unpack_without_bounds(self, tmp_path, method):
        path = make_zip(tmp_path / "a.zip", [("a.png", A)], method)
        with pytest.raises(BadPhoto, match=r"a\.png is packed by an unusual method, so it was left out"):
            read_zip(path)

    def test_a_picture_of_many_pixels(self, tmp_path):
        head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + head
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        found = read_zip(make_zip(tmp_path / "a.zip", [("bomb.png", png), ("b.png", A)]))
        assert len(found.photos) == 1
        assert found.skipped[0].startswith("bomb.png ")
        assert "megapixels" in found.skipped[0]


class TestHostile:
    @pytest.mark.parametrize(
        "name",
        ["../../a.png", "/etc/a.png", "C:\\Users\\a.png", "..\\..\\a.png", "//server/share/a.png", "a.png/../a.png"],
    )
    def test_names_that_lead_elsewhere_are_only_names(self, tmp_path, name):
        found = read_zip(make_zip(tmp_path / "a.zip", [(name, A)]))
        assert [photo.label for photo in found.photos] == ["a.png"]

    def test_a_password(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", [("a.png", A)], zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            content[content.index(mark) + at] |= 1
        with pytest.raises(BadPhoto, match=r"a\.png is protected by a password, so it was left out\. "):
            read_zip(bytes(content))

    def test_a_damaged_entry(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", [("a.png", A), ("b.png", A)], zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        content[content.index(A) + 200] ^= 1
        found = read_zip(bytes(content))
        assert [photo.label for photo in found.photos] == ["b.png"]
        assert found.skipped[0].startswith("a.png is damaged or not what the zip file says (Bad CRC-32")

    def test_bytes_changed_anywhere_are_a_sentence_or_a_photo(self, tmp_path):
        """Every outcome of 600 damaged files is either photos as they were or one sentence."""
        honest = make_zip(tmp_path / "a.zip", [("x/a.png", A), ("b.jpg", B), ("c.txt", b"x")]).read_bytes()
        rng = random.Random(4)
        structure = [n for n in range(len(honest)) if n < 60 or n >= honest.index(b"PK\1\2")]
        for _ in range(600):
            content = bytearray(honest)
            for _ in range(rng.randint(1, 3)):
                content[rng.choice(structure)] = rng.randrange(256)
            if rng.random() < 0.2:
                del content[rng.randrange(len(content)) :]
            try:
                found = read_zip(bytes(content))
            except BadPhoto as error:
                assert str(error).endswith(".")
            else:
                assert {photo.data for photo in found.photos} <= {A, B}

    def test_a_directory_that_names_one_entry_again_and_again(self, tmp_path):
        """Overlapping entries, as in bombs of one kernel: the sum of what they declare counts."""
        path = make_zip(tmp_path / "a.zip", [("a.png", A)], zipfile.ZIP_STORED)
        content = path.read_bytes()
        start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
        line, many = content[start:end], 70
        tail = bytearray(content[end:])
        tail[8:12] = struct.pack("<2H", many, many)
        tail[12:16] = struct.pack("<L", many * len(line))
        with pytest.raises(BadPhoto, match="has 70 photos, at most 64"):
            read_zip(content[:start] + line * many + bytes(tail))


def test_a_photo_of_an_iphone_is_named(tmp_path):
    heic = struct.pack(">L", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 100
    found = read_zip(make_zip(tmp_path / "a.zip", [("IMG_1.HEIC", heic), ("b.png", A)]))
    assert found.skipped[0].startswith("IMG_1.HEIC is a HEIC picture")
    assert Path("IMG_1.HEIC").suffix.lower() in imports.SUFFIXES
