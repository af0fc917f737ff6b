"""Every file that cannot be used gets its own sentence, and stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_faceid.errors import BrokenWeights, NotAnAdapter, WrongWeights
from lib_faceid.weights import safetensors_file
from lib_faceid.weights.read import open_tensors

from .broken_files import (
    CENTRAL,
    END,
    LOCAL,
    Break,
    changed,
    content,
    cut_bin,
    cut_safetensors,
    deflated,
    described,
    entry,
    far_directory,
    grown,
    huge_directory,
    npz,
    old_torch,
    plain_zip,
    safetensors,
    tar,
    torch_zip,
    twice,
)
from .containers import save_flat_bin, save_nested_bin, save_safetensors
from .pickle_parts import program

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:201344e2\nsize 96740574\n"
BROKEN: dict[str, tuple[type[WrongWeights], str, Break]] = {
    "missing": (BrokenWeights, "There is no file", lambda path: None),
    "folder": (BrokenWeights, "is a folder", lambda path: path.mkdir()),
    "empty": (BrokenWeights, "0 bytes", content(b"")),
    "zeros": (BrokenWeights, "zero bytes only", content(bytes(4096))),
    "page": (BrokenWeights, "web page", content(b"\n<!DOCTYPE html>\n<html><head><title>h94</title>")),
    "pointer": (BrokenWeights, "git-lfs pointer of 77 bytes", content(POINTER)),
    "json": (BrokenWeights, 'JSON answer ({"error": "No such file"})', content(b'{"error": "No such file"}')),
    "text": (BrokenWeights, "begins with 'Entry not found'", content(b"Entry\nnot found")),
    "old torch": (BrokenWeights, "before 1.6", old_torch),
    "tar": (BrokenWeights, "tar archive", tar),
    "pickle": (BrokenWeights, "bare Python pickle", content(program(b"}"))),
    "onnx": (NotAnAdapter, "ONNX model", content(b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(range(200)))),
    "gguf": (NotAnAdapter, "GGUF", content(b"GGUF\x03\0\0\0\0")),
    "gzip": (NotAnAdapter, "gzip archive", content(b"\x1f\x8b\x08\0\0\0\0\0")),
    "7z": (NotAnAdapter, "7z archive", content(b"7z\xbc\xaf\x27\x1c\0\4")),
    "rar": (NotAnAdapter, "RAR archive", content(b"Rar!\x1a\x07\x01\0")),
    "xz": (NotAnAdapter, "xz archive", content(b"\xfd7zXZ\0\0\4")),
    "npy": (NotAnAdapter, "single NumPy array", content(b"\x93NUMPY\x01\0v\0{'descr'")),
    "npz": (NotAnAdapter, ".npz", npz),
    "hdf5": (NotAnAdapter, "HDF5", content(b"\x89HDF\r\n\x1a\n\0\0")),
    "png": (NotAnAdapter, "PNG picture", content(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")),
    "jpeg": (NotAnAdapter, "JPEG picture", content(b"\xff\xd8\xff\xe0\0\x10JFIF\0")),
    "unknown": (NotAnAdapter, "first bytes are de ad be ef 00 01 02 03", content(b"\xde\xad\xbe\xef\0\1\2\3\4")),
    "zipped folder": (NotAnAdapter, "zip archive of 2 files", plain_zip("docs/a.txt", "docs/b.md")),
    "empty zip": (NotAnAdapter, "zip archive of 0 files", plain_zip()),
    "zipped adapter": (NotAnAdapter, "'x/ip.safetensors' inside", plain_zip("x/ip.safetensors", "x/readme.txt")),
    "torchscript": (NotAnAdapter, "TorchScript", torch_zip(**{"constants.pkl": b"x"})),
    "no tensor": (NotAnAdapter, "PyTorch file without a single", lambda path: torch.save({"a": 1, "b": [2]}, path)),
    "lone tensor": (NotAnAdapter, "a single tensor", lambda path: torch.save(torch.zeros(3), path)),
    "list": (NotAnAdapter, "a single list", lambda path: torch.save([torch.zeros(3)], path)),
    "cut zip": (BrokenWeights, "without its last part: the download stopped after 900 bytes", cut_bin),
    "deflated": (BrokenWeights, "was compressed again ('archive/data.pkl')", deflated),
    "encrypted": (BrokenWeights, "password", changed(CENTRAL, 8, b"\1")),
    "twice": (BrokenWeights, "lists 'archive/data/0' twice", twice),
    "two archives": (BrokenWeights, "holds 2 PyTorch archives", plain_zip("a/data.pkl", "b/data.pkl")),
    "big endian": (BrokenWeights, "big-endian", torch_zip(byteorder=b"big")),
    "byte order": (BrokenWeights, "byte order is 'middle'", torch_zip(byteorder=b"middle")),
    "long pickle": (BrokenWeights, "5000000 bytes to describe", described(b"." * 5_000_000)),
    "local header": (BrokenWeights, "does not agree with the member 'archive/data/0'", changed(LOCAL, 30, b"z")),
    "offset outside": (BrokenWeights, "outside the file", changed(CENTRAL, 42, b"\xf0\xff\xff\x7f")),
    "member too long": (BrokenWeights, "past the end", grown),
    "directory line": (BrokenWeights, "unreadable line", changed(CENTRAL, 0, b"XXXX")),
    "directory count": (BrokenWeights, "lists 2 members where 3", changed(END, 8, b"\3\0\3\0")),
    "directory huge": (BrokenWeights, "at most 8388608 expected", huge_directory),
    "directory outside": (BrokenWeights, "lies outside", changed(END, 16, b"\0\0\0\x10")),
    "directory 64": (BrokenWeights, "has no 64-bit end although", changed(END, 16, b"\xff\xff\xff\xff")),
    "cut tensors": (BrokenWeights, "is cut off: 772 bytes found, 872 expected", cut_safetensors),
    "cut header": (BrokenWeights, "ends inside its header: 38 bytes found", safetensors(b'{' + b" " * 29, b"", 900)),
    "bad header": (BrokenWeights, "its header cannot be read", safetensors(b"{broken}")),
    "bad header 2": (BrokenWeights, "a header of 4294967295 bytes", safetensors(b"{}", length=2**32 - 1)),
    "too long": (BrokenWeights, "77 bytes expected, 87 found", safetensors(entry("F16", [4], 8), bytes(18))),
    "contradiction": (BrokenWeights, "contradicts itself", safetensors(entry("F16", [5], 8), bytes(8))),
    "float8": (NotAnAdapter, "is stored as F8_E4M3", safetensors(entry("F8_E4M3", [4], 4), bytes(4))),
    "no tensors": (NotAnAdapter, "safetensors file without a single", safetensors({"__metadata__": {"a": "b"}})),
}  # fmt: skip


def complaint(path: Path) -> WrongWeights:
    with pytest.raises(WrongWeights) as caught:
        open_tensors(path)
    return caught.value


@pytest.mark.parametrize("case", BROKEN)
def test_each_gets_its_class_and_sentence(tmp_path: Path, case: str) -> None:
    kind, part, write = BROKEN[case]
    path = tmp_path / "ip-adapter.bin"
    write(path)
    before = path.read_bytes() if path.is_file() else None
    error = complaint(path)
    assert type(error) is kind
    assert part in str(error) and "ip-adapter.bin'" in str(error) and str(error).endswith(".")
    assert before is None or path.read_bytes() == before


def test_no_two_sentences_are_the_same(tmp_path: Path) -> None:
    sentences: dict[str, str] = {}
    for number, (case, (_, _, write)) in enumerate(BROKEN.items()):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        write(folder / "a")
        sentence = str(complaint(folder / "a")).replace(str(folder), "")
        assert sentence not in sentences, (case, sentences[sentence])
        sentences[sentence] = case
        assert len(sentence) < 400 and "\n" not in sentence


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "device or pipe" in str(complaint(tmp_path / "pipe"))


def test_a_path_with_a_zero_character() -> None:
    assert "zero character" in str(complaint(Path("a\0b")))


@pytest.mark.parametrize(
    ("failure", "part"),
    [(PermissionError(13, "x"), "Change the permissions"), (OSError(5, "x"), "cannot be read: Input")],
)
def test_what_the_system_refuses_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError, part: str
) -> None:
    path = save_flat_bin(tmp_path / "a.bin", {"w": torch.zeros(2)})
    file = open_tensors(path)

    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Path, "open", refuse)
    assert part in str(complaint(path))
    with pytest.raises(BrokenWeights, match=part):
        file.load("w")


def test_a_header_that_two_readers_understand_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_safetensors(tmp_path / "a", {"w": torch.zeros(2)})
    for spans in ({}, {"w": (100, 104)}):
        monkeypatch.setattr(safetensors_file, "_find_spans", lambda _, spans=spans: spans)
        assert "described twice and differently" in str(complaint(path))


def test_a_directory_past_any_file(tmp_path: Path) -> None:
    far_directory(tmp_path / "a")
    assert "has no 64-bit end" in str(complaint(tmp_path / "a"))


def small_files(folder: Path) -> list[bytes]:
    tensors = {"image_proj.a": torch.ones(2, 3, dtype=torch.float16), "ip_adapter.1.b": torch.arange(4)}
    writers = (save_nested_bin, save_flat_bin, save_safetensors)
    return [save(folder / "good", tensors).read_bytes() for save in writers]


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return small_files(tmp_path_factory.mktemp("good"))


def read_or_refuse(path: Path) -> None:
    try:
        file = open_tensors(path)
        for name, tensor in file.load_many(file.tensors):
            assert file.tensors[name].shape == tuple(tensor.shape)
    except WrongWeights as error:
        assert str(error).endswith(".")


@given(
    which=st.integers(0, 2),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1),
)
def test_damaged_files_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
    good_files: list[bytes],
    which: int,
    places: list[tuple[float, int]],
    keep: float,
) -> None:
    data = bytearray(good_files[which])
    for where, value in places:
        data[int(where * (len(data) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: int(keep * len(data))] if keep < 0.3 else data)
    read_or_refuse(path)


@given(which=st.integers(0, 2), length=st.floats(0, 1))
def test_cut_files_are_refused(
    tmp_path_factory: pytest.TempPathFactory, good_files: list[bytes], which: int, length: float
) -> None:
    data = good_files[which]
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(data[: int(length * (len(data) - 1))])
    complaint(path)
