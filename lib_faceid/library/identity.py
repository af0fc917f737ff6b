"""An identity: tokens, and the keys and values made of them, ready for every layer of its base.

In a file (one .safetensors, float32, at most 2 MB for SD1.5 and 12 MB for SDXL per 4 tokens): ``vectors`` (k, 512); for
each part ``main`` and, where there is a structure factor, ``clip``: ``<part>.cond`` and ``<part>.uncond`` (T, X),
``<part>.<n>.k`` and ``<part>.<n>.v`` (2, T, C), the uncond side first, n the layer in file order.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..core.tokens import KV, LayerKV, Tokens
from ..core.unet_map import BASE_TITLES, Base, layers
from ..errors import BadIdentity
from . import identity_file


@dataclass(frozen=True, eq=False)
class Part:
    """Tokens with their keys and values by layer. An identity of FaceID Plus v2 has two parts, any other has one."""

    tokens: Tokens
    kv: KV


@dataclass(frozen=True)
class Origin:
    """What an identity was made with: for people, and to find the LoRA that belongs to it."""

    variant: str
    title: str
    adapter_name: str
    adapter_sha256: str
    has_lora: bool
    photos: int
    created: str


@dataclass(frozen=True, eq=False)
class Identity:
    """A person for one base. Using it needs no adapter, no CLIP and no recogniser.

    ``vectors`` (k, 512) float32 are the face vectors as the adapter was fed, None for adapters without a recogniser.
    ``structure`` is the factor on the CLIP part of FaceID Plus v2 (likeness of pose and light); it stays adjustable
    because keys and values are linear in the tokens. ``adapter_path`` is known only in the process that made the
    identity; it is not saved.
    """

    base: Base
    context_width: int
    origin: Origin
    main: Part
    clip: Part | None = None
    structure: float = 1.0
    vectors: Tensor | None = None
    name: str = ""
    adapter_path: Path | None = None

    @property
    def tokens(self) -> Tensor:
        """Tokens (T, X) of the positive side, float32, the structure factor applied."""
        return self._tokens.cond

    @property
    def uncond_tokens(self) -> Tensor:
        """Tokens (T, X) of the negative side: the projected zero input."""
        return self._tokens.uncond

    @property
    def has_structure(self) -> bool:
        """True when ``structure`` changes anything."""
        return self.clip is not None

    @property
    def kv(self) -> KV:
        """Keys and values by layer number, the structure factor applied when a layer is read."""
        return self.main.kv if self.clip is None else _LinearKV(self.main.kv, self.structure, self.clip.kv)

    def with_structure(self, structure: float) -> Identity:
        """The same person with another structure factor; shares all tensors."""
        return replace(self, structure=float(structure))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write one .safetensors file, whole or not at all. Raises FaceIDError when the name is taken."""
        return identity_file.write(path, _tensors(self), _metadata(self), overwrite=overwrite)

    @property
    def _tokens(self) -> Tokens:
        return self.main.tokens if self.clip is None else self.main.tokens.plus(self.structure, self.clip.tokens)


class _LinearKV(Mapping[int, LayerKV]):
    """main + structure * clip, one layer at a time, so that the sum is never held for all layers."""

    def __init__(self, main: KV, structure: float, clip: KV) -> None:
        self._main, self._structure, self._clip = main, structure, clip

    def __getitem__(self, n: int) -> LayerKV:
        return self._main[n].plus(self._structure, self._clip[n])

    def __iter__(self) -> Iterator[int]:
        return iter(self._main)

    def __len__(self) -> int:
        return len(self._main)


def load_identity(path: str | os.PathLike[str]) -> Identity:
    """Read a saved identity. Raises BadIdentity when the file is missing, damaged or something else."""
    file = Path(path)
    tensors, metadata = identity_file.read(file)
    try:
        return _identity(tensors, metadata)
    except (KeyError, ValueError, TypeError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BadIdentity(f"{file.name} is damaged: {reason}. Save the person again from the photos.") from error


def _tensors(identity: Identity) -> dict[str, Tensor]:
    tensors = {} if identity.vectors is None else {"vectors": identity.vectors}
    for name, part in (("main", identity.main), ("clip", identity.clip)):
        if part is not None:
            tensors |= {f"{name}.cond": part.tokens.cond, f"{name}.uncond": part.tokens.uncond}
            for n, kv in part.kv.items():
                tensors |= {f"{name}.{n}.k": kv.k, f"{name}.{n}.v": kv.v}
    return tensors


def _metadata(identity: Identity) -> dict[str, str]:
    origin = {key: json.dumps(value) for key, value in asdict(identity.origin).items()}
    return {"base": identity.base, "structure": repr(identity.structure), "name": identity.name, **origin}


def _identity(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Identity:
    base = cast(Base, metadata["base"])
    if base not in BASE_TITLES:
        raise ValueError(f"its base is {base!r}, expected one of {', '.join(BASE_TITLES)}")
    main = _read_part("main", base, tensors)
    clip = _read_part("clip", base, tensors) if "clip.cond" in tensors else None
    structure = float(metadata["structure"])
    if clip is not None and _sizes(clip) != _sizes(main):
        raise ValueError("its two parts have different sizes")
    if not math.isfinite(structure) or any(not _is_plain(tensor) for tensor in tensors.values()):
        raise ValueError("it holds values that are not float32 numbers")
    return Identity(
        base=base,
        context_width=main.tokens.cond.shape[1],
        origin=_read_origin(metadata),
        main=main,
        clip=clip,
        structure=structure,
        vectors=tensors.get("vectors"),
        name=metadata["name"],
    )


def _read_origin(metadata: Mapping[str, str]) -> Origin:
    values = {item.name: json.loads(metadata[item.name]) for item in fields(Origin)}
    wrong = [item.name for item in fields(Origin) if type(values[item.name]).__name__ != item.type]
    if wrong:
        raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r}")
    return Origin(**values)


def _sizes(part: Part) -> list[tuple[int, ...]]:
    return [tuple(part.tokens.cond.shape), *(tuple(kv.k.shape) for kv in part.kv.values())]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())


def _read_part(name: str, base: Base, tensors: Mapping[str, Tensor]) -> Part:
    tokens = Tokens(tensors[f"{name}.cond"], tensors[f"{name}.uncond"])
    return Part(tokens, {layer.n: _read_layer(f"{name}.{layer.n}", tokens, tensors) for layer in layers(base)})


def _read_layer(name: str, tokens: Tokens, tensors: Mapping[str, Tensor]) -> LayerKV:
    k, v = tensors[f"{name}.k"], tensors[f"{name}.v"]
    if k.ndim != 3 or k.shape != v.shape or tuple(k.shape[:2]) != (2, len(tokens.cond)):
        raise ValueError(f"{name} has keys {tuple(k.shape)} and values {tuple(v.shape)} for {len(tokens.cond)} tokens")
    return LayerKV(k, v)
