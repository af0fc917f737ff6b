"""Naming who else changes what we rely on, when something is not as we left it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from ...core.unet_map import find_layers
from ...errors import UnsupportedUNet
from . import webui


def describe_wrapper(found: Any) -> str:
    """A sentence for a sampler whose ``launch_sampling`` somebody else replaced while a pass was running."""
    return (
        f"{owner_of(found)} replaced the sampler's launch_sampling while FaceID was using it and left it so. The "
        "picture is not affected; if later ones are, switch that extension off."
    )


def describe(unet: nn.Module) -> list[str]:
    """A sentence naming what replaces the forward of the UNet or of its cross-attentions; none where nothing does."""
    try:
        modules = [unet, *find_layers(unet).attentions]
    except UnsupportedUNet:
        modules = [unet]
    replaced = [vars(module)["forward"] for module in modules if "forward" in vars(module)]
    owners = sorted({owner_of(function) for function in replaced})
    return [f"Likely by: {', '.join(owners)}."] if owners else []


def owner_of(function: Any) -> str:
    """The extension a function belongs to, otherwise the module it was written in."""
    try:
        file = Path(inspect.getfile(inspect.unwrap(getattr(function, "func", function)))).resolve()
    except (TypeError, ValueError, OSError, RuntimeError):
        return f"a {type(function).__name__}"
    for folder in webui.extensions_folders():
        if folder.resolve() in file.parents:
            return f"the extension {file.relative_to(folder.resolve()).parts[0]}"
    return f"code in {file.name}"
