"""Where a picture is made: the base of its checkpoint, the folders weights lie in, and the people saved there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.unet_map import CONTEXT_WIDTHS, Base, UNetLayers
from ..errors import BadIdentity, UnsupportedUNet
from ..library.names import check_name
from ..library.store import Store
from .extract import ModelFolder


@dataclass(frozen=True)
class Place:
    """What a picture is made with: the UNet's base and context width, and the folders where weights lie."""

    base: Base
    context_width: int
    models: ModelFolder

    @classmethod
    def of(cls, layers: UNetLayers, models: ModelFolder) -> Place:
        """Raises UnsupportedUNet for a UNet whose text encoder no adapter was made for (SD2)."""
        if layers.context_width != CONTEXT_WIDTHS[layers.base]:
            raise UnsupportedUNet(
                f"This checkpoint is {layers.title} (context {layers.context_width}); FaceID adapters exist for SD1.5 "
                f"(context {CONTEXT_WIDTHS['sd15']}) and SDXL ({CONTEXT_WIDTHS['sdxl']}). Load a checkpoint of one of "
                "them."
            )
        return cls(layers.base, layers.context_width, models)

    @property
    def adapters(self) -> Path:
        """The folder adapters lie in."""
        return adapters_folder(self.models)

    @property
    def adapters_title(self) -> str:
        """That folder as people know it, without the path before it, which is nobody else's business."""
        return f"{self.models.root.name}/{self.adapters.name}"

    @property
    def identities(self) -> Path:
        """The folder saved people lie in."""
        return identities_folder(self.models)


def adapters_folder(models: ModelFolder) -> Path:
    """Where adapters are looked for."""
    return models.root / "ip-adapter"


def identities_folder(models: ModelFolder) -> Path:
    """Where saved people are looked for."""
    return adapters_folder(models) / "identities"


def saved_path(name: str, folder: Path) -> Path:
    """The file of a saved person. Raises BadIdentity when there is none, or the name is a path."""
    try:
        check_name(name)
    except BadIdentity as error:
        raise BadIdentity(f"A saved person is chosen by name: {error}") from error
    store = Store(folder)
    if check_name(name) not in store.names():  # who else is saved is nobody's business: pictures and answers travel
        raise BadIdentity(f"There is no saved person {check_name(name)}. Choose one from the list in the panel.")
    return store.path(name)


def saved_names(folder: Path) -> list[str]:
    """Names of the people saved in the folder."""
    return Store(folder).names()
