"""The lines of Python in README run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import torch
from PIL import Image

from .adapters import make_adapter
from .bare_pipelines import sd15
from .face_packs import draw_marker, make_pack, scene
from .unets import CONTEXT

README = Path(__file__).parents[1] / "README.md"


def test_python_in_readme(tmp_path, monkeypatch):
    """With a narrow adapter under the published name, a small random pipeline, and a prompt already encoded."""
    made = make_adapter(tmp_path, "faceid")
    made.path.rename(tmp_path / "ip-adapter-faceid_sd15.bin")
    make_pack(tmp_path / "models" / "insightface" / "buffalo_l")
    for name in ("anna1.jpg", "anna2.jpg"):
        photo = scene(320, 320)
        draw_marker(photo, (80, 80, 240, 240))
        Image.fromarray(photo).save(tmp_path / name, quality=100, subsampling=0)
    monkeypatch.delenv("FACEID_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    text = torch.zeros(1, 7, CONTEXT["sd15"])
    prompt = {
        "prompt_embeds": text,
        "negative_prompt_embeds": text,
        "num_inference_steps": 4,
        "height": 64,
        "width": 64,
    }
    names = {"pipe": sd15(), "prompt": {**prompt, "output_type": "latent"}}
    outcome = doctest.testfile(str(README), module_relative=False, globs=names)
    assert outcome.attempted >= 7
    assert outcome.failed == 0
    assert (tmp_path / "anna.safetensors").exists()


def test_its_two_commands():
    """The command that passes the tests is what CI calls."""
    text = README.read_text(encoding="utf-8")
    assert "python3 -m tests " in text
    assert "python3 -m lib_faceid demo " in text
    assert "python3 -m tests" in (README.parent / ".ci" / "run").read_text(encoding="utf-8")
