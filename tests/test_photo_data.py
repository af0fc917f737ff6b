"""Photos as they are handed over: bytes from base64 or from a file, and what is refused before it takes memory."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

from lib_faceid.errors import BadPhoto
from lib_faceid.library.photos import MAX_BYTES, PhotoData, read_photo

from .models_folder import photo

TEXT = photo(5)
DATA = base64.b64decode(TEXT)


class Long(str):
    """A text that says it is as long as asked for, and holds almost nothing."""

    length = 0

    def __len__(self):
        return self.length


def long(length):
    text = Long("aGVsbG8=")
    text.length = length
    return text


@pytest.mark.parametrize(
    "text",
    [TEXT, f"data:image/png;base64,{TEXT}", f"data:;base64,{TEXT}", "\n".join([TEXT[:76], TEXT[76:]]), f" {TEXT}\r\n"],
    ids=["plain", "prefix", "short prefix", "lines", "spaces"],
)
def test_base64(text):
    found = PhotoData.of_base64(text, "Photo 1")
    assert found == PhotoData(DATA, "Photo 1")
    assert found.digest == hashlib.sha256(DATA).hexdigest()
    assert np.array_equal(read_photo(found).pixels, read_photo(PhotoData(DATA, "x")).pixels)
    assert read_photo(found, 7).label == "Photo 1"


@pytest.mark.parametrize("text", ["http://example.org/a.png", "HTTPS://example.org/a.png", "https://"])
def test_addresses_are_refused(text):
    with pytest.raises(BadPhoto, match=r"^Photo 2 is an address; nothing is fetched from the net\. Send the picture"):
        PhotoData.of_base64(text, "Photo 2")


@pytest.mark.parametrize("text", ["abc", "a-b_", "C:\\photos\\a.png", "ä", "data:image/png;base64,%%%", "aGk=aGk="])
def test_not_base64(text):
    with pytest.raises(BadPhoto, match=r"^Photo 1 is not base64"):
        PhotoData.of_base64(text, "Photo 1")


@pytest.mark.parametrize("text", ["", "  \n", "data:image/png;base64,", "data:image/png"])
def test_empty(text):
    with pytest.raises(BadPhoto, match=r"^Photo 1 is empty"):
        PhotoData.of_base64(text, "Photo 1")


def test_a_text_larger_than_any_photo_is_not_decoded(monkeypatch):
    calls = []
    monkeypatch.setattr(base64, "b64decode", lambda *args, **kwargs: calls.append(args) or b"x")
    with pytest.raises(BadPhoto, match=r"^Photo 1 is larger than 200 MB, so it is not read\. Make it smaller\.$"):
        PhotoData.of_base64(long(MAX_BYTES * 4 // 3 + 1), "Photo 1")
    assert calls == []
    PhotoData.of_base64(long(MAX_BYTES * 4 // 3), "Photo 1")
    assert len(calls) == 1


def test_files(tmp_path):
    path = tmp_path / "anna.png"
    path.write_bytes(DATA)
    assert PhotoData.of_file(path) == PhotoData(DATA, "anna.png")
    assert PhotoData.of_file(str(path), "holiday.png").label == "holiday.png"


def test_a_file_larger_than_any_photo_is_not_read(tmp_path):
    """A sparse file: it takes no room on the disk either."""
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadPhoto, match=r"^huge\.png is larger than 200 MB, so it is not read"):
        PhotoData.of_file(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadPhoto, match=r"^gone\.png cannot be read \(.*\)\. Add the photo again\.$") as caught:
        PhotoData.of_file(tmp_path / "gone.png")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(BadPhoto, match="cannot be read"):
        PhotoData.of_file(tmp_path)
