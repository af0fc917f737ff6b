"""The WebUI's install hook: adds the packages that read faces, and changes nothing that is installed already.

The WebUI runs this file at every start, in a process of its own, and shows what it writes. What it does:
- It looks whether this Python has onnxruntime, cv2 and insightface, without importing them. If so, that is all.
- Otherwise pip is asked for what is missing: ready-made wheels only, with every installed package held at its version.
  Where nothing fits, onnxruntime and opencv-python are added without their dependencies; insightface is optional and
  left out: FaceID's built-in runner does the same work.
- Afterwards it compares what is installed with what was, and says how to undo a change that should not have been.
What it never does: upgrade, downgrade, remove or replace a package; build one from source; add a second package that
brings a module which is there (onnxruntime beside onnxruntime-gpu: they overwrite each other); touch torch, numpy and
the other packages of the WebUI; download models; keep the WebUI from starting: what fails becomes a sentence.
With --skip-install it does nothing. The settings of pip and INDEX_URL count. What pip refused is noted in __pycache__
beside this file, so that no start waits for the same refusal again; the note counts until a package changes, at most
a week, and can be deleted at any time. Standard library only; nothing of FaceID or the WebUI is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Result = Literal["added", "refused", "failed"]
Snapshot = Mapping[str, str]  # normalised name of every installed distribution -> its version

PIP_TIMEOUT = 600  # seconds for one pip command: onnxruntime's 24 MB at 40 kB/s
WEEK = 7 * 86_400  # seconds that a refusal counts: a wheel that fits may have been published since
PATIENCE = 20  # seconds of a start: a failure that took longer (a silent network, a slow one) is noted like a refusal


@dataclass(frozen=True)
class Package:
    """A module FaceID imports, the distribution to get it from, and all known distributions that bring it."""

    module: str
    name: str
    family: tuple[str, ...]
    lost: str = ""  # what does not work without it; empty where it is optional
    least: str = ""  # which versions will do


_RUNTIMES = ("", "-gpu", "-directml", "-openvino", "-silicon", "-rocm", "-migraphx", "-training", "-qnn", "-cann")
_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
WANTED = (
    Package("onnxruntime", "onnxruntime", tuple(f"onnxruntime{end}" for end in _RUNTIMES), "no face can be found"),
    Package("cv2", "opencv-python", _OPENCVS, "no photo can be prepared"),
    # 0.7.3 exists as source only, and of what is older some versions need no onnxruntime and lack what FaceID calls.
    Package("insightface", "insightface", ("insightface",), least=">=1.0"),
)
# Modules that come with the WebUI, and the distributions that bring them. None is ever installed from here.
HOST = ("torch", "numpy", "PIL", "safetensors", "transformers")
_HOST_NAMES = ("torch", "numpy", "pillow", "pillow-simd", "safetensors", "transformers")

# One line that pip cannot read makes it refuse the whole constraints file. Versions: PEP 440.
_LINE = re.compile(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?==(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)


def is_skipped(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether the WebUI was told --skip-install: what its own parser finds in this process, without importing it."""
    return "--skip-install" in (*words, *shlex.split(variables.get("COMMANDLINE_ARGS", "")))


def plan(snapshot: Snapshot, provided: Collection[str]) -> list[Package]:
    """What to ask pip for. Not what is recorded although its module is gone: pip would call that installed."""
    return [package for package in WANTED if package.module not in provided and not find_recorded(package, snapshot)]


def find_recorded(package: Package, snapshot: Snapshot) -> list[str]:
    return [name for name in package.family if name in snapshot]


def make_constraints(snapshot: Snapshot, provided: Collection[str]) -> list[str]:
    """Lines of pip's constraints file: what is installed keeps its version, and no rival of it comes in."""
    kept = [f"{name}=={version}" for name, version in sorted(snapshot.items())]
    allowed = {*snapshot, *(package.name for package in plan(snapshot, provided))}
    rivals = {name for names in (_HOST_NAMES, *(package.family for package in WANTED)) for name in names} - allowed
    return [line for line in kept if _LINE.fullmatch(line)] + [f"{name}<0" for name in sorted(rivals)]


def judge(code: int, said: str) -> tuple[Result, str]:
    """What pip's exit code and output mean, and the reason as the end of a sentence."""
    if code == 0:
        return "added", ""
    # About the package itself (a dependency is followed by "(from …)"), pip says this without a network, too.
    if re.search(r"requirement [^\s()]+ \(from versions: none\)", said):
        return "failed", "pip's index could not be reached, or has no ready-made version of it for this Python"
    if "ResolutionImpossible" in said or "No matching distribution found" in said:
        return "refused", "no ready-made version of it fits this Python and the packages that are installed"
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [f"pip ended with code {code}"]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    return "failed", errors[-1].removeprefix("ERROR: ").rstrip(".")[:300]


def describe_changes(before: Snapshot, after: Snapshot) -> list[str]:
    """One on what was added, one on what was changed or removed although it should not have been."""
    added = [f"{name} {after[name]}" for name in sorted(set(after) - set(before))]
    moved = [name for name in sorted(before) if before[name] != after.get(name)]
    told = [f"added {', '.join(added)}." + ("" if moved else " Nothing else has changed.")] if added else []
    if moved:
        changes = ", ".join(f"{name} {before[name]} -> {after.get(name, 'removed')}" for name in moved)
        # A version such as 2.1.2+cu121 is in torch's own index only.
        builds = {end for name in moved if (end := before[name].partition("+")[2]).startswith(("cu", "cpu", "rocm"))}
        indexes = [f"--extra-index-url=https://download.pytorch.org/whl/{end}" for end in sorted(builds)]
        restore = show_command("--no-deps", *indexes, *(f"{name}=={before[name]}" for name in moved))
        told.append(f"pip has changed packages it was told to keep: {changes}. Put them back with: {restore}")
    return told


def describe_failure(package: Package, reason: str, again: str) -> str:
    if not package.lost:
        return f"{package.name} is left out: {reason}. FaceID's built-in runner does the same work."
    return (
        f"{package.name} is not installed: {reason}. Until it is there, {package.lost}; the rest of the WebUI is not "
        f"affected. {again} By hand: {show_command('--no-deps', package.name)}"
    )


def show_command(*arguments: str) -> str:
    """``pip install`` with these arguments for this Python, to copy into a terminal."""
    command = [sys.executable, "-m", "pip", "install", *arguments]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def say(sentence: str) -> None:
    sys.stdout.write(f"FaceID: {sentence}\n")
    sys.stdout.flush()


class Python:
    """The running Python: all that looks at it or changes it. Tests put another in its place."""

    def has(self, module: str) -> bool:
        """Whether ``module`` can be found; it is not imported. A folder without contents does not count."""
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return False
        return spec is not None and spec.origin is not None

    def snapshot(self) -> dict[str, str]:
        """Of several distributions of one name the first counts: it is the one that is imported."""
        found: dict[str, str] = {}
        for distribution in importlib.metadata.distributions():
            text = _read_metadata(distribution)
            name, version = (re.search(rf"(?m)^{field}:[ \t]*(\S+)", text) for field in ("Name", "Version"))
            if name and version:
                found.setdefault(re.sub(r"[-_.]+", "-", name[1]).lower(), version[1])
        return found

    def pip(self, *arguments: str) -> tuple[int, str]:
        """Run pip; its exit code and everything it wrote. Raises OSError where it cannot be started."""
        command = [sys.executable, "-m", "pip", *arguments]
        variables = {"PIP_RETRIES": "2", **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        nothing, pipe, merged = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        try:
            done = subprocess.run(
                command, env=variables, stdin=nothing, stdout=pipe, stderr=merged, timeout=PIP_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return 1, f"pip did not finish within {PIP_TIMEOUT // 60} minutes"
        finally:
            importlib.invalidate_caches()
        return done.returncode, done.stdout.decode("utf-8", "replace")


def _read_metadata(distribution: importlib.metadata.Distribution) -> str:
    """The text as it is: parsing it as a message takes ten times as long. Empty for broken ones and pip's leftovers."""
    if not Path(str(getattr(distribution, "_path", ""))).name.startswith("~"):
        with suppress(OSError, ValueError, KeyError):
            # The last name stands for an .egg-info that is a file, not a folder.
            return next((text for file in ("METADATA", "PKG-INFO", "") if (text := distribution.read_text(file))), "")
    return ""


class Note:
    """The packages that pip refused, in a file, with what the refusal depends on."""

    def __init__(self, file: Path, now: float) -> None:
        self.file, self.now = file, now  # now: seconds since the epoch

    def read(self, snapshot: Snapshot) -> set[str]:
        """Empty where the file is missing, damaged, too old, or about other packages or settings."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            note = json.loads(self.file.read_text(encoding="utf-8"))
            if note["state"] == _digest(snapshot) and 0 <= self.now - note["time"] < WEEK:
                return set(note["refused"])
        return set()

    def write(self, snapshot: Snapshot, refused: Collection[str]) -> None:
        """Where the folder cannot be written to, the next start asks pip again, and that is all."""
        note = {"state": _digest(snapshot), "time": self.now, "refused": sorted(refused)}
        with suppress(OSError):
            self.file.parent.mkdir(exist_ok=True)
            draft = self.file.with_suffix(".tmp")
            draft.write_text(json.dumps(note), encoding="utf-8")
            draft.replace(self.file)


def _digest(snapshot: Snapshot) -> str:
    """Of everything a refusal depends on: this Python, its packages, pip's settings, what is wanted."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith(("PIP_", "INDEX_URL")))
    text = json.dumps([sys.version, sorted(snapshot.items()), settings, repr(WANTED)])
    return hashlib.sha256(text.encode()).hexdigest()


def complete(python: Python, note: Note) -> None:
    """Add what is missing and can be added; say what was done and what could not be."""
    provided = {module for module in (*HOST, *(package.module for package in WANTED)) if python.has(module)}
    if absent := [module for module in HOST if module not in provided]:
        say(f"{sys.executable} lacks {', '.join(absent)}, which come with the WebUI: let it install its requirements.")
    if all(package.module in provided for package in WANTED):
        return
    before = python.snapshot()
    for package in WANTED:
        if package.lost and package.module not in provided and (names := find_recorded(package, before)):
            repair = show_command("--force-reinstall", "--no-deps", *(f"{name}=={before[name]}" for name in names))
            say(f"{' and '.join(names)} is recorded, but its module {package.module} is gone. Repair it with: {repair}")
    add_missing(python, note, before, provided)


def add_missing(python: Python, note: Note, before: Snapshot, provided: Collection[str]) -> None:
    noted = note.read(before)
    refused = set(noted)
    later = f"It is tried again when a package changes, after a week, or once {note.file} is deleted."
    result, reason, slow = "added", "", False
    for package in plan(before, provided):
        if package.name in noted:
            if package.lost:
                say(describe_failure(package, "pip could not add it at an earlier start", later))
            continue
        if result != "failed":  # else pip does not work, for no package
            started = time.monotonic()
            result, reason = install(python, package, provided)
            slow = time.monotonic() - started > PATIENCE
        if result == "refused" or (result == "failed" and (slow or not package.lost)):
            refused.add(package.name)
        if result != "added":
            again = later if package.name in refused else "It is tried again at the next start."
            say(describe_failure(package, reason, again))
    after = python.snapshot()
    for sentence in describe_changes(before, after):
        say(sentence)
    if refused != noted:
        note.write(after, refused)


def install(python: Python, package: Package, provided: Collection[str]) -> tuple[Result, str]:
    """Ask pip, with what is installed held in place; a needed package it refuses is tried without dependencies."""
    index = os.environ.get("INDEX_URL", "")  # the WebUI's own variable
    options = ["install", "--no-input", "--prefer-binary", "--only-binary=:all:"]
    options += ["--index-url", index] if index else []
    try:
        with tempfile.TemporaryDirectory(prefix="faceid-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "constraints.txt"
            file.write_text("\n".join(make_constraints(python.snapshot(), provided)) + "\n", encoding="utf-8")
            options += ["-c", str(file), package.name + package.least]
            result, reason = judge(*python.pip(*options))
            if result == "refused" and package.lost:
                result, reason = judge(*python.pip(*options, "--no-deps"))
    except OSError as error:
        return "failed", str(error)
    if result == "added" and not python.has(package.module):
        return "failed", f"pip reports success, but the module {package.module} cannot be found"
    return result, reason


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # as the WebUI decodes it
    mark = hashlib.sha256(sys.prefix.encode("utf-8", "replace")).hexdigest()  # environments may share this folder
    file = Path(__file__).resolve().parent / "__pycache__" / f"faceid-install-{mark[:8]}.json"
    try:
        if not is_skipped(sys.argv, os.environ):
            complete(Python(), Note(file, time.time()))
    except (OSError, ValueError, LookupError, ImportError) as error:
        say(f"install.py could not finish ({type(error).__name__}: {error}). The WebUI starts as usual.")


if __name__ == "__main__":
    main()
