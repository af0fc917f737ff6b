"""What a weight file is when it is not one of our adapters: a table of tensor names, from the special to the general.

Names come from the files' own loaders: kohya sd-scripts, PEFT and diffusers (LoRAs), CompVis latent-diffusion and
diffusers (UNets, VAEs, ControlNets), TencentARC/T2I-Adapter, guoyww/AnimateDiff, transformers and open_clip (encoders),
XLabs-AI and InstantX (other IP-Adapters; diffusers loaders/ip_adapter.py:741, loaders/transformer_sd3.py:66),
AUTOMATIC1111 (hypernetworks, embeddings).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FileKind:
    """A kind of file: each pattern of ``marks`` is found in some tensor name and, if given, ``only`` in all of them."""

    noun: str
    advice: str
    marks: tuple[str, ...]
    only: str = ""


_INSIDE = "the inside of an IP-Adapter file: its {} part alone"
_PICK = "Choose an IP-Adapter file, for example ip-adapter-faceid-plusv2_sd15.bin."
_AS_LORA = "A LoRA goes into the WebUI's Lora folder and into the prompt; here choose the IP-Adapter file."
_AS_CONTROL = "Use it in ControlNet; here choose an IP-Adapter file."
_AS_MOTION = "Use it in AnimateDiff; here choose an IP-Adapter file."
_AS_MODEL = "Choose it as the model to generate with; here choose an IP-Adapter file."
_AS_VISION = "It reads photos for FaceID Plus, so keep it beside the adapters; here choose the IP-Adapter file."
_AS_EMBEDDING = "Use it by its name in the prompt; here choose an IP-Adapter file."
_OTHER_BASE = "FaceID runs on SD1.5 and SDXL; choose an IP-Adapter made for one of these."
_WHOLE = "Choose the file it was taken from, or save it again as image_proj and ip_adapter together."

# Adapters of other bases: some of them share our two prefixes, so they are looked for first.
FOREIGN_ADAPTERS: tuple[FileKind, ...] = (
    FileKind("an IP-Adapter for FLUX (XLabs)", _OTHER_BASE, (r"double_blocks\.\d+\.processor\.ip_adapter",)),
    FileKind("an IP-Adapter for FLUX (XLabs)", _OTHER_BASE, (r"^ip_adapter_proj_model\.",)),
    FileKind(
        "an IP-Adapter for Stable Diffusion 3",
        _OTHER_BASE,
        (r"^image_proj\.", r"^image_proj\.time_embedding\.|^ip_adapter\.\d+\.norm_ip\."),
    ),
    # 19 + 38 blocks, numbered one after the other; ours are odd numbers up to 31 or 139.
    FileKind(
        "an IP-Adapter for FLUX (InstantX)",
        _OTHER_BASE,
        (r"^image_proj\.", r"^ip_adapter\.0\.to_k_ip\.weight$", r"^ip_adapter\.56\.to_k_ip\.weight$"),
    ),
    FileKind("a PhotoMaker file", _PICK, (r"^id_encoder\.",)),
)

OTHER_FILES: tuple[FileKind, ...] = (
    FileKind(
        "a saved person",
        "Choose it where people are chosen, or load it with load_identity; here choose the adapter.",
        (r"^((sd15|sdxl)\.)?main\.cond$", r"^((sd15|sdxl)\.)?main\.0\.k$"),
    ),
    FileKind(_INSIDE.format("ip_adapter"), _WHOLE, (r"^\d+\.(to_[kv]_ip|id_to_[kv])\.weight$",)),
    FileKind(_INSIDE.format("image_proj"), _WHOLE, (r"^perceiver_resampler\.",)),
    FileKind(_INSIDE.format("image_proj"), _WHOLE, (r"^latents$", r"^proj_in\.weight$")),
    FileKind(_INSIDE.format("image_proj"), _WHOLE, (r"^proj\.([02]\.)?weight$", r"^(norm|proj\.3)\.weight$")),
    # companion LoRAs hold exactly q, k, v, out of both attentions and, unlike what kohya's trainer writes, no alpha
    FileKind(
        "a LoRA of the kind that accompanies a FaceID adapter",
        "Keep it in the WebUI's Lora folder and choose the ip-adapter-faceid .bin it came with.",
        (r"_attn1_to_q\.lora_down", r"_attn2_to_k\.lora_down", r"_attn2_to_v\.lora_up", r"_attn1_to_out_0\.lora_up"),
        only=r"^lora_unet_\w+_attn[12]_to_(q|k|v|out_0)\.lora_(down|up)\.weight$",
    ),
    FileKind("a LoRA (kohya)", _AS_LORA, (r"\.lora_(down|up)\.weight$",)),
    FileKind("a LoRA (LyCORIS)", _AS_LORA, (r"\.(hada_w1_a|hada_w1_b|lokr_w[12](_a|_b)?|oft_blocks|on_input)$",)),
    FileKind("a LoRA (PEFT)", _AS_LORA, (r"\.lora_[AB]\.",)),
    FileKind("a LoRA (diffusers)", _AS_LORA, (r"(\.lora\.|_lora\.)(down|up)\.weight$",)),
    FileKind("a ControlNet", _AS_CONTROL, (r"^(control_model\.)?(zero_convs\.\d|input_hint_block\.\d)",)),
    FileKind("a ControlNet (control-lora)", _AS_CONTROL, (r"^lora_controlnet$",)),
    FileKind("a ControlNet (diffusers)", _AS_CONTROL, (r"^controlnet_(down_blocks|mid_block|cond_embedding)\b",)),
    FileKind("a T2I-Adapter", _AS_CONTROL, (r"^(adapter\.)?body\.\d+\.(resnets\.\d+\.)?(block1|in_conv)\.",)),
    FileKind("an AnimateDiff motion module", _AS_MOTION, (r"motion_modules?\.\d",)),
    FileKind("a Stable Diffusion checkpoint", _AS_MODEL, (r"^model\.diffusion_model\.",)),
    FileKind("a FLUX model", _PICK, (r"double_blocks\.\d+\.img_attn",)),
    FileKind("a Stable Diffusion 3 model", _PICK, (r"joint_blocks\.\d+\.",)),
    FileKind("a UNet", _AS_MODEL, (r"^(diffusion_model\.)?input_blocks\.\d+\.", r"output_blocks\.\d+\.")),
    FileKind("a UNet (diffusers)", _AS_MODEL, (r"^(unet\.)?down_blocks\.\d+\.", r"^(unet\.)?up_blocks\.\d+\.")),
    FileKind(
        "a VAE",
        "Choose it as the VAE in the WebUI's settings; here choose an IP-Adapter file.",
        (r"^(first_stage_model\.|vae\.)?decoder\.(up|up_blocks|mid|mid_block|conv_in)\b",),
    ),
    FileKind("a CLIP vision encoder", _AS_VISION, (r"^(image_encoder\.)?vision_model\.",)),
    FileKind("a CLIP vision encoder (open_clip)", _AS_VISION, (r"^visual\.",)),
    FileKind(
        "a text encoder",
        _PICK,
        (r"^(\w+\.)*(text_model|cond_stage_model|token_embedding)\.|^encoder\.block\.\d+\.layer\.\d+\.SelfAttention",),
    ),
    FileKind(
        "an embedding (textual inversion)", _AS_EMBEDDING, (r"^(string_to_param\b|(emb_params|clip_[lg]|<.+>)$)",)
    ),
    FileKind("a saved face or image embedding", _PICK, (r"embed",), only=r"^(\w*_)?embed(s|ding|dings)?$"),
    FileKind(
        "a face restoration or upscaling model",
        _PICK,
        (r"^params(_ema)?\.|stylegan_decoder\.|residual_group\.|RRDB_trunk\.|\.[Rr][Dd][Bb]1\.conv1\.",),
    ),
    FileKind(
        "a hypernetwork",
        "Use it as <hypernet:name:1> in the prompt; here choose an IP-Adapter file.",
        (r"^(320|640|768|1024|1280)\.\d+\.linear",),
    ),
)


def find_kind(names: Sequence[str], kinds: Sequence[FileKind]) -> FileKind | None:
    """The first kind whose patterns fit the tensor names, or None."""
    return next((kind for kind in kinds if _fits(kind, names)), None)


def _fits(kind: FileKind, names: Sequence[str]) -> bool:
    marked = all(any(re.search(mark, name) for name in names) for mark in kind.marks)
    return marked and (not kind.only or all(re.search(kind.only, name) for name in names))
