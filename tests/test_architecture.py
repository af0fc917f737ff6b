"""Which part may know which: the rooms of lib_faceid, what they import, and the limits every file keeps."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache

import pytest

from lib_faceid.environment import ROOT

from .fresh_python import run_code
from .rooms import BARE, ROOMS, VERB_FOLDERS, check_imports, room_name
from .rule_cases import OFFENCES, PERMITTED, Rule
from .source_rules import (
    check_excepts,
    check_file_name,
    check_machine_paths,
    check_prints,
    check_relative_tests,
    check_sizes,
    check_torch_load,
)


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
    (check_sizes, (*PRODUCT, "tests/"), ".py"),
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
    folders = {room_name(path) for path, _ in sources("lib_faceid/")} - {""}
    assert folders <= set(ROOMS) | VERB_FOLDERS


def case_names(cases: list[tuple[Rule, str, str]]) -> list[str]:
    return [f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(cases)]


@pytest.mark.parametrize(("rule", "path", "source"), OFFENCES, ids=case_names(OFFENCES))
def test_each_rule_finds_an_offence(rule: Rule, path: str, source: str) -> None:
    assert len(rule(path, source)) == 1


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
    return set(run_code(IMPORT_WITHOUT, *refused, "--", *wanted).split())


def as_module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_everything_imports_without_the_optional_packages() -> None:
    wanted = [as_module(path) for path, _ in sources("lib_faceid/") if not path.startswith(NEEDS_ITS_HOST)]
    assert "lib_faceid.core.tap" in modules_after_importing(wanted, OPTIONAL)


def test_the_package_and_its_command_line_cost_no_third_party_import() -> None:
    wanted = [as_module(path) for path in sorted(BARE) if (ROOT / path).is_file()]
    loaded = {name.partition(".")[0] for name in modules_after_importing(wanted, [])}
    assert not loaded & {"torch", "numpy", "safetensors", "PIL", "diffusers", "transformers"}
