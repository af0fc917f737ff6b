"""What the panel asks of A1111: which files there are, whether a job could run, and what a pasted picture says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.unet_map import find_layers
from ...engine import infotext
from ...engine.people import People
from ...engine.place import Place, adapters_folder, identities_folder, saved_names
from ...engine.readiness import describe_readiness
from ...engine.request import AUTO, Unit, read_unit
from ...errors import FaceIDError
from ...weights.catalog import list_adapters, weight_files, with_digest
from ..job import without_path
from . import webui


class PanelServices:
    """Answers for the panel, all without running a model."""

    def __init__(self, people: People) -> None:
        self._people = people

    def adapters(self) -> list[str]:
        """File names in models/ip-adapter; nothing is read while the page is built."""
        return [path.name for path in weight_files(adapters_folder(webui.model_folder()))]

    def people(self) -> list[str]:
        """Names of saved people."""
        return saved_names(identities_folder(webui.model_folder()))

    def status(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """ "ready", "problem" or "off", and one sentence, for the panel's values by name. Never raises."""
        try:
            unit = read_unit(values)
            return ("off", _describe_off(unit)) if unit.is_off else ("ready", self._describe(unit))
        except FaceIDError as error:
            return "problem", without_path(str(error), webui.model_folder())
        except OSError as error:
            return "problem", f"A file in models/ip-adapter cannot be read ({error.strerror}). Check the disk."

    def pasted(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Values by field name from the text of a picture; None where it was made without FaceID.

        The adapter is looked up by its digest, so that a renamed file is found.
        """
        units = infotext.read(params)
        if not units:
            return None
        values = dict(units[0])
        digest = values.pop("adapter_sha256", "")
        if digest:
            listed = list_adapters(adapters_folder(webui.model_folder()))
            adapter = with_digest(listed, digest, values.get("adapter", AUTO), values.get("variant", ""))
            values["adapter"] = adapter.path.name if adapter else values["adapter"]
        return values

    def _describe(self, unit: Unit) -> str:
        unet = webui.loaded_unet()
        if unet is None:
            return "The checkpoint is not loaded yet; whether everything is there is seen when it is."
        place = Place.of(find_layers(unet), webui.model_folder())
        self._people.keep_on_disk(place.models)
        return describe_readiness(unit, place, self._people)


def _describe_off(unit: Unit) -> str:
    return "" if not unit.enabled else "Weight is 0, so FaceID is off."
