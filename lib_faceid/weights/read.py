"""Open a weight file of any published kind as tensors or not at all; no code inside a file is ever run.

``torch.load`` is not used: the hosts replace it, and its own protection has been bypassed before torch 2.10.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BrokenWeights
from .not_weights import HEAD_BYTES, explain_foreign
from .safetensors_file import read_safetensors
from .tensor_file import Stamp, TensorFile, TensorInfo, plain_errors, stamp_file
from .torch_file import read_torch

__all__ = ["TensorFile", "TensorInfo", "open_tensors"]


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Index a safetensors or PyTorch zip file; its first bytes decide which, never its extension. Reads no tensor.

    Raises BrokenWeights (missing, unreadable, damaged or unsafe) or NotAnAdapter (another kind of file).
    """
    if "\0" in os.fspath(path):
        raise BrokenWeights("The path of the weight file contains a zero character. Check how it was entered.")
    found = Path(path)
    stamp = stamp_file(found)
    with plain_errors(found):
        return _open_kind(found, stamp)


def _open_kind(path: Path, stamp: Stamp) -> TensorFile:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[4:8] == bytes(4) and head[8:9] == b"{":  # a header length below 4 GiB, then JSON
        return TensorFile(path, stamp, *read_safetensors(path, stamp.size))
    if head[:4] in {b"PK\3\4", b"PK\5\6"}:  # the first member of a zip container, or the end of an empty one
        return TensorFile(path, stamp, read_torch(path), {})
    raise explain_foreign(f"'{path.name}'", head, stamp.size)
