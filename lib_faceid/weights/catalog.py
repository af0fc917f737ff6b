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
    return [_list(path) for path in weight_files(folder)]


def weight_files(folder: Path) -> list[Path]:
    """The files that may be adapters, by name; nothing is read. Empty where there is no folder that can be read."""
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError:
        return []
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
    return sorted(suitable, key=lambda adapter: (_is_fixture(adapter.path), order.index(adapter.variant)))


def _is_fixture(path: Path) -> bool:
    """The random adapters of ``python -m tests --fixtures`` must not stand before anybody's real one."""
    return path.name.startswith("faceid-live-")


def with_digest(listed: Sequence[Listed], sha256: str, name: str, variant: str) -> Adapter | None:
    """The adapter of a variant whose file has this sha256 (or begins with it).

    A file called ``name`` is looked at first: reading files of a gigabyte for their digest takes seconds.
    """
    for item in sorted(listed, key=lambda item: item.path.name != name):
        adapter = item.adapter or (_load_as(item.path, variant) if item.path.name == name else None)
        if adapter is not None and adapter.variant == variant and sha256 and adapter.digest.startswith(sha256):
            return adapter
    return None


def _load_as(path: Path, variant: str) -> Adapter | None:
    """A file whose tensors do not tell its variant, as the one it was used as."""
    try:
        return load_adapter(path, variant=variant)
    except WrongWeights:
        return None


def _list(path: Path) -> Listed:
    """What a file is. Failures are looked at again: a file may have been copied or locked just then."""
    try:
        state = path.stat()
        return Listed(path, _load(path, state.st_size, state.st_mtime_ns))
    except WrongWeights as error:
        return Listed(path, None, str(error))
    except OSError as error:
        return Listed(path, None, f"{path.name} cannot be read ({error.strerror}). Check the disk and its rights.")


@lru_cache(maxsize=1024)
def _load(path: Path, size: int, mtime_ns: int) -> Adapter:
    del size, mtime_ns  # parts of the key: a file that changed is read again
    return load_adapter(path)
