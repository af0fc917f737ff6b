"""Which part may know which: the rooms of lib_faceid, what they import, and the limits every file keeps.

The tables below are the design; a part that does not exist yet is simply not there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from .source_rules import (
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    Import,
    check_excepts,
    check_file_name,
    check_machine_paths,
    check_prints,
    check_relative_tests,
    check_sizes,
    check_torch_load,
    find_imports,
)

ROOT = Path(__file__).resolve().parent.parent
Rule = Callable[[str, str], "list[str]"]


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
    """The tables above, for one file of lib_faceid. Imports inside functions count."""
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
    name = _room_name(path)
    if name not in ROOMS or target in {name} | SHARED | ROOMS[name].rooms:
        return ""
    return f"{name} does not know it"


def _refusal_of_package(path: str, item: Import) -> str:
    if item.top in sys.stdlib_module_names:
        return ""
    if path in BARE:
        return "this file uses the standard library only"
    name = _room_name(path)
    if name not in ROOMS:
        return "it belongs to another room" if item.top in OWNED_PACKAGES | {"tests"} else ""
    allowed = PACKAGES_OF_FILE.get(path, ROOMS[name].packages)
    return "" if item.top in allowed else f"{name} uses {', '.join(sorted(allowed))}"


def _room_name(path: str) -> str:
    """``core`` for lib_faceid/core/tap.py; empty for a module at the top."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 else ""


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the repository, those not yet committed included; by folder where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = list(_files_on_disk())
    return tuple(sorted({name for name in listed if (ROOT / name).is_file()}))


def _files_on_disk() -> Iterator[str]:
    hidden = {".git", ".venv", "__pycache__", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    for file in ROOT.rglob("*"):
        path = file.relative_to(ROOT)
        if not hidden & set(path.parts):
            yield path.as_posix()


def sources(*prefixes: str, suffix: str = ".py") -> list[tuple[str, str]]:
    """(path, text) of the tracked text files under the prefixes."""
    found: list[tuple[str, str]] = []
    for name in tracked():
        if name.startswith(prefixes) and name.endswith(suffix):
            try:
                found.append((name, (ROOT / name).read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue
    return found


PRODUCT = ("lib_faceid/", "scripts/", "install.py")
EVERY_FILE = ("",)
RULES: list[tuple[Rule, tuple[str, ...], str]] = [
    (check_imports, ("lib_faceid/", "install.py"), ".py"),
    (check_prints, PRODUCT, ".py"),
    (check_excepts, PRODUCT, ".py"),
    (check_torch_load, PRODUCT, ".py"),
    (check_sizes, ("lib_faceid/", "install.py", "scripts/"), ".py"),
    (check_relative_tests, ("tests/",), ".py"),
    (check_file_name, EVERY_FILE, ".py"),
    (check_machine_paths, EVERY_FILE, ""),
]


@pytest.mark.parametrize(("rule", "where", "suffix"), RULES, ids=[rule.__name__ for rule, _, _ in RULES])
def test_the_repository_keeps_the_rule(rule: Rule, where: tuple[str, ...], suffix: str) -> None:
    files = sources(*where, suffix=suffix)
    assert files, "the rule looks at no file"
    problems = [problem for path, text in files for problem in rule(path, text)]
    assert not problems, "\n".join(problems)


def test_every_folder_is_a_known_room() -> None:
    folders = {_room_name(path) for path, _ in sources("lib_faceid/")} - {""}
    assert folders <= set(ROOMS) | VERB_FOLDERS


def case_names(cases: list[tuple[Rule, str, str]]) -> list[str]:
    return [f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(cases)]


OFFENCES: list[tuple[Rule, str, str]] = [
    (check_imports, "install.py", "from lib_faceid.errors import FaceIDError"),
    (check_imports, "install.py", "def f():\n    import packaging"),
    (check_imports, "lib_faceid/core/tap.py", "from ..weights.read import read"),
    (check_imports, "lib_faceid/core/tap.py", "from .. import weights"),
    (check_imports, "lib_faceid/core/tap.py", "import lib_faceid.engine.run"),
    (check_imports, "lib_faceid/core/tap.py", "import lib_faceid"),
    (check_imports, "lib_faceid/core/tap.py", "from lib_faceid import load_adapter"),
    (check_imports, "lib_faceid/core/tap.py", "import numpy as np"),
    (check_imports, "lib_faceid/core/tap.py", "def f():\n    import numpy"),
    (check_imports, "lib_faceid/core/tap.py", "from importlib import import_module\nimport_module('numpy')"),
    (check_imports, "lib_faceid/core/tap.py", "import importlib\nimportlib.import_module('..weights', __package__)"),
    (check_imports, "lib_faceid/core/tap.py", "if TYPE_CHECKING:\n    from ..engine import run"),
    (check_imports, "lib_faceid/weights/read.py", "from ..engine import request"),
    (check_imports, "lib_faceid/weights/read.py", "import transformers"),
    (check_imports, "lib_faceid/face/align.py", "import torch"),
    (check_imports, "lib_faceid/face/pipeline.py", "import onnxruntime"),
    (check_imports, "lib_faceid/face/backend.py", "import torch"),
    (check_imports, "lib_faceid/face/select.py", "from ..core.tap import Taps"),
    (check_imports, "lib_faceid/vision/clip.py", "import diffusers"),
    (check_imports, "lib_faceid/library/store.py", "from ..engine import run"),
    (check_imports, "lib_faceid/engine/ports.py", "from ..hosts import standalone"),
    (check_imports, "lib_faceid/engine/run.py", "from modules import shared"),
    (check_imports, "lib_faceid/hosts/a1111.py", "from ..face import align"),
    (check_imports, "lib_faceid/hosts/a1111.py", "import gradio"),
    (check_imports, "lib_faceid/hosts/a1111.py", "import diffusers"),
    (check_imports, "lib_faceid/hosts/standalone.py", "from modules import shared"),
    (check_imports, "lib_faceid/ui/accordion.py", "from modules import shared"),
    (check_imports, "lib_faceid/api/routes.py", "import gradio"),
    (check_imports, "lib_faceid/bench.py", "import gradio"),
    (check_imports, "lib_faceid/doctor.py", "import onnxruntime"),
    (check_imports, "lib_faceid/demo/show.py", "from tests import toys"),
    (check_imports, "lib_faceid/__init__.py", "import torch"),
    (check_imports, "lib_faceid/__init__.py", "def __getattr__(name):\n    import torch"),
    (check_imports, "lib_faceid/__init__.py", "from .core import tap"),
    (check_imports, "lib_faceid/hosts/__init__.py", "from .standalone import applied"),
    (check_imports, "lib_faceid/__main__.py", "from . import bench"),
    (check_imports, "lib_faceid/errors.py", "from torch import nn"),
    (check_prints, "lib_faceid/bench.py", "print('done')"),
    (check_excepts, "scripts/faceid.py", "try:\n    pass\nexcept:\n    pass"),
    (check_excepts, "lib_faceid/core/tap.py", "try:\n    pass\nexcept Exception:\n    pass"),
    (check_excepts, "lib_faceid/core/tap.py", "try:\n    pass\nexcept (OSError, BaseException):\n    pass"),
    (check_excepts, "lib_faceid/core/tap.py", "import contextlib\nwith contextlib.suppress(Exception):\n    pass"),
    (check_torch_load, "lib_faceid/weights/read.py", "import torch\ntorch.load('a.bin')"),
    (check_torch_load, "lib_faceid/weights/read.py", "import torch as t\nread = t.load"),
    (check_torch_load, "lib_faceid/weights/read.py", "import torch\ntorch.serialization.load('a.bin')"),
    (check_torch_load, "lib_faceid/weights/read.py", "from torch import load"),
    (check_sizes, "lib_faceid/core/tap.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
    (check_sizes, "lib_faceid/core/tap.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    (check_relative_tests, "tests/test_tap.py", "from tests.toys import unet"),
    (check_relative_tests, "tests/test_tap.py", "import tests.toys"),
    (check_file_name, "lib_faceid/core/utils.py", ""),
    (check_machine_paths, "README.md", f"see /{'home'}/somebody/models"),
    (check_machine_paths, "lib_faceid/core/tap.py", f"HERE = '/{'root'}/x'"),
]


@pytest.mark.parametrize(("rule", "path", "source"), OFFENCES, ids=case_names(OFFENCES))
def test_each_rule_finds_an_offence(rule: Rule, path: str, source: str) -> None:
    assert len(rule(path, source)) == 1


PERMITTED: list[tuple[Rule, str, str]] = [
    (check_imports, "lib_faceid/core/tap.py", "import math\nimport torch\nfrom . import masks"),
    (check_imports, "lib_faceid/core/tap.py", "from .. import errors\nfrom ..errors import FaceIDError"),
    (check_imports, "lib_faceid/face/backend.py", "import onnxruntime, insightface, cv2"),
    (check_imports, "lib_faceid/face/pipeline.py", "from .backend import Backend\nfrom . import backend"),
    (check_imports, "lib_faceid/hosts/forge.py", "from backend import memory\nfrom ..engine.ports import Host"),
    (check_imports, "lib_faceid/hosts/standalone.py", "def f():\n    import diffusers\n    import peft"),
    (check_imports, "lib_faceid/bench.py", "import diffusers, torch\nfrom .hosts import standalone"),
    (check_imports, "lib_faceid/__init__.py", "if TYPE_CHECKING:\n    from .hosts.standalone import applied"),
    (check_imports, "lib_faceid/__main__.py", "import argparse\nfrom . import environment"),
    (check_prints, "lib_faceid/bench.py", "say.print('done')\nsys.stdout.write('print(x)')"),
    (check_excepts, "scripts/faceid.py", "try:\n    pass\nexcept Exception:\n    pass"),
    (check_excepts, "lib_faceid/core/tap.py", "try:\n    pass\nexcept (OSError, ValueError):\n    pass"),
    (check_excepts, "lib_faceid/core/tap.py", "try:\n    pass\nexcept BaseException:\n    tidy()\n    raise"),
    (check_torch_load, "lib_faceid/weights/read.py", "import json, torch\njson.load(torch)\ntorch.loads()"),
    (check_sizes, "lib_faceid/core/tap.py", "x = 1\n" * MAX_FILE_LINES),
    (check_sizes, "lib_faceid/core/tap.py", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)),
    (check_relative_tests, "tests/test_tap.py", "from . import toys\nfrom .toys import unet\nimport lib_faceid"),
    (check_machine_paths, "README.md", f"https://site.example/{'home'}/ and webui/{'work'}/x and ~/models"),
]


@pytest.mark.parametrize(("rule", "path", "source"), PERMITTED, ids=case_names(PERMITTED))
def test_each_rule_lets_honest_code_pass(rule: Rule, path: str, source: str) -> None:
    assert rule(path, source) == []


# Run in a Python of its own: argv is the names to refuse, "--", the modules to import.
IMPORT_WITHOUT = """
import importlib, sys
cut = sys.argv.index("--")
refused, wanted = set(sys.argv[1:cut]), sys.argv[cut + 1:]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ImportError(name + " is refused by the test")
sys.meta_path.insert(0, Refuse())
for name in wanted:
    importlib.import_module(name)
sys.stdout.write(" ".join(sys.modules))
"""
OPTIONAL = ["modules", "gradio", "insightface", "onnxruntime", "cv2", "transformers", "diffusers"]
NEEDS_ITS_HOST = ("lib_faceid/ui/", "lib_faceid/api/")


def modules_after_importing(wanted: list[str], refused: list[str]) -> set[str]:
    command = [sys.executable, "-c", IMPORT_WITHOUT, *refused, "--", *wanted]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def as_module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_everything_imports_without_the_optional_packages() -> None:
    wanted = [as_module(path) for path, _ in sources("lib_faceid/") if not path.startswith(NEEDS_ITS_HOST)]
    assert "lib_faceid.core.tap" in modules_after_importing(wanted, OPTIONAL)


def test_the_package_and_its_command_line_cost_no_third_party_import() -> None:
    wanted = [as_module(path) for path in sorted(BARE) if (ROOT / path).is_file()]
    loaded = {name.partition(".")[0] for name in modules_after_importing(wanted, [])}
    assert not loaded & {"torch", "numpy", "safetensors", "PIL", "diffusers", "transformers"}
