"""What an identity consists of, and how each piece is called in a file.

For each part ``main`` and, where there is a structure factor, ``clip``: ``<part>.cond`` and ``<part>.uncond`` (T, X),
``<part>.<n>.k`` and ``<part>.<n>.v`` (2, T, C), the uncond side first, n the layer in file order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..core.tokens import KV, LayerKV, Tokens
from ..core.unet_map import Base, layers
from .identity_file import PersonFile

VECTOR_WIDTH = 512  # ArcFace
_LONGEST_NAME = 255  # of a file, in any file system


@dataclass(frozen=True, eq=False)
class Part:
    """Tokens with their keys and values by layer. An identity of FaceID Plus v2 has two parts, any other has one."""

    tokens: Tokens
    kv: KV


@dataclass(frozen=True)
class Origin:
    """What an identity was made with: for people, and to find the LoRA that belongs to it.

    ``lora_sha256`` is the digest of the file that holds the LoRA, empty where there is none and in older files.
    """

    variant: str
    title: str
    adapter_name: str
    adapter_sha256: str
    has_lora: bool
    photos: int
    created: str
    lora_sha256: str = ""


class LinearKV(Mapping[int, LayerKV]):
    """main + structure * clip, one layer at a time, so that the sum is never held for all layers."""

    def __init__(self, main: KV, structure: float, clip: KV) -> None:
        self._main, self._structure, self._clip = main, structure, clip

    def __getitem__(self, n: int) -> LayerKV:
        return self._main[n].plus(self._structure, self._clip[n])

    def __iter__(self) -> Iterator[int]:
        return iter(self._main)

    def __len__(self) -> int:
        return len(self._main)


def part_tensors(prefix: str, part: Part) -> dict[str, Tensor]:
    """The tensors of a part by name; ``prefix`` is "sd15.main" or the like."""
    tensors = {f"{prefix}.cond": part.tokens.cond, f"{prefix}.uncond": part.tokens.uncond}
    for n, kv in part.kv.items():
        tensors |= {f"{prefix}.{n}.k": kv.k, f"{prefix}.{n}.v": kv.v}
    return tensors


def check_part(file: PersonFile, prefix: str, base: Base) -> list[str]:
    """Names of the part's tensors, whose shapes fit each other. Raises KeyError or ValueError naming the first that
    does not; nothing has been read by then.
    """
    shape = file.shape(f"{prefix}.cond")
    if len(shape) != 2 or 0 in shape or file.shape(f"{prefix}.uncond") != shape:
        found = f"found {shape} and {file.shape(f'{prefix}.uncond')}"
        raise ValueError(f"{prefix} needs tokens of both sides in one shape (T, X), {found}")
    names = [f"{prefix}.cond", f"{prefix}.uncond"]
    for layer in layers(base):
        k, v = (file.shape(f"{prefix}.{layer.n}.{kind}") for kind in "kv")
        if len(k) != 3 or k != v or k[:2] != (2, shape[0]) or k[2] == 0:
            raise ValueError(f"{prefix}.{layer.n} has keys {k} and values {v} for {shape[0]} tokens")
        names += [f"{prefix}.{layer.n}.k", f"{prefix}.{layer.n}.v"]
    return names


def check_vectors(file: PersonFile, name: str) -> list[str]:
    """The name of the face vectors, or nothing where there are none. Raises ValueError for another shape."""
    if name not in file.tensors:
        return []
    shape = file.shape(name)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != VECTOR_WIDTH:
        raise ValueError(f"{name} has the shape {shape}, expected (photos, {VECTOR_WIDTH})")
    return [name]


def read_part(prefix: str, base: Base, tensors: Mapping[str, Tensor]) -> Part:
    """The part, from tensors that ``check_part`` named."""
    tokens = Tokens(tensors[f"{prefix}.cond"], tensors[f"{prefix}.uncond"])
    numbers = [layer.n for layer in layers(base)]
    return Part(tokens, {n: LayerKV(tensors[f"{prefix}.{n}.k"], tensors[f"{prefix}.{n}.v"]) for n in numbers})


def read_origin(values: Mapping[str, Any]) -> Origin:
    """Raises KeyError or ValueError for a value that is missing or of another type; unknown ones are ignored."""
    known: dict[str, Any] = {"lora_sha256": "", **values}
    found = {item.name: known[item.name] for item in fields(Origin)}
    wrong = [item.name for item in fields(Origin) if type(found[item.name]).__name__ != item.type]
    if wrong:
        raise ValueError(f"{wrong[0]} is {found[wrong[0]]!r}")
    odd = [name for name, value in found.items() if isinstance(value, str) and not _is_name(value)]
    if odd:
        raise ValueError(f"{odd[0]} is too long or cannot be shown")
    return Origin(**found)


def _is_name(text: str) -> bool:
    """Of a file, a variant or a digest: it goes into the text of pictures and onto screens."""
    return len(text) <= _LONGEST_NAME and text.isprintable()
