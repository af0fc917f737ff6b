"""Whether a unit could be served, known from headers and names alone: no model runs and no photo is searched."""

from __future__ import annotations

from dataclasses import replace

from ..core.unet_map import BASE_TITLES
from ..errors import BadRequest
from ..face.pack import find_pack
from ..library.identity import other_base
from ..library.person import read_card
from ..weights.adapter import Adapter
from .choice import choose_adapter
from .model_files import find_encoder
from .people import People
from .place import Place, saved_path
from .request import DIGEST, Unit, ensure_someone


def describe_readiness(unit: Unit, place: Place, people: People) -> str:
    """One line on what would be used. Raises FaceIDError with the sentence on what is missing."""
    base = BASE_TITLES[place.base]
    ensure_someone(unit)
    if unit.identity and not unit.images:
        return f"Ready: {_describe_person(unit, place, people)} · {base}{_describe_lora(unit, None)}"
    adapter = choose_adapter(unit, place)
    _ensure_models(adapter, unit, place)
    count = len(unit.images)
    photos = "1 photo" if count == 1 else f"{count} photos"
    return f"Ready: {adapter.title}{_describe_lora(unit, adapter)} · {photos} · {adapter.path.name}"


def _describe_person(unit: Unit, place: Place, people: People) -> str:
    if unit.identity.startswith(DIGEST):
        key = unit.identity.removeprefix(DIGEST)
        if not people.knows(key):
            raise BadRequest("The person of the pasted picture is not in memory. Add the same photos again.")
        return f"the person of the pasted picture ({key})"
    held = tuple(read_card(saved_path(unit.identity, place.identities)).origins)
    if place.base not in held:
        raise other_base(unit.identity, held, place.base)
    return unit.identity


def _describe_lora(unit: Unit, adapter: Adapter | None) -> str:
    return f" · LoRA {unit.lora:g}" if adapter is not None and adapter.has_lora and unit.lora else ""


def _ensure_models(adapter: Adapter, unit: Unit, place: Place) -> None:
    """Raises WrongWeights or WrongEncoder when what reads the photos is not there."""
    models = replace(place.models, pack_name=unit.pack)
    if adapter.recognised.variant.vector != "none":
        find_pack(models.pack(adapter.variant))
    if adapter.needs_clip and find_encoder(adapter, models) is None:
        models.encoder(adapter)  # says what is missing
