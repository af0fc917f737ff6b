"""Read the ``data.pkl`` of a PyTorch file without running it.

Python's own Unpickler is not used, even with a restricted ``find_class``: it hashes whatever a pickle uses as a key (a
nest of sixty tuples takes for ever), allocates memory for any memo number, and lets BUILD change objects it was given.
The small machine below knows the instructions that a dict of tensors needs, and builds nothing but dicts, lists,
tuples, plain values and references to tensors.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ..errors import BrokenWeights
from .tensor_refs import BUILDERS, STORAGE_DTYPES, StorageRef

_STEP_LIMIT = 1_000_000  # a tensor takes 32; the largest adapter has 1316 tensors, a checkpoint thousands


@dataclass(frozen=True, slots=True)
class _Known:
    """One of the names a pickle may ask for; never the Python object of that name."""

    name: str


def read_pickle(data: bytes, label: str) -> object:
    """The tree of dicts, lists, tuples, plain values and TensorRefs that ``data`` describes.

    ``label`` is how sentences call the file. Shared and recursive structures stay shared: whoever walks the tree bounds
    the walk. Raises BrokenWeights.
    """
    machine = _Machine(label)
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step == _STEP_LIMIT:
                raise machine.damage(f"takes more than {_STEP_LIMIT:,} instructions")
            machine.take(opcode.name, argument)
    except (ValueError, KeyError) as error:  # cut off, unknown, or a length or memo number out of range
        raise machine.damage("stops making sense") from error
    return machine.result


class _Machine:
    """The stack of a pickle program, its marks and its memo."""

    def __init__(self, label: str) -> None:
        self.result: object = None
        self._label = label
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def take(self, opcode: str, argument: Any) -> None:
        """Do one instruction; ``argument`` is what ``pickletools`` decoded."""
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _HANDLERS:
            _HANDLERS[opcode](self, argument)
        elif opcode == "INST":
            raise self._forbidden(str(argument).replace(" ", "."))
        elif opcode not in _SKIPPED:
            raise BrokenWeights(
                f"{self._label} uses the pickle instruction {opcode}, which no file of tensors needs and which can "
                "hide code; nothing was run. Do not use this file, get the adapter from its author."
            )

    def damage(self, what: str) -> BrokenWeights:
        """The error for contents that no PyTorch version writes."""
        return BrokenWeights(f"{self._label} is damaged: its table of tensors (data.pkl) {what}. Download it again.")

    def _forbidden(self, name: str) -> BrokenWeights:
        shown = "".join(character if character.isprintable() else "?" for character in name[:80])
        return BrokenWeights(
            f"{self._label} asks Python for '{shown}' while it is being read, which no file of tensors needs; nothing "
            "was run. Do not use this file, get the adapter from its author, best as .safetensors."
        )

    def _pop(self) -> Any:
        self._ensure_item()
        return self._stack.pop()

    def _ensure_item(self) -> None:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self.damage("takes from an empty stack")

    def _pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise self.damage("misses a mark")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def stop(self, _: Any) -> None:
        self.result = self._pop()

    def drop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def drop_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def remember(self, number: int | None) -> None:
        self._ensure_item()
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def recall(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def build_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def build_short_tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def append(self, _: Any) -> None:
        self._extend([self._pop()])

    def append_many(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._peek(list)
        target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_pairs([key, value])

    def set_items(self, _: Any) -> None:
        self._set_pairs(self._pop_to_mark())

    def _set_pairs(self, items: list[Any]) -> None:
        target = self._peek(dict)
        if len(items) % 2:
            raise self.damage("has a name without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in {str, int}:  # anything else might be endless to hash
                raise self.damage(f"uses a {type(key).__name__} as a name")
            target[key] = value

    def _peek(self, kind: type) -> Any:
        self._ensure_item()
        if type(self._stack[-1]) is not kind:
            raise self.damage(f"fills a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    def set_state(self, _: Any) -> None:
        """BUILD: PyTorch attaches ``_metadata`` to the OrderedDict of a state dict; no tensor depends on it."""
        self._pop()
        self._peek(dict)

    def find_global(self, argument: str) -> None:
        self._find(argument.replace(" ", "."))

    def find_stacked_global(self, _: Any) -> None:
        attribute, module = self._pop(), self._pop()
        self._find(f"{module}.{attribute}" if type(module) is type(attribute) is str else "something without a name")

    def _find(self, name: str) -> None:
        if name not in BUILDERS and name not in STORAGE_DTYPES:
            raise self._forbidden(name)
        self._stack.append(_Known(name))

    def call(self, _: Any) -> None:
        arguments, known = self._pop(), self._pop()
        if not isinstance(known, _Known) or known.name not in BUILDERS or not isinstance(arguments, tuple):
            raise self.damage("calls something that cannot be called")
        builder, lengths = BUILDERS[known.name]
        values = cast("tuple[object, ...]", arguments)
        built = builder(*values) if len(values) in lengths else None
        if built is None:
            raise self.damage(f"calls {known.name} with values that it does not take")
        self._stack.append(built)

    def find_storage(self, _: Any) -> None:
        match self._pop():
            case ("storage", _Known(name=name), str(key), str(), int(count)) if name in STORAGE_DTYPES and count >= 0:
                self._stack.append(StorageRef(key, STORAGE_DTYPES[name], count))
            case _:
                raise self.damage("refers to data in a way that PyTorch does not")


# The instructions of protocol 2 and later, in which every PyTorch zip file is written.
_SKIPPED = {"PROTO", "FRAME"}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "STOP": _Machine.stop,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": _Machine.build_tuple,
    "TUPLE1": lambda machine, _: machine.build_short_tuple(1),
    "TUPLE2": lambda machine, _: machine.build_short_tuple(2),
    "TUPLE3": lambda machine, _: machine.build_short_tuple(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_many,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BUILD": _Machine.set_state,
    "GLOBAL": _Machine.find_global,
    "STACK_GLOBAL": _Machine.find_stacked_global,
    "REDUCE": _Machine.call,
    "BINPERSID": _Machine.find_storage,
}
