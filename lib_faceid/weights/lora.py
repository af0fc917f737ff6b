"""The LoRA that FaceID adapters were trained with: low-rank pairs addressed by module, merged and taken out exactly.

Effect on a projection: W' = W + strength * up @ down, for q, k, v and out of self- and cross-attention alike
(tencent-ailab/IP-Adapter, ip_adapter/attention_processor_faceid.py:61-82, 157-199: no alpha, lora_scale 1.0).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..core.unet_map import Base, base_of_count, layers
from ..errors import BrokenWeights
from ..files import write_file
from .detect import Recognised
from .digest import file_digest
from .read import TensorFile, open_tensors

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")
_KOHYA = "lora_unet_"


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """A linear of one transformer block: ``n`` and ``attention`` ("attn1" or "attn2") say where, ``projection``
    which.
    """

    base: Base
    n: int
    attention: str
    projection: str

    @property
    def linear(self) -> str:
        """Name inside the attention module: "to_q", or "to_out.0" in ldm and diffusers alike."""
        return "to_out.0" if self.projection == "to_out" else self.projection

    @property
    def diffusers(self) -> str:
        """Full module name in a diffusers UNet."""
        return f"{layers(self.base)[self.n].diffusers}.{self.attention}.{self.linear}"

    @property
    def ldm(self) -> str:
        """Full module name in an ldm or sgm UNet."""
        return f"{layers(self.base)[self.n].ldm}.{self.attention}.{self.linear}"

    @property
    def kohya(self) -> str:
        """Name in LoRA files that WebUIs load."""
        return _KOHYA + self.diffusers.replace(".", "_")

    @property
    def embedded(self) -> str:
        """Name inside an adapter: even numbers are self-attention, odd ones cross-attention."""
        key = layers(self.base)[self.n].key - (self.attention == "attn1")
        return f"{key}.{self.projection}_lora"


Names = Mapping[LoraTarget, tuple[str, str]]  # tensor names of down and up in a file


@dataclass(frozen=True)
class LoraPair:
    """down (rank, in) and up (out, rank) in the stored dtype; the change to the weight (out, in) is up @ down."""

    target: LoraTarget
    down: Tensor
    up: Tensor

    def delta(self, strength: float, device: torch.device) -> Tensor:
        """strength * up @ down, float32 (out, in), computed on the device: only the narrow matrices travel there."""
        up, down = self.up.to(device, torch.float32), self.down.to(device, torch.float32)
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            return strength * (up @ down)


@dataclass(frozen=True)
class Lora:
    """Where the pairs come from. ``shapes`` are those of the weights (out, in) they change, from the file's header.

    ``pairs()`` reads them anew, one in memory at a time; ``digest()`` is the file's sha256.
    """

    base: Base
    rank: int
    path: Path
    shapes: Mapping[LoraTarget, tuple[int, int]]
    digest: Callable[[], str]
    pairs: Callable[[], Iterator[LoraPair]]


def targets(base: Base) -> Iterator[LoraTarget]:
    """All modules the LoRA changes: 128 for SD1.5, 560 for SDXL."""
    for layer in layers(base):
        for attention in ("attn1", "attn2"):
            for projection in PROJECTIONS:
                yield LoraTarget(base, layer.n, attention, projection)


def embedded_lora(file: TensorFile, recognised: Recognised, digest: Callable[[], str]) -> Lora:
    """The LoRA inside a recognised adapter file, whose keys have been checked."""
    keys = recognised.keys.ip_adapter
    names = {
        target: (keys[f"{target.embedded}.down.weight"], keys[f"{target.embedded}.up.weight"])
        for target in targets(recognised.base)
    }
    return _lora(file, recognised.base, names, digest)


def companion_lora(path: str | os.PathLike[str]) -> Lora:
    """A companion file in kohya naming. Raises BrokenWeights when it is not the LoRA of a FaceID adapter."""
    file = open_tensors(path)
    modules = {name.partition(".")[0] for name in file.tensors}
    base = base_of_count(len(modules) // 8)  # two attentions of four projections in every block
    wanted = {target: _kohya_names(target) for target in targets(base)} if base else {}
    missing = [name for pair in wanted.values() for name in pair if name not in file.tensors]
    if base is None or missing or len(file.tensors) != 2 * len(wanted):
        raise BrokenWeights(
            f"{file.path.name} is not the LoRA of a FaceID adapter: it has {len(file.tensors)} tensors for "
            f"{len(modules)} modules (expected 256 for 128, or 1120 for "
            f"560){f', and lacks {missing[0]}' if missing else ''}."
        )
    return _lora(file, base, wanted, lambda: file_digest(file.path))


def write_companion(lora: Lora, path: str | os.PathLike[str]) -> Path:
    """Write the pairs as a LoRA file that WebUIs load (kohya names, no alpha). Returns the path.

    Values and dtypes are those of the source. Raises FaceIDError when the path exists; nothing is ever overwritten.
    """
    tensors: dict[str, Tensor] = {}
    for pair in lora.pairs():
        down, up = _kohya_names(pair.target)
        tensors[down], tensors[up] = pair.down.contiguous(), pair.up.contiguous()
    return write_file(path, save(tensors, metadata={"format": "pt", "faceid_adapter_sha256": lora.digest()}))


def _lora(file: TensorFile, base: Base, names: Names, digest: Callable[[], str]) -> Lora:
    shapes = {target: (file.tensors[up].shape[0], file.tensors[down].shape[1]) for target, (down, up) in names.items()}
    rank = file.tensors[next(iter(names.values()))[0]].shape[0]
    return Lora(base, rank, file.path, shapes, digest, lambda: _read_pairs(file, names))


def _kohya_names(target: LoraTarget) -> tuple[str, str]:
    return f"{target.kohya}.lora_down.weight", f"{target.kohya}.lora_up.weight"


def _read_pairs(file: TensorFile, names: Names) -> Iterator[LoraPair]:
    """Pairs in the order of ``names``, from one opening of the file."""
    stream = file.load_many(name for pair in names.values() for name in pair)
    tensors = (tensor for _, tensor in stream)
    for target, (down, up) in zip(names, _in_pairs(tensors), strict=True):
        yield LoraPair(target, down, up)


def _in_pairs(items: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    iterator = iter(items)
    return zip(iterator, iterator, strict=True)
