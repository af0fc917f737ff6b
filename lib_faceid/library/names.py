"""Names of saved people: what may become a file name on every system, and nothing that leads anywhere else."""

from __future__ import annotations

import re
import unicodedata

from ..errors import BadIdentity

MAX_CHARACTERS = 120  # longer ones do not fit a list in a panel
# File systems allow 255 bytes for a name; ".safetensors" and the endings that sync programs add need room.
MAX_BYTES = 200

# Text direction marks and overrides (Unicode UAX 9, table of explicit directional codes): "gnp.anna" can look like
# "anna.png". The rest shows nothing at all, so two names would look the same. U+200C and U+200D are not among them:
# Persian names and emoji need them.
_INVISIBLE = re.compile("[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
_SEPARATORS = re.compile(r"[/\\]")
# Microsoft, "Naming Files, Paths, and Namespaces": forbidden characters and reserved device names, with superscript
# digits and with any extension.
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_SHOWN = 40  # characters of a refused name that a sentence repeats


def check_name(text: str) -> str:
    """The name in composed form (NFC) without blanks around it. Raises BadIdentity with the reason and the remedy."""
    name = unicodedata.normalize("NFC", text).strip()
    reason = _refusal(name)
    if reason:
        raise BadIdentity(f"{_shown(name)} cannot be the name of a saved person: {reason}.")
    return name


def same_name(a: str, b: str) -> bool:
    """Whether two checked names are one file on systems that do not tell upper from lower case."""
    return _folded(a) == _folded(b)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _refusal(name: str) -> str:
    """What is wrong with the name and what to do; empty where nothing is."""
    if not name:
        return "it is empty. Give a name of at least one letter"
    if len(name) > MAX_CHARACTERS:
        return f"it has {len(name)} characters, at most {MAX_CHARACTERS} are allowed. Give a shorter one"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name) or _INVISIBLE.search(name):
        return "it has characters that cannot be seen (control characters or direction marks). Type it anew"
    if len(name.encode()) > MAX_BYTES:
        return f"it takes {len(name.encode())} bytes, at most {MAX_BYTES} are allowed. Give a shorter one"
    return _refusal_as_file(name)


def _refusal_as_file(name: str) -> str:
    if separator := _SEPARATORS.search(name):
        return f"it has a path separator ({separator[0]}), and a person is called by name alone. Leave it out"
    if name.startswith(".") or ".." in name:
        return "it begins with a dot or has two dots in a row, which mean folders and hidden files. Leave them out"
    if forbidden := _FORBIDDEN.search(name):
        return f"it has {forbidden[0]}, which Windows allows in no file name. Leave it out"
    if name.endswith("."):
        return "it ends with a dot, which Windows drops. Leave it out"
    if _RESERVED.fullmatch(name.partition(".")[0].rstrip()):
        return "Windows keeps this name for a device. Add a letter or a number to it"
    return ""


def _shown(name: str) -> str:
    """The name for a sentence: short, and with every character that cannot be seen written out."""
    return ascii(name[:_SHOWN]) if _INVISIBLE.search(name) or not name.isprintable() else repr(name[:_SHOWN])
