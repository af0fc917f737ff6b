"""A Python whose pip answers as it is told to, what pip says, and packages as they lie in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import install
from install import Python

MODULES = {package.name: package.module for package in install.WANTED}
# What pip really writes, cut to the lines that matter.
CONFLICT = "ERROR: Cannot install onnx because\n\nERROR: ResolutionImpossible: for help visit https://pip.pypa.io"
NO_FIT = "ERROR: Could not find a version that satisfies the requirement x (from versions: 1.0, 1.1)\n"
NO_FIT += "ERROR: No matching distribution found for x"
OFFLINE = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n" + NO_FIT.replace(
    "1.0, 1.1", "none"
)
NO_PIP = "python: No module named pip\n"
FULL_DISK = "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n"
HOST_PACKAGES = {"numpy": "1.26.2", "pillow": "9.5.0", "protobuf": "3.20.0", "torch": "2.1.2+cu121"}
Answer = tuple[int, str]
ADDED: Answer = (0, "Successfully installed")


@dataclass
class FakePython(Python):
    """A Python with these packages; pip answers each requirement in turn, and adds or moves what it is told to."""

    packages: dict[str, str] = field(default_factory=lambda: dict(HOST_PACKAGES))
    modules: set[str] = field(default_factory=lambda: set(install.HOST))
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    moves: Mapping[str, str | None] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    constraints: list[list[str]] = field(default_factory=list)
    looked: int = 0

    def has(self, module: str) -> bool:
        return module in self.modules

    def snapshot(self) -> dict[str, str]:
        self.looked += 1
        return dict(self.packages)

    def pip(self, *arguments: str) -> Answer:
        self.calls.append(list(arguments))
        self.constraints.append(Path(arguments[arguments.index("-c") + 1]).read_text().splitlines())
        name = next(package.name for package in install.WANTED if package.name + package.least in arguments)
        earlier = sum(name in " ".join(call) for call in self.calls[:-1])
        code, said = self.answers.get(name, [ADDED])[earlier]
        if code == 0:
            self.modules.add(MODULES[name])
            self.packages[name] = "9.9"
            self.packages = {key: value for key, value in {**self.packages, **self.moves}.items() if value}
        return code, said

    def asked(self) -> list[str]:
        """The requirement of each pip command; "--no-deps" behind it where that was said."""
        return [" ".join(call[call.index("-c") + 2 :]) for call in self.calls]


def record(folder: Path, name: str, version: str, place: str = "{}-{}.dist-info/METADATA") -> None:
    file = folder / place.format(name, version)
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 7 of the text\n")
