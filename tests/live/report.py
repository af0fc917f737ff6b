"""How the cases went, one line each: ok, FAILED with the numbers, skipped with the reason; and what that means."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

Outcome = Literal["ok", "FAILED", "skipped"]


@dataclass(frozen=True)
class Result:
    """``counts``: for a skipped case, whether the WebUI should have been able to run it."""

    title: str
    outcome: Outcome
    detail: str
    seconds: float
    counts: bool = True

    @property
    def is_bad(self) -> bool:
        """A failure, or a case that had to be run and was not."""
        return self.outcome == "FAILED" or (self.outcome == "skipped" and self.counts)

    @property
    def line(self) -> str:
        why = f"  {self.detail}" if self.detail else ""
        return f"{self.outcome:8}{self.title}  ({self.seconds:.1f} s){why}"


class Report:
    """``as_json``: nothing is said before the end, and then one JSON object."""

    def __init__(self, say: Callable[[str], None], *, as_json: bool) -> None:
        self._say, self._as_json = say, as_json
        self.results: list[Result] = []

    def begin(self, words: str) -> None:
        """What is tested."""
        if not self._as_json:
            self._say(words)

    def add(self, result: Result) -> None:
        self.results.append(result)
        if not self._as_json:
            self._say(result.line)

    def end(self, abandoned: str = "") -> int:
        """Say the summary; the exit code. ``abandoned``: why not all cases were tried."""
        code = 1 if abandoned or not self.results or any(result.is_bad for result in self.results) else 0
        if self._as_json:
            cases = [asdict(result) for result in self.results]
            self._say(json.dumps({"cases": cases, "summary": self._summary(abandoned), "exit": code}, indent=1))
        else:
            self._say(self._summary(abandoned))
        return code

    def _summary(self, abandoned: str) -> str:
        number = {outcome: sum(r.outcome == outcome for r in self.results) for outcome in ("ok", "FAILED", "skipped")}
        missed = sum(result.is_bad for result in self.results if result.outcome == "skipped")
        had_to = f" ({missed} of them had to be run)" if missed else ""
        counted = f"{number['ok']} ok, {number['FAILED']} failed, {number['skipped']} skipped{had_to}."
        return f"Stopped: {abandoned} Until then {counted}" if abandoned else f"Done: {counted}"
