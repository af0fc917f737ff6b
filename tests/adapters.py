"""Random adapters on disk, random features to feed them, and identities made of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib_faceid.engine.prepare import make_identity
from lib_faceid.library.identity import Identity
from lib_faceid.weights.adapter import Adapter, load_adapter

from .containers import save_nested_bin
from .layouts import NARROW, layout, random_tensors

POSITIONS = 6  # CLIP sequence length, instead of 257


@dataclass
class Made:
    """A narrow random adapter: its tensors, its file, its base."""

    kind: str
    base: str
    tensors: dict[str, Tensor]
    path: Path

    def load(self) -> Adapter:
        """Portrait unnorm in float32 looks like InstantID, so its variant is said."""
        return load_adapter(self.path, variant=self.kind if self.kind == "portrait-unnorm" else None)

    def features(self, photos: int = 1, seed: int = 3) -> dict[str, Tensor]:
        """Keyword arguments for ``make_identity``, for the number of photos."""
        generator = torch.Generator().manual_seed(seed)
        clip = NARROW[self.base].clip
        drawn = {
            "embeddings": 20 * torch.randn(photos, 512, generator=generator),
            "clip_hidden": torch.randn(photos, POSITIONS, clip, generator=generator),
            "clip_uncond": torch.randn(POSITIONS, clip, generator=generator),
            "clip_pooled": torch.randn(photos, clip, generator=generator),
        }
        return {name: drawn[name] for name in NEEDS[self.kind]}

    def identity(self, photos: int = 1, seed: int = 3, **kwargs: object) -> Identity:
        return make_identity(self.load(), **self.features(photos, seed), **kwargs)  # type: ignore[arg-type]


NEEDS = {
    "faceid": ("embeddings",),
    "portrait": ("embeddings",),
    "portrait-unnorm": ("embeddings",),
    "faceid-plus": ("embeddings", "clip_hidden", "clip_uncond"),
    "faceid-plusv2": ("embeddings", "clip_hidden", "clip_uncond"),
    "base": ("clip_pooled",),
    "plus": ("clip_hidden", "clip_uncond"),
    "plus-face": ("clip_hidden", "clip_uncond"),
    "full-face": ("clip_hidden", "clip_uncond"),
}
NAMES = {
    "faceid": "ip-adapter-faceid_{base}.bin",
    "portrait": "ip-adapter-faceid-portrait_{base}.bin",
    "portrait-unnorm": "ip-adapter-faceid-portrait_{base}_unnorm.bin",
    "faceid-plus": "ip-adapter-faceid-plus_{base}.bin",
    "faceid-plusv2": "ip-adapter-faceid-plusv2_{base}.bin",
    "base": "ip-adapter_{base}.bin",
    "plus": "ip-adapter-plus_{base}.bin",
    "plus-face": "ip-adapter-plus-face_{base}.bin",
    "full-face": "ip-adapter-full-face_{base}.bin",
}


def make_adapter(folder: Path, kind: str, base: str = "sd15", seed: int = 0) -> Made:
    """A random adapter of the exact layout, narrow, saved under its published name."""
    tensors = random_tensors(layout(kind, base, NARROW[base], hidden=1024), seed)  # diffusers assumes 2 * 512
    path = save_nested_bin(folder / f"{seed}-{NAMES[kind].format(base=base)}", tensors)
    return Made(kind, base, tensors, path)
