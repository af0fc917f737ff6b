"""Comparing pictures, with numbers: mean absolute differences of 8-bit values, 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .client import Picture

# The smallest mean difference that counts as an effect. Rounding alone, in another order of sums, gives below 0.1.
CLEAR = 2.0
# The smallest that counts where one step of several makes the difference; late steps hardly change a picture.
SLIGHT = 0.1
# What equal pictures may differ by when they were computed in other batches: a level or two here and there.
ROUNDING = 0.5
# How much farther apart two pictures with a face may be than the same two without: an added term also has a share in
# whatever moves the plain ones. A face on the wrong rows is farther away by its whole effect.
_FACTOR = 2.0

_TELLING = 0.75


class Failed(Exception):
    """The case does not hold; the sentence has the numbers."""


class Skipped(Exception):
    """The case cannot be tried here; the sentence says why."""


def difference(first: Picture, second: Picture) -> float:
    """Mean absolute difference. Raises Failed for pictures of different sizes."""
    if first.shape != second.shape:
        raise Failed(f"one picture is {_size(first)} and the other {_size(second)}")
    return float(np.abs(first.astype(np.int16) - second.astype(np.int16)).mean())


def differences(first: Sequence[Picture], second: Sequence[Picture]) -> list[float]:
    """Picture by picture. Raises Failed for another number of pictures."""
    if len(first) != len(second) or not first:
        raise Failed(f"{len(first)} pictures stand against {len(second)}")
    return [difference(one, other) for one, other in zip(first, second, strict=True)]


def are_identical(first: Sequence[Picture], second: Sequence[Picture]) -> bool:
    """Bit for bit."""
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def ensure_clear(effects: Sequence[float], what: str, noise: float = 0.0, least: float = CLEAR) -> str:
    """Raises Failed unless every picture is changed by at least ``least``, and by at least 4 times ``noise``."""
    least = max(least, 4 * noise)
    if min(effects) < least:
        raise Failed(f"{what} changes a picture by {min(effects):.2f} only; expected at least {least:.2f}")
    return f"{what} {show(effects)}"


def ensure_near(with_face: Sequence[float], plain: Sequence[float], what: str, effect: float) -> str:
    """Raises Failed where two ways to the same picture differ by more with the face than they do without it.

    ``effect`` is what the face changes at least; a comparison that allows nearly as much would prove nothing.
    """
    allowed = [_FACTOR * value + ROUNDING for value in plain]
    numbers = f"{what}: with the face {show(with_face)}, plain {show(plain)}"
    if any(value > limit for value, limit in zip(with_face, allowed, strict=True)):
        raise Failed(f"{numbers}; expected at most {show(allowed)}")
    if max(allowed) > _TELLING * effect:
        raise Failed(f"{numbers}; the face changes only {effect:.2f}, so this proves nothing")
    return numbers


def ensure_same(first: Sequence[Picture], second: Sequence[Picture], what: str) -> str:
    """Raises Failed unless the pictures are bit for bit the same."""
    if not are_identical(first, second):
        raise Failed(f"{what}: differs by {show(differences(first, second))}; expected the same bits")
    return f"{what}: same bits"


def show(values: Sequence[float]) -> str:
    """Numbers for people, equal ones once."""
    return "/".join(dict.fromkeys(f"{value:.2f}" for value in values))


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
