"""A job as the WebUI takes it: the fields of the request, the settings it overrides, the scripts beside FaceID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .client import encode_picture
from .photos import landscape, spot

SCRIPT = "FaceID"


@dataclass(frozen=True)
class Job:
    """``mode``: "txt2img" or "img2img". ``scripts``: always-on scripts of other extensions, and their arguments."""

    fields: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    mode: str = "txt2img"
    scripts: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])

    def but(self, mode: str = "", **fields: Any) -> Job:
        """The same job with other fields."""
        return replace(self, fields={**self.fields, **fields}, mode=mode or self.mode)

    def under(self, **settings: Any) -> Job:
        """The same job with settings of its own."""
        return replace(self, settings={**self.settings, **settings})

    def alone(self, number: int = 0) -> Job:
        """The job of one picture of the batch; picture k of a batch has the seed of the first plus k."""
        return self.but(batch_size=1, n_iter=1, seed=self.fields["seed"] + number)

    def through(self, script: str, *args: Any) -> Job:
        """The same job through a script of the WebUI."""
        return self.but(script_name=script, script_args=list(args))

    def beside(self, script: str, *args: Any) -> Job:
        """The same job with an always-on script at work; what it has been given already comes first."""
        return replace(self, scripts={**self.scripts, script: (*self.scripts.get(script, ()), *args)})

    def saying(self, words: str) -> Job:
        """The same job with more words at the end of its prompt."""
        return self.but(prompt=f"{self.fields['prompt']} {words}")

    def body(self, units: tuple[Any, ...]) -> dict[str, Any]:
        """The request. Without units FaceID is not named at all."""
        asked = {**self.scripts, **({SCRIPT: units} if units else {})}
        scripts = {name: {"args": list(args)} for name, args in asked.items()}
        restored = {"override_settings": dict(self.settings), "override_settings_restore_afterwards": True}
        return {**self.fields, **restored, "alwayson_scripts": scripts}

    def hires(self) -> Job:
        """Two passes, the second at twice the size."""
        return self.but(
            enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.7, hr_second_pass_steps=4
        )

    def img2img(self) -> Job:
        """A landscape redrawn."""
        picture = encode_picture(landscape(self.fields["width"]))
        return self.but("img2img", init_images=[picture], denoising_strength=0.7)

    def inpaint(self, *, only_masked: bool) -> Job:
        """The middle of a landscape redrawn, at its own size or (only_masked) enlarged to the whole picture."""
        mask = encode_picture(spot(self.fields["width"]))
        return self.img2img().but(
            mask=mask, inpainting_fill=1, mask_blur=4, inpaint_full_res=only_masked, inpaint_full_res_padding=16
        )
