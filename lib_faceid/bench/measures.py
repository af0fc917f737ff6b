"""The measurements of ``bench``: the tap beside its peers, the three forms, the tables' memory, a bare UNet step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..core.attend import BlockForm, Form, FusedForm, Pick, StackedForm, choose_form
from ..errors import FaceIDError
from .peers import CANDIDATES, candidates, new_taps
from .times import Part, Seconds, Stopwatch, take_turns
from .unet import ROWS, Case, LayerShape, Material, Model, StandIn, make_people

CASES = (Case(1, 4), Case(1, 16), Case(4, 4), Case(4, 16), Case(4, 4, masked=True), Case(4, 16, masked=True))
FORMS: Mapping[str, type[BlockForm] | type[StackedForm] | type[FusedForm]] = {
    "block": BlockForm,
    "stacked": StackedForm,
    "fused": FusedForm,
}
FORM_GROUPS = (1, 4)
FORM_TOKENS = (4, 8, 16)
SLOW = 1.5  # times the best form's median, from which a choice is pointed out
SMALL_LATENT = (8, 8)


@dataclass(frozen=True)
class CaseTimes:
    """One case on one model: a part for each shape of layer, and one for the UNet call around the layers."""

    model: Model
    case: Case
    parts: tuple[Part, ...]

    def bare(self) -> float:
        """Seconds of all cross-attentions of a UNet call without an identity."""
        return sum(part.count * part.median("bare") for part in self.parts)

    def added(self, candidate: str) -> float:
        """Seconds that a candidate adds to a UNet call."""
        return sum(part.count * part.added(candidate, "bare") for part in self.parts)

    def ratio(self, candidate: str) -> float:
        return (self.bare() + self.added(candidate)) / self.bare()


def measure_case(material: Material, case: Case, watch: Stopwatch, rounds: int) -> CaseTimes:
    """The case with every candidate in turn, each turn one UNet call that runs one layer of each shape."""
    with candidates(material, make_people(material.model, case), watch) as unets, torch.inference_mode():
        runs = {name: _visitor(unets[name], material.sample, watch) for name in CANDIDATES}
        seconds = take_turns(runs, rounds)
    counted = [(f"{s.channels} channels, {s.queries} queries", len(ns)) for s, ns in material.shapes.items()]
    parts = [
        Part(title, count, {name: tuple(laps[i] for laps in kept) for name, kept in seconds.items()})
        for i, (title, count) in enumerate([*counted, ("UNet call", 1)])
    ]
    return CaseTimes(material.model, case, tuple(parts))


def _visitor(unet: StandIn, sample: Tensor, watch: Stopwatch) -> Callable[[], Seconds]:
    """Calls the UNet; seconds of each layer, then what the call took besides."""

    def visit() -> Seconds:
        start = watch.now()
        laps = [lap.seconds for lap in unet(sample, 0.0)]
        return (*laps, watch.now() - start - sum(laps))

    return visit


@dataclass(frozen=True)
class FormTimes:
    """Seconds of each form for G groups of T tokens on a layer, and the form that is chosen for it."""

    model: Model
    shape: LayerShape
    groups: int
    tokens: int
    chosen: str
    part: Part

    def slower(self) -> float:
        """The chosen form's median in relation to the best one's."""
        return self.part.median(self.chosen) / min(self.part.median(name) for name in FORMS)

    @property
    def is_slow(self) -> bool:
        return self.slower() > SLOW


def measure_forms(model: Model, place: Mapping[str, Any], watch: Stopwatch, rounds: int) -> Iterator[FormTimes]:
    """All forms for every shape, number of groups and number of tokens. ``place``: device and dtype."""
    names = {form: name for name, form in FORMS.items()}
    for shape, numbers in model.shapes().items():
        for groups in FORM_GROUPS:
            for tokens in FORM_TOKENS:
                runs = form_runs(shape, torch.randn(2, 2, groups, tokens, shape.channels), place, watch)
                with torch.inference_mode():
                    kept = take_turns(runs, rounds)
                seconds = {name: tuple(lap for (lap,) in laps) for name, laps in kept.items()}
                chosen = names[choose_form(tokens, groups, shape.channels)]
                yield FormTimes(model, shape, groups, tokens, chosen, Part("", len(numbers), seconds))


def form_runs(
    shape: LayerShape, kv: Tensor, place: Mapping[str, Any], watch: Stopwatch
) -> dict[str, Callable[[], Seconds]]:
    """For each form a call that times it on the same q and x; kv is (2, R, G, T, C), keys first.

    FusedForm knows one group only, so several are several of it.
    """
    q, x = torch.randn(2, len(ROWS), shape.queries, shape.channels).to(**place)
    pick = Pick(torch.tensor([0, 1], device=q.device), None)

    def run(forms: Sequence[Form]) -> Seconds:
        start = watch.now()
        add_forms(forms, q, x, pick)
        return (watch.now() - start,)

    return {name: partial(run, make_forms(name, kv, shape.heads, place)) for name in FORMS}


def make_forms(name: str, kv: Tensor, heads: int, place: Mapping[str, Any]) -> Sequence[Form]:
    """One form for all groups, or one for each where the form takes one group only; cast as the tap casts them."""
    parts = kv.split(1, dim=2) if name == "fused" else (kv,)
    forms = [FORMS[name](part[0], part[1], heads) for part in parts]
    for form in forms:
        form.k, form.v = form.k.to(**place), form.v.to(**place)
    return forms


def add_forms(forms: Sequence[Form], q: Tensor, x: Tensor, pick: Pick) -> Tensor:
    """What the tap's two hooks do: all products with q first, then everything onto x."""
    pending = [form.attend(q, pick, 1.0) for form in forms]
    for form, item in zip(forms, pending, strict=True):
        x = form.add(x, item, pick, 1.0)
    return x


def measure_memory(model: Model, device: torch.device, dtype: torch.dtype, tokens: int = 4) -> int:
    """Bytes the tap holds for one identity after a UNet call that ran every layer: its tables and the identity's K/V.

    Tables do not depend on the picture, so a small latent does.
    """
    material = Material(replace(model, latent=SMALL_LATENT), device, dtype)
    unet = StandIn(material, Stopwatch(device))
    unet.turns = material.shapes
    taps = new_taps(unet, material.entries(make_people(material.model, Case(1, tokens))))
    with taps, torch.inference_mode():
        unet(material.sample)
        return count_bytes(taps)


def count_bytes(root: object) -> int:
    """Bytes of all tensors that can be reached from ``root`` without passing through a module of the UNet."""
    seen: dict[int, object] = {}
    sizes: dict[int, int] = {}
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, (nn.Module, str, type)):
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor):
            sizes[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, Mapping):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            todo += item
        else:
            todo += getattr(item, "__dict__", {}).values()
    return sum(sizes.values())


def measure_step(unet: nn.Module, model: Model, watch: Stopwatch, rounds: int) -> float:
    """Median seconds of one UNet call with two rows, after one with a small latent to wake everything up."""
    some = next(unet.parameters())

    def call(latent: tuple[int, int]) -> Seconds:
        sample = torch.randn(len(ROWS), 4, *latent, device=some.device, dtype=some.dtype)
        text = torch.randn(len(ROWS), model.text, model.context, device=some.device, dtype=some.dtype)
        start = watch.now()
        unet(sample, 500, encoder_hidden_states=text)
        return (watch.now() - start,)

    with torch.inference_mode():
        call(SMALL_LATENT)
        (laps,) = take_turns({"step": lambda: call(model.latent)}, rounds, warmups=0).values()
    return median(seconds for (seconds,) in laps)


def new_unet(model: Model, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A random SD1.5 UNet of true size, 3.4 GB in float32. Raises FaceIDError without diffusers."""
    try:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    except ImportError as error:
        raise FaceIDError(
            "bench --step runs diffusers' UNet, and this Python has no diffusers. Run it where diffusers is installed."
        ) from error
    unet = UNet2DConditionModel(
        block_out_channels=model.channels,
        attention_head_dim=model.heads[0],  # the number of heads, under the name it has in SD1.5's config.json
        cross_attention_dim=model.context,
        sample_size=model.latent[0],
    )
    return nn.Module.to(unet, device=device, dtype=dtype).eval()
