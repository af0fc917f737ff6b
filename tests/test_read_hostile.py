"""A pickle that wants to run something, or to take for ever, is refused before anything happened."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lib_faceid.errors import BrokenWeights, WrongWeights
from lib_faceid.weights.read import open_tensors

from .containers import save_torch_zip
from .pickle_parts import (
    BUILD,
    MARK,
    NONE,
    REDUCE,
    TUPLE,
    call,
    dict_of,
    named,
    number,
    numbers,
    program,
    small_tensor,
    storage,
    tensor,
    text,
    tuple_of,
)

SYSTEM = named("posix", "system")
ORDERED = named("collections", "OrderedDict")
PARAMETER = named("torch._utils", "_rebuild_parameter")
COMMAND = text("touch MARKER")
STACKED = text("posix") + text("system") + b"\x93"
GLOBALS: dict[str, tuple[str, bytes]] = {
    "call": ("posix.system", call(SYSTEM, COMMAND)),
    "only named": ("posix.system", dict_of(w=small_tensor(), x=SYSTEM)),
    "stacked": ("posix.system", call(STACKED, COMMAND)),
    "stacked, without names": ("something without a name", number(1) + number(2) + b"\x93"),
    "INST": ("posix.system", MARK + COMMAND + b"iposix\nsystem\n"),
    "OBJ": ("posix.system", MARK + SYSTEM + COMMAND + b"o"),
    "NEWOBJ": ("posix.system", SYSTEM + tuple_of(COMMAND) + b"\x81"),
    "eval": ("builtins.eval", call(named("builtins", "eval"), text("open('MARKER', 'w')"))),
    "getattr": ("builtins.getattr", call(named("builtins", "getattr"), ORDERED, text("__init__"))),
    "dotted": ("collections.OrderedDict.clear", text("collections") + text("OrderedDict.clear") + b"\x93"),
    "torch.load": ("torch.load", call(named("torch", "load"), text("MARKER"))),
    "another builder": ("torch._utils._rebuild_tensor", named("torch._utils", "_rebuild_tensor")),
    "old module": ("__builtin__.eval", named("__builtin__", "eval")),
    "in a shape": ("posix.system", dict_of(w=tensor(storage(), call(SYSTEM, COMMAND), numbers(3, 1)))),
    "in hooks": ("posix.system", tensor(storage(), numbers(2), numbers(1), rest=b"\x89" + call(SYSTEM, COMMAND))),
    "in a storage": ("posix.system", tuple_of(text("storage"), SYSTEM, text("0"), text("cpu"), number(9)) + b"Q"),
    "in a state": ("posix.system", call(ORDERED) + call(SYSTEM, COMMAND) + BUILD),
    "in a parameter": ("posix.system", dict_of(w=call(PARAMETER, small_tensor(), b"\x88", call(SYSTEM, COMMAND)))),
    "before a good dict": ("posix.system", call(SYSTEM, COMMAND) + b"0" + dict_of(w=small_tensor())),
    "unprintable": ("po?six.sys?tem", named("po\x1bsix", "sys\x07tem")),
}  # fmt: skip
INSTRUCTIONS: dict[str, tuple[str, bytes]] = {
    "OBJ of a known name": ("OBJ", MARK + ORDERED + b"o"),
    "NEWOBJ of a known name": ("NEWOBJ", ORDERED + tuple_of() + b"\x81"),
    "NEWOBJ_EX": ("NEWOBJ_EX", ORDERED + tuple_of() + b"}\x92"),
    "EXT1": ("EXT1", b"\x82\x01"),
    "EXT2": ("EXT2", b"\x83\x01\x00"),
    "EXT4": ("EXT4", b"\x84\x01\x00\x00\x00"),
    "PERSID": ("PERSID", b"Pstorage\n"),
    "NEXT_BUFFER": ("NEXT_BUFFER", b"\x97"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The marker of a command that ran would appear here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(description: bytes) -> str:
    """The sentence about a file with this ``data.pkl``; nothing may happen beside."""
    path = save_torch_zip(Path("a.bin"), description)
    before = path.read_bytes()
    with pytest.raises(BrokenWeights) as caught:
        open_tensors(path)
    assert [found.name for found in Path().iterdir()] == ["a.bin"]
    assert path.read_bytes() == before
    assert str(caught.value).startswith("'a.bin'") and str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("case", GLOBALS)
def test_a_name_that_is_not_of_tensors_is_refused(case: str) -> None:
    name, body = GLOBALS[case]
    sentence = complaint(program(body))
    assert f"'{name}'" in sentence and "nothing was run" in sentence


@pytest.mark.parametrize("case", INSTRUCTIONS)
def test_an_instruction_that_no_tensor_needs_is_refused(case: str) -> None:
    name, body = INSTRUCTIONS[case]
    sentence = complaint(program(body))
    assert f"instruction {name}," in sentence and "nothing was run" in sentence


class Payload:
    """What an attacker writes in Python."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


PAYLOADS: dict[str, Callable[[], object]] = {
    "command": lambda: Payload(os.system, ("touch MARKER",)),
    "as a tensor": lambda: {"image_proj": {"w": Payload(os.mkdir, ("MARKER",))}},
    "as a key": lambda: {Payload(os.mkdir, ("MARKER",)): torch.zeros(2)},
    "in a state": lambda: OrderedDict(w=Payload(OrderedDict, (), {"x": Payload(os.mkdir, ("MARKER",))})),
    "as items": lambda: Payload(OrderedDict, (), None, None, iter([("w", Payload(os.mkdir, ("MARKER",)))])),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", PAYLOADS)
def test_a_payload_written_by_python_is_refused(case: str, protocol: int) -> None:
    data = pickle.dumps(PAYLOADS[case](), protocol=protocol)
    assert "nothing was run" in complaint(data)
    torch_file = Path("b.bin")
    torch.save(PAYLOADS[case](), torch_file, pickle_protocol=protocol)
    with pytest.raises(BrokenWeights, match="nothing was run"):
        open_tensors(torch_file)
    assert not Path("MARKER").exists()


@pytest.mark.skipif(os.name != "posix", reason="the hand-written payload names the module posix")
def test_the_payloads_are_live_ammunition() -> None:
    """Against Python's own unpickler they work, or the tests above would show nothing."""
    pickle.loads(program(call(SYSTEM, COMMAND)))
    assert Path("MARKER").exists()


SHARED = dict_of(**{str(n): small_tensor() for n in range(200)}) + b"q\0" + b"0}("  # kept as 0, taken off the stack
ENDLESS: dict[str, tuple[str, bytes]] = {
    "deep": ("deeper than 16 levels", (b"}" + text("a")) * 40 + small_tensor() + b"s" * 40),
    "very deep": ("deeper than 16 levels", (b"}" + text("a")) * 50_000 + NONE + b"s" * 50_000),
    "in itself": ("inside themselves", b"}q\0" + text("a") + b"h\0s"),
    "shared often": ("more than 200,000 values", SHARED + b"".join(number(n) + b"h\0" for n in range(1100)) + b"u"),
    "key that takes for ever to hash": ("uses a tuple as a name", b"})" + b"q\0h\0\x86" * 60 + b"Ns"),
    "huge memo number": ("single nonetype", b"Nr\xff\xff\xff\xff"),
    "long name": ("longer than 512", b"}" + text("a" * 600) + small_tensor() + b"s"),
    "long number": ("longer than 512", b"}" + number(2**70) + small_tensor() + b"s"),
    "many instructions": ("more than 1,000,000 instructions", b"}" + b"N0" * 600_000),
    "length beyond everything": ("stops making sense", b"\x8d" + b"\xff" * 8),
    "number without end": ("stops making sense", b"\x8b\xff\xff\xff\x7f"),
    "unfolded": ("unfolds 64 bytes of data to 8589934592", dict_of(w=tensor(storage(), numbers(2**32), numbers(0)))),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDLESS)
def test_what_would_take_for_ever_is_refused(case: str) -> None:
    part, body = ENDLESS[case]
    path = save_torch_zip(Path("a.bin"), program(body))
    with pytest.raises(WrongWeights) as caught:
        open_tensors(path)
    assert part in str(caught.value)


def described(**changes: bytes) -> bytes:
    """A dict of one tensor, described with the changed parts."""
    parts = {"shape": numbers(2, 3), "stride": numbers(3, 1), "rest": b"\x89N"} | changes
    data = parts.pop("data", storage())
    return dict_of(w=tensor(data, parts["shape"], parts["stride"], rest=parts["rest"]))


def reference(*parts: bytes) -> bytes:
    """A tensor whose storage is referred to by these parts."""
    return described(data=tuple_of(*parts) + b"Q")


HALF = named("torch", "HalfStorage")
TAKES = "calls torch._utils._rebuild_tensor_v2 with values that it does not take"
REFERS = "refers to data in a way"
DAMAGED: dict[str, tuple[str, bytes]] = {
    "data missing": ("has no data in the file ('7' expected)", described(data=storage(key="7"))),
    "data elsewhere": ("has no data in the file ('../data.pkl' expected)", described(data=storage(key="../data.pkl"))),
    "data too short": ("needs 66 bytes of data, 64 found", described(data=storage(count=33))),
    "data wider": ("needs 256 bytes of data, 64 found", described(data=storage(kind="DoubleStorage"))),
    "past the end": ("uses 35 elements, 32 found", described(shape=numbers(7, 5), stride=numbers(5, 1))),
    "offset": ("uses 33 elements", dict_of(w=tensor(storage(), numbers(1), numbers(1), offset=32))),
    "offset of nothing": ("uses 33 elements", dict_of(w=tensor(storage(), numbers(0), numbers(1), offset=33))),
    "stride": ("uses 34 elements", described(shape=numbers(2, 2), stride=numbers(32, 1))),
    "overflow": (f"uses {2**64} elements", described(shape=numbers(2**32, 2**32), stride=numbers(2**32, 1))),
    "negative size": (TAKES, described(shape=numbers(2, -3))),
    "negative stride": (TAKES, described(stride=numbers(-3, 1))),
    "negative offset": (TAKES, dict_of(w=tensor(storage(), numbers(1), numbers(1), offset=-1))),
    "true as a size": (TAKES, described(shape=tuple_of(b"\x88", b"\x88"))),
    "ranks": (TAKES, described(shape=numbers(2))),
    "rank 9": (TAKES, described(shape=numbers(*[1] * 9), stride=numbers(*[1] * 9))),
    "shape is a list": (TAKES, described(shape=b"]")),
    "storage is a number": (TAKES, described(data=number(1))),
    "negated": (TAKES, described(rest=b"\x89N" + dict_of(neg=b"\x88"))),
    "too few values": (TAKES, described(rest=b"")),
    "too many values": (TAKES, described(rest=b"\x89NNN")),
    "reference of another kind": (REFERS, reference(text("module"), HALF, text("0"), text("cpu"), number(32))),
    "reference without dtype": (REFERS, reference(text("storage"), ORDERED, text("0"), text("cpu"), number(32))),
    "reference too short": (REFERS, reference(text("storage"), HALF, text("0"), text("cpu"))),
    "reference by number": (REFERS, reference(text("storage"), HALF, number(0), text("cpu"), number(32))),
    "negative count": (REFERS, reference(text("storage"), HALF, text("0"), text("cpu"), number(-1))),
    "OrderedDict of something": ("calls collections.OrderedDict with values", call(ORDERED, b"]")),
    "calls a storage": ("calls something that cannot", HALF + b")R"),
    "calls a text": ("calls something that cannot", text("print") + b")R"),
    "calls without a tuple": ("calls something that cannot", ORDERED + b"]" + REDUCE),
    "parameter of nothing": ("_rebuild_parameter with values", call(PARAMETER, NONE, b"\x88", NONE)),
    "state of a tensor": ("fills a TensorRef as if it were a dict", small_tensor() + b"}" + BUILD),
    "state of a name": ("fills a _Known as if it were a dict", ORDERED + b"}" + BUILD),
    "name without value": ("has a name without a value", MARK.join([b"}", text("a") + b"u"])),
    "empty stack": ("takes from an empty stack", b"0"),
    "below a mark": ("takes from an empty stack", b"}" + text("a") + MARK + small_tensor() + b"s"),
    "no mark": ("misses a mark", b"}" + TUPLE),
    "memo number": ("stops making sense", b"}h\x05"),
    "appends to a dict": ("fills a dict as if it were a list", b"}Na"),
    "unknown instruction": ("stops making sense", b"\xfe"),
    "same": ("tensors that are both called 'a.b'", dict_of(**{"a.b": small_tensor(), "a": dict_of(b=small_tensor())})),
    "same number": ("both called '1'", b"}" + text("1") + small_tensor() + b"s" + number(1) + small_tensor() + b"s"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_pytorch_never_writes_is_refused(case: str) -> None:
    part, body = DAMAGED[case]
    assert part in complaint(program(body))


def test_an_unfinished_description_is_refused() -> None:
    assert "stops making sense" in complaint(program(described())[:-1])


GOOD = program(described())


@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=5))
@example(changes=[(2, ord("\x8d"))])
def test_a_damaged_description_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    load_or_refuse(tmp_path_factory.getbasetemp() / "changed.bin", bytes(data))


@given(data=st.binary(max_size=60))
def test_any_bytes_as_a_description_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    load_or_refuse(tmp_path_factory.getbasetemp() / "random.bin", data)


def load_or_refuse(path: Path, description: bytes) -> None:
    try:
        file = open_tensors(save_torch_zip(path, description))
        assert all(tensor.numel() * tensor.element_size() <= 16 << 20 for _, tensor in file.load_many(file.tensors))
    except WrongWeights as error:
        assert str(error).endswith(".")
