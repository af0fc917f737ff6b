"""The running WebUI as the cases see it: what it is, what it has, which fixtures fit, and drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from .client import Client, Drawn, Refused, Settings
from .compare import Failed
from .fixtures import BASES, PACK, SUFFIXES, adapter_name, person_name, vectors
from .job import SCRIPT, Job
from .photos import robin

_REFUSED = 422
_PROBE = {"steps": 1, "batch_size": 1, "width": 64, "height": 64}
WRITE_FIXTURES = (
    "write them once with `python -m tests --fixtures MODELS`, where MODELS is the WebUI's models folder (add "
    "`--channels 32` for a small test checkpoint), then press the WebUI's refresh button or start it again"
)


@dataclass(frozen=True)
class Setup:
    """How large jobs are, the checkpoints named for roles (inpaint, ip2p, sdxl, sd2, other), a ControlNet model, the
    address of a WebUI of the same kind that never had the extension, and how many jobs are many.
    """

    size: int = 128
    steps: int = 4
    checkpoints: Mapping[str, str] = field(default_factory=dict[str, str])
    controlnet: str = ""
    bare: str = ""
    jobs: int = 300


@dataclass(frozen=True)
class Fit:
    """Which fixtures belong to a checkpoint: its base and whether it is a small one; and what each refusal said."""

    base: str = ""
    narrow: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict[str, str])
    refusals: tuple[str, ...] = ()


class WebUI:
    """Raises Unreachable at once where nobody answers."""

    def __init__(self, client: Client, setup: Setup) -> None:
        self.client, self.setup = client, setup
        self.bare = Client(setup.bare) if setup.bare else None
        self.settings = Settings(client)
        flags = client.get("/sdapi/v1/cmd-flags")
        self.host = "forge" if any("forge" in name for name in flags) else "a1111"
        self.samplers = frozenset(item["name"] for item in client.get("/sdapi/v1/samplers"))
        self._scripts = client.get("/sdapi/v1/scripts")
        self._models = client.get("/sdapi/v1/sd-models")
        self._loaded = ""
        self._fits: dict[str, Fit] = {}

    def scripts(self, mode: str) -> list[str]:
        """Titles of the scripts of a mode, in lower case."""
        return [name.lower() for name in self._scripts[mode]]

    def has_faceid(self) -> bool:
        """Whether the extension is installed and its script was loaded."""
        return SCRIPT.lower() in self.scripts("txt2img")

    def script_choices(self, script: str, argument: int) -> list[str]:
        """What an argument of a script may be. Raises Failed where the WebUI does not tell."""
        for info in self.client.get("/sdapi/v1/script-info"):
            if info["name"] == script and not info["is_img2img"]:
                return list(info["args"][argument]["choices"] or [])
        raise Failed(f"the WebUI does not say what {script} takes")

    # Checkpoints.

    def checkpoint_title(self, name: str) -> str:
        """The WebUI's own title of the checkpoint that was named by title, file or model name; empty if there is none.

        A file name counts more than a model name, which two files may share.
        """
        titles = [item["title"] for item in self._models if name in _names(item)]
        return titles[0] if titles else next((m["title"] for m in self._models if name == m["model_name"]), "")

    def checkpoint_now(self) -> str:
        """The title of the loaded checkpoint."""
        name = str(self.client.get("/sdapi/v1/options").get("sd_model_checkpoint") or "")
        return self.checkpoint_title(name) or name

    @contextmanager
    def loaded(self, role: str) -> Iterator[None]:
        """The checkpoint of a role, in place of the usual one."""
        title = self.checkpoint_title(self.setup.checkpoints[role])
        before = self._loaded
        self.settings.hold(sd_model_checkpoint=title)
        self._loaded = title
        try:
            yield
        finally:
            self._loaded = before
            self.settings.restore()

    # Jobs.

    def job(self, **fields: Any) -> Job:
        """Two small pictures of a cat."""
        usual = {
            "prompt": "a photo of a cat",
            "negative_prompt": "blurry, bad",
            "seed": 1,
            "steps": self.setup.steps,
            "width": self.setup.size,
            "height": self.setup.size,
            "sampler_name": "Euler",
            "cfg_scale": 5,
            "batch_size": 2,
        }
        return Job({**usual, **fields})

    def draw(self, job: Job, *units: Any) -> Drawn:
        """Have a job done, with these units of FaceID (none: FaceID is not in the request). Raises Refused."""
        if self.host == "forge" and job.fields.get("enable_hr"):  # Forge stumbles over a request without it
            job = job.but(hr_additional_modules=["Use same choices"])
        try:
            return self.client.draw(job.mode, job.body(units))
        finally:
            if job.settings:
                self.settings.settle(job.settings)

    def refusal(self, job: Job, *units: Any) -> str:
        """The sentence with which a job is refused. Raises Failed unless the answer is 422."""
        try:
            self.draw(job, *units)
        except Refused as error:
            if error.status != _REFUSED:
                raise Failed(f"expected the answer {_REFUSED}; found {error.status}: {error.detail[:200]}") from error
            return error.detail
        raise Failed(f"expected the answer {_REFUSED}; a picture came")

    # Fixtures.

    def fit(self) -> Fit:
        """The fixtures of the loaded checkpoint, found by trying them once."""
        if self._loaded not in self._fits:
            self._fits[self._loaded] = self._find_fit()
        return self._fits[self._loaded]

    def adapters(self) -> Mapping[str, str]:
        """Kind -> file name of the fixture that fits the loaded checkpoint."""
        return self.fit().adapters

    def unit(self, kind: str = "faceid", **fields: Any) -> dict[str, Any]:
        """A person at full weight in all steps, without LoRA, from a face vector unless ``fields`` says otherwise."""
        name = self.adapters().get(kind)
        if name is None:
            raise Failed(f"no fixture {kind} fits the checkpoint; {WRITE_FIXTURES}")
        usual: dict[str, Any] = {"adapter": name, "weight": 1.0, "start": 0.0, "lora": 0.0}
        if not {"images", "embeddings", "identity"} & set(fields):
            usual["embeddings"] = vectors()
        return usual | fields

    def saved_person(self) -> str:
        """The name of the saved person of the fixtures for this checkpoint."""
        fit = self.fit()
        return person_name(fit.base, narrow=fit.narrow)

    def _find_fit(self) -> Fit:
        refusals: list[str] = []
        for narrow in (False, True):
            for base in BASES:
                told = self._try_adapter("faceid", base, narrow)
                if not told:
                    return Fit(base, narrow, dict(self._kinds(base, narrow)), tuple(refusals))
                refusals.append(told)
        return Fit(refusals=tuple(refusals))

    def _kinds(self, base: str, narrow: bool) -> Iterator[tuple[str, str]]:
        for kind in SUFFIXES:
            if kind == "faceid" or not self._try_adapter(kind, base, narrow):
                yield kind, adapter_name(kind, base, narrow=narrow)

    def _try_adapter(self, kind: str, base: str, narrow: bool) -> str:
        """Empty when a picture comes, otherwise the refusal."""
        unit: dict[str, Any] = {"adapter": adapter_name(kind, base, narrow=narrow), "start": 0.0, "lora": 0.0}
        photo = {"images": [robin()], "pack": PACK}
        # img2img: A1111 cannot draw without a picture with an instruct-pix2pix checkpoint.
        job = self.job(**_PROBE).img2img()
        try:
            self.draw(job, unit | (photo if kind == "faceid-plusv2" else {"embeddings": vectors()}))
        except Refused as error:
            return error.detail or f"the answer {error.status}"
        return ""


def _names(model: Mapping[str, Any]) -> set[str]:
    """Title, and the file's name with and without its folder."""
    file = str(model["filename"]).replace("\\", "/")
    return {model["title"], file, file.rpartition("/")[2]}


@contextmanager
def restoring(webui: WebUI, interrupt: Callable[[], object] | None = None) -> Iterator[None]:
    """Whatever happens inside, Ctrl-C included, a running job is stopped and the settings are put back."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            (interrupt or (lambda: webui.client.post("/sdapi/v1/interrupt", {})))()
        raise
    finally:
        webui.settings.restore()
