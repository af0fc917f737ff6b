"""The stand-in UNet that ``bench`` measures: the cross-attentions of a base under their true names and nothing else.

The tap goes onto it as onto a real UNet. Letters in shapes: B rows, N queries, C channels in h heads of d, T identity
tokens, X context width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.entries import Entry
from ..core.strength import Strength
from ..core.tokens import LayerKV, Row, Tokens, project_kv
from ..core.unet_map import Base, layers
from ..errors import FaceIDError
from .times import Stopwatch

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

ROWS = (Row("uncond"), Row("cond"))
WEIGHT = 0.8
PICTURE = 8  # pixels of the picture for one of the latent


@dataclass(frozen=True)
class LayerShape:
    """A cross-attention of C channels in h heads, on a plane of (height, width) queries."""

    channels: int
    heads: int
    size: tuple[int, int]

    @property
    def queries(self) -> int:
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Model:
    """Sizes of a UNet: latent (height, width), channels and heads of each level, context width, text tokens."""

    base: Base
    latent: tuple[int, int]
    channels: tuple[int, ...]
    heads: tuple[int, ...]
    context: int
    text: int = 77

    def shape(self, n: int) -> LayerShape:
        """The shape of cross-attention n, in file order."""
        level = _level(layers(self.base)[n].diffusers, deepest=len(self.channels) - 1)
        height, width = self.latent
        for _ in range(level):
            height, width = (height + 1) // 2, (width + 1) // 2
        return LayerShape(self.channels[level], self.heads[level], (height, width))

    def shapes(self) -> dict[LayerShape, tuple[int, ...]]:
        """Every distinct shape with the numbers of its layers, most queries first."""
        found: dict[LayerShape, tuple[int, ...]] = {}
        for layer in layers(self.base):
            shape = self.shape(layer.n)
            found[shape] = (*found.get(shape, ()), layer.n)
        return dict(sorted(found.items(), key=lambda item: -item[0].queries))

    @property
    def picture(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.latent[0] * PICTURE, self.latent[1] * PICTURE


def _level(name: str, deepest: int) -> int:
    """How often the latent has been halved where the diffusers block ``name`` sits."""
    block, number, *_ = name.split(".")
    if block == "mid_block":
        return deepest
    return int(number) if block == "down_blocks" else deepest - int(number)


# SD1.5: configs/stable-diffusion/v1-inference.yaml (8 heads everywhere); SDXL: configs/inference/sd_xl_base.yaml (heads
# of 64 channels; its first level has no attention).
MODELS: Mapping[Base, Model] = {
    "sd15": Model("sd15", (64, 64), (320, 640, 1280, 1280), (8, 8, 8, 8), 768),
    "sdxl": Model("sdxl", (128, 128), (320, 640, 1280), (5, 10, 20), 2048),
}


@dataclass(frozen=True)
class Case:
    """Identities at work together, each of T tokens; ``masked`` gives each a strip of the picture."""

    identities: int
    tokens: int
    masked: bool = False

    @property
    def title(self) -> str:
        people = "1 identity" if self.identities == 1 else f"{self.identities} identities"
        return f"{people}{' with masks' if self.masked else ''}, {self.tokens} tokens"


class Person(NamedTuple):
    """Random tokens, and a region (H, W) of the picture or None."""

    tokens: Tokens
    mask: Tensor | None


def make_people(model: Model, case: Case) -> list[Person]:
    """As many identities as the case says; masks are upright strips that together cover the picture."""
    height, width = model.picture
    strip = torch.arange(width) * case.identities // width
    masks = [(strip == i).to(torch.float32).expand(height, -1) if case.masked else None for i in range(case.identities)]
    size = (case.tokens, model.context)
    return [Person(Tokens(torch.randn(size), torch.randn(size)), mask) for mask in masks]


class Material:
    """What all candidates share: random weights and inputs for every shape of a model.

    ``projections`` are the adapter's to_k_ip and to_v_ip (C, X), float32 on the CPU; the rest is of dtype on device.
    """

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.place = model, {"device": device, "dtype": dtype}
        self.shapes = model.shapes()
        self.weights = {shape: new_attention(shape, model).to(**self.place).state_dict() for shape in self.shapes}
        self.states = {shape: self.random(shape.queries, shape.channels) for shape in self.shapes}
        self.text = self.random(model.text, model.context)
        self.sample = self.random(4, *model.latent)
        self.projections = {
            shape: tuple(torch.randn(shape.channels, model.context) / model.context**0.5 for _ in "kv")
            for shape in self.shapes
        }

    def random(self, *size: int) -> Tensor:
        return torch.randn(len(ROWS), *size, **self.place)

    def cast(self, x: Tensor) -> Tensor:
        return x.to(**self.place)

    def entries(self, people: Sequence[Person]) -> list[Entry]:
        """The people as the tap takes them. Every layer owns its tensors, as in an identity from a file."""
        numbered = enumerate(self.projections.values())
        tables = project_kv([person.tokens for person in people], [(i, k, v) for i, (k, v) in numbered])
        of_layer = {n: i for i, numbers in enumerate(self.shapes.values()) for n in numbers}
        return [
            Entry({n: LayerKV(kv[i].k.clone(), kv[i].v.clone()) for n, i in of_layer.items()}, Strength(WEIGHT), mask)
            for kv, (_, mask) in zip(tables, people, strict=True)
        ]


def new_attention(shape: LayerShape, model: Model) -> Attention:
    """A diffusers cross-attention, as BasicTransformerBlock makes it. Raises FaceIDError without diffusers."""
    try:
        from diffusers.models.attention_processor import Attention
    except ImportError as error:
        raise FaceIDError(
            "The benchmark measures diffusers' attention layers, and this Python has no diffusers. Run it where "
            "diffusers is installed; bench --forms works without."
        ) from error
    width = shape.channels // shape.heads
    return Attention(shape.channels, model.context, heads=shape.heads, dim_head=width).eval()


@dataclass
class Feed:
    """What the attention layers of a candidate are called with besides their hidden states."""

    context: Any
    kwargs: dict[str, Any] = field(default_factory=dict)


class Lap(NamedTuple):
    """Seconds one layer took, and what it gave (B, N, C)."""

    seconds: float
    result: Tensor


class StandIn(nn.Module):
    """All cross-attentions of a model by their diffusers names; a call runs the first layer of each shape.

    Every layer is a module of its own, because hooks sit on modules; layers of one shape share their weights, so that
    SDXL's seventy do not take 2 GB.
    """

    def __init__(self, material: Material, watch: Stopwatch) -> None:
        super().__init__()
        self.feed = Feed(material.text)
        self.turns = {shape: numbers[:1] for shape, numbers in material.shapes.items()}
        self._watch, self._states, self._seats = watch, material.states, {}
        for shape, numbers in material.shapes.items():
            for n in numbers:
                with torch.device("meta"):
                    attention = new_attention(shape, material.model)
                attention.load_state_dict(material.weights[shape], assign=True)
                _seat(self, f"{layers(material.model.base)[n].diffusers}.attn2", attention)
                self._seats[n] = attention

    def attention(self, n: int) -> Attention:
        return self._seats[n]

    def forward(self, sample: Tensor, timestep: float = 0.0) -> list[Lap]:
        """Laps in the order of ``turns``. The arguments are a UNet's and are not used."""
        return [self._run(shape, n) for shape, numbers in self.turns.items() for n in numbers]

    def _run(self, shape: LayerShape, n: int) -> Lap:
        attention, x = self._seats[n], self._states[shape]
        start = self._watch.now()
        result = attention(x, encoder_hidden_states=self.feed.context, **self.feed.kwargs)
        return Lap(self._watch.now() - start, result)


def _seat(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(last, module)
