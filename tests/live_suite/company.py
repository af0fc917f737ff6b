"""A stand-in WebUI with other extensions: each that is asked for makes a picture a little brighter, as a face does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..live.client import Picture
from ..live.compare import Failed
from ..live.fixtures import controlnet_name, lora_name
from ..live.job import SCRIPT
from ..live.stand_in import Answer, StandIn

LORA_STEPS = {lora_name("style", "sd15", narrow=False): 8, lora_name("companion", "sd15", narrow=False): 9}
_FACE = 20  # grey levels at weight 1
_MODELS = {"control_canny_sd15 [1234]": 6, "t2iadapter_sd15 [5678]": 7}
_MODULES = {"reference_only": 4, "reference_adain+attn": 5}
_CHOICES = ["Automatic", "sdp - scaled dot product", "None"]
_USUAL = {"cross_attention_optimization": "Automatic", "token_merging_ratio": 0.0}


class Company(StandIn):
    """More ``faults``: "company is deaf", "company stays", "others lost", "tired face", "rows mixed", "merging silent",
    "control silent", "added twice", "added silently", "theirs differ", "lora lost", "tired plain", "lazy alone",
    "told wrongly".
    """

    def __init__(self) -> None:
        super().__init__()
        self.scripts += ["tiled diffusion", "controlnet", "neutral prompt", "soft inpainting", "hypertile"]
        self.settings |= _USUAL
        self.models = [*_MODELS, f"{controlnet_name(narrow=False).partition('.')[0]} [9abc]"]
        self.loras = [*LORA_STEPS]
        self._body: Mapping[str, Any] = {}
        self._tired = False

    def get(self, path: str) -> Answer:
        props = {"elem_id": "setting_cross_attention_optimization", "choices": _CHOICES}
        lists: dict[str, Any] = {
            "/controlnet/model_list": {"model_list": self.models},
            "/sdapi/v1/loras": [{"name": name} for name in self.loras],
            "/config": {"components": [{"props": {}}, {"props": props}]},
        }
        return (200, lists[path]) if path in lists else super().get(path)

    def _draw(self, body: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
        self._body = body
        answer = super()._draw(body, settings)
        if self._acting() and self._has_company(settings):
            self._tired = True
            self._left += "company stays" in self.faults
        return answer

    def _fields(self, acting: list[Any], problem: str) -> str:
        told = super()._fields(acting, problem)
        if not self._is_guarded() or "added silently" in self.faults:
            return told
        name = lora_name("style" if "told wrongly" in self.faults else "companion", "sd15", narrow=False)
        return f'{told}, {SCRIPT} note: "It is in the prompt already as {name}, strength 1; it is not added twice."'

    def _picture(self, body: Mapping[str, Any], settings: Mapping[str, Any], place: int, weight: float) -> Picture:
        bare = {**body, "prompt": re.sub(r" <lora:[^>]*>", "", body["prompt"])}
        others = sum(self._others(settings)) if not (weight and "others lost" in self.faults) else 0
        face = _FACE * weight + self._own_lora()
        if self._has_company(settings):
            face *= "company is deaf" not in self.faults
            face *= 0.5 if "rows mixed" in self.faults and body["batch_size"] == 1 else 1
        else:
            face *= "lazy alone" not in self.faults
            face *= 0.8 if self._tired and "tired face" in self.faults else 1
            others += self._tired and not weight and "tired plain" in self.faults
        noise = super()._picture(bare, settings, place, 0) // 4  # 15 to 45: nothing is cut off above
        return (noise + round(face + others)).astype(np.uint8)

    def _acting(self) -> list[Mapping[str, Any]]:
        units = self._body["alwayson_scripts"].get(SCRIPT, {}).get("args", [])
        return [unit for unit in units if unit.get("enabled", True) and unit.get("weight", 0.8)]

    def _own_lora(self) -> float:
        if self._is_guarded() and "added twice" not in self.faults:
            return 0
        return sum(9 * unit.get("lora", 0) for unit in self._acting())

    def _is_guarded(self) -> bool:
        return any(unit.get("lora") for unit in self._acting()) and "companion" in self._body["prompt"]

    def _has_company(self, settings: Mapping[str, Any]) -> bool:
        changed = any(settings.get(name, value) != value for name, value in _USUAL.items())
        return changed or any(self._others(settings)) or "AND_" in self._body["prompt"]

    def _others(self, settings: Mapping[str, Any]) -> Iterator[float]:
        """What each other extension adds, in grey levels."""
        scripts: Mapping[str, Any] = self._body["alwayson_scripts"]
        for unit in scripts.get("controlnet", {"args": []})["args"]:
            yield self._control(unit)
        yield from (3.0 for name in ("tiled diffusion", "soft inpainting") if name in scripts)
        yield 3.0 * (settings.get("token_merging_ratio", 0) > 0 and "merging silent" not in self.faults)
        yield 3.0 * bool(settings.get("hypertile_enable_unet"))
        for name, weight in re.findall(r"<lora:([^:]*):([^>]*)>", self._body["prompt"]):
            lost = "lora lost" in self.faults and "controlnet" in scripts
            yield 0 if lost else LORA_STEPS[name] * float(weight)

    def _control(self, unit: Mapping[str, Any]) -> float:
        if "control silent" in self.faults:
            return 0
        if "ipadapter_input" in unit:
            return (17 if "theirs differ" in self.faults else _FACE) * unit["weight"]
        known = _MODULES.get(unit["module"]) or _MODELS.get(unit["model"])
        if known is None:
            raise Failed(f"ControlNet knows no {unit}")
        return known
