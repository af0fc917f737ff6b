"""Jobs in threads of their own: doing something while one runs, and several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .client import Drawn
from .compare import Failed
from .job import Job
from .webui import WebUI

MANY_STEPS = 150  # the most the WebUIs' own slider offers
_LOOK_AGAIN = 0.05  # seconds
_GIVE_UP = 600.0  # seconds until a job must have begun
Asked = tuple[Job, tuple[Any, ...]]


class Background:
    """A job in a thread of its own, begun at once."""

    def __init__(self, webui: WebUI, job: Job, *units: Any) -> None:
        self._webui, self._job, self._units = webui, job, units
        self._came: list[Any] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._came.append(self._webui.draw(self._job, *self._units))
        except Exception as error:  # told by the case's own thread
            self._came.append(error)

    def result(self, what: str) -> Drawn:
        """What came, after waiting for it. Raises Failed when it was an error."""
        self.thread.join()
        if not isinstance(self._came[0], Drawn):
            raise Failed(f"{what} failed: {self._came[0]}")
        return self._came[0]


def while_running(
    webui: WebUI, job: Job, units: Sequence[Any], act: Callable[[], object], part: int = 0
) -> tuple[Drawn, int]:
    """Do something in the middle of a part of a job, and wait for its end. What came, and the step it was seen at."""
    running = Background(webui, job, *units)
    step = _wait_for_step(webui, running.thread, part)
    act()
    return running.result("the job that was disturbed"), step


def at_once(webui: WebUI, asked: Sequence[Asked]) -> list[Drawn]:
    """Several jobs asked for at the same time."""
    running = [Background(webui, job, *units) for job, units in asked]
    return [job.result("one of several jobs") for job in running]


def _wait_for_step(webui: WebUI, thread: threading.Thread, part: int) -> int:
    until = time.monotonic() + _GIVE_UP
    while thread.is_alive() and time.monotonic() < until:
        state = webui.client.get("/sdapi/v1/progress?skip_current_image=true")["state"]
        if state["sampling_step"] >= 1 and state["job_count"] > 0 and state["job_no"] >= part:
            return int(state["sampling_step"])
        time.sleep(_LOOK_AGAIN)
    raise Failed("the job was over before it could be disturbed; try again with a larger --size")
