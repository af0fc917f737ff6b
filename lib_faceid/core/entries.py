"""Several identities in one picture: who acts on which rows, and which of them are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .attend import STACK_MAX_TOKENS
from .strength import Strength
from .tokens import KV, SIDES, Row


@dataclass(frozen=True, eq=False)
class Entry:
    """One identity at work.

    ``kv`` holds keys and values for every layer; ``mask`` is a checked (H, W) region (masks.check_mask) or None for
    everywhere; ``images`` are the pictures of the batch it acts on, None for all.
    """

    kv: KV
    strength: Strength
    mask: Tensor | None = None
    images: frozenset[int] | None = None

    @property
    def tokens(self) -> int:
        """T, the number of identity tokens."""
        return next(iter(self.kv.values())).k.shape[1]

    def acts_on(self, image: int | None) -> bool:
        """``image`` None stands for any picture that no entry names."""
        return self.images is None or image in self.images


Group = tuple[Entry, ...]  # entries that share one place because no picture has two of them


@dataclass(frozen=True)
class Run:
    """Groups of equal token count: computed in one go."""

    tokens: int
    groups: tuple[Group, ...]

    def keys_values(self, n: int, kinds: Sequence[Kind]) -> tuple[Tensor, Tensor]:
        """Keys and values (R, G, T, C) of layer n for all kinds; zeros where a group has nobody for a kind."""
        made = {id(entry): entry.kv[n] for group in self.groups for entry in group}  # a sum is made when it is read
        some = made[id(self.groups[0][0])]
        nobody = torch.zeros_like(some.k[0])

        def pick(group: Group, kind: Kind, part: str) -> Tensor:
            member = _member(group, kind)
            return nobody if member is None else getattr(made[id(member)], part)[kind.side]

        k, v = ([[pick(group, kind, part) for group in self.groups] for kind in kinds] for part in ("k", "v"))
        return _stack2(k), _stack2(v)


@dataclass(frozen=True)
class Kind:
    """Rows of one kind get the same keys and values: position of the side in SIDES, and a named picture or None for any
    other.
    """

    side: int
    image: int | None


@dataclass(frozen=True)
class Arrangement:
    """Entries packed into runs, and the kinds of row they tell apart."""

    entries: tuple[Entry, ...]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        groups: list[Group] = []
        for entry in self.entries:
            place = next((i for i, group in enumerate(groups) if _shares(group, entry)), None)
            if place is None:
                groups.append((entry,))
            else:
                groups[place] = (*groups[place], entry)
        counts = dict.fromkeys(group[0].tokens for group in groups)
        equal = [Run(count, tuple(group for group in groups if group[0].tokens == count)) for count in counts]
        return tuple(part for run in equal for part in _bounded(run))

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        named = sorted({image for entry in self.entries for image in entry.images or ()})
        return tuple(Kind(side, image) for image in (*named, None) for side in range(len(SIDES)))

    def kind_of(self, row: Row) -> int:
        """Position of the row's kind in ``kinds``."""
        named = any(kind.image == row.image for kind in self.kinds)
        return self.kinds.index(Kind(SIDES.index(row.side), row.image if named else None))


def _shares(group: Group, entry: Entry) -> bool:
    """Whether ``entry`` can take the place of the group's members on other pictures."""
    first = group[0]
    alike = (first.tokens, first.strength) == (entry.tokens, entry.strength) and first.mask is entry.mask
    return (
        alike and entry.images is not None and all(m.images is not None and not m.images & entry.images for m in group)
    )


def _bounded(run: Run) -> list[Run]:
    """Groups too long to be stacked are computed one by one."""
    return [run] if run.tokens <= STACK_MAX_TOKENS else [Run(run.tokens, (group,)) for group in run.groups]


def _member(group: Group, kind: Kind) -> Entry | None:
    return next((entry for entry in group if entry.acts_on(kind.image)), None)


def _stack2(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(list(row)) for row in rows])
