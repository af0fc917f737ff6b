"""The adapters in a folder: what each file is, and which one suits a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..core.unet_map import Base
from ..errors import WrongWeights
from .adapter import Adapter, load_adapter

SUFFIXES = (".bin", ".pth", ".safetensors")
# What suits one person best when nobody chose: likeness of the whole face first, then the face vector alone; Portrait
# was trained on several photos. Adapters for other families (InstantID, PuLID) are not run by this version.
_ONE_PHOTO = ("faceid-plusv2", "faceid-plus", "faceid", "portrait", "portrait-unnorm")
_SEVERAL = ("faceid-plusv2", "faceid-plus", "portrait", "faceid", "portrait-unnorm")
_WITHOUT_VECTORS = ("plus-face", "full-face", "plus", "base")


@dataclass(frozen=True, eq=False)
class Listed:
    """A file in the folder: the adapter it holds, or the sentence that says why it is none."""

    path: Path
    adapter: Adapter | None
    problem: str = ""


def list_adapters(folder: Path) -> list[Listed]:
    """Every weight file directly in the folder, by name. Only headers are read, once for each state of a file."""
    return [_list(path, *_state(path)) for path in weight_files(folder)]


def weight_files(folder: Path) -> list[Path]:
    """The files that may be adapters, by name; nothing is read. Empty where there is no such folder."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(files, key=lambda path: path.name.lower())


def fitting(listed: Iterable[Listed], base: Base, context_width: int, *, photos: int, clip: bool) -> list[Adapter]:
    """The adapters for a base and its context width, most suitable first.

    ``photos`` is the number of photos; ``clip`` False leaves out those that need CLIP features.
    """
    order = [*(_SEVERAL if photos > 1 else _ONE_PHOTO), *_WITHOUT_VECTORS]
    adapters = [item.adapter for item in listed if item.adapter is not None]
    suitable = [
        adapter
        for adapter in adapters
        if (adapter.base, adapter.recognised.context_width) == (base, context_width)
        and adapter.variant in order
        and (clip or not adapter.needs_clip)
    ]
    return sorted(suitable, key=lambda adapter: order.index(adapter.variant))


def with_digest(listed: Sequence[Listed], sha256: str, name: str = "") -> Adapter | None:
    """The adapter whose file has this sha256 (or begins with it); a file called ``name`` is looked at first."""
    for item in sorted(listed, key=lambda item: item.path.name != name):
        if item.adapter is not None and sha256 and item.adapter.digest.startswith(sha256):
            return item.adapter
    return None


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1024)
def _list(path: Path, size: int, mtime_ns: int) -> Listed:
    del size, mtime_ns  # parts of the key: a file that changed is read again
    try:
        return Listed(path, load_adapter(path))
    except WrongWeights as error:
        return Listed(path, None, str(error))
