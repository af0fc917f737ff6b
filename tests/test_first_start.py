"""A whole start from nothing, with the real venv and pip and a wheel made by hand; and what is pinned for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lib_faceid.environment import ROOT, Environment

PROBE = """
import sys
from pathlib import Path
from lib_faceid.environment import ensure_environment
ensure_environment(Path("needs.txt"))
import faceid_probe
sys.stdout.write(repr((faceid_probe.VERSION, Path(sys.prefix).name, sys.argv[1:])))
sys.exit(7)
"""


def write_wheel(folder: Path) -> None:
    """The smallest thing pip installs: a module and three metadata files (PEP 427)."""
    info = "faceid_probe-1.0.dist-info"
    files = {
        "faceid_probe.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: faceid-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "faceid_probe-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


def start(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "probe", *words]
    return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)


def test_a_start_from_nothing_fails_clearly_is_repaired_and_then_costs_nothing(tmp_path: Path) -> None:
    for folder in ("lib_faceid", "wheels"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "lib_faceid" / "environment.py", tmp_path / "lib_faceid")
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "needs.txt").write_text("faceid-probe==1.0\n")

    failed = start(tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith(str(tmp_path / ".venv"))

    write_wheel(tmp_path / "wheels")
    made = start(tmp_path, "a", "b c")
    assert (made.returncode, made.stdout) == (7, "('1.0', '.venv', ['a', 'b c'])"), made.stderr

    shutil.rmtree(tmp_path / "wheels")
    again = start(tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (7, "('1.0', '.venv', [])", "")


@pytest.mark.parametrize("name", ["lib_faceid/requirements.txt", "tests/requirements.txt"])
@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 13)])
def test_every_requirement_has_one_exact_version_for_each_python(name: str, version: tuple[int, int]) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith(("#", "-r "))]
    chosen: list[str] = []
    for line in lines:
        match = re.fullmatch(r"([\w.\[\]-]+)==[\d.]+(?:; python_version (>=|<) \"3\.11\")?", line)
        assert match, line
        if match[2] is None or (match[2] == ">=") == (version >= (3, 11)):
            chosen.append(match[1])
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == {line.partition("==")[0] for line in lines}


def test_the_tests_need_what_the_product_needs() -> None:
    needs = Environment(ROOT / ".venv", (ROOT / "tests" / "requirements.txt",)).digests()
    assert set(needs) == {"lib_faceid/requirements.txt", "tests/requirements.txt"}
