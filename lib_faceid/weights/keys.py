"""From the flat tensor names of a file to the two groups every adapter has: ``image_proj`` and ``ip_adapter``.

Three containers are in use (each may sit in a wrapper such as ``state_dict.``):
- the published one, ``{"image_proj": …, "ip_adapter": …}`` in a .bin or flat with these prefixes in a .safetensors;
- a training checkpoint, ``image_proj_model.`` and ``adapter_modules.`` beside the ``unet.`` it was trained in;
- PuLID's own, ``id_adapter.`` and ``id_adapter_attn_layers.``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import BrokenWeights, NotAnAdapter
from .inventory import count_tensors, shorten
from .kinds import FOREIGN_ADAPTERS, OTHER_FILES, FileKind, find_kind
from .read import TensorFile
from .variants import known_adapter_of_lora

_WRAPPERS = re.compile(r"^((state_dict|model|module)\.)+")


@dataclass(frozen=True)
class AdapterKeys:
    """Canonical inner names (those of the published files) to the names in this file."""

    image_proj: Mapping[str, str]
    ip_adapter: Mapping[str, str]

    def flat(self) -> dict[str, str]:
        """Both groups in one, with the published prefixes ``image_proj.`` and ``ip_adapter.``."""
        groups = {"image_proj": self.image_proj, "ip_adapter": self.ip_adapter}
        return {f"{group}.{inner}": name for group, names in groups.items() for inner, name in names.items()}


@dataclass(frozen=True)
class _Container:
    image_proj: str  # prefixes
    ip_adapter: str
    ignored: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict[str, str])  # last parts of inner names

    def split(self, names: Mapping[str, str]) -> tuple[AdapterKeys, list[str]]:
        """Names without wrapper -> file names, into the groups; second: the names that are in neither."""
        image_proj: dict[str, str] = {}
        ip_adapter: dict[str, str] = {}
        rest: list[str] = []
        for name, full in names.items():
            if name.startswith(self.image_proj):
                image_proj[name.removeprefix(self.image_proj)] = full
            elif name.startswith(self.ip_adapter):
                ip_adapter[self._rename(name.removeprefix(self.ip_adapter))] = full
            elif not name.startswith(self.ignored):
                rest.append(full)
        return AdapterKeys(image_proj, ip_adapter), rest

    def _rename(self, inner: str) -> str:
        number, dot, tail = inner.partition(".")
        return f"{number}{dot}{self.renames.get(tail, tail)}"


_CONTAINERS = (
    _Container("image_proj.", "ip_adapter."),
    _Container("image_proj_model.", "adapter_modules.", ignored=("unet.",)),
    _Container(
        "id_adapter.",
        "id_adapter_attn_layers.",
        renames={"id_to_k.weight": "to_k_ip.weight", "id_to_v.weight": "to_v_ip.weight"},
    ),
)


def find_keys(file: TensorFile) -> AdapterKeys:
    """The two groups of an adapter file.

    Raises NotAnAdapter for another kind of file, saying which, and BrokenWeights when half of an adapter, or something
    beside it, is in the file.
    """
    title = f"'{file.path.name}'"
    names = _unwrap(file.tensors)
    foreign = find_kind(tuple(names), FOREIGN_ADAPTERS)
    if foreign is not None:
        raise NotAnAdapter(_say_kind(title, foreign))
    for container in _CONTAINERS:
        keys, rest = container.split(names)
        if keys.image_proj or keys.ip_adapter:
            return _complete(title, container, keys, rest)
    raise NotAnAdapter(_describe(title, tuple(file.tensors), tuple(names)))


def _unwrap(tensors: Mapping[str, object]) -> dict[str, str]:
    """Names without outer wrappers, to the full names; with them where two names would become one."""
    names = {_WRAPPERS.sub("", name): name for name in tensors}
    return names if len(names) == len(tensors) else {name: name for name in tensors}


def _complete(title: str, container: _Container, keys: AdapterKeys, rest: list[str]) -> AdapterKeys:
    prefixes = {container.image_proj: keys.image_proj, container.ip_adapter: keys.ip_adapter}
    absent = [prefix for prefix, names in prefixes.items() if not names]
    if absent:
        raise BrokenWeights(
            f"{title} is half of an adapter: none of its tensors is named {absent[0]}…, which every adapter has. "
            "Get the whole file again."
        )
    if rest:
        raise BrokenWeights(
            f"{title} holds an adapter and {count_tensors(len(rest))} beside it (first: {shorten(rest[0])}). "
            "Save the adapter alone, or get the published file."
        )
    return keys


def _describe(title: str, full: Sequence[str], unwrapped: Sequence[str]) -> str:
    if not full:
        return f"{title} holds no tensors. Choose an IP-Adapter file."
    kind = find_kind(full, OTHER_FILES) or find_kind(unwrapped, OTHER_FILES)
    adapter = known_adapter_of_lora(title)
    if kind is not None and adapter is not None and re.search(r"\bLoRA\b", kind.noun):
        return f"{title} is the LoRA that belongs to {adapter}, not the adapter. Choose {adapter} here."
    if kind is not None:
        return _say_kind(title, kind)
    return (
        f"{title} is not an IP-Adapter file: none of its {count_tensors(len(full))} has a name that an adapter uses "
        f"(first: {shorten(full[0])}). Choose an IP-Adapter file, for example ip-adapter-faceid-plusv2_sd15.bin."
    )


def _say_kind(title: str, kind: FileKind) -> str:
    return f"{title} is {kind.noun}, not an IP-Adapter file for SD1.5 or SDXL. {kind.advice}"
