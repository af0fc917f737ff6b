"""The real Python: which modules and packages it has, and a pip that cannot be run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import install
from install import Python
from lib_faceid.environment import ROOT

from .fake_python import record


def test_a_pip_that_hangs_or_cannot_be_started_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    forgotten: list[bool] = []
    monkeypatch.setattr(install.subprocess, "run", hang)
    monkeypatch.setattr(install.importlib, "invalidate_caches", lambda: forgotten.append(True))
    assert install.judge(*Python().pip("install", "x")) == ("failed", "pip did not finish within 10 minutes")
    assert forgotten  # it may have written before it was stopped
    monkeypatch.undo()
    monkeypatch.setattr(install.sys, "executable", str(ROOT / "no" / "python"))
    result, reason = install.install(Python(), install.WANTED[0], ())
    assert (result, "No such file" in reason or "cannot find" in reason) == ("failed", True)


def test_modules_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faceid_empty").mkdir()
    (tmp_path / "faceid_there.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert Python().has("faceid_there")
    assert not Python().has("faceid_empty")
    assert not Python().has("faceid_nowhere")


def test_the_snapshot_is_what_pip_would_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    record(first, "Zope.Inter_face", "5.0")
    record(first, "numpy", "1.26.2")
    record(first, "gone", "1.0", "~one-1.0.dist-info/METADATA")
    record(first, "old", "3", "old-3.egg-info")
    record(first, "older", "4", "older-4.egg-info/PKG-INFO")
    record(second, "numpy", "2.2.6")
    (first / "empty-1.dist-info").mkdir()
    (first / "binary-1.dist-info").mkdir()
    (first / "binary-1.dist-info" / "METADATA").write_bytes(b"Name: \xff\xfe\nVersion: 1\n")
    monkeypatch.setattr(install.sys, "path", [str(first), str(second)])
    assert Python().snapshot() == {"zope-inter-face": "5.0", "numpy": "1.26.2", "old": "3", "older": "4"}
