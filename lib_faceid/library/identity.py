"""An identity: tokens, and the keys and values made of them, ready for every layer of its base.

In a file (one .safetensors, float32, at most 2 MB for SD1.5 and 12 MB for SDXL per 4 tokens) each base has its own
tensors: ``<base>.vectors`` (k, 512) and the parts as in parts.py, ``<base>.main.cond`` and so on. The metadata holds
``name``, ``created`` (ISO 8601), and for each base a JSON object under its name: structure and origin.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..core.tokens import KV, Tokens
from ..core.unet_map import BASE_TITLES, Base
from ..errors import BadIdentity
from . import identity_file
from .identity_file import PersonFile
from .parts import LinearKV, Origin, Part, check_part, check_vectors, part_tensors, read_origin, read_part


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
        return self.main.kv if self.clip is None else LinearKV(self.main.kv, self.structure, self.clip.kv)

    def with_structure(self, structure: float) -> Identity:
        """The same person with another structure factor; shares all tensors."""
        return replace(self, structure=float(structure))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write one .safetensors file, whole or not at all. Raises FaceIDError when the name is taken."""
        metadata = {"name": self.name, "created": self.origin.created, **metadata_of(self)}
        return identity_file.write(path, tensors_of(self), metadata, overwrite=overwrite)

    @property
    def _tokens(self) -> Tokens:
        return self.main.tokens if self.clip is None else self.main.tokens.plus(self.structure, self.clip.tokens)


def load_identity(path: str | os.PathLike[str], base: Base | None = None) -> Identity:
    """Read a person for a base from a file. Only what belongs to that base is read.

    ``base`` may be left out where the file holds one. Raises BadIdentity when the file is missing, damaged or something
    else, has no such base, or has several and none was asked for.
    """
    with identity_file.opened(Path(path)) as file:
        held = bases_in(file)
        if base is None and len(held) > 1:
            titles = " and ".join(BASE_TITLES[item] for item in held)
            choice = " or ".join(f"base={item!r}" for item in held)
            raise BadIdentity(f"{Path(path).name} holds a person for {titles}. Say for which: {choice}.")
        wanted = base or next(iter(held))
        if wanted not in held:
            raise other_base(Path(path).name, held, wanted)
        return read_identity(file, wanted)


def other_base(name: str, held: tuple[Base, ...], base: Base) -> BadIdentity:
    """The error for a base that ``name`` does not hold."""
    titles = " and ".join(BASE_TITLES[item] for item in held)
    return BadIdentity(
        f"{name} is saved for {titles}, not for {BASE_TITLES.get(base, base)}. Add that base from the photos with an "
        f"adapter made for it, or use a checkpoint of {titles.replace(' and ', ' or ')}."
    )


def tensors_of(identity: Identity) -> dict[str, Tensor]:
    """float32 copies by name."""
    base = identity.base
    tensors = {} if identity.vectors is None else {f"{base}.vectors": identity.vectors}
    for name, part in (("main", identity.main), ("clip", identity.clip)):
        if part is not None:
            tensors |= part_tensors(f"{base}.{name}", part)
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in tensors.items()}


def metadata_of(identity: Identity) -> dict[str, str]:
    """Structure and origin as text, under the name of the base."""
    return {identity.base: json.dumps({"structure": identity.structure, **asdict(identity.origin)})}


def bases_in(file: PersonFile) -> tuple[Base, ...]:
    """The bases in a file, in one order everywhere. Raises KeyError or ValueError."""
    if not file.is_old:
        held: tuple[Base, ...] = tuple(base for base in BASE_TITLES if base in file.metadata)
        if not held:
            raise ValueError(f"it holds no base, expected one of {', '.join(BASE_TITLES)}")
        return held
    held = tuple(base for base in BASE_TITLES if base == file.metadata["base"])
    if not held:
        raise ValueError(f"its base is {file.metadata['base'][:60]!r}, expected one of {', '.join(BASE_TITLES)}")
    return held


def values_of(file: PersonFile, base: Base) -> Mapping[str, Any]:
    """Structure and origin of a base as they are written. Raises KeyError or ValueError."""
    if file.is_old:
        plain = {"base", "name", "format", "structure"}
        values = {key: json.loads(value) for key, value in file.metadata.items() if key not in plain}
        return {**values, "structure": float(file.metadata["structure"])}
    found: object = json.loads(file.metadata[base])
    if not isinstance(found, dict):
        raise ValueError(f"what it says about {BASE_TITLES[base]} is no list of values")
    return cast("dict[str, Any]", found)


def read_identity(file: PersonFile, base: Base) -> Identity:
    values, prefix = values_of(file, base), "" if file.is_old else f"{base}."
    structure = float(values["structure"])
    if not math.isfinite(structure):
        raise ValueError("it holds values that are not float32 numbers")
    origin, vectors = read_origin(values), check_vectors(file, f"{prefix}vectors")
    names = {"main": check_part(file, f"{prefix}main", base)}
    if f"{prefix}clip.cond" in file.tensors:
        names["clip"] = check_part(file, f"{prefix}clip", base)
        if [file.shape(name) for name in names["clip"]] != [file.shape(name) for name in names["main"]]:
            raise ValueError("its two parts have different sizes")
    tensors = file.floats([*vectors, *names["main"], *names.get("clip", [])])
    parts = [read_part(f"{prefix}{name}", base, tensors) for name in names]
    return Identity(
        base=base,
        context_width=parts[0].tokens.cond.shape[1],
        origin=origin,
        main=parts[0],
        clip=parts[1] if len(parts) > 1 else None,
        structure=structure,
        vectors=tensors[vectors[0]] if vectors else None,
        name=file.metadata["name"],
    )
