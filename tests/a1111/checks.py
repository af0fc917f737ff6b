"""What jobs are sent with, what can happen to them, and what their UNet calls and pictures are compared to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lib_faceid
from lib_faceid.core.patch import live_patches
from lib_faceid.hosts.a1111 import sampling
from lib_faceid.hosts.job import FaceIDStopped

from .fake_sampling import UNetCall
from .fake_webui import Host, Processed

ANNA = {"identity": "anna", "lora": 0}
ANNA_THROUGHOUT = {**ANNA, "start": 0}  # acts in every step


def bare(call: UNetCall) -> Tensor:
    """What the call gives without FaceID."""
    with torch.no_grad():
        return call.unet(call.x, call.timestep, context=call.context)


def drawn_with(call: UNetCall, people: Any, **settings: Any) -> Tensor:
    """What the call gives when ``applied`` adds the people, each row being of the side that the host made it for."""
    settings = {"weight": 0.8, "lora": 0.0, **settings}
    sides = [row.side for row in call.rows]
    with torch.no_grad(), lib_faceid.applied(call.unet, people, rows=sides, **settings):
        return call.unet(call.x, call.timestep, context=call.context)


def acts(call: UNetCall) -> bool:
    return not torch.equal(bare(call), call.output)


def acted(host: Host) -> list[bool]:
    """For each UNet call, whether its output is another one than the bare UNet's."""
    return [acts(call) for call in host.calls]


def differs(host: Host, job: Processed) -> list[bool]:
    """Whether a job's pictures are other ones than those without FaceID."""
    plain = host.run(n_iter=len(job.pictures))
    return [not torch.equal(a, b) for a, b in zip(job.pictures, plain.pictures, strict=True)]


def assert_nothing_left(host: Host) -> None:
    assert live_patches() == []
    assert sampling._running == []
    assert host.reported == []


def assert_stops(host: Host, args: list[Any], sentence: str, **settings: Any) -> None:
    """The job ends with the sentence, as the answer 422, and names no folder of this machine."""
    with pytest.raises(FaceIDStopped, match=sentence) as caught:
        host.run(*args, **settings)
    assert vars(caught.value) == {"status_code": 422, "detail": str(caught.value)}
    assert str(host.models) not in str(caught.value)
    assert_nothing_left(host)


def fail() -> None:
    raise RuntimeError("out of memory")


def at(step: int, action: Callable[[], None]) -> Callable[[Any], None]:
    """For ``Host.during``: something happens before a denoiser call."""

    def during(denoiser: Any) -> None:
        if denoiser.step == step:
            action()

    return during


def extension_file(path: Path, source: str) -> dict[str, Any]:
    """What an extension's file defines; its functions know where they come from."""
    path.parent.mkdir(parents=True)
    path.write_text(source)
    defined: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), defined)
    return defined
