"""Everything of A1111 that is used, in one place: what is asked of it, and where in its source that is.

Modules are looked up when they are needed: importing this file costs nothing and works without the WebUI.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from torch import nn

from ...engine.extract import ModelFolder
from ...engine.turns import Picture
from ...errors import UnsupportedUNet
from ..job import Outlet


def unet(p: Any) -> nn.Module:
    """The UNet of the checkpoint that is loaded now. Raises UnsupportedUNet for a model that has none (SD3)."""
    model = getattr(getattr(p.sd_model, "model", None), "diffusion_model", None)
    if not isinstance(model, nn.Module):
        raise UnsupportedUNet(
            f"This checkpoint is a {type(p.sd_model).__name__} without a UNet; FaceID works with Stable Diffusion 1.x "
            "and SDXL. Load a checkpoint of one of them."
        )
    return model


def loaded_unet() -> nn.Module | None:
    """The UNet, without loading a checkpoint if none is: ``shared.sd_model`` would (modules/shared_items.py)."""
    model = import_module("modules.sd_models").model_data.sd_model
    found = getattr(getattr(model, "model", None), "diffusion_model", None)
    return found if isinstance(found, nn.Module) else None


def checkpoint_name(p: Any) -> str:
    """What people call the checkpoint that is loaded now."""
    info = getattr(p.sd_model, "sd_checkpoint_info", None)
    return str(getattr(info, "name_for_extra", "")) or "the checkpoint"


def model_folder() -> ModelFolder:
    """The WebUI's models folder (``--models-dir`` or ``--data-dir``), modules/paths_internal.py."""
    return ModelFolder(Path(import_module("modules.paths_internal").models_path).absolute())


def extensions_folders() -> list[Path]:
    """Where extensions lie."""
    paths = import_module("modules.paths_internal")
    return [Path(paths.extensions_dir), Path(paths.extensions_builtin_dir)]


def pictures(p: Any) -> list[Picture]:
    """All pictures of a job; their seeds are fixed before ``process`` (modules/processing.py, setup_prompts)."""
    return [Picture(number, int(seed)) for number, seed in enumerate(p.all_seeds)]


def pictures_of_batch(p: Any) -> list[Picture]:
    """The pictures that are sampled now."""
    first = p.iteration * p.batch_size
    return pictures(p)[first : first + p.batch_size]


def outlet(p: Any) -> Outlet:
    """Remarks under the picture and in API answers (``Processed.comments``), and the table of infotext."""
    return Outlet(p.comment, p.extra_generation_params)


def was_interrupted() -> bool:
    """Whether the person asked to stop or skip."""
    state = import_module("modules.shared").state
    return bool(state.interrupted or state.skipped or getattr(state, "stopping_generation", False))


def show_progress(words: str | None) -> None:
    """The line beside the progress bar; None gives it back."""
    import_module("modules.shared").state.textinfo = words


def lora_networks() -> Any | None:
    """The ``networks`` module of the built-in Lora extension, None where that is switched off."""
    return sys.modules.get("networks") if "network" in sys.modules else None


def lora_network_classes() -> tuple[type[Any], type[Any]]:
    """``Network`` and ``NetworkWeights`` of the built-in Lora extension."""
    network = cast(Any, sys.modules["network"])
    return network.Network, network.NetworkWeights


def layer_mapping() -> dict[str, nn.Module]:
    """Modules of the loaded checkpoint by the names LoRA files use; made by the Lora extension when it loads."""
    model = import_module("modules.shared").sd_model
    if not hasattr(model, "network_layer_mapping"):
        cast(Any, sys.modules["networks"]).assign_network_names_to_compvis_modules(model)
    return model.network_layer_mapping


def on_each_denoise(callback: Callable[[Any], None]) -> None:
    """Call before every call of the denoiser, with its parameters (CFGDenoiserParams); registers once."""
    callbacks = import_module("modules.script_callbacks")
    callbacks.remove_callbacks_for_function(callback)  # "Reload UI" runs the script again
    callbacks.on_cfg_denoiser(callback)
