"""What one CLIP image tower is: its sizes, its activation, and how its file names the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "quick_gelu"]
Layout = Literal["hf", "open_clip"]

# (width, layers) of the published towers: open_clip/model_configs/ViT-{B,L,H,g,bigG}-*.json
_PUBLISHED = {
    (768, 12): "ViT-B",
    (1024, 24): "ViT-L",
    (1280, 32): "ViT-H",
    (1408, 40): "ViT-g",
    (1664, 48): "ViT-bigG",
}
_USUAL_IMAGE = 224  # pixels; a tower of another size says so in its name


@dataclass(frozen=True)
class EncoderSpec:
    """A tower of ``layers`` transformer layers, ``hidden`` wide, on square images of ``image`` pixels.

    ``mlp`` is the width inside a layer, ``patch`` the side of a patch in pixels, ``projection`` the width of the pooled
    vector, ``eps`` that of the LayerNorms. ``prefix`` stands before the names of ``layout`` in the file.
    """

    layout: Layout
    hidden: int
    mlp: int
    layers: int
    heads: int
    patch: int
    image: int
    projection: int
    act: Activation
    eps: float = 1e-5
    prefix: str = ""

    @property
    def positions(self) -> int:
        """Patches and the class position: 257 for ViT-H."""
        return (self.image // self.patch) ** 2 + 1

    @property
    def name(self) -> str:
        """For people: "CLIP ViT-H/14", or the sizes of a tower nobody published."""
        published = _PUBLISHED.get((self.hidden, self.layers))
        if published is None:
            return f"CLIP vision encoder {self.hidden} wide, {self.layers} layers"
        return f"CLIP {published}/{self.patch}" + ("" if self.image == _USUAL_IMAGE else f" at {self.image}")
