"""Say what a file is when its first bytes belong to neither safetensors nor a zip container."""

from __future__ import annotations

from ..errors import BrokenWeights, NotAnAdapter, WrongWeights

HEAD_BYTES = 512  # a tar archive keeps its mark at byte 257; pages and pointers show themselves in their first lines
_QUOTED = 60  # characters of a text that a sentence repeats
_PREFER = "Get the adapter as .safetensors, or as a .bin written by PyTorch 1.6 or later."
_RUNS = "Such a file can only be read by running it, and nothing was run."
_ADAPTER_FILE = "Choose an IP-Adapter file, .safetensors or .bin."

_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # protocol 2, a long integer, stop
_SIGNATURES: tuple[tuple[bytes, type[WrongWeights], str], ...] = (
    (_OLD_TORCH, BrokenWeights, f"is in PyTorch's format of before 1.6. {_RUNS} {_PREFER}"),
    (b"GGUF", NotAnAdapter, f"is a GGUF file, a quantised model for other programs. {_ADAPTER_FILE}"),
    (b"\x1f\x8b", NotAnAdapter, "is a gzip archive. Unpack it and choose the weight file inside."),
    (b"7z\xbc\xaf\x27\x1c", NotAnAdapter, "is a 7z archive. Unpack it and choose the weight file inside."),
    (b"Rar!\x1a\x07", NotAnAdapter, "is a RAR archive. Unpack it and choose the weight file inside."),
    (b"\xfd7zXZ\x00", NotAnAdapter, "is an xz archive. Unpack it and choose the weight file inside."),
    (b"\x93NUMPY", NotAnAdapter, f"is a single NumPy array. {_ADAPTER_FILE}"),
    (b"\x89HDF\r\n\x1a\n", NotAnAdapter, f"is an HDF5 file, as Keras writes them. {_ADAPTER_FILE}"),
    (b"\x89PNG\r\n\x1a\n", NotAnAdapter, f"is a PNG picture. {_ADAPTER_FILE}"),
    (b"\xff\xd8\xff", NotAnAdapter, f"is a JPEG picture. {_ADAPTER_FILE}"),
)  # fmt: skip


def explain_foreign(label: str, head: bytes, size: int) -> WrongWeights:
    """The error for a file of ``size`` bytes that starts with ``head``; ``label`` is how sentences call the file."""
    if size == 0:
        return BrokenWeights(f"{label} is empty: it has 0 bytes. Download it again.")
    if not any(head):
        return BrokenWeights(f"{label} starts with zero bytes only: a download was never filled. Get it again.")
    for signature, kind, sentence in _SIGNATURES:
        if head.startswith(signature):
            return kind(f"{label} {sentence}")
    return _explain_pattern(label, head) or _explain_text(label, head, size) or _unknown(label, head)


def _explain_pattern(label: str, head: bytes) -> WrongWeights | None:
    if head[257:262] == b"ustar":
        return BrokenWeights(f"{label} is a tar archive; PyTorch before version 0.2 wrote such files. {_PREFER}")
    if head[0] == 0x80 and head[1:2] in {b"\2", b"\3", b"\4", b"\5"}:  # PROTO and its version
        return BrokenWeights(f"{label} is a bare Python pickle. {_RUNS} {_PREFER}")
    if head[0] == 0x08 and head[1:2] <= b"\x20" and head[2:3] in {b"\x12", b"\x1a", b'"', b"(", b":", b"B"}:
        # ONNX ModelProto: field 1 is ir_version, 13 at most today; then producer, domain, version, graph or opset
        return NotAnAdapter(f"{label} is an ONNX model; face detectors and recognisers look like this. {_ADAPTER_FILE}")
    return None


def _explain_text(label: str, head: bytes, size: int) -> WrongWeights | None:
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\ufffd").lstrip()
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return None
    if text.lower().startswith(("<!doctype html", "<html", "<head", "<?xml")):
        return BrokenWeights(f"{label} is the web page about the file, not the file. Use the page's download button.")
    if text.startswith("version https://git-lfs"):
        found = f"a git-lfs pointer of {size} bytes, not the weights"
        return BrokenWeights(f"{label} is {found}. Run 'git lfs pull', or download the file itself.")
    quoted = " ".join(text.split())[:_QUOTED]
    if text.startswith(("{", "[")):
        return BrokenWeights(f"{label} holds a server's JSON answer ({quoted}) instead of weights. Download it again.")
    return BrokenWeights(f"{label} is a text that begins with '{quoted}', not weights. Download it again.")


def _unknown(label: str, head: bytes) -> WrongWeights:
    start = head[:8].hex(" ")
    return NotAnAdapter(f"{label} is neither safetensors nor PyTorch: its first bytes are {start}. {_ADAPTER_FILE}")
