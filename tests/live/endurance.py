"""Many jobs in a row, of all kinds: what the WebUI holds does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

from .case import Section
from .checks import Plain
from .client import Refused
from .compare import Failed
from .fixtures import PACK, vectors
from .inside import inside, read_usage
from .photos import nobody, robin
from .webui import WebUI

SECTION = Section("endurance")
_FIRST = 60  # jobs after which the WebUI has loaded and cached what it will
_PEOPLE = 5  # FaceID remembers the last people it was shown; more of them would only fill that up to its limit
_MEGABYTE = 1 << 20
# What the process may grow by while the jobs run: its allocator keeps and splits what it was given. A leak of one
# photo (about 1 MB) or one person (about 60 MB for SDXL) a job is several times as much.
_MEMORY = 64 * _MEGABYTE
_COUNTED = ("handles", "files", "tensors", "attributes", "hooks", "callbacks")
Run = Callable[[WebUI, int], object]


def _kinds() -> Mapping[str, Run]:
    """Each takes the number of the job, so that no two are the same."""
    return {
        "plain": lambda webui, n: webui.draw(webui.job(seed=n)),
        "a vector": lambda webui, n: webui.draw(webui.job(seed=n), webui.unit(embeddings=vectors(1, seed=n % _PEOPLE))),
        "with LoRA": lambda webui, n: webui.draw(webui.job(seed=n), webui.unit(lora=0.5 + n % 5 / 10)),
        "a photo": lambda webui, n: webui.draw(webui.job(seed=n), webui.unit(images=[robin()], pack=PACK)),
        "a saved person": lambda webui, n: webui.draw(webui.job(seed=n), webui.unit(identity=webui.saved_person())),
        "two people": lambda webui, n: webui.draw(
            webui.job(seed=n), webui.unit(), webui.unit(embeddings=vectors(1, seed=n % _PEOPLE), weight=0.4)
        ),
        "AND": lambda webui, n: webui.draw(webui.job(prompt="a cat AND a dog AND a train", seed=n), webui.unit()),
        "hires fix": lambda webui, n: webui.draw(webui.job(seed=n, batch_size=1).hires(), webui.unit(lora=1.0)),
        "split": lambda webui, n: webui.draw(webui.job(seed=n).under(batch_cond_uncond=False), webui.unit()),
        "inpaint": lambda webui, n: webui.draw(webui.job(seed=n).inpaint(only_masked=bool(n % 2)), webui.unit()),
        "refused": lambda webui, n: _refused(webui, n, images=[nobody()], pack=PACK),
        "warned": lambda webui, n: webui.draw(webui.job(seed=n), webui.unit(adapter="no.bin", on_fail="warn")),
        "an error in sampling": lambda webui, n: _refused(webui, n, job={"sampler_name": "UniPC", "steps": 2}),
    }


def _refused(webui: WebUI, number: int, job: Mapping[str, Any] | None = None, **fields: Any) -> None:
    with suppress(Refused):
        webui.draw(webui.job(seed=number, **(job or {})), webui.unit(**fields))


@SECTION.case("many jobs in a row", inside, optional=True, hosts="a1111")
def many_jobs(webui: WebUI) -> str:
    count = webui.setup.jobs
    plain = Plain(webui, webui.job())
    usages: list[dict[str, Any]] = []
    jobs = islice(cycle(_kinds().values()), count)
    for number, run in enumerate(jobs, start=1):
        run(webui, number)
        if number in (min(_FIRST, count // 2), count):
            usages.append(read_usage(webui))
    plain.expect_again()
    return f"{count} jobs; {_compare(*usages)}"


def _compare(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Raises Failed where something grew."""
    grown = {name: last[name] - first[name] for name in _COUNTED}
    memory = last["memory"] - first["memory"]
    told = ", ".join(f"{name} {first[name]}→{last[name]}" for name in _COUNTED)
    told += f", memory {first['memory'] / _MEGABYTE:.0f}→{last['memory'] / _MEGABYTE:.0f} MB"
    more = [name for name, by in grown.items() if by > 0]
    if more or memory > _MEMORY or last["patches"]:
        raise Failed(f"{', '.join(more) or 'memory or patches'} grew: {told}")
    return told
