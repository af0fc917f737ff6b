"""An adapter file in use: recognised, described, and read part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..core.projections import Projection, build_projection
from ..core.tokens import LayerWeights
from ..core.unet_map import BASE_TITLES, Base, layers
from .detect import Recognised, recognise
from .digest import file_digest
from .lora import Lora, embedded_lora
from .read import TensorFile, open_tensors


@dataclass(frozen=True, eq=False)
class Adapter:
    """A recognised adapter file. Only its header has been read; weights are read when asked for and not kept."""

    file: TensorFile
    recognised: Recognised

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.file.path

    @property
    def variant(self) -> str:
        """Key of the variant, for example "faceid-plusv2"."""
        return self.recognised.variant.key

    @property
    def title(self) -> str:
        """Variant and base for people: "FaceID Plus v2 for SD1.5"."""
        return f"{self.recognised.variant.title} for {BASE_TITLES[self.base]}"

    @property
    def base(self) -> Base:
        """ "sd15" or "sdxl", by the number of layers in the file."""
        return self.recognised.base

    @property
    def tokens(self) -> int:
        """Identity tokens for one photo; 0 for full-face, which makes one for every CLIP position."""
        return self.recognised.tokens

    @property
    def needs_clip(self) -> bool:
        """True when an identity needs CLIP features besides, or instead of, the face vector."""
        return self.recognised.variant.clip != "none"

    @property
    def has_lora(self) -> bool:
        """True when the file carries the LoRA it was trained with."""
        return self.recognised.lora_rank > 0

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the file."""
        return file_digest(self.path)

    def projection(self) -> Projection:
        """The projection module with the file's weights as stored, on the CPU; it computes in float32."""
        module = build_projection(self.recognised.projection)
        names = {name: inner for inner, name in self.recognised.keys.image_proj.items()}
        state = {names[name]: tensor for name, tensor in self.file.load_many(names)}
        module.load_state_dict(state, strict=True, assign=True)
        return module.eval().requires_grad_(False)

    def layer_weights(self) -> Iterator[LayerWeights]:
        """n, to_k_ip (C, X) and to_v_ip (C, X) in the stored dtype, layer after layer; a layer is in memory at a
        time.
        """
        keys = self.recognised.keys.ip_adapter
        for layer in layers(self.base):
            pair = (keys[f"{layer.key}.to_k_ip.weight"], keys[f"{layer.key}.to_v_ip.weight"])
            loaded = dict(self.file.load_many(pair))
            yield layer.n, loaded[pair[0]], loaded[pair[1]]

    def lora(self) -> Lora | None:
        """The LoRA inside the file, or None."""
        return embedded_lora(self.file, self.recognised, lambda: self.digest) if self.has_lora else None


def load_adapter(path: str | os.PathLike[str], *, variant: str | None = None) -> Adapter:
    """Recognise an adapter file (.bin, .pth or .safetensors) by its tensors; reads the header only.

    ``variant`` decides where tensors cannot, for example "faceid-plus" or "faceid-plusv2" for a renamed file. Raises a
    WrongWeights subclass whose text says what the file is instead, what is broken, or between what to choose.
    """
    file = open_tensors(path)
    return Adapter(file, recognise(file, variant=variant, digest=lambda: file_digest(file.path)))
