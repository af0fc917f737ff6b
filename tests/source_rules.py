"""Checks on source text: each takes (path in the repository, source) and returns one sentence per offence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
# Where Exception may be caught for good: borders to a host that would swallow or mangle what went wrong, and the
# removal of patches, which has to reach the last one before it raises the first failure.
BROAD_BORDERS = ("scripts/", "lib_faceid/api/", "lib_faceid/core/patch.py")

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BROAD = ("Exception", "BaseException")
_TORCH = {"torch", "torch.serialization"}
# Not preceded by a character of a longer path or an address: "https://site/home/" is not a path of a machine.
_MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(work|home|root)/")


@dataclass(frozen=True)
class Import:
    """One imported name, dotted and absolute. ``deferred``: inside a function or under TYPE_CHECKING."""

    name: str
    line: int
    deferred: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


def find_imports(path: str, source: str) -> list[Import]:
    """Every import statement, wherever it stands, and every ``import_module`` or ``__import__`` of a literal name.

    ``from a import b`` counts as ``a.b``, because only that tells which module of ours is meant.
    """
    package = PurePosixPath(path).parent.parts
    return list(_walk_imports(ast.parse(source, path), package, deferred=False))


def _walk_imports(node: ast.AST, package: tuple[str, ...], *, deferred: bool) -> Iterator[Import]:
    for name in _names_imported_by(node, package):
        yield Import(name, getattr(node, "lineno", 0), deferred)
    late = deferred or isinstance(node, (*_FUNCTIONS, ast.Lambda)) or _is_type_checking(node)
    for child in ast.iter_child_nodes(node):
        yield from _walk_imports(child, package, deferred=late)


def _names_imported_by(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
        return [_absolute(name, package) for name in _literals(node.args[:1])]
    return []


def _absolute(name: str, package: tuple[str, ...]) -> str:
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    return ".".join((*package[: len(package) - level + 1], name[level:])).rstrip(".")


def _literals(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _called(node: ast.Call) -> str:
    """The last part of what is called: ``f`` for ``f()`` and ``a.f()``."""
    return ast.unparse(node.func).rpartition(".")[2]


def check_prints(path: str, source: str) -> list[str]:
    return [
        f"{path}:{node.lineno} prints; write to sys.stdout in a verb, or log"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def check_excepts(path: str, source: str) -> list[str]:
    """No bare except anywhere; Exception only at a border, or to tidy up and raise it again."""
    at_border = path.startswith(BROAD_BORDERS) or PurePosixPath(path).name == "__main__.py"
    problems: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            problems.append(f"{path}:{node.lineno} has a bare except")
        elif not at_border and not _raises_again(node) and any(name in _BROAD for name in _caught_by(node)):
            problems.append(f"{path}:{getattr(node, 'lineno', 0)} catches Exception outside the borders")
    return problems


def _raises_again(node: ast.AST) -> bool:
    last = node.body[-1] if isinstance(node, ast.ExceptHandler) else None
    return isinstance(last, ast.Raise) and last.exc is None


def _caught_by(node: ast.AST) -> list[str]:
    """Names of the exceptions that an except clause or ``suppress(…)`` takes."""
    caught: list[ast.expr] = []
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and _called(node) == "suppress":
        caught = node.args
    return [ast.unparse(item).rpartition(".")[2] for item in caught]


def check_torch_load(path: str, source: str) -> list[str]:
    """``torch.load`` under any alias: hosts replace it, and it can run what a file says."""
    nodes = list(ast.walk(ast.parse(source)))
    modules = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    torches = {alias.asname or alias.name for alias in modules if alias.name in _TORCH} | _TORCH
    lines = [item.line for item in find_imports(path, source) if item.name in {f"{name}.load" for name in _TORCH}]
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) in torches:
            lines.append(node.lineno)
    return [f"{path}:{line} uses torch.load; weights are read by weights/read.py" for line in lines]


def check_sizes(path: str, source: str) -> list[str]:
    """Files and functions a reader can hold in mind."""
    lines = len(source.splitlines())
    problems = [f"{path} has {lines} lines, at most {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _FUNCTIONS) and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES:
            problems.append(f"{path}:{node.lineno} {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    return problems


def check_file_name(path: str, source: str) -> list[str]:
    del source
    return [f"{path}: say what is in it"] if PurePosixPath(path).name == "utils.py" else []


def check_machine_paths(path: str, text: str) -> list[str]:
    """No absolute path of the machine it was written on, in code, documents or data."""
    return [
        f"{path}:{number} names a folder of one machine: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if _MACHINE_PATH.search(line)
    ]


def check_relative_tests(path: str, source: str) -> list[str]:
    """Tests import each other relatively: another ``tests`` package may be on a host's path."""
    return [
        f"{path}:{node.lineno} imports tests absolutely"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == "tests" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] == "tests")
    ]
