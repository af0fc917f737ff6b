"""Which adapter a unit is served with: the one it names, or the one that suits the checkpoint best."""

from __future__ import annotations

from ..core.unet_map import BASE_TITLES
from ..errors import WrongBase, WrongWeights
from ..weights.adapter import Adapter, load_adapter
from ..weights.catalog import Listed, fitting, list_adapters
from .model_files import find_encoder
from .place import Place
from .request import AUTO, Unit


def choose_adapter(unit: Unit, place: Place) -> Adapter:
    """The adapter a unit names, or the one that suits the checkpoint best. Raises WrongWeights."""
    listed = list_adapters(place.adapters)
    variant = None if unit.variant == AUTO else unit.variant
    if unit.adapter != AUTO:
        adapter = _named(unit.adapter, listed, variant, place)
        if (adapter.base, adapter.recognised.context_width) != (place.base, place.context_width):
            raise WrongBase(
                f"{adapter.path.name} is {adapter.title} and this checkpoint is {BASE_TITLES[place.base]}. Choose an "
                f"adapter for {BASE_TITLES[place.base]}, or let it be chosen automatically."
            )
        return adapter
    vectors_only = unit.embeddings is not None
    found = fitting(listed, place.base, place.context_width, photos=len(unit.images), clip=not vectors_only)
    if not found and vectors_only:
        raise WrongWeights(
            f"Only face vectors were sent, and {place.adapters_title} holds no adapter for {BASE_TITLES[place.base]} "
            "that needs nothing else. Send photos, or put a plain FaceID adapter there."
        )
    if not found:
        raise WrongWeights(_nothing_fits(listed, place))
    ready = (adapter for adapter in found if not adapter.needs_clip or find_encoder(adapter, place.models))
    return next(ready, found[0])


def _named(name: str, listed: list[Listed], variant: str | None, place: Place) -> Adapter:
    item = next((item for item in listed if item.path.name == name), None)
    if item is None:
        names = ", ".join(item.path.name for item in listed[:20]) or "nothing yet"
        raise WrongWeights(f"There is no adapter {name} in {place.adapters_title}; it holds {names}.")
    if variant is not None:
        return load_adapter(item.path, variant=variant)
    if item.adapter is None:
        raise WrongWeights(item.problem)
    return item.adapter


def _nothing_fits(listed: list[Listed], place: Place) -> str:
    title = BASE_TITLES[place.base]
    held = ", ".join(f"{item.path.name} ({item.adapter.title})" for item in listed if item.adapter) or "no adapter"
    problems = " ".join(["", *(item.problem for item in listed if item.problem)][:4])
    return (
        f"This checkpoint is {title}, and {place.adapters_title} holds {held}. Put an adapter for {title} there, such "
        f"as ip-adapter-faceid-plusv2_{place.base}.bin.{problems}"
    )
