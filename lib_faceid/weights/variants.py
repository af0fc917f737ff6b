"""The adapters this package knows: what each one is fed, and by which file each one is known.

Nothing here looks at a file; ``detect.py`` decides which row a file belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..core.unet_map import Base

Family = Literal[
    "image-proj", "full-mlp", "id-mlp", "id-perceiver", "clip-resampler", "id-resampler", "pulid-v1", "pulid-v1.1"
]
"""The architectures of ``image_proj`` that tensors can tell apart."""


@dataclass(frozen=True)
class Variant:
    """What one kind of adapter is fed.

    ``vector``: the recogniser's 512 numbers divided by their length ("normed"), as they are ("raw"), or not used.
    ``clip``: the pooled CLIP vector, the penultimate hidden states, or nothing. ``shortcut``: ID tokens are added to
    the refined ones (FaceID Plus v2). ``several``: what it was trained with for several photos, which is their mean,
    their tokens side by side ("concat"), or all of them as rows of one resampler ("together").
    """

    key: str
    title: str
    family: Family
    vector: Literal["none", "normed", "raw"]
    clip: Literal["none", "pooled", "hidden"]
    shortcut: bool = False
    several: Literal["mean", "concat", "together"] = "mean"


@dataclass(frozen=True)
class UnsupportedFamily:
    """An adapter that is recognised and not run; ``reason`` ends the sentence "this is X, which ...".

    ``family`` is None where sizes alone give it away, so that it is never a question of choice.
    """

    key: str
    title: str
    family: Family | None
    reason: str


@dataclass(frozen=True)
class KnownFile:
    """A published file: its variant, its base and the name it was published under."""

    variant: str
    base: Base
    name: str


VARIANTS: Mapping[str, Variant] = {
    variant.key: variant
    for variant in (
        Variant("faceid", "FaceID", "id-mlp", "normed", "none"),
        Variant("faceid-plus", "FaceID Plus v1", "id-perceiver", "normed", "hidden"),
        Variant("faceid-plusv2", "FaceID Plus v2", "id-perceiver", "normed", "hidden", shortcut=True),
        Variant("portrait", "FaceID Portrait", "id-mlp", "normed", "none", several="concat"),
        Variant("portrait-unnorm", "FaceID Portrait (unnorm)", "id-resampler", "raw", "none", several="together"),
        Variant("base", "IP-Adapter", "image-proj", "none", "pooled"),
        Variant("plus", "IP-Adapter Plus", "clip-resampler", "none", "hidden"),
        Variant("plus-face", "IP-Adapter Plus Face", "clip-resampler", "none", "hidden"),
        Variant("composition", "IP-Adapter Composition", "clip-resampler", "none", "hidden"),
        Variant("full-face", "IP-Adapter Full Face", "full-mlp", "none", "hidden"),
    )
}

UNSUPPORTED: Mapping[str, UnsupportedFamily] = {
    family.key: family
    for family in (
        UnsupportedFamily(
            "instantid", "InstantID", "id-resampler", "needs a ControlNet of its own and the antelopev2 face pack"
        ),
        UnsupportedFamily(
            "pulid-v1", "PuLID v1", "pulid-v1", "needs the EVA02-CLIP encoder and an attention of its own"
        ),
        UnsupportedFamily(
            "pulid-v1.1", "PuLID v1.1", "pulid-v1.1", "needs the EVA02-CLIP encoder and an attention of its own"
        ),
        UnsupportedFamily("kolors-plus", "Kolors IP-Adapter Plus", None, "belongs to Kolors, not to SDXL"),
        UnsupportedFamily("kolors-faceid-plus", "Kolors FaceID Plus", None, "belongs to Kolors, not to SDXL"),
    )
}

# What a file name says, for the families in which tensors say too little. The first pattern found in the lower-case
# file name wins. Plus v1 carries no mark of its own: "plus" as a word, and no "v2" anywhere.
NAME_MARKS: Mapping[Family, tuple[tuple[re.Pattern[str], str], ...]] = {
    "id-perceiver": (
        (re.compile(r"plus[-_ ]?v2"), "faceid-plusv2"),
        (re.compile(r"^(?!.*v2).*(?<![a-z])(?:ip-?adapter)?(?:faceid)?plus(?:[-_ ]?v1)?(?![a-z0-9])"), "faceid-plus"),
    ),
    "clip-resampler": (
        (re.compile(r"plus[-_ ]?face"), "plus-face"),
        (re.compile(r"composition"), "composition"),
        (re.compile(r"plus"), "plus"),
    ),
    "id-resampler": (
        (re.compile(r"instant"), "instantid"),
        (re.compile(r"unnorm"), "portrait-unnorm"),
    ),
}

# SHA-256 of the published files, as listed by SwarmUI's ComfyUI workflow generator: a third party, not recomputed from
# the files. A digest only ever chooses between variants that the tensors leave open.
KNOWN_FILES: Mapping[str, KnownFile] = {
    "201344e22e6f55849cf07ca7a6e53d8c3b001327c66cb9710d69fd5da48a8da7":
        KnownFile("faceid", "sd15", "ip-adapter-faceid_sd15.bin"),
    "252fb53e0d018489d9e7f9b9e2001a52ff700e491894011ada7cfb471e0fadf2":
        KnownFile("faceid-plus", "sd15", "ip-adapter-faceid-plus_sd15.bin"),
    "26d0d86a1d60d6cc811d3b8862178b461e1eeb651e6fe2b72ba17aa95411e313":
        KnownFile("faceid-plusv2", "sd15", "ip-adapter-faceid-plusv2_sd15.bin"),
    "a48cb4f89ed18e02c6000f65aa9efec452e87eaed4a1bc9fcf4a460c8d0e3bc6":
        KnownFile("portrait", "sd15", "ip-adapter-faceid-portrait-v11_sd15.bin"),
    "f455fed24e207c878ec1e0466b34a969d37bab857c5faa4e8d259a0b4ff63d7e":
        KnownFile("faceid", "sdxl", "ip-adapter-faceid_sdxl.bin"),
    "c6945d82b543700cc3ccbb98d363b837e9c596281607857c74b713a876daf5fb":
        KnownFile("faceid-plusv2", "sdxl", "ip-adapter-faceid-plusv2_sdxl.bin"),
    "5631ce7824cdafd2db37c5e85b985730a95ff59c5b4fc80c2b79b0bee5711512":
        KnownFile("portrait", "sdxl", "ip-adapter-faceid-portrait_sdxl.bin"),
    "220bb86e205393a3d0411631cb473caddbf35fd371be2905ca9008818170db55":
        KnownFile("portrait-unnorm", "sdxl", "ip-adapter-faceid-portrait_sdxl_unnorm.bin"),
    "350b63a57847c163e2e984b01090f85ffe60eaae20f32b2b2c9e1ccc7ddd972b":
        KnownFile("base", "sd15", "ip-adapter_sd15_light_v11.bin"),
    "289b45f16d043d0bf542e45831f971dcdaabe18b656f11e86d9dfba7e9ee3369":
        KnownFile("base", "sd15", "ip-adapter_sd15.safetensors"),
    "a26f736af07bb341a83dfea23713531d0575760e8ed947c68cb31a4c62d9c90b":
        KnownFile("base", "sd15", "ip-adapter_sd15_vit-G.safetensors"),
    "a1c250be40455cc61a43da1201ec3f1edaea71214865fb47f57927e06cbe4996":
        KnownFile("plus", "sd15", "ip-adapter-plus_sd15.safetensors"),
    "1c9edc21af6f737dc1d6e0e734190e976cfacf802d6b024b77aa3be922f7569b":
        KnownFile("plus-face", "sd15", "ip-adapter-plus-face_sd15.safetensors"),
    "f4a17fb643bf876235a45a0e87a49da2855be6584b28ca04c62a97ab5ff1c6f3":
        KnownFile("full-face", "sd15", "ip-adapter-full-face_sd15.safetensors"),
    "ba1002529e783604c5f326d49f0122025392d1d20ac8d573b3eeb3e6dea4ebb6":
        KnownFile("base", "sdxl", "ip-adapter_sdxl.safetensors"),
    "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831":
        KnownFile("base", "sdxl", "ip-adapter_sdxl_vit-h.safetensors"),
    "3f5062b8400c94b7159665b21ba5c62acdcd7682262743d7f2aefedef00e6581":
        KnownFile("plus", "sdxl", "ip-adapter-plus_sdxl_vit-h.safetensors"),
    "677ad8860204f7d0bfba12d29e6c31ded9beefdf3e4bbd102518357d31a292c1":
        KnownFile("plus-face", "sdxl", "ip-adapter-plus-face_sdxl_vit-h.safetensors"),
}  # fmt: skip

# The LoRAs published beside FaceID adapters (same source): "X_lora.safetensors" belongs to "X.bin".
KNOWN_LORAS: Mapping[str, str] = {
    digest: f"{stem}_lora.safetensors"
    for digest, stem in (
        ("70699f0dbfadd47de1f81d263cf4c86bd4b7271d841304af9b340b3a7f38e86a", "ip-adapter-faceid_sd15"),
        ("3f00341d11e5e7b5aadf63cbdead09ef82eb28669156161cf1bfc2105d4ff1cd", "ip-adapter-faceid-plus_sd15"),
        ("8abff87a15a049f3e0186c2e82c1c8e77783baf2cfb63f34c412656052eb57b0", "ip-adapter-faceid-plusv2_sd15"),
        ("4fcf93d6e8dc8dd18f5f9e51c8306f369486ed0aa0780ade9961308aff7f0d64", "ip-adapter-faceid_sdxl"),
        ("f24b4bb2dad6638a09c00f151cde84991baf374409385bcbab53c1871a30cb7b", "ip-adapter-faceid-plusv2_sdxl"),
    )
}


def choices(family: Family) -> tuple[str, ...]:
    """Keys of all variants, run or not, whose tensors are of this family."""
    return tuple(row.key for row in (*VARIANTS.values(), *UNSUPPORTED.values()) if row.family == family)


def variant_title(key: str) -> str:
    """The name for people of a variant or of an unsupported family. Raises KeyError for a key that is neither."""
    return VARIANTS[key].title if key in VARIANTS else UNSUPPORTED[key].title


def known_adapter_of_lora(file_name: str) -> str | None:
    """The adapter file to which a companion LoRA belongs, by the LoRA's file name: ``ip-adapter-faceid_sd15.bin``."""
    stems = (name.removesuffix("_lora.safetensors") for name in KNOWN_LORAS.values())
    found = [stem for stem in stems if f"{stem}_lora" in file_name.lower().replace(" ", "_")]
    return f"{found[0]}.bin" if found else None
