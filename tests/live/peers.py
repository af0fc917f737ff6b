"""What other extensions take in a request, and whether they are here: ControlNet, LoRAs, Tiled Diffusion and others.

A Peer puts itself into a job. Positions and words are those of sd-webui-controlnet 1.1.455, multidiffusion-upscaler,
sd-webui-neutral-prompt and the extensions that are part of A1111 1.10.1.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .case import Need, script, setting
from .client import Refused, encode_picture
from .compare import Failed
from .fixtures import controlnet_name, lora_name, vectors
from .job import Job
from .photos import landscape, spot
from .webui import WebUI

Join = Callable[[WebUI, Job], Job]
CONTROLNET = "controlnet"
# What else lies in ControlNet's folder of models: neither a ControlNet nor something one picture alone can drive.
_OTHER_MODELS = ("ip-adapter", "ip_adapter", "t2i", "instant", "pulid", "photomaker", "sparsectrl", "inpaint")
_REFERENCE = 256  # side of the pictures given to ControlNet


@dataclass(frozen=True)
class Peer:
    """Another extension at work in one way. ``larger``: how many times the usual size its pictures are.

    ``alike``: it makes a picture of a batch as it makes the same picture alone. ``silent``: why it may have no effect
    even without FaceID, where that is known to happen.
    """

    name: str
    join: Join
    needs: tuple[Need, ...]
    larger: int = 1
    alike: bool = True
    silent: str = ""

    def bare(self, webui: WebUI) -> Job:
        """The job without it."""
        size = webui.setup.size * self.larger
        return webui.job(width=size, height=size)


# ControlNet.


@cache
def picture() -> str:
    """A landscape with a white square, which neither prompt nor face asks for."""
    return encode_picture(landscape(_REFERENCE) | spot(_REFERENCE))


def control_unit(**fields: Any) -> dict[str, Any]:
    usual = {"enabled": True, "module": "none", "model": "None", "weight": 1.0, "processor_res": _REFERENCE}
    return usual | fields


def reference(module: str) -> Join:
    """A picture whose looks the self-attentions take over; no model. It runs the cross-attentions twice per call."""
    return lambda webui, job: job.beside(CONTROLNET, control_unit(module=module, image=picture(), threshold_a=0.5))


def control(webui: WebUI, job: Job) -> Job:
    """A picture the UNet's inner layers follow."""
    return job.beside(CONTROLNET, control_unit(model=_control_model(webui), image=picture()))


def t2i_adapter(webui: WebUI, job: Job) -> Job:
    return job.beside(CONTROLNET, control_unit(model=_listed(webui, "t2i"), image=picture()))


def controlnet_face(webui: WebUI, job: Job, weight: float = 1.0) -> Job:
    """The person of ``vectors`` once more, by ControlNet's own FaceID and the same adapter."""
    fields = {"module": "ip-adapter_face_id", "model": _listed(webui, _face_model(webui)), "weight": weight}
    return job.beside(CONTROLNET, control_unit(**fields, ipadapter_input=[_stored_vector()]))


def _stored_vector() -> str:
    """A face vector of length 1 as ControlNet takes it: base64 of a file of torch.save, (1, 512)."""
    vector = torch.tensor(vectors())
    data = io.BytesIO()
    torch.save(vector / vector.norm(), data)
    return base64.b64encode(data.getvalue()).decode("ascii")


def controlnet_models(webui: WebUI) -> list[str]:
    """Names as ControlNet lists them, with a digest behind; none where there is no ControlNet."""
    try:
        return list(webui.client.get("/controlnet/model_list")["model_list"])
    except Refused:
        return []


def _control_model(webui: WebUI) -> str:
    """The model that was named, or the first whose name fits the checkpoint; empty if there is none."""
    named = webui.setup.controlnet
    if named:
        return _listed(webui, named.lower())
    listed = [name for name in controlnet_models(webui) if not any(word in name.lower() for word in _OTHER_MODELS)]
    return next((name for name in listed if ("xl" in name.lower()) == (webui.fit().base == "sdxl")), "")


def _face_model(webui: WebUI) -> str:
    return controlnet_name(narrow=webui.fit().narrow).partition(".")[0]


def _listed(webui: WebUI, words: str) -> str:
    return next((name for name in controlnet_models(webui) if words in name.lower()), "")


def control_model(webui: WebUI) -> str:
    """Need: a ControlNet model that one picture drives."""
    named = webui.setup.controlnet
    if _control_model(webui):
        return ""
    return f"ControlNet lists no model {named}" if named else "no ControlNet model fits; name one by --controlnet-model"


def t2i_model(webui: WebUI) -> str:
    """Need: a T2I adapter among ControlNet's models."""
    return "" if _listed(webui, "t2i") else "ControlNet lists no T2I adapter"


def face_model(webui: WebUI) -> str:
    """Need: the copy of the FaceID fixture among ControlNet's models."""
    if webui.fit().base == "sd15" and _listed(webui, _face_model(webui)):
        return ""
    return f"ControlNet lists no {_face_model(webui)}; write the fixtures, and refresh its list (SD1.5 alone)"


# LoRAs.


def lora(kind: str, weight: float = 1.0) -> Join:
    """A LoRA of the fixtures in the prompt."""
    return lambda webui, job: job.saying(f"<lora:{lora_title(webui, kind)}:{weight:g}>")


def lora_title(webui: WebUI, kind: str) -> str:
    """What a LoRA of the fixtures is called for the loaded checkpoint."""
    return lora_name(kind, webui.fit().base, narrow=webui.fit().narrow)


def loras(*kinds: str) -> Need:
    """The WebUI lists these LoRAs of the fixtures."""

    def need(webui: WebUI) -> str:
        try:
            webui.client.post("/sdapi/v1/refresh-loras", {})  # the fixtures may have been written since it was started
            listed = {item["name"] for item in webui.client.get("/sdapi/v1/loras")}
        except Refused:
            return "the WebUI's own Lora extension is switched off"
        missing = next((name for kind in kinds if (name := lora_title(webui, kind)) not in listed), "")
        return f"this WebUI lists no LoRA {missing}; write the fixtures" if missing else ""

    return need


# The rest.


def tiled(method: str) -> Join:
    """Tiles of 16 x 16 of the latent picture, the least, overlapping by 4, four in each call of the UNet."""
    return lambda webui, job: job.beside("tiled diffusion", True, method, False, True, 1024, 1024, 16, 16, 4, 4)


def prompt(words: str) -> Join:
    return lambda webui, job: job.saying(words)


def settings(**values: Any) -> Join:
    return lambda webui, job: job.under(**values)


def attention_choices(webui: WebUI) -> list[str]:
    """What the setting of the attention optimisation may be on this machine; only the page's own description tells.

    Raises Failed where it does not.
    """
    for component in webui.client.get("/config")["components"]:
        if component["props"].get("elem_id") == "setting_cross_attention_optimization":
            return [choice if isinstance(choice, str) else choice[0] for choice in component["props"]["choices"]]
    raise Failed("the WebUI does not say which attention optimisations it has")


def hypertile(webui: WebUI, job: Job) -> Job:
    """Self-attention in tiles of 128 pixels. Swap size 1 is one way to cut: otherwise the seed of a batch chooses."""
    webui.settings.assume(  # as modules/options.py has them where they were never saved
        hypertile_enable_unet=False,
        hypertile_max_tile_unet=256,
        hypertile_swap_size_unet=3,
        hypertile_max_depth_unet=3,
    )
    return job.under(
        hypertile_enable_unet=True, hypertile_max_tile_unet=128, hypertile_swap_size_unet=1, hypertile_max_depth_unet=3
    )


_AFTER_REFERENCE = (
    "a reference_* unit of ControlNet leaves functions on the UNet that make the WebUI's token merging ineffective "
    "until it is started again; start it again and run these cases first"
)
WITH_CONTROLNET = script(CONTROLNET)
TOKEN_MERGING = Peer(
    "token merging", settings(token_merging_ratio=0.5), (setting("token_merging_ratio"),), silent=_AFTER_REFERENCE
)
HYPERTILE = Peer("Hypertile", hypertile, (script("hypertile"),), larger=2)
PERPENDICULAR = Peer("AND_PERP", prompt("AND_PERP a red car in the snow :0.8"), (script("neutral prompt"),))
SALIENT = Peer("AND_SALT", prompt("AND_SALT a city at night :1.2"), (script("neutral prompt"),))
TILED = tuple(
    Peer(f"Tiled Diffusion, {method}", tiled(method), (script("tiled diffusion"),), larger=2)
    for method in ("MultiDiffusion", "Mixture of Diffusers")
)
# Noise is laid over the picture as rows of one batch, whatever the seeds, so a picture alone is another one.
REFERENCES = tuple(
    Peer(f"ControlNet {module}", reference(module), (WITH_CONTROLNET,), alike=False)
    for module in ("reference_only", "reference_adain+attn")
)
CONTROL = Peer("ControlNet with a model", control, (WITH_CONTROLNET, control_model))
T2I = Peer("T2I adapter", t2i_adapter, (WITH_CONTROLNET, t2i_model))
STYLE = Peer("a LoRA in the prompt", lora("style"), (loras("style"),))
