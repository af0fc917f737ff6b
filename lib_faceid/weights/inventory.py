"""Names and shapes of an adapter's tensors, and the comparison with the names and shapes it should have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import BrokenWeights
from .read import TensorInfo

Shape = tuple[int, ...]

# Of a weight: 500 times the largest published (32768); products of two still fit 64 bits.
_LARGEST_AXIS = 2**24
_LONGEST_NAME = 60  # of a tensor, in a sentence
_MOST_NAMED = 3  # tensors, in a sentence


@dataclass(frozen=True)
class Inventory:
    """``title`` names the file; ``shapes`` goes by the published names, such as ``ip_adapter.1.to_k_ip.weight``."""

    title: str
    shapes: Mapping[str, Shape]

    def size(self, name: str, axis: int) -> int:
        """One number of one tensor's shape. Raises BrokenWeights when there is no such tensor or axis."""
        shape = self.shapes.get(name)
        if shape is None:
            raise BrokenWeights(
                f"{self.title} is incomplete: {name} is missing, and the sizes of the adapter are read from it. "
                "Get the file again."
            )
        if axis >= len(shape):
            raise BrokenWeights(
                f"{self.title} is damaged: {name} has the shape {show(shape)}, expected {axis + 1} numbers or more. "
                "Get the file again."
            )
        return shape[axis]

    def find(self, pattern: str) -> list[re.Match[str]]:
        """Matches of a regular expression (ASCII digits) at the start of names."""
        compiled = re.compile(pattern, re.ASCII)
        return [match for name in self.shapes if (match := compiled.match(name))]

    def check(self, expected: Mapping[str, Shape]) -> None:
        """Raises BrokenWeights unless names and shapes are exactly the expected ones."""
        missing = [name for name in expected if name not in self.shapes]
        strange = [name for name in self.shapes if name not in expected]
        wrong = [
            f"{name} is {show(self.shapes[name])} instead of {show(shape)}"
            for name, shape in expected.items()
            if name in self.shapes and self.shapes[name] != shape
        ]
        faults = (
            (missing, f"{len(missing)} of {count_tensors(len(expected))} missing"),
            (strange, f"{count_tensors(len(strange))} too many"),
            (wrong, f"{count_tensors(len(wrong))} of the wrong shape"),
        )
        found = "; ".join(f"{what} ({_name_some(items)})" for items, what in faults if items)
        if found:
            raise BrokenWeights(f"{self.title} is damaged or incomplete: {found}. Get the file again.")


def take_inventory(title: str, tensors: Mapping[str, TensorInfo]) -> Inventory:
    """The shapes of tensors given by canonical name.

    Raises BrokenWeights for a tensor that cannot be a weight: empty, absurdly large, or not of floating point.
    """
    for name, info in tensors.items():
        if any(not 1 <= size <= _LARGEST_AXIS for size in info.shape):
            raise BrokenWeights(
                f"{title} is damaged: {shorten(name)} has the impossible shape {show(info.shape)}. Get the file again."
            )
        if not info.dtype.is_floating_point:
            kind = str(info.dtype).removeprefix("torch.")
            raise BrokenWeights(
                f"{title} holds {kind} numbers in {shorten(name)}, expected floating point. Get the published file."
            )
    return Inventory(title, {name: info.shape for name, info in tensors.items()})


def count_tensors(count: int) -> str:
    """ "1 tensor", "2 tensors"."""
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def shorten(name: str) -> str:
    """A tensor name fit for a sentence: printable, and cut where it is long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"


def show(shape: Shape) -> str:
    """ "320 x 768"; "a single number" for a shape without axes."""
    return " x ".join(map(str, shape)) or "a single number"


def _name_some(items: Sequence[str]) -> str:
    named = ", ".join(shorten(item) if " " not in item else item for item in items[:_MOST_NAMED])
    more = len(items) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
