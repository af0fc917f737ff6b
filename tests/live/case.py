"""A case: something that must hold in a running WebUI, what it needs, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .webui import WebUI

Run = Callable[["WebUI"], str]
"""Tries the case: returns the numbers for the report. Raises Failed, Skipped or Refused."""
Need = Callable[["WebUI"], str]
"""Why the case cannot be tried here; empty where it can."""


@dataclass(frozen=True)
class Case:
    """``optional``: skipping it for want of what it needs is no failure. ``hosts``: where it exists at all."""

    section: str
    name: str
    run: Run
    needs: tuple[Need, ...] = ()
    optional: bool = False
    hosts: frozenset[str] = frozenset({"a1111", "forge"})

    @property
    def title(self) -> str:
        return f"{self.section}/{self.name}"


class Section:
    """Collects the cases of one module, in the order in which they are written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def case(self, name: str, *needs: Need, optional: bool = False, hosts: str = "a1111 forge") -> Callable[[Run], Run]:
        """Register the decorated function."""

        def register(run: Run) -> Run:
            self.add(name, run, *needs, optional=optional, hosts=hosts)
            return run

        return register

    def add(self, name: str, run: Run, *needs: Need, optional: bool = False, hosts: str = "a1111 forge") -> None:
        """Register a function made elsewhere."""
        self.cases.append(Case(self.name, name, run, needs, optional, frozenset(hosts.split())))


def select(cases: Iterable[Case], pattern: str) -> list[Case]:
    """The cases whose "section/name" the pattern is in, or matches where it has a * or ?."""
    wanted = pattern.lower()
    is_glob = any(letter in wanted for letter in "*?")
    return [
        case for case in cases if (fnmatch(case.title.lower(), wanted) if is_glob else wanted in case.title.lower())
    ]


def setting(*names: str) -> Need:
    """The WebUI has these settings."""
    return lambda webui: _first(f"this WebUI has no setting {name}" for name in names if not webui.settings.knows(name))


def sampler(name: str) -> Need:
    """The WebUI has this sampler."""
    return lambda webui: "" if name in webui.samplers else f"this WebUI has no sampler {name}"


def script(name: str, mode: str = "txt2img") -> Need:
    """The WebUI has this script."""
    return lambda webui: "" if name.lower() in webui.scripts(mode) else f"this WebUI has no script {name} in {mode}"


def checkpoint(role: str) -> Need:
    """A checkpoint was named for this role: ``--checkpoint-ROLE NAME``."""

    def need(webui: WebUI) -> str:
        name = webui.setup.checkpoints.get(role)
        if not name:
            return f"no checkpoint was named; add --checkpoint-{role} NAME"
        return "" if webui.checkpoint_title(name) else f"this WebUI lists no checkpoint {name}"

    return need


def adapter(kind: str) -> Need:
    """The fixtures hold an adapter of this kind for the checkpoint."""
    return lambda webui: "" if webui.adapters().get(kind) else f"no fixture {kind} fits this checkpoint"


def _first(reasons: Iterable[str]) -> str:
    return next(iter(reasons), "")
