"""What ``bench`` found, for people (aligned tables, sentences) and for machines (one JSON object)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..core.unet_map import BASE_TITLES, layers
from .measures import FORMS, SLOW, CaseTimes, FormTimes
from .peers import CANDIDATES
from .times import Part

PEERS = CANDIDATES[1:]
LEGEND = (
    "Added to the bare cross-attentions (attn2) of one UNet call, in milliseconds, by the tap, by diffusers' "
    "IP-Adapter processors, and by an attention of its own that keeps the identity's keys and values."
)
FORMS_LEGEND = (
    "Median milliseconds of each form on one layer; fused attention runs group by group. * is what choose_form takes."
)
NOISY = 1.25  # the same bare layers, measured again for every case, may differ by this before it is pointed out


@dataclass(frozen=True)
class Machine:
    """Where the numbers were measured, and how."""

    device: str
    threads: int
    torch: str
    dtype: str
    rounds: int
    quick: bool

    def line(self) -> str:
        line = f"{self.device}, {self.threads} threads, torch {self.torch}, {self.dtype}, {self.rounds} rounds"
        return f"{line}. Quick run on small pictures: only shows that it works." if self.quick else line


@dataclass(frozen=True)
class Budget:
    """Something that has a limit: ``found`` and ``limit`` in ``unit``."""

    title: str
    found: float
    limit: float
    unit: str

    @property
    def is_kept(self) -> bool:
        return self.found <= self.limit

    def sentence(self) -> str:
        found = f"{self.title}: {self.found:.2f} {self.unit}, budget {self.limit:g} {self.unit}"
        return f"{found}, kept." if self.is_kept else f"{found}, NOT kept: {self.found - self.limit:.2f} too much."


@dataclass(frozen=True)
class Report:
    """Everything one run measured; ``step`` is seconds of a bare UNet step."""

    machine: Machine
    cases: Sequence[CaseTimes] = ()
    forms: Sequence[FormTimes] = ()
    budgets: Sequence[Budget] = ()
    step: float | None = None


def format_text(report: Report) -> str:
    """The report for a person, ending in a line break."""
    blocks = [report.machine.line()]
    if report.cases:
        blocks += [LEGEND, *_case_blocks(report.cases)]
    if report.forms:
        blocks += [FORMS_LEGEND, align(_form_rows(report.forms)), _form_verdict(report.forms)]
    if report.budgets:
        blocks.append("\n".join(_verdict(report)))
    return "\n\n".join(blocks) + "\n"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _case_blocks(cases: Sequence[CaseTimes]) -> list[str]:
    blocks: list[str] = []
    for model in dict.fromkeys(item.model for item in cases):
        height, width = model.picture
        title = f"{BASE_TITLES[model.base]} {width}x{height}, {len(layers(model.base))} layers"
        rows = [(title, "bare", *(f"+{name}" for name in PEERS), "tap/bare")]
        rows += [_case_row(item) for item in cases if item.model == model]
        blocks.append(align(rows) + _noise([item.bare() for item in cases if item.model == model]))
    return blocks


def _noise(bare: Sequence[float]) -> str:
    if max(bare) <= NOISY * min(bare):
        return ""
    return f"\nBare times differ by a factor of {max(bare) / min(bare):.1f}: something else kept the machine busy."


def _case_row(item: CaseTimes) -> tuple[str, ...]:
    numbers = [f"{item.bare() * 1e3:.1f}", *(f"{item.added(name) * 1e3:+.1f}" for name in PEERS)]
    return (item.case.title, *numbers, f"{item.ratio('tap'):.2f}")


def _form_rows(forms: Sequence[FormTimes]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("layer", "groups", "tokens", *FORMS, "chosen/best")]
    for item in forms:
        title = f"{BASE_TITLES[item.model.base]} {item.shape.channels} channels, {item.shape.queries} queries"
        times = [f"{item.part.median(name) * 1e3:.2f}{'*' if name == item.chosen else ' '}" for name in FORMS]
        verdict = f"{item.slower():.2f}{' SLOW' if item.is_slow else '     '}"
        rows.append((title, str(item.groups), str(item.tokens), *times, verdict))
    return rows


def _form_verdict(forms: Sequence[FormTimes]) -> str:
    slow = sum(item.is_slow for item in forms)
    return f"The chosen form is more than {SLOW:g} times slower than the best one in {slow} of {len(forms)} rows."


def _verdict(report: Report) -> list[str]:
    lines = [budget.sentence() for budget in report.budgets]
    if report.step is None:
        lines.append("The share of a UNet step was not measured; --step does.")
    else:
        lines.append(f"A bare SD1.5 UNet step took {report.step:.3f} s.")
    return lines


def as_json(report: Report) -> dict[str, Any]:
    """Every number of the report, times in seconds."""
    return {
        "machine": asdict(report.machine),
        "cases": [_case_json(item) for item in report.cases],
        "forms": [_form_json(item) for item in report.forms],
        "budgets": [{**asdict(budget), "kept": budget.is_kept} for budget in report.budgets],
        "step_s": report.step,
    }


def _case_json(item: CaseTimes) -> dict[str, Any]:
    return {
        "base": item.model.base,
        "picture": list(item.model.picture),
        **asdict(item.case),
        "bare_s": item.bare(),
        "added_s": {name: item.added(name) for name in PEERS},
        "ratio": {name: item.ratio(name) for name in PEERS},
        "parts": [_part_json(part) for part in item.parts],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "title": part.title,
        "count": part.count,
        "median_s": {name: part.median(name) for name in part.seconds},
        "minimum_s": {name: part.minimum(name) for name in part.seconds},
        "added_s": {name: part.added(name, "bare") for name in part.seconds if name in PEERS},
    }


def _form_json(item: FormTimes) -> dict[str, Any]:
    return {
        "base": item.model.base,
        **asdict(item.shape),
        "groups": item.groups,
        "tokens": item.tokens,
        "median_s": {name: item.part.median(name) for name in FORMS},
        "minimum_s": {name: item.part.minimum(name) for name in FORMS},
        "chosen": item.chosen,
        "chosen_to_best": item.slower(),
        "slow": item.is_slow,
    }
