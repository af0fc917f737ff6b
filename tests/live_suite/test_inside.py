"""The maintainers' extension, with stand-ins for the WebUI around it: it sees what is put on a module, and its faults
come to pass once."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_faceid.core.patch import HookPatch, live_patches

FILE = Path(__file__).parent.parent / "live" / "extension" / "scripts" / "inside.py"


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.middle_block = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.middle_block(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = UNet()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    routes: list[Callable[..., Any]] = []
    host = SimpleNamespace(
        shared=SimpleNamespace(sd_model=Model(), opts=SimpleNamespace(data={}), state=SimpleNamespace()),
        script_callbacks=SimpleNamespace(on_app_started=routes.append, callback_map={"a": [1], "b": [2, 3]}),
        sd_unet=SimpleNamespace(current_unet=None),
    )
    stubs = {"modules": vars(host), "fastapi": {"HTTPException": ValueError}}
    for name, content in stubs.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "modules.processing", ModuleType("modules.processing"))
    return host


@pytest.fixture
def script(host: SimpleNamespace) -> Iterator[SimpleNamespace]:
    script = SimpleNamespace(**runpy.run_path(str(FILE)))
    yield script
    script.clear()


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def _change_weights(model: Model) -> None:
    with torch.no_grad():
        model.model.diffusion_model.middle_block.weight[0, 0] += 1e-3


CHANGES: dict[str, Callable[[Model], object]] = {
    "hook": lambda model: model.model.diffusion_model.register_forward_hook(lambda *_: None),
    "pre-hook": lambda model: model.model.diffusion_model.register_forward_pre_hook(lambda *_: None),
    "attribute": lambda model: setattr(model.model, "extra", 1),
    "forward put back by assignment": lambda model: setattr(model.model, "forward", model.model.forward),
    "weights": _change_weights,
    "another module": lambda model: setattr(model.model.diffusion_model, "middle_block", nn.Identity()),
    "module function": lambda model: setattr(sys.modules["modules.processing"], "draw", _wrapped(print)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_put_on_the_model_is_seen(script: SimpleNamespace, host: SimpleNamespace, change: Any) -> None:
    before = script.read_state()
    assert script.read_state() == before
    change(host.shared.sd_model)
    assert script.read_state() != before


def test_a_class_whose_forward_was_wrapped_is_seen(script: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = script.read_state()
    monkeypatch.setattr(UNet, "forward", _wrapped(UNet.forward))
    once = script.read_state()
    monkeypatch.setattr(UNet, "forward", _wrapped(UNet.forward))
    assert len({repr(state) for state in (before, once, script.read_state())}) == 3
    monkeypatch.undo()


def test_usage_counts(script: SimpleNamespace, host: SimpleNamespace) -> None:
    usage = script.read_usage()
    assert (usage["callbacks"], usage["hooks"], usage["patches"]) == (3, 0, live_patches())
    patch = HookPatch("a hook", host.shared.sd_model.model, lambda m: m.register_forward_hook(lambda *_: None))
    patch.install()
    assert (script.read_usage()["hooks"], script.read_usage()["patches"]) == (1, ["a hook"])
    patch.remove()
    assert script.read_usage()["folder"] == FILE.parents[4].name


@pytest.mark.parametrize(("kind", "error"), [("sampling", RuntimeError), ("memory", torch.cuda.OutOfMemoryError)])
def test_a_fault_comes_to_pass_once_at_its_call(
    script: SimpleNamespace, host: SimpleNamespace, kind: str, error: type[Exception]
) -> None:
    unet, before = host.shared.sd_model.model.diffusion_model, script.read_state()
    script.plant(kind, 2)
    unet(torch.ones(1, 2))
    with pytest.raises(error, match="planted"):
        unet(torch.ones(1, 2))
    assert (script.read_usage()["fired"], script.read_state()) == ([kind], before)
    unet(torch.ones(1, 2))


def test_a_fault_in_a_method_comes_to_pass_once(script: SimpleNamespace, host: SimpleNamespace) -> None:
    original = HookPatch._remove
    script.plant("removal", 1)
    patch = HookPatch("a hook", host.shared.sd_model.model, lambda m: m.register_forward_hook(lambda *_: None))
    patch.install()
    with pytest.raises(OSError, match="planted"):
        patch.remove()
    assert HookPatch._remove is original
    patch.remove()
    assert live_patches() == []


def test_clearing_takes_every_fault_away(script: SimpleNamespace, host: SimpleNamespace) -> None:
    before = script.read_state()
    for kind in script.FAULTS:
        script.plant(kind, 1)
    script.clear()
    assert script.read_state() == before
    script.plant("bypass", 1)
    assert torch.equal(host.sd_unet.current_unet.forward(torch.ones(2), None, None), torch.full((2,), 0.5))
    script.clear()
    assert host.sd_unet.current_unet is None
