"""Which of several people is in which picture of a job: the next one each time, or one by the picture's seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture of a job: its number in the job, from 0, and its seed."""

    number: int
    seed: int


def turn_of(picture: Picture, count: int, mode: str) -> int:
    """Whose turn it is among ``count`` people: "cycle" or "random".

    By seed the same picture has the same person, alone or in a batch; sha256 spreads seeds that follow each other.
    """
    if mode == "random":
        return int.from_bytes(hashlib.sha256(str(picture.seed).encode()).digest()[:8], "big") % count
    return picture.number % count


def places_of(turn: int, pictures: Sequence[Picture], count: int, mode: str) -> frozenset[int]:
    """The places in a batch of the pictures in which it is somebody's turn."""
    return frozenset(place for place, picture in enumerate(pictures) if turn_of(picture, count, mode) == turn)
