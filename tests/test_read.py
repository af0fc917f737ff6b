"""Every container gives back the tensors that went in, bit for bit, one at a time."""

from __future__ import annotations

import json
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lib_faceid.errors import BrokenWeights
from lib_faceid.weights.read import TensorInfo, open_tensors

from .containers import Tensors, save_flat_bin, save_nested_bin, save_safetensors, save_torch_zip, save_training_bin
from .fresh_python import run_code
from .pickle_parts import call, dict_of, named, number, numbers, program, small_tensor, storage, tensor, text, tuple_of

LINUX = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what Linux keeps in /proc")
DTYPES = (torch.float16, torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)
SAME = {"image_proj": "image_proj", "ip_adapter": "ip_adapter"}
TRAINING = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
CONTAINERS = [
    pytest.param(save_nested_bin, SAME, id="nested"),
    pytest.param(save_flat_bin, SAME, id="flat"),
    pytest.param(save_training_bin, TRAINING, id="training"),
    pytest.param(save_safetensors, SAME, id="safetensors"),
]
Writer = Callable[[Path, Tensors], Path]


def mixed_tensors() -> dict[str, torch.Tensor]:
    """Every dtype, a scalar, an empty tensor and one that is large enough to be mapped."""
    tensors = {f"image_proj.{dtype}".replace("torch.", ""): (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    tensors["ip_adapter.scalar"] = torch.tensor(1.5)
    tensors["ip_adapter.empty"] = torch.zeros(0, 7, dtype=torch.float16)
    tensors["ip_adapter.1.to_k_ip.weight"] = torch.randn(320, 768).to(torch.float16)
    return tensors


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.is_contiguous() and not found.requires_grad
    assert found.data_ptr() % found.element_size() == 0
    assert torch.equal(bits(found), bits(expected.detach()))


@pytest.mark.parametrize(("save", "parts"), CONTAINERS)
def test_a_file_gives_back_what_went_in(tmp_path: Path, save: Writer, parts: dict[str, str]) -> None:
    tensors = mixed_tensors()
    file = open_tensors(save(tmp_path / "adapter", tensors))
    for name, expected in tensors.items():
        part, _, inner = name.partition(".")
        stored = f"{parts[part]}.{inner}"
        assert file.tensors[stored] == TensorInfo(tuple(expected.shape), expected.dtype)
        assert_same_bits(file.load(stored), expected)
    assert len(file.tensors) == len(tensors) + 2 * (save is save_training_bin)


@pytest.mark.parametrize(("save", "parts"), CONTAINERS)
def test_load_many_keeps_the_order_asked_for(tmp_path: Path, save: Writer, parts: dict[str, str]) -> None:
    file = open_tensors(save(tmp_path / "adapter", mixed_tensors()))
    names = sorted(file.tensors, reverse=True)
    assert [name for name, _ in file.load_many(names)] == names
    for name, found in file.load_many(iter(names)):
        assert_same_bits(found, file.load(name))


def test_the_first_bytes_decide_and_not_the_extension(tmp_path: Path) -> None:
    tensors = mixed_tensors()
    assert len(open_tensors(save_safetensors(tmp_path / "really.bin", tensors)).tensors) == len(tensors)
    assert len(open_tensors(str(save_nested_bin(tmp_path / "other.safetensors", tensors))).tensors) == len(tensors)


def test_metadata_is_that_of_the_safetensors_header(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(1)}
    assert open_tensors(save_safetensors(tmp_path / "a", tensors, {"base": "sd15"})).metadata == {"base": "sd15"}
    assert open_tensors(save_safetensors(tmp_path / "b", tensors)).metadata == {}
    assert open_tensors(save_flat_bin(tmp_path / "c", tensors)).metadata == {}


def test_an_unknown_name_is_a_key_error(tmp_path: Path) -> None:
    for save in (save_safetensors, save_flat_bin):
        file = open_tensors(save(tmp_path / save.__name__, {"a": torch.zeros(1)}))
        with pytest.raises(KeyError, match="b"):
            file.load("b")


def test_what_is_loaded_is_writable_and_the_file_stays(tmp_path: Path) -> None:
    for save in (save_safetensors, save_flat_bin):
        path = save(tmp_path / save.__name__, {"small": torch.ones(4), "large": torch.ones(200, 200)})
        before = path.read_bytes()
        for _, loaded in open_tensors(path).load_many(["small", "large"]):
            loaded.zero_()
        assert path.read_bytes() == before


def test_views_are_unfolded(tmp_path: Path) -> None:
    base = torch.randn(300, 200)
    views = {
        "transposed": base.T,
        "columns": base[:, 3:9],
        "rows": base[7:9],
        "every third": base[::3, 1::3],
        "repeated": base[0].expand(50, 200),
        "element": base[5, 6],
        "nothing": base[4:4],
    }
    file = open_tensors(save_flat_bin(tmp_path / "views.bin", views))
    for name, expected in views.items():
        assert_same_bits(file.load(name), expected)


def test_state_dicts_parameters_and_plain_values(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    saved = {
        "layer": layer.state_dict(),  # an OrderedDict with an attribute
        "parameters": OrderedDict(layer.named_parameters()),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]},
        "notes": ["text", None, True, 2**70, 0.5, (1, 2)],
    }
    torch.save(saved, tmp_path / "checkpoint.pth")
    file = open_tensors(tmp_path / "checkpoint.pth")
    names = ["layer.weight", "layer.bias", "parameters.weight", "parameters.bias", "optimizer.state.0.step"]
    assert list(file.tensors) == names
    assert_same_bits(file.load("layer.weight"), layer.weight)
    assert_same_bits(file.load("parameters.bias"), layer.bias)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_that_pytorch_can_write(tmp_path: Path, protocol: int) -> None:
    tensors = mixed_tensors()
    torch.save({"ip_adapter": tensors}, tmp_path / "a.bin", pickle_protocol=protocol)
    file = open_tensors(tmp_path / "a.bin")
    for name, expected in tensors.items():
        assert_same_bits(file.load(f"ip_adapter.{name}"), expected)


def test_a_file_from_before_byteorder_and_alignment(tmp_path: Path) -> None:
    """Published files have neither member; here one of two starts at an odd byte, and the description is by hand."""
    halves = torch.randn(256 * 512 + 64).to(torch.float16)
    part = tensor(storage(count=len(halves)), numbers(256, 512), numbers(512, 1), offset=5)
    hooks = call(named("collections", "OrderedDict"))
    parameter = call(named("torch._utils", "_rebuild_parameter"), part, b"\x88", hooks)
    body = dict_of(image_proj=dict_of(**{"proj.weight": parameter}))
    for pad in range(2):
        members = {"odd" + "x" * pad: b"", "data/0": halves.view(torch.uint8).numpy().tobytes()}
        file = open_tensors(save_torch_zip(tmp_path / f"{pad}.bin", program(body), members))
        assert_same_bits(file.load("image_proj.proj.weight"), halves[5:131077].view(256, 512))


def test_int_keys_become_text_and_lists_of_tensors_are_passed_over(tmp_path: Path) -> None:
    listed = b"](" + small_tensor() + b"e"
    body = b"}(" + number(7) + small_tensor() + text("list") + listed + text("pair") + tuple_of(number(1), b"N") + b"u"
    assert list(open_tensors(save_torch_zip(tmp_path / "a", program(body))).tensors) == ["7"]


def test_a_dict_that_is_shared_is_read_twice(tmp_path: Path) -> None:
    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "ema": weights}, tmp_path / "a.bin")
    assert list(open_tensors(tmp_path / "a.bin").tensors) == ["model.w", "ema.w"]


def test_a_directory_in_64_bit_form(tmp_path: Path) -> None:
    """Forced for a small file: every number moved to the 64-bit fields, as in files over 4 GB."""
    path = save_flat_bin(tmp_path / "a.bin", {"w": torch.arange(6.0)})
    data = bytearray(path.read_bytes())
    assert data[-98:-94] == b"PK\6\6" and data[-22:-18] == b"PK\5\6"  # torch writes both forms
    data[-14:-2] = b"\xff" * 12
    path.write_bytes(data)
    assert open_tensors(path).load("w").equal(torch.arange(6.0))


@pytest.mark.parametrize("save", [save_safetensors, save_flat_bin])
def test_a_file_that_changed_or_vanished_is_said(tmp_path: Path, save: Writer) -> None:
    path = save(tmp_path / "a", {"w": torch.ones(3)})
    file = open_tensors(path)
    save(path, {"w": torch.ones(4000)})
    with pytest.raises(BrokenWeights, match="replaced or changed"):
        file.load("w")
    path.unlink()
    with pytest.raises(BrokenWeights, match="There is no file"):
        file.load("w")


@LINUX
@pytest.mark.parametrize("save", [save_safetensors, save_flat_bin])
def test_nothing_stays_open_or_mapped(tmp_path: Path, save: Writer) -> None:
    path = save(tmp_path / "watched", {"w": torch.ones(300, 300), "v": torch.ones(300, 300)})
    file = open_tensors(path)
    loaded = dict(file.load_many(file.tensors))
    del loaded
    open_files = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert path not in open_files and str(path) not in Path("/proc/self/maps").read_text()


READ_ALL = """
    import sys
    import torch
    from lib_faceid.weights.read import open_tensors

    def peak():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

    def read(path):
        file = open_tensors(path)
        for name, tensor in file.load_many(file.tensors):
            assert int(tensor.view(torch.int16).max()) == 0  # touches every page

    torch.set_num_threads(1)
    read(sys.argv[1])
    before = peak()
    read(sys.argv[2])
    sys.stdout.write(str(peak() - before))
"""
PART = 15_000_000  # bytes, twenty of them in a file


def save_large_safetensors(path: Path) -> Path:
    entries = {
        f"w{n}": {"dtype": "F16", "shape": [PART // 2], "data_offsets": [n * PART, (n + 1) * PART]} for n in range(20)
    }
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 20 * PART)
    return path


def save_large_bin(path: Path) -> Path:
    return save_flat_bin(path, {f"w{n}": torch.zeros(PART // 2, dtype=torch.float16) for n in range(20)})


@LINUX
@pytest.mark.parametrize(
    ("save", "save_large"), [(save_safetensors, save_large_safetensors), (save_flat_bin, save_large_bin)]
)
def test_reading_300_mb_takes_the_memory_of_one_tensor(
    tmp_path: Path, save: Writer, save_large: Callable[[Path], Path]
) -> None:
    small, large = save(tmp_path / "small", {"w": torch.zeros(9, dtype=torch.float16)}), save_large(tmp_path / "large")
    most = int(run_code(textwrap.dedent(READ_ALL), str(small), str(large)))
    large.unlink()
    assert most < 2 * PART
