"""Names of saved people: what may be a file's name everywhere, and what is refused in a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_faceid.errors import BadIdentity
from lib_faceid.library.names import MAX_BYTES, MAX_CHARACTERS, check_name, same_name


@pytest.mark.parametrize(
    "name",
    [
        "anna", "Anna Müller", "安娜", "Ольга", "نرگس\u200cها", "👩‍🚀 crew", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "O'Neil, Jr",
        "anna (2) [x] {y} #1 & 50%",
        "v1.5", "console", "com", "com10", "lpt", "nuller", "auxiliary", "-", "~", "a" * MAX_CHARACTERS, "é" * 100,
    ],
)  # fmt: skip
def test_names_people_have(name):
    assert check_name(name) == name


def test_composed_and_trimmed():
    assert check_name("  Zoe\u0308 \n") == "Zo\u00eb"
    assert check_name("\u3000安娜\u3000") == "安娜"


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u3000"])
def test_empty(name):
    with pytest.raises(BadIdentity, match="it is empty"):
        check_name(name)


@pytest.mark.parametrize("name", ["a/b", "/etc/passwd", "a\\b", "..\\x", "C:\\anna", "anna/", "\\\\server\\anna"])
def test_separators(name):
    with pytest.raises(BadIdentity, match="path separator"):
        check_name(name)


@pytest.mark.parametrize("name", ["..", ".", ".anna", "...", "a..b", "anna.."])
def test_dots(name):
    with pytest.raises(BadIdentity, match="begins with a dot or has two dots"):
        check_name(name)


@pytest.mark.parametrize("name", ["anna.", "v1."])
def test_trailing_dots(name):
    with pytest.raises(BadIdentity, match="ends with a dot"):
        check_name(name)


@pytest.mark.parametrize("character", [*range(1, 32), 0, 127, 0x85, 0x9F, 0xD800, 0xDFFF])
def test_control_characters(character):
    with pytest.raises(BadIdentity, match="cannot be seen"):
        check_name(f"a{chr(character)}b")


@pytest.mark.parametrize(
    "character", [0x061C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x206A), 0xFEFF, 0xFFF9]
)
def test_direction_marks_and_what_shows_nothing(character):
    """The sentence shows where they are, and holds none of them itself."""
    with pytest.raises(BadIdentity, match="cannot be seen") as caught:
        check_name(f"anna{chr(character)}gnp")
    assert chr(character) not in str(caught.value)
    assert f"\\u{character:04x}" in str(caught.value)


@pytest.mark.parametrize("character", '<>:"|?*')
def test_what_windows_forbids(character):
    with pytest.raises(BadIdentity, match="Windows allows in no file name"):
        check_name(f"a{character}b")


@pytest.mark.parametrize(
    "name",
    [
        "con", "CON", "Nul", "prn", "aux", "com1", "COM9", "lpt1", "LPT9", "com0", "com¹", "lpt²", "con.txt",
        "nul.tar.gz", "aux .x", "conin$", "CONOUT$", "clock$",
    ],
)  # fmt: skip
def test_what_windows_reserves(name):
    with pytest.raises(BadIdentity, match="Windows keeps this name for a device"):
        check_name(name)


def test_long_names():
    with pytest.raises(BadIdentity, match="it has 121 characters, at most 120") as caught:
        check_name("a" * 121)
    assert len(str(caught.value)) < 250
    with pytest.raises(BadIdentity, match="it takes 201 bytes, at most 200"):
        check_name("安" * 67)
    assert check_name("é" * (MAX_BYTES // 2))


@given(st.text(max_size=30))
def test_whatever_passes_is_one_file_name(text):
    """Written with the ending, it is the same name again, in one folder, and passes again unchanged."""
    try:
        name = check_name(text)
    except BadIdentity:
        return
    assert check_name(name) == name
    assert not set(name) & set('/\\<>:"|?*')
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert 0 < len(f"{name}.safetensors".encode()) < 255


def test_same_name():
    assert same_name("Anna", "aNNA")
    assert same_name("Zo\u00eb", "ZOE\u0308")
    assert same_name("straße", "STRASSE")
    assert not same_name("anna", "anne")
