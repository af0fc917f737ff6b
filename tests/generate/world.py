"""All that a picture needs, in a folder: a checkpoint, an adapter, a saved person, a picture to start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .. import pipelines
from ..adapters import make_adapter

SMALL = ["--prompt", "an!", "--negative", "bad", "--steps", "2", "--size", "64x64", "--device", "cpu"]


class World:
    """One checkpoint, one adapter and one saved person of a base, in a folder."""

    def __init__(self, folder: Path, base: str) -> None:
        folder.mkdir()
        self.checkpoint = pipelines.save_file(folder, base)
        self.made = make_adapter(folder, "faceid-plusv2" if base == "sdxl" else "faceid", base)
        self.person = self.made.identity().save(folder / "anna.safetensors")
        self.init, self.mask = folder / "init.png", folder / "mask.png"
        noise = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
        Image.fromarray(noise).save(self.init)
        half = np.zeros((70, 66), dtype=np.uint8)
        half[:, 33:] = 255
        Image.fromarray(half).save(self.mask)

    def words(self, out: Path, *more: str) -> list[str]:
        return ["generate", "--checkpoint", str(self.checkpoint), "--out", str(out), *SMALL, *more]

    def known(self, out: Path, *more: str) -> list[str]:
        return self.words(out, "--identity", str(self.person), "--adapter", str(self.made.path), *more)


def pixels(path):
    return np.asarray(Image.open(path))
