"""install.py in a process of its own, as the host runs it, with a pip that keeps what it was asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import install
from lib_faceid.environment import ROOT

from .fake_python import HOST_PACKAGES, record

FAKE_PIP = """
import json, os, sys
from pathlib import Path
folder = Path(__file__).parent.parent
asked = sys.argv[1:]
constraints = Path(asked[asked.index("-c") + 1]).read_text().splitlines()
settings = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
with (folder / "asked.jsonl").open("a") as file:
    file.write(json.dumps([asked, constraints, settings, sys.executable]) + chr(10))
answer = json.loads((folder / "answers.json").read_text()).get(asked[-1])
if answer:
    sys.exit(answer)
name = asked[-1].partition(">")[0]
(folder / {"opencv-python": "cv2"}.get(name, name)).with_suffix(".py").write_text("raise AssertionError('imported')")
(folder / (name + "-9.9.dist-info")).mkdir()
(folder / (name + "-9.9.dist-info") / "METADATA").write_text(f"Name: {name}\\nVersion: 9.9\\n")
"""


@dataclass
class Host:
    """An extension folder with install.py in it, and a Python (-S: nothing else is installed) with ``packages``."""

    folder: Path
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("packages/pip", "webui", "extensions/face ïd"):
            (self.folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "install.py", self.folder / "extensions" / "face ïd")
        (self.folder / "packages" / "pip" / "__init__.py").touch()
        (self.folder / "packages" / "pip" / "__main__.py").write_text(FAKE_PIP)
        for name, version in HOST_PACKAGES.items():
            record(self.folder / "packages", name, version)
        for module in install.HOST:
            (self.folder / "packages" / f"{module}.py").write_text("raise AssertionError('imported')")

    def start(self, *words: str, **variables: str) -> str:
        """What the host would show. Anything on stderr, or an exit code, is a failure: the host would report it."""
        (self.folder / "packages" / "answers.json").write_text(json.dumps(self.answers))
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "COMMANDLINE"))}
        script = self.folder / "extensions" / "face ïd" / "install.py"
        paths = os.pathsep.join([str(self.folder / "webui"), str(self.folder / "packages")])
        result = subprocess.run(
            [sys.executable, "-S", str(script), *words],
            cwd=self.folder / "webui",
            env={**kept, "PYTHONPATH": paths, **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def asked(self) -> list[tuple[list[str], list[str], dict[str, str], str]]:
        """Since the last look: words, lines of the constraints file, pip's variables, and the Python of each call."""
        file = self.folder / "packages" / "asked.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]
