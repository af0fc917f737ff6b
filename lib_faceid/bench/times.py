"""Times that can be compared on a busy machine: candidates take turns, and medians are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

WARMUPS = 2  # rounds whose times are thrown away: the tap builds its tables in the first, libraries tune themselves
Clock = Callable[[], float]
Seconds = tuple[float, ...]


class Stopwatch:
    """A clock in seconds that lets the device finish first."""

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device, self._clock = device, clock

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def take_turns(
    candidates: Mapping[str, Callable[[], Seconds]], rounds: int, warmups: int = WARMUPS
) -> dict[str, list[Seconds]]:
    """What each candidate returned in each round: A B C A B C …, so that whatever slows the machine slows them all."""
    kept: dict[str, list[Seconds]] = {name: [] for name in candidates}
    for turn in range(warmups + rounds):
        for name, run in candidates.items():
            seconds = run()
            if turn >= warmups:
                kept[name].append(seconds)
    return kept


@dataclass(frozen=True)
class Part:
    """One thing measured: seconds of every candidate by round, and how many of it a UNet call has."""

    title: str
    count: int
    seconds: Mapping[str, Seconds]

    def median(self, candidate: str) -> float:
        return median(self.seconds[candidate])

    def minimum(self, candidate: str) -> float:
        return min(self.seconds[candidate])

    def added(self, candidate: str, to: str) -> float:
        """Median over the rounds of the difference within a round; may be negative where noise is larger."""
        pairs = zip(self.seconds[candidate], self.seconds[to], strict=True)
        return median(ours - theirs for ours, theirs in pairs)
