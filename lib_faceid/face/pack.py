"""Face packs: folders of .onnx files. The detector and the recogniser are known by their shapes, never by their names.

buffalo_l calls its detector det_10g.onnx and antelopev2 scrfd_10g_bnkps.onnx; people rename both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import BrokenWeights, WrongWeights
from .onnx_file import ModelShape, Port, read_model_shape

VECTOR_WIDTH = 512
DEFAULT_PACK = "buffalo_l"
"""The pack of every published FaceID example; its recogniser is the one the adapters were trained with."""
PACK_OF_FAMILY = {"kolors": "antelopev2", "instantid": "antelopev2", "pulid": "antelopev2"}
"""Families, by the beginning of a variant's key, that were trained with another recogniser."""

# Outputs of SCRFD with five points: scores, boxes and points for each of 3 or 5 strides.
DETECTOR_OUTPUTS = (9, 15)
_CROP = 112  # the side of the recogniser's input; larger ones are multiples of 16 (insightface model_zoo.py)
_CONTENTS = (
    "a detector with face points (such as det_10g.onnx) and a recogniser (such as w600k_r50.onnx), both from one pack"
)


@dataclass(frozen=True, slots=True)
class Pack:
    """The two files of a pack that are used.

    detector_side: the detector's input where it is fixed, else None. batched: its outputs have a batch dimension.
    crop: side of the recogniser's input in pixels.
    normalises: the recogniser's graph begins with its own subtraction and multiplication and takes pixels 0 to 255.
    """

    folder: Path
    detector: Path
    recogniser: Path
    detector_side: int | None
    batched: bool
    crop: int
    normalises: bool


def pack_for(variant_key: str, root: Path, choice: str = "auto") -> Path:
    """The folder of the pack an adapter wants, in ``root`` or ``root/models``, whether it exists or not.

    choice: "auto", or the folder name of a pack the user prefers, such as "auraface": nothing in an adapter file tells
    which recogniser it was trained with, so a pack other than its family's is only ever taken by name.
    """
    families = [pack for family, pack in PACK_OF_FAMILY.items() if variant_key.startswith(family)]
    name = choice if choice != "auto" else [*families, DEFAULT_PACK][0]
    if not name or name in (".", "..") or Path(name).name != name or "\\" in name:
        raise WrongWeights(f"A face pack is chosen by the name of its folder, such as {DEFAULT_PACK}; found {name!r}.")
    places = [root / name, root / "models" / name]
    return next((place for place in places if place.is_dir()), places[0])


def find_pack(folder: Path) -> Pack:
    """The detector and recogniser in ``folder``, or in its one subfolder: archives unpack to antelopev2/antelopev2.

    Raises WrongWeights, naming the folder and what to put there, or BrokenWeights, naming the damaged file. A damaged
    file that is not needed is passed over. Of several fitting files the first by name counts, as in insightface.
    """
    place = _place_of_models(folder.absolute())
    shapes: dict[Path, ModelShape] = {}
    broken: list[BrokenWeights] = []
    for path in _onnx_files(place):
        try:
            shapes[path] = read_model_shape(path)
        except BrokenWeights as error:
            broken.append(error)
    detectors = [path for path, shape in shapes.items() if is_detector(shape)]
    recognisers = [path for path, shape in shapes.items() if is_recogniser(shape)]
    if not (detectors and recognisers):
        raise broken[0] if broken else _incomplete(place, bool(detectors), list(shapes))
    detector, recogniser = detectors[0], recognisers[0]
    return Pack(
        folder=place,
        detector=detector,
        recogniser=recogniser,
        detector_side=shapes[detector].inputs[0].dims[2],
        batched=len(shapes[detector].outputs[0].dims) == 3,
        crop=shapes[recogniser].inputs[0].dims[2] or _CROP,
        normalises=_normalises(shapes[recogniser]),
    )


def is_detector(shape: ModelShape) -> bool:
    """SCRFD or RetinaFace with points: one picture in, 9 or 15 maps out. Without points nothing can be aligned."""
    side = _square(shape)
    return side is not None and (side == 0 or side % 32 == 0) and len(shape.outputs) in DETECTOR_OUTPUTS


def is_recogniser(shape: ModelShape) -> bool:
    """ArcFace: a square of 112 or more pixels in, 512 numbers out. Landmark models also take squares, of 192 px."""
    side = _square(shape)
    if not side or side < _CROP or side % 16 or len(shape.outputs) != 1:
        return False
    width = _last(shape.outputs[0])
    return width == VECTOR_WIDTH or (width is None and side == _CROP)


def _square(shape: ModelShape) -> int | None:
    """Side of the model's only input if it is (N, 3, side, side); 0 if it is free; None if it is no such picture."""
    if len(shape.inputs) != 1 or len(shape.inputs[0].dims) != 4:
        return None
    _, channels, height, width = shape.inputs[0].dims
    return (height or 0) if channels == 3 and height == width else None


def _last(port: Port) -> int | None:
    return port.dims[-1] if port.dims else None


def _normalises(shape: ModelShape) -> bool:
    """insightface's rule (arcface_onnx.py): among the first eight nodes one is named Sub or _minus, one Mul or _mul."""
    return all(
        any(name.startswith(names) for name in shape.first_nodes) for names in (("Sub", "_minus"), ("Mul", "_mul"))
    )


def _onnx_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".onnx" and path.is_file())


def _place_of_models(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise WrongWeights(f"The face pack folder {folder} {what}. Make this folder and put into it {_CONTENTS}.")
    if _onnx_files(folder):
        return folder
    nested = sorted(path for path in folder.iterdir() if path.is_dir() and _onnx_files(path))
    same = [path for path in nested if path.name == folder.name]
    if len(nested) == 1 or same:
        return (same or nested)[0]
    if nested:
        names = ", ".join(path.name for path in nested)
        raise WrongWeights(f"The folder {folder} holds several face packs ({names}); choose one of them.")
    raise WrongWeights(f"The face pack folder {folder} has no .onnx file. Put into it {_CONTENTS}.")


def _incomplete(folder: Path, has_detector: bool, files: list[Path]) -> WrongWeights:
    missing = "recogniser (112 px in, 512 numbers out)" if has_detector else "face detector with five points"
    names = ", ".join(path.name for path in files)
    return WrongWeights(f"The face pack {folder} has no {missing}; found only {names}. Put into it {_CONTENTS}.")
