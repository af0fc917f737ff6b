"""Files that are no adapters, or no longer: each writer makes one at the given path."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from .containers import save_flat_bin, save_safetensors, save_torch_zip
from .pickle_parts import dict_of, program, small_tensor

Break = Callable[[Path], object]
GOOD_PICKLE = program(dict_of(w=small_tensor()))
CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


def content(data: bytes) -> Break:
    return lambda path: path.write_bytes(data)


def old_torch(path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def plain_zip(*names: str) -> Break:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")

    return write


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(3))


def deflated(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", GOOD_PICKLE)
        archive.writestr("archive/data/0", bytes(64))


def torch_zip(**members: bytes) -> Break:
    """A readable description, with ``data/0`` unless other members are given; two underscores stand for a slash."""
    named = {name.replace("__", "/"): data for name, data in members.items()}
    return lambda path: save_torch_zip(path, GOOD_PICKLE, {"data/0": bytes(64), **named})


def described(description: bytes) -> Break:
    return lambda path: save_torch_zip(path, description)


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("archive/data.pkl", "archive/data/0", "archive/data/1"):
            archive.writestr(name, GOOD_PICKLE)
    path.write_bytes(path.read_bytes().replace(b"data/1", b"data/0"))


def changed(signature: bytes, field: int, value: bytes) -> Break:
    """A good file with ``value`` at byte ``field`` of the last record of that kind."""

    def write(path: Path) -> None:
        data = bytearray(save_torch_zip(path, GOOD_PICKLE).read_bytes())
        start = data.rindex(signature) + field
        data[start : start + len(value)] = value
        path.write_bytes(data)

    return write


def grown(path: Path) -> None:
    """Both headers of ``data/0`` claim 4 MB."""
    data = save_torch_zip(path, GOOD_PICKLE).read_bytes()
    path.write_bytes(data.replace((64).to_bytes(4, "little") * 2, (4 << 20).to_bytes(4, "little") * 2))


def huge_directory(path: Path) -> None:
    """A directory that starts at byte 0 of nine megabytes, if its end may be believed."""
    data = bytearray(save_torch_zip(path, GOOD_PICKLE, {"data/0": bytes(9_000_000)}).read_bytes())
    size = data.rindex(END)
    data[size + 12 : size + 20] = size.to_bytes(4, "little") + bytes(4)
    path.write_bytes(data)


def far_directory(path: Path) -> None:
    """The 64-bit end of the directory is said to lie past any file."""
    data = bytearray(save_flat_bin(path, {"w": torch.zeros(2)}).read_bytes())
    data[-34:-26] = b"\xff" * 8
    data[-6:-2] = b"\xff" * 4
    path.write_bytes(data)


def cut_bin(path: Path) -> None:
    data = save_flat_bin(path, {"w": torch.zeros(200)}).read_bytes()
    path.write_bytes(data[:900])


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> Break:
    """``header`` is dumped as JSON unless it is bytes; ``length`` is what the file claims, else the true one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    return content(claimed.to_bytes(8, "little") + text + data)


def entry(dtype: str, shape: list[int], end: int) -> Mapping[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def cut_safetensors(path: Path) -> None:
    data = save_safetensors(path, {"w": torch.zeros(200)}).read_bytes()
    path.write_bytes(data[:-100])
