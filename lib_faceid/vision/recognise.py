"""Which CLIP image tower a weight file holds, from names and shapes; no tensor is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import WrongEncoder
from .encoder_config import read_details
from .layouts import LANDMARKS, POSITION_IDS, Landmarks, Shape, grid_side, stored_tensors
from .spec import EncoderSpec, Layout
from .weight_file import WeightFile

_MOST_NAMED = 3  # tensors, in a sentence
_LONGEST_NAME = 80  # of a tensor, in a sentence
_PICK = "Choose a CLIP vision encoder, for example CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors."
_GET = "Get the file again, or choose another."
# What is often chosen instead: (pattern of some tensor's name, what it is), from the special to the general.
_OTHERS = (
    (r"(^|\.)vision_model\.embeddings\.patch_embedding\.bias$", "a SigLIP vision encoder, not a CLIP one"),
    (r"^(image_proj|ip_adapter)\.", "an IP-Adapter, not the CLIP vision encoder that goes with it"),
    (r"(^|\.)vision_model\.", "a vision encoder without the tensors of CLIP's"),
    (r"(^|\.)visual\.", "a vision encoder without the tensors of CLIP's"),
    (r"(^|\.)(text_model|token_embedding|text_projection)\b", "a text encoder, without CLIP's vision part"),
)


def recognise_encoder(file: WeightFile, config: Mapping[str, object] | None = None) -> EncoderSpec:
    """Layout and sizes of the tower in a transformers, open_clip or OpenAI file; a text tower beside it is allowed.

    ``config``: the parsed ``config.json`` published with the file, where there is one. It decides what shapes do not
    tell; without it the published towers have their own heads and activation, others 64 channels a head. Raises
    WrongEncoder for another kind of file, and for missing, strange or ill-shaped tensors.
    """
    title = f"'{file.path.name}'"
    layout, prefix = _find_layout(title, file)
    sizes = _read_sizes(title, file, LANDMARKS[layout], prefix)
    details = read_details(title, sizes, config)
    spec = EncoderSpec(
        layout,
        hidden=sizes["hidden_size"],
        mlp=sizes["intermediate_size"],
        layers=sizes["num_hidden_layers"],
        heads=details.heads,
        patch=sizes["patch_size"],
        image=sizes["image_size"],
        projection=sizes["projection_dim"],
        act=details.act,
        eps=details.eps,
        prefix=prefix,
    )
    _ensure_whole(title, file, spec)
    return spec


def _find_layout(title: str, file: WeightFile) -> tuple[Layout, str]:
    """The layout, and what stands before its names (nothing, or a module's name and a dot)."""
    names = list(file.tensors)
    _refuse_others(title, names, _OTHERS[:1])
    for layout, marks in LANDMARKS.items():
        prefixes = [name.removesuffix(marks.patch) for name in names if name.endswith(marks.patch)]
        fitting = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        if fitting:
            return layout, min(fitting, key=len)
    _refuse_others(title, names, _OTHERS)
    raise WrongEncoder(f"{title} is not a CLIP vision encoder; it holds tensors such as {_name_some(names)}. {_PICK}")


def _refuse_others(title: str, names: Sequence[str], others: Sequence[tuple[str, str]]) -> None:
    for pattern, what in others:
        if any(re.search(pattern, name) for name in names):
            raise WrongEncoder(f"{title} is {what}. {_PICK}")


def _read_sizes(title: str, file: WeightFile, marks: Landmarks, prefix: str) -> dict[str, int]:
    """Sizes by the names that transformers' config gives them."""
    hidden, channels, patch, width = _shape(title, file, prefix + marks.patch, 4)
    positions, _ = _shape(title, file, prefix + marks.position, 2)
    side = grid_side(positions)
    if channels != 3 or patch != width or side is None:
        raise WrongEncoder(
            f"{title} is not a CLIP vision encoder for square RGB images: patches are {channels} x {patch} x {width} "
            f"and there are {positions} positions. {_PICK}"
        )
    return {
        "hidden_size": hidden,
        "intermediate_size": _shape(title, file, prefix + marks.mlp, 2)[0],
        "num_hidden_layers": _count_layers(file, prefix + marks.layer),
        "patch_size": patch,
        "image_size": side * patch,
        "projection_dim": _shape(title, file, prefix + marks.projection, 2)[marks.out_axis],
    }


def _shape(title: str, file: WeightFile, name: str, rank: int) -> Shape:
    """The shape of a tensor that gives a size. Raises WrongEncoder where it is missing, empty or of another rank."""
    info = file.tensors.get(name)
    if info is None:
        raise WrongEncoder(f"{title} lacks {name}, from which its sizes are read. {_GET}")
    if len(info.shape) != rank or min(info.shape) < 1:
        raise WrongEncoder(f"{title} has {name} of shape {_show(info.shape)}, expected {rank} sizes. {_GET}")
    return info.shape


def _count_layers(file: WeightFile, start: str) -> int:
    pattern = re.compile(re.escape(start) + r"(\d+)\.", re.ASCII)
    return len({match[1] for name in file.tensors if (match := pattern.match(name))})


def _ensure_whole(title: str, file: WeightFile, spec: EncoderSpec) -> None:
    """Raises WrongEncoder unless the tower's tensors are exactly the expected ones, of floating point."""
    expected = {stored.name: stored.shape for stored in stored_tensors(spec)}
    tower = spec.prefix + LANDMARKS[spec.layout].tower
    allowed = {*expected, spec.prefix + POSITION_IDS}
    found = {name: file.tensors[name] for name in expected if name in file.tensors}
    faults = {
        "missing": [name for name in expected if name not in found],
        "not of CLIP": [name for name in file.tensors if name.startswith(tower) and name not in allowed],
        "of the wrong shape": [
            f"{name} is {_show(info.shape)} instead of {_show(expected[name])}"
            for name, info in found.items()
            if info.shape != expected[name]
        ],
        "not floating point": [name for name, info in found.items() if not info.dtype.is_floating_point],
    }
    told = "; ".join(f"{len(names)} {what} ({_name_some(names)})" for what, names in faults.items() if names)
    if told:
        raise WrongEncoder(f"{title} looks like {spec.name}, but of its {len(expected)} tensors: {told}. {_GET}")


def _name_some(names: Sequence[str]) -> str:
    shown = ["".join(letter if letter.isprintable() else "?" for letter in name) for name in names[:_MOST_NAMED]]
    short = [name if len(name) <= _LONGEST_NAME or " " in name else f"{name[:_LONGEST_NAME]}…" for name in shown]
    more = len(names) - _MOST_NAMED
    return ", ".join(short) + (f" and {more} more" if more > 0 else "")


def _show(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"
