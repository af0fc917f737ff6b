"""What is missing, which constraints hold the rest, and what pip's words mean."""

from __future__ import annotations

import pytest

import install
from install import Package

from .fake_python import CONFLICT, FULL_DISK, NO_FIT, NO_PIP, OFFLINE


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ([], "", False),
        ([], "--medvram --skip-install --ckpt 'a b'", True),
        ([], "--skip-torch-cuda-test --skip-install-of-nothing", False),
        ([], "'--skip-install'", True),
        (["install.py", "--skip-install"], "", True),
    ],
)
def test_skip_install_is_read_where_the_host_reads_it(words: list[str], text: str, expected: bool) -> None:
    assert install.is_skipped(words, {"COMMANDLINE_ARGS": text}) is expected
    assert not install.is_skipped([], {})


def names(packages: list[Package]) -> list[str]:
    return [package.name for package in packages]


def test_only_what_no_package_brings_is_planned() -> None:
    assert names(install.plan({}, set())) == ["onnxruntime", "opencv-python", "insightface"]
    assert names(install.plan({}, {"onnxruntime", "cv2"})) == ["insightface"]
    assert names(install.plan({"onnxruntime-gpu": "1.17.1", "opencv-contrib-python": "4.8"}, set())) == ["insightface"]
    assert names(install.plan({"insightface": "0.7.3", "onnxruntime-extensions": "1"}, {"cv2"})) == ["onnxruntime"]


def test_constraints_hold_what_is_there_and_keep_rivals_out() -> None:
    snapshot = {"torch": "2.1.2+cu121", "opencv-python-headless": "4.8.0.74", "onnxruntime-gpu": "1"}
    lines = install.make_constraints(snapshot, {"torch", "cv2", "onnxruntime"})
    assert lines[:3] == ["onnxruntime-gpu==1", "opencv-python-headless==4.8.0.74", "torch==2.1.2+cu121"]
    kept_out = {line.removesuffix("<0") for line in lines[3:] if line.endswith("<0")}
    assert len(kept_out) == len(lines) - 3
    assert {"onnxruntime", "opencv-python", "opencv-contrib-python", "numpy", "pillow", "safetensors"} < kept_out
    assert not kept_out & {"insightface", *snapshot}


@pytest.mark.parametrize("name", ["onnxruntime", "opencv-python", "insightface"])
def test_what_is_to_be_added_is_not_kept_out(name: str) -> None:
    lines = install.make_constraints({}, set())
    assert f"{name}<0" not in lines
    assert "onnxruntime-gpu<0" in lines


@pytest.mark.parametrize(
    ("name", "version", "kept"),
    [
        ("a", "1", True),
        ("a-b", "2!1.0.0rc1.post2.dev3+cu121.x-1", True),
        ("a", "2023.1-1", True),
        ("a", "1.0.dev0", True),
        ("a", "1.0-unknown", False),
        ("a", "unknown", False),
        ("a", "1.0 ; x", False),
        ("-umpy", "1.0", False),
        ("a b", "1.0", False),
    ],
)
def test_a_line_that_pip_cannot_read_is_left_out(name: str, version: str, kept: bool) -> None:
    assert (f"{name}=={version}" in install.make_constraints({name: version}, set())) is kept


@pytest.mark.parametrize(
    ("code", "said", "result", "words"),
    [
        (0, "ERROR: pip's dependency resolver does not take into account", "added", ""),
        (1, CONFLICT, "refused", "ready-made"),
        (1, NO_FIT, "refused", "ready-made"),
        (1, NO_FIT.replace("x (from versions: 1.0, 1.1", "y (from x) (from versions: none"), "refused", "ready-made"),
        (1, OFFLINE, "failed", "index could not be reached"),
        (1, OFFLINE.replace("requirement x", "requirement x>=1.0"), "failed", "index could not be reached"),
        (1, NO_PIP, "failed", "No module named pip"),
        (2, FULL_DISK, "failed", "Could not install packages due to an OSError: [Errno 28] No space left on device"),
        (3, " \n", "failed", "pip ended with code 3"),
    ],
)
def test_what_pip_says_is_told_apart(code: int, said: str, result: str, words: str) -> None:
    found, reason = install.judge(code, said)
    assert (found, words in reason) == (result, True)
    assert not reason.endswith((".", "\n"))
