"""The Python environment the commands run in: found, made once, repaired, entered. Standard library only.

``.venv`` in the project root is made with ``venv`` and filled by ``pip``. A stamp inside it names the requirement files
it was filled from, so that a later start does nothing. Everything said while it is made goes to stderr: stdout belongs
to the verb.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
RUNTIME_REQUIREMENTS = ROOT / "lib_faceid" / "requirements.txt"
HOST_PACKAGES = ("torch", "numpy", "safetensors")

_STDERR = 2  # the file descriptor: sys.stderr may be replaced by an object without one
# Either of these makes a venv's Python believe that it is another one: PYTHONHOME everywhere, the other one on macOS.
_MISLEADING = ("PYTHONHOME", "__PYVENV_LAUNCHER__")


def has_packages(names: Sequence[str] = HOST_PACKAGES) -> bool:
    """Whether the running Python has all of ``names``; nothing is imported. A WebUI's Python has the default ones."""
    specs = [importlib.util.find_spec(name) for name in names]
    # A plain folder that happens to be called "torch" has a spec too, but no origin.
    return all(spec is not None and spec.origin is not None for spec in specs)


def ensure_environment(*requirements: Path, no_deps: tuple[Path, ...] = (), folder: Path = VENV) -> None:
    """Return only in a Python of ``folder`` that holds the requirements.

    Makes or completes the environment where needed, then runs the same command line again in its Python. Files in
    ``no_deps`` are installed last and without their dependencies.
    Raises SystemExit with one sentence (exit code 1, the sentence on stderr) when the environment cannot be made.
    """
    environment = Environment(folder, requirements, no_deps)
    if not environment.is_complete():
        environment.make()
    if not _runs_in(folder):
        _hand_over(environment.python)


@dataclass(frozen=True)
class Environment:
    """A venv folder and the requirement files it is to be filled from."""

    folder: Path
    requirements: tuple[Path, ...]
    no_deps: tuple[Path, ...] = ()

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        """JSON, requirement file -> sha256 of its bytes; there only after a complete installation."""
        return self.folder / "faceid-requirements.json"

    @property
    def unfinished(self) -> Path:
        """There while a folder of ours is being filled; found at a start, it means that the last one was cut short."""
        return self.folder / "faceid-unfinished"

    def digests(self) -> dict[str, str]:
        """What a stamp says when these requirements are installed, files included by ``-r`` among them."""
        files = {file for path in (*self.requirements, *self.no_deps) for file in _with_included(path)}
        base = self.folder.resolve().parent
        return {Path(os.path.relpath(file, base)).as_posix(): _sha256(file) for file in sorted(files)}

    def is_complete(self) -> bool:
        """Whether the stamp covers every requirement file as it is now. More than that may be installed."""
        return self.python.exists() and self.digests().items() <= _read_stamp(self.stamp).items()

    def make(self) -> None:
        """Create the folder where it is missing or was cut short, install, and stamp. SystemExit if it fails."""
        _say(f"Preparing {self.folder} (once; this downloads packages and can take some minutes).")
        kept = self._open_folder()
        for arguments in self._pip_arguments():
            command = [str(self.python), "-I", "-m", "pip", "install", "--disable-pip-version-check", *arguments]
            _call(command, f"{self.folder} could not be filled: pip failed, its message is above")
        self._close_folder({**kept, **self.digests()})

    def _open_folder(self) -> dict[str, str]:
        """Return what the stamp said, having removed it: an installation that does not end must leave none."""
        if not _runs_in(self.folder) and (self.unfinished.exists() or not self.python.exists()):
            self._create_folder()
        kept = _read_stamp(self.stamp)
        if self.stamp.exists():  # an environment somebody else made carries no mark, and is never emptied
            self.unfinished.touch()
            self.stamp.unlink()
        return kept

    def _create_folder(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.unfinished.touch()
        command = [sys.executable, "-I", "-m", "venv", str(self.folder)]
        _call(command, f"{self.folder} could not be made: venv failed (Debian and Ubuntu need python3-venv)")

    def _close_folder(self, digests: dict[str, str]) -> None:
        draft = self.stamp.with_suffix(".tmp")
        draft.write_text(json.dumps(digests, indent=1, sort_keys=True), encoding="utf-8")
        draft.replace(self.stamp)
        self.unfinished.unlink(missing_ok=True)

    def _pip_arguments(self) -> Iterator[list[str]]:
        if self.requirements:
            yield [word for file in self.requirements for word in ("-r", str(file))]
        if self.no_deps:
            yield ["--no-deps", *(word for file in self.no_deps for word in ("-r", str(file)))]


def _runs_in(folder: Path) -> bool:
    return Path(sys.prefix).resolve() == folder.resolve()


def _hand_over(python: Path) -> NoReturn:
    """Run this process's command line in ``python`` instead. POSIX replaces the process; Windows cannot, and waits."""
    command = [str(python), *sys.orig_argv[1:]]
    variables = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(command, env=variables))
    os.execve(command[0], command, variables)


def _call(command: list[str], failure: str) -> None:
    code = subprocess.call(command, stdout=_STDERR)
    if code != 0:
        sys.exit(f"{failure}. Check the network and the free disk space, then run the same command again.")


def _with_included(path: Path) -> Iterator[Path]:
    """The requirement file and the files its ``-r`` lines name."""
    path = path.resolve()
    yield path
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from _with_included(path.parent / line.removeprefix("-r ").strip())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_stamp(path: Path) -> dict[str, str]:
    """The stamp's content; a missing or damaged stamp is one that covers nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return cast("dict[str, str]", content) if isinstance(content, dict) else {}


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
