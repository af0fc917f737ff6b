"""The file as the host runs it: what is asked of pip, what is said, and nothing on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

from lib_faceid.environment import ROOT

from ..source_rules import find_imports
from .fake_host import Host
from .fake_python import CONFLICT, HOST_PACKAGES, NO_FIT


def test_the_host_gets_its_packages_once(tmp_path: Path) -> None:
    host = Host(tmp_path, {"insightface>=1.0": CONFLICT})
    said = host.start(INDEX_URL="https://mirror.example/simple", PIP_RETRIES="7").splitlines()
    assert said[0].startswith("FaceID: insightface is left out")
    assert said[1] == "FaceID: added onnxruntime 9.9, opencv-python 9.9. Nothing else has changed."
    calls = host.asked()
    for words, _, settings, python in calls:
        assert words[:4] == ["install", "--no-input", "--prefer-binary", "--only-binary=:all:"]
        assert words[4:6] == ["--index-url", "https://mirror.example/simple"]
        assert not {"-U", "--upgrade", "--no-deps", "--pre", "--force-reinstall"} & set(words)
        assert settings == {"PIP_RETRIES": "7", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        assert python == sys.executable
    assert [words[-1] for words, *_ in calls] == ["onnxruntime", "opencv-python", "insightface>=1.0"]
    packages = dict(HOST_PACKAGES)
    for words, constraints, *_ in calls:
        held = [line for line in constraints if not line.endswith("<0")]
        assert held == [f"{name}=={version}" for name, version in sorted(packages.items())]
        packages[words[-1]] = "9.9"
    assert not Path(calls[0][0][calls[0][0].index("-c") + 1]).exists()  # the constraints file is gone

    assert host.start(INDEX_URL="https://mirror.example/simple", PIP_RETRIES="7") == ""
    assert host.asked() == []
    assert [file.parent.name for file in host.folder.rglob("faceid-install-*")] == ["__pycache__"]


def test_sentences_reach_the_host_whatever_the_system_encodes(tmp_path: Path) -> None:
    host = Host(tmp_path, {"onnxruntime": CONFLICT, "--no-deps": NO_FIT})
    said = host.start(PYTHONIOENCODING="ascii")
    assert f"once {host.folder / 'extensions' / 'face ïd'}" in said
    assert "Nothing else has changed." in said
    assert [words[-1] for words, *_ in host.asked()][:2] == ["onnxruntime", "--no-deps"]


def test_skip_install_starts_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.start(COMMANDLINE_ARGS="--medvram --skip-install") == ""
    assert host.start("--skip-install") == ""
    assert host.asked() == []


def test_a_missing_pip_is_a_sentence(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "packages" / "pip" / "__main__.py").unlink()
    said = host.start()
    assert said.count("FaceID: ") == 3
    assert "No module named pip" in said
    assert "It is tried again at the next start" in said


def test_what_nobody_foresaw_is_a_sentence(tmp_path: Path) -> None:
    assert "FaceID: install.py could not finish (ValueError: " in Host(tmp_path).start(COMMANDLINE_ARGS="--ckpt 'a")


def test_the_standard_library_is_enough() -> None:
    imported = find_imports("install.py", (ROOT / "install.py").read_text(encoding="utf-8"))
    assert {item.top for item in imported} <= sys.stdlib_module_names
