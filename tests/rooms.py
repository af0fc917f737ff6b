"""The rooms of lib_faceid: which part may know which, and which packages it uses.

The tables are the design; a part that does not exist yet is simply not there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import PurePosixPath

from .source_rules import Import, find_imports


@dataclass(frozen=True)
class Room:
    """A folder of lib_faceid: which other rooms and which packages (beyond the standard library) it may import."""

    rooms: frozenset[str]
    packages: frozenset[str]


def room(rooms: str, packages: str) -> Room:
    return Room(frozenset(rooms.split()), frozenset(packages.split()))


ROOMS = {
    "core": room("", "torch"),
    "weights": room("core", "torch safetensors"),
    "face": room("", "numpy cv2"),
    "vision": room("core", "torch transformers numpy PIL"),  # numpy and PIL: preprocessing
    "library": room("face core", "numpy safetensors PIL torch"),
    "engine": room("face weights vision library core", "torch numpy"),
    "hosts": room("engine weights core", "torch modules backend ldm_patched"),
    "ui": room("engine library hosts core", "gradio"),
    "api": room("engine library hosts core", "fastapi pydantic"),
}
# Files whose packages differ from their room's.
PACKAGES_OF_FILE = {
    "lib_faceid/face/backend.py": frozenset({"numpy", "cv2", "onnxruntime", "insightface"}),
    "lib_faceid/hosts/standalone.py": frozenset({"torch", "diffusers", "peft"}),
    "lib_faceid/hosts/peft_lora.py": frozenset({"torch", "peft"}),
    "lib_faceid/hosts/checkpoint_parts.py": frozenset(
        {"torch", "safetensors", "accelerate", "diffusers", "transformers"}
    ),
    "lib_faceid/hosts/clip_tokenizer.py": frozenset({"transformers", "huggingface_hub"}),
    "lib_faceid/hosts/drawing.py": frozenset({"torch", "PIL"}),
}
# Folders that, like the modules at the top of lib_faceid, may import any room.
VERB_FOLDERS = {"bench", "demo"}
# Packages that belong to one room or file: the modules at the top do not import them either.
OWNED_PACKAGES = {"modules", "backend", "ldm_patched", "gradio", "fastapi", "pydantic", "insightface", "onnxruntime"}
# Standard library only. What they import of ours when they are imported themselves is in EAGER.
BARE = {f"lib_faceid/{name}.py" for name in ("__init__", "hosts/__init__", "environment", "errors", "__main__")}
EAGER = {"environment", "errors"}
BARE |= {"install.py"}  # the host runs it alone, before anything of ours may be importable
# What every room may use: the errors, the one way to write a file, and the version.
SHARED = {"errors", "files", "__version__"}


def check_imports(path: str, source: str) -> list[str]:
    """The tables, for one file of lib_faceid. Imports inside functions count."""
    return [
        f"{path}:{item.line} imports {item.name}: {reason}"
        for item in find_imports(path, source)
        if (reason := _refusal_of_ours(path, item) if item.top == "lib_faceid" else _refusal_of_package(path, item))
    ]


def _refusal_of_ours(path: str, item: Import) -> str:
    if path == "install.py":
        return "the host runs this file alone"
    target = [*item.name.split("."), ""][1]
    if path in BARE and not item.deferred and target not in EAGER:
        return "this file must cost nothing to import"
    name = room_name(path)
    if name not in ROOMS or target in {name} | SHARED | ROOMS[name].rooms:
        return ""
    return f"{name} does not know it"


def _refusal_of_package(path: str, item: Import) -> str:
    if item.top in sys.stdlib_module_names:
        return ""
    if path in BARE:
        return "this file uses the standard library only"
    name = room_name(path)
    if name not in ROOMS:
        return "it belongs to another room" if item.top in OWNED_PACKAGES | {"tests"} else ""
    allowed = PACKAGES_OF_FILE.get(path, ROOMS[name].packages)
    return "" if item.top in allowed else f"{name} uses {', '.join(sorted(allowed))}"


def room_name(path: str) -> str:
    """``core`` for lib_faceid/core/tap.py; empty for a module at the top."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 else ""
