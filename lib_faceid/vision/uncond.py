"""What encoders make of zero pixels, kept: the same for every photo, and as dear as one."""

from __future__ import annotations

from collections.abc import Callable

from .clip import Features


class UncondCache:
    """In memory, by a digest that the caller gives: of the encoder's file, and of whatever else changes the numbers."""

    def __init__(self) -> None:
        self._kept: dict[str, Features] = {}

    def get(self, digest: str, make: Callable[[], Features]) -> Features:
        """The features kept under ``digest``, else those of ``make`` (such as ``encoder.uncond``), kept from now on."""
        found = self._kept.get(digest)
        if found is None:
            found = self._kept[digest] = make()
        return found
