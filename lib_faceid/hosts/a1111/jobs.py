"""What the script does at each of A1111's callbacks. The job hangs on the host's processing object and dies with it.

Order (modules/processing.py): before_process, process, then for each batch before_process_batch and, for each sampling
pass, process_before_every_sampling. After an error in sampling no callback comes at all, so nothing here relies on a
last one: a pass cleans up after itself, and what an accident has left is swept when the next job begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, cast

from ...core import patch
from ...engine import infotext
from ...engine.fields import PhotoData
from ...engine.people import People
from ...engine.request import Unit, read_unit, read_units
from ...errors import BadRequest, FaceIDError
from ..job import Job
from . import webui
from .sampling import Pass

logger = logging.getLogger("faceid")
ReadPanel = Callable[[Sequence[Any]], Mapping[str, Any]]
_ATTRIBUTE = "faceid_job"


class Jobs:
    """Begins, prepares and arms jobs. ``read_panel`` turns a panel's values into those of a unit, by name."""

    def __init__(self, people: People, read_panel: ReadPanel) -> None:
        self.people, self._read_panel = people, read_panel

    def begin(self, p: Any, args: Sequence[Any]) -> None:
        """A job begins: its units are read. Nothing is attached where FaceID is off."""
        sweep()
        vars(p).pop(_ATTRIBUTE, None)  # a copied processing object (X/Y/Z plot) carries the job it was copied from
        infotext.clear(p.extra_generation_params)
        try:
            units, wrong = self._read(args), ""
        except FaceIDError as error:
            units, wrong = [_stand_in(args)], str(error)
        active = [unit for unit in units if not unit.is_off]
        if active:
            models = webui.model_folder()
            self.people.keep_on_disk(models)
            job = Job(active, self.people, models, webui.outlet(p))
            vars(p)[_ATTRIBUTE] = job
            if wrong:
                job.refuse(wrong)

    def prepare(self, p: Any) -> None:
        """The checkpoint is loaded: find everybody, which may take seconds the first time."""
        job = _job_of(p)
        if job is None:
            return
        webui.show_progress("FaceID: reading the face")
        try:
            job.prepare(webui.unet(p), webui.pictures(p))
        except FaceIDError as error:
            job.fail(str(error))
        finally:
            webui.show_progress(None)

    def begin_batch(self, p: Any) -> None:
        """The next batch of the job."""
        job = _job_of(p)
        if job is not None:
            job.begin_batch(webui.pictures(p))

    def before_sampling(self, p: Any) -> None:
        """A sampling pass comes next."""
        job = _job_of(p)
        if job is None:
            return
        if job.armed is not None:
            job.armed.disarm()  # announced twice, and not sampled in between
        job.armed = None
        if callable(getattr(p.sampler, "launch_sampling", None)):
            job.armed = Pass(job, p)
            job.armed.arm()

    def end_batch(self, p: Any) -> None:
        """The pictures of a batch are made, their text is not. Did they come by way of the sampler at all?"""
        job = _job_of(p)
        if job is None or webui.was_interrupted():
            return
        if job.armed is None or not job.armed.over:
            job.withdraw(
                job.stop or "A script or sampler that goes its own way made this picture; FaceID acts only in the "
                "WebUI's own samplers."
            )
        job.armed = None

    def accident(self, p: Any, error: Exception, args: Sequence[Any]) -> None:
        """A step before sampling failed with an error nobody foresaw: the face must not be missing in silence.

        The job ends as if the face could not be applied, whatever had been done before.
        """
        job = _job_of(p)
        if job is None:
            job = Job([_stand_in(args)], self.people, webui.model_folder(), webui.outlet(p))
            vars(p)[_ATTRIBUTE] = job
        job.refuse(
            f"FaceID ran into an error it does not know ({type(error).__name__}: {error}). The log has the details; "
            "please report it with them."
        )

    def _read(self, args: Sequence[Any]) -> list[Unit]:
        """Units of an API request (objects), or the one of the panel (its values in order)."""
        sent = [value for value in args if _holds_units(value)]
        if sent and len(sent) == len(args):
            raise BadRequest(f"At most {len(args) - 1} units can be sent side by side. Send them as one list: [[…]].")
        if sent and args[0] is not True:
            return read_units(sent)
        return [read_unit(self._read_panel(args))] if args and args[0] else []


def sweep() -> None:
    """Take away whatever an accident has left; normally there is nothing. Never raises: the job may be a plain one."""
    left = patch.live_patches()
    if left:
        logger.warning("FaceID: the last job left %d changes behind; they are taken away now.", len(left))
    for error in patch.sweep():
        logger.error("FaceID: a change the last job left cannot be taken away; start the WebUI again", exc_info=error)


def _job_of(p: Any) -> Job | None:
    return cast("Job | None", vars(p).get(_ATTRIBUTE))


def _holds_units(value: Any) -> bool:
    """An object, or a list of them; the panel has neither."""
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(i, Mapping) for i in value))


def _stand_in(args: Sequence[Any]) -> Unit:
    """For a request that cannot be read: all that is known is what to do then, and how its photos are called."""
    flat = [item for value in args for item in (value if isinstance(value, list) else [value])]
    names = [getattr(item, "orig_name", None) or getattr(item, "name", None) for item in flat]
    photos = tuple(PhotoData(b"", PurePath(name).name) for name in names if isinstance(name, str))
    asked = [item.get("on_fail") for item in flat if isinstance(item, Mapping)] or [*args[-1:]]
    return Unit(images=photos, on_fail="warn" if all(wish == "warn" for wish in asked) else "stop")
