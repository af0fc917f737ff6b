"""A small stand-in of A1111 1.10.1: the modules an extension imports, and the order in which a job calls its script.

It runs the real ``scripts/faceid.py``. As in A1111, an exception in a script's callback is only written down
(``Host.reported``), a picture's text is made after its batch, and nothing is called after an error in sampling.
Sampling is in fake_sampling.py, the built-in Lora extension in fake_lora.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from pytest import MonkeyPatch
from torch import Tensor, nn

from lib_faceid.engine.request import field as field_of
from lib_faceid.environment import ROOT
from lib_faceid.hosts.detect import PEOPLE
from lib_faceid.ui.values import PANEL

from ..models_folder import sd15_checkpoint
from .fake_sampling import Sampler, UNetCall

SCRIPT = ROOT / "scripts" / "faceid.py"


def panel(**values: Any) -> list[Any]:
    """Values of the panel's controls in their order, as the page sends them; those not named have their default."""
    empty = {"images": None, "hires_weight": ""}
    return [values.get(name, empty.get(name, field_of(name).default)) for name in PANEL]


def sent(*units: Any) -> list[Any]:
    """Arguments of an API request: the units, then what the host fills in from the panel's defaults."""
    return [*units, *panel()[len(units) :]]


class Checkpoint(nn.Module):
    """``shared.sd_model``: the UNet is ``.model.diffusion_model``."""

    def __init__(self, unet: nn.Module | None, name: str = "checkpoint") -> None:
        super().__init__()
        if unet is not None:
            self.model = nn.Module()
            self.model.diffusion_model = unet
        self.sd_checkpoint_info = SimpleNamespace(name_for_extra=name)


@dataclass
class Processing:
    """What A1111 hands to scripts as ``p``.

    ``prompts``: how many prompts joined by AND each picture of a batch has. ``one_sampler``: img2img makes one for all
    batches. ``refiner``: (number of the denoiser call, what loads the other checkpoint); ``hires_loads`` does that for
    the second pass.
    """

    host: Host
    prompts: tuple[int, ...] = (1,)
    steps: int = 2
    n_iter: int = 1
    enable_hr: bool = False
    solver: str = "euler"
    one_sampler: bool = False
    refiner: tuple[int, Callable[[], None]] | None = None
    hires_loads: Callable[[], None] | None = None
    disable_extra_networks: bool = False
    prompt_networks: list[Any] = field(default_factory=list)
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, int] = field(default_factory=dict)
    sampler: Any = None
    is_hr_pass: bool = False
    iteration: int = 0
    seed: int = 1

    @property
    def batch_size(self) -> int:
        return len(self.prompts)

    @property
    def all_seeds(self) -> list[int]:
        return [self.seed + number for number in range(self.n_iter * self.batch_size)]

    @property
    def sd_model(self) -> Any:
        return self.host.shared.sd_model

    def comment(self, text: str) -> None:
        self.comments[text] = 1


@dataclass
class Processed:
    """What a job gives: a latent and a table of its text for every batch, and what is said under the gallery."""

    pictures: list[Tensor]
    texts: list[dict[str, Any]]
    comments: list[str]


class Host:
    """The WebUI. ``state`` is ``shared.state``; ``calls`` are the UNet calls since the last job began."""

    def __init__(self, models: Path, monkeypatch: MonkeyPatch, unet: nn.Module | None = None) -> None:
        self.models, self.monkeypatch = models, monkeypatch
        self.state = SimpleNamespace(interrupted=False, skipped=False, stopping_generation=False, textinfo=None)
        self.shared = SimpleNamespace(state=self.state, sd_model=Checkpoint(unet or sd15_checkpoint()))
        self.first_checkpoint = self.shared.sd_model
        self.denoise_callbacks: list[Callable[[Any], None]] = []
        self.reported: list[Exception] = []
        self.calls: list[UNetCall] = []
        self.passes = -1  # number of the sampling pass that runs, from 0
        self.during: Callable[[Any], None] | None = None  # called with the denoiser before each of its calls
        self.rules = SimpleNamespace(batch_cond_uncond=True, uncond_tokens=7, cond_tokens=7, edit=False)
        self.rules.width = 768
        self.rules.skips_uncond = lambda step: False
        self.rules.tiles = self.rules.together = 1
        self.lora: Any = None  # set by fake_lora.install
        self._install()
        PEOPLE.forget()
        self.load_script()

    @property
    def unet(self) -> nn.Module:
        return self.shared.sd_model.model.diffusion_model

    def load(self, unet: nn.Module | None, name: str = "refiner") -> None:
        """Another checkpoint takes the place of the one that is loaded, until the next batch."""
        self.shared.sd_model = Checkpoint(unet, name)

    def start_with(self, unet: nn.Module | None) -> None:
        """Jobs begin with this checkpoint."""
        self.load(unet, "checkpoint")
        self.first_checkpoint = self.shared.sd_model

    def load_script(self) -> None:
        """At the start, and again at every "Reload UI"."""
        spec = spec_from_file_location("faceid.py", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        self.script = module.FaceIDScript()

    def run(self, *args: Any, **settings: Any) -> Processed:
        """A job with the script's arguments; ``settings`` are fields of Processing."""
        return self.process(Processing(self, **settings), *args)

    def process(self, p: Processing, *args: Any) -> Processed:
        """As ``process_images`` in its order; an error in sampling ends it on the spot."""
        self.state.interrupted = self.state.skipped = False
        self.passes, self.calls, pictures, texts = -1, [], list[Tensor](), list[dict[str, Any]]()
        with torch.no_grad():
            self._call("before_process", p, args)
            self._call("process", p, args)
            for number in range(p.n_iter):
                p.iteration = number
                self._call("before_process_batch", p, args, batch_number=number)
                pictures.append(self._make_batch(p, args))
                self._call("postprocess_batch", p, args, images=pictures[-1], batch_number=number)
                texts.append(dict(p.extra_generation_params))
                if self.state.interrupted:
                    break
        return Processed(pictures, texts, list(p.comments))

    def denoise(self, params: Any) -> None:
        for callback in self.denoise_callbacks:
            self._guard(callback, params)

    def _make_batch(self, p: Processing, args: tuple[Any, ...]) -> Tensor:
        """One batch: one sampling pass, or two of which the second has the doubled size and a sampler of its own."""
        self.shared.sd_model = self.first_checkpoint
        self._activate(p)
        generator = torch.Generator().manual_seed(p.iteration)
        x = torch.randn(len(p.prompts), 4, 8, 8 * self.rules.tiles, generator=generator)
        if p.sampler is None or not p.one_sampler:
            p.sampler = Sampler(p)
        self._call("process_before_every_sampling", p, args, x=x, noise=x)
        x = p.sampler.sample(x, p.steps)
        if p.enable_hr:
            p.is_hr_pass = True
            if p.hires_loads is not None:
                p.hires_loads()
            self._activate(p)
            p.sampler = Sampler(p)
            x = x.repeat_interleave(2, dim=-1)
            self._call("process_before_every_sampling", p, args, x=x, noise=x)
            x = p.sampler.sample(x, p.steps)
            p.is_hr_pass = False
        return x

    def _activate(self, p: Processing) -> None:
        """The networks of the prompt; with ``disable_extra_networks`` whatever is loaded stays."""
        if self.lora is not None and not p.disable_extra_networks:
            self.lora.loaded_networks.clear()
            self.lora.loaded_networks.extend(p.prompt_networks)

    def _call(self, name: str, p: Processing, args: tuple[Any, ...], **extra: Any) -> None:
        self._guard(getattr(self.script, name), p, *args, **extra)

    def _guard(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except Exception as error:  # as the host does: the picture is made without the script
            self.reported.append(error)

    def _install(self) -> None:
        """The modules that are imported by name, gone again when the test ends."""
        scripts = {"Script": type("Script", (), {}), "AlwaysVisible": object()}
        beside = self.models.parent
        folders = {
            "models_path": str(self.models),
            "extensions_dir": str(beside / "extensions"),
            "extensions_builtin_dir": str(beside / "extensions-builtin"),
        }
        callbacks = {
            "on_cfg_denoiser": self.denoise_callbacks.append,
            "remove_callbacks_for_function": self._forget_callback,
        }
        self.add_module("modules")
        self.add_module("modules.shared", proxy=self.shared)
        self.add_module("modules.script_callbacks", **callbacks)
        self.add_module("modules.paths_internal", **folders)
        self.add_module("modules.sd_models", model_data=self.shared)
        self.add_module("modules.scripts", **scripts)
        self.add_module("modules.ui_components", InputAccordion=None)

    def add_module(self, name: str, proxy: Any = None, **content: Any) -> Any:
        """A module that others can import; ``proxy`` is an object in its place."""
        module: Any = proxy or ModuleType(name)
        for key, value in content.items():
            setattr(module, key, value)
        self.monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        return module

    def _forget_callback(self, function: Callable[[Any], None]) -> None:
        self.denoise_callbacks[:] = [kept for kept in self.denoise_callbacks if kept is not function]
