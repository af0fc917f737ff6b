"""A Python of its own, for what a process that has imported everything already cannot show."""

from __future__ import annotations

import subprocess
import sys

from lib_faceid.environment import ROOT


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    """``python`` with these words, in the folder that lib_faceid is imported from."""
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def run_code(code: str, *arguments: str) -> str:
    """What the code writes to stdout; it has to end well."""
    result = run_python("-c", code, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout
