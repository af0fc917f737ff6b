"""FaceID for Stable Diffusion: one person's face across pictures.

    adapter = lib_faceid.load_adapter("ip-adapter-faceid_sd15.bin")
    identity = lib_faceid.make_identity(adapter, embeddings=vectors)
    with lib_faceid.applied(pipe, identity, weight=0.8):
        image = pipe("a portrait in the rain").images[0]

Importing this package imports the standard library only; each name below brings what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.prepare import make_identity as make_identity
    from .errors import FaceIDError as FaceIDError
    from .errors import FaceIDWarning as FaceIDWarning
    from .hosts.standalone import applied as applied
    from .library.identity import Identity as Identity
    from .library.identity import load_identity as load_identity
    from .weights.adapter import Adapter as Adapter
    from .weights.adapter import load_adapter as load_adapter

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "weights.adapter",
    "FaceIDError": "errors",
    "FaceIDWarning": "errors",
    "Identity": "library.identity",
    "applied": "hosts.standalone",
    "load_adapter": "weights.adapter",
    "load_identity": "library.identity",
    "make_identity": "engine.prepare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
