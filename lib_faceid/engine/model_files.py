"""Which files would read a photo: known from headers, which are read once for each state of their folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..errors import FaceIDError, WrongEncoder
from ..face.pack import find_pack
from ..weights.adapter import Adapter
from ..weights.digest import file_digest
from ..weights.tensor_file import plain_errors
from .extract import ModelFolder

State = tuple[tuple[str, int, int], ...]
_CONFIG = "config.json"  # beside an encoder; it decides what shapes do not tell


def state_of(folder: Path) -> State:
    """Names, sizes and times of the files in a folder: one that was replaced must not be taken for the one before."""
    try:
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError:
        return ()
    return tuple((str(path.relative_to(folder)), state.st_size, state.st_mtime_ns) for path, state in files)


def find_encoder(adapter: Adapter, models: ModelFolder) -> Path | None:
    """The encoder an adapter would be fed by, or None where there is none."""
    return models.clip_encoder or _encoder_in(adapter, models, state_of(models.root / "clip_vision"))


def encoder_digests(adapter: Adapter, models: ModelFolder) -> list[str]:
    """sha256 of the encoder's file and of the configuration beside it. Raises BrokenWeights."""
    path = find_encoder(adapter, models)
    files = [] if path is None else [path, path.with_name(_CONFIG)]
    return [_digest(file) for file in files if file.is_file()]


def pack_digests(folder: Path) -> list[str]:
    """sha256 of the detector and the recogniser in a folder; none where it is no pack. Raises BrokenWeights."""
    try:
        files = _files_of_pack(folder.absolute(), state_of(folder))
    except FaceIDError:  # said in full by whoever opens it
        return []
    return [_digest(file) for file in files]


@lru_cache(maxsize=64)
def _encoder_in(adapter: Adapter, models: ModelFolder, state: State) -> Path | None:
    del state  # part of the key
    try:
        return models.encoder(adapter)
    except WrongEncoder:
        return None


@lru_cache(maxsize=16)
def _files_of_pack(folder: Path, state: State) -> tuple[Path, Path]:
    del state
    pack = find_pack(folder)
    return pack.detector, pack.recogniser


def _digest(file: Path) -> str:
    with plain_errors(file):
        return file_digest(file)
