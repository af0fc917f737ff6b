"""The little that a ``config.json`` adds to the tensors: heads, activation, epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from ..errors import WrongEncoder
from .spec import Activation

# Channels per attention head where it is not 64: open_clip/model_configs/ViT-{H-14,g-14,bigG-14}.json, "head_width".
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
_USUAL_HEAD_WIDTH = 64
# ViT-B and ViT-L are known from OpenAI, who trained with x * sigmoid(1.702 x); all larger towers have the exact GELU.
# LAION's own ViT-B and ViT-L also have it and look the same, so those need their config.json.
_QUICK_GELU_WIDTHS = {768, 1024}
_EPS = 1e-5


@dataclass(frozen=True)
class Details:
    """What shapes do not tell."""

    heads: int
    act: Activation
    eps: float


def read_details(title: str, sizes: Mapping[str, int], config: Mapping[str, object] | None) -> Details:
    """Heads, activation and epsilon from a transformers config (of the tower or of a whole CLIP), else by the width.

    ``sizes`` are those of the tensors, by the config's names. A mapping that describes no image tower is passed over.
    Raises WrongEncoder when the config contradicts the tensors, or asks for what CLIP does not have.
    """
    given = _vision_part(config or {})
    _ensure_same(title, sizes, given)
    hidden = sizes["hidden_size"]
    heads = given.get("num_attention_heads", _usual_heads(hidden))
    if not isinstance(heads, int) or heads < 1 or hidden % heads:
        raise WrongEncoder(
            f"{title} is {hidden} wide, and the number of its attention heads cannot be told from its tensors. "
            "Put the config.json that was published with it beside it."
        )
    return Details(heads, _read_act(title, hidden, given), _read_eps(title, given))


def _vision_part(config: Mapping[str, object]) -> Mapping[str, object]:
    nested = config.get("vision_config")
    if isinstance(nested, Mapping):  # a whole CLIP; its own projection_dim counts, old files repeat a wrong one inside
        given = {**cast("Mapping[str, object]", nested), "projection_dim": config.get("projection_dim")}
    else:
        given = config
    return given if "hidden_size" in given else {}


def _ensure_same(title: str, sizes: Mapping[str, int], given: Mapping[str, object]) -> None:
    for name, found in sizes.items():
        said = given.get(name)
        if said is not None and said != found:
            raise WrongEncoder(
                f"The config.json used for {title} says {name} {said}, and the tensors say {found}: "
                "it belongs to another encoder. Replace or remove it."
            )


def _usual_heads(hidden: int) -> int | None:
    width = _HEAD_WIDTHS.get(hidden, _USUAL_HEAD_WIDTH)
    return hidden // width if hidden % width == 0 else None


def _read_act(title: str, hidden: int, given: Mapping[str, object]) -> Activation:
    if not given:
        return "quick_gelu" if hidden in _QUICK_GELU_WIDTHS else "gelu"
    act = given.get("hidden_act", "quick_gelu")  # transformers' default, which a config may leave out
    if act in ("gelu", "quick_gelu"):
        return cast(Activation, act)
    raise WrongEncoder(
        f"The config.json used for {title} asks for the activation '{act}'; CLIP has gelu or quick_gelu. "
        "Choose a CLIP vision encoder."
    )


def _read_eps(title: str, given: Mapping[str, object]) -> float:
    eps = given.get("layer_norm_eps", _EPS)
    if isinstance(eps, (int, float)) and 0 < eps < 1:
        return float(eps)
    raise WrongEncoder(f"The config.json used for {title} has the impossible layer_norm_eps {eps}. Get it again.")
