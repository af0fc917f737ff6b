"""Runs cases one after the other; whatever one does, the WebUI's settings are put back before the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .case import Case
from .client import Refused, Unreachable
from .compare import Failed, Skipped
from .report import Outcome, Report, Result
from .webui import WebUI


def run_cases(webui: WebUI, cases: Sequence[Case], report: Report, clock: Callable[[], float] = time.monotonic) -> int:
    """The exit code: 0 only if every case that had to be run was run and holds."""
    for number, case in enumerate(cases):
        try:
            report.add(run_case(webui, case, clock))
        except Unreachable as error:
            left = len(cases) - number
            return report.end(f"{error} {left} case{'s' if left != 1 else ''} from {case.title} on were not completed.")
    return report.end()


def run_case(webui: WebUI, case: Case, clock: Callable[[], float] = time.monotonic) -> Result:
    """One case. Raises Unreachable when the WebUI is gone."""
    if webui.host not in case.hosts:
        return Result(case.title, "skipped", f"not a thing of this kind of WebUI ({webui.host})", 0.0, counts=False)
    begin = clock()
    outcome, detail = _try(webui, case)
    return Result(case.title, outcome, detail, clock() - begin, counts=not case.optional)


def _try(webui: WebUI, case: Case) -> tuple[Outcome, str]:
    try:
        missing = next((reason for need in case.needs if (reason := need(webui))), "")
        return ("skipped", missing) if missing else ("ok", case.run(webui))
    except Skipped as error:
        return "skipped", str(error)
    except (Failed, Refused) as error:
        return "FAILED", str(error)
    finally:
        webui.settings.restore()
