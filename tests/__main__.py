"""``python -m tests [pytest arguments]``: every check, in an environment of its own. Standard library only.

Without arguments: ruff, pyright, pytest, each of them even if an earlier one fails. With arguments: pytest alone.
``python -m tests --live ADDRESS`` tries the extension in a running WebUI instead; ``--live -h`` says more.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from lib_faceid.environment import ROOT, ensure_environment

HERE = Path(__file__).resolve().parent

# pytest comes last, so that its closing line is where a reader of the output looks first.
CHECKS: Mapping[str, tuple[str, ...]] = {
    "ruff": ("ruff", "check", "."),
    "pyright": ("pyright",),
    "pytest": ("pytest",),
}


LIVE = ("--live", "--fixtures")
"""Options that choose the live cases (live/command.py) when one of them comes first; pytest knows neither."""


def main(words: Sequence[str]) -> int:
    ensure_environment(HERE / "requirements.txt", no_deps=(HERE / "requirements-no-deps.txt",))
    if words and words[0].partition("=")[0] in LIVE:
        return import_module(".live.command", __package__).main(words)
    return run_checks({"pytest": ("pytest", *words)} if words else CHECKS)


def run_checks(checks: Mapping[str, Sequence[str]]) -> int:
    """Run ``python -m`` with each check's words, all of them; 0, or 1 and a last line naming those that failed."""
    failed = [name for name, words in checks.items() if not _succeeds(name, words)]
    if failed:
        _say(f"Failed: {', '.join(failed)}.")
    return 1 if failed else 0


def _succeeds(name: str, words: Sequence[str]) -> bool:
    _say(f"== {name}")
    return subprocess.call([sys.executable, "-m", *words], cwd=ROOT) == 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Stopped before it was done.")
