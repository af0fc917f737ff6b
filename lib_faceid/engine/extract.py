"""From photos to what an adapter is fed: face vectors, and CLIP features of the aligned crop."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import FaceIDError, WrongEncoder
from ..face.align import norm_crop
from ..face.pack import pack_for
from ..face.pipeline import FaceFinder
from ..face.select import largest
from ..face.types import Face, Found
from ..library.photos import NamedPhoto, read_photo
from ..vision.clip import Encoder, Features
from ..vision.pixels import prepare
from ..vision.recognise import recognise_encoder
from ..weights.adapter import Adapter
from ..weights.read import TensorFile, open_tensors
from .features import RawFeatures, input_widths

MODELS_VARIABLE = "FACEID_MODELS"
_WHOLE_PICTURE = ("base", "plus", "composition")  # these look at the picture, not at the face in it


@dataclass(frozen=True)
class ModelFolder:
    """Where face packs and CLIP encoders lie: ``insightface`` and ``clip_vision`` inside ``root``.

    ``face_pack`` and ``clip_encoder`` name one directly, ``pack_name`` a folder in ``insightface`` ("auto": the one the
    variant was trained with). Nothing is ever downloaded.
    """

    root: Path
    face_pack: Path | None = None
    clip_encoder: Path | None = None
    pack_name: str = "auto"

    @classmethod
    def default(
        cls, face_pack: str | os.PathLike[str] | None, clip_encoder: str | os.PathLike[str] | None
    ) -> ModelFolder:
        """The folder in the variable FACEID_MODELS, otherwise ``models`` in the current folder."""
        root = Path(os.environ.get(MODELS_VARIABLE) or "models").absolute()
        return cls(root, Path(face_pack) if face_pack else None, Path(clip_encoder) if clip_encoder else None)

    def pack(self, variant: str) -> Path:
        """The folder of the face pack for a variant, whether it exists or not."""
        return self.face_pack or pack_for(variant, self.root / "insightface", self.pack_name)

    def encoder(self, adapter: Adapter) -> Path:
        """The encoder file whose features are as wide as the adapter wants. Raises WrongEncoder when there is none."""
        if self.clip_encoder is not None:
            return self.clip_encoder
        folder = self.root / "clip_vision"
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".pth"))
        for path in files:
            try:
                spec = recognise_encoder(open_tensors(path), _config_beside(path))
            except FaceIDError:
                continue
            if _width(spec, adapter) == input_widths(adapter.recognised.projection)[1]:
                return path
        raise WrongEncoder(
            f"{adapter.title} needs a CLIP vision encoder with features "
            f"{input_widths(adapter.recognised.projection)[1]} wide, and {folder} has none. Put it there, for example "
            "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors, or pass clip_encoder=."
        )


@dataclass(frozen=True, eq=False)
class Extracted:
    """What was found in each photo (nothing for adapters that look at the whole picture), and what the adapter is fed.

    ``labels`` are what sentences call the photos.
    """

    found: tuple[Found, ...]
    raw: RawFeatures
    labels: tuple[str, ...] = ()

    @property
    def faces(self) -> tuple[Face, ...]:
        """The face taken from each photo."""
        return tuple(largest(found) for found in self.found)


def extract(adapter: Adapter, images: Sequence[object], models: ModelFolder) -> Extracted:
    """Features of the photos for an adapter. The models are opened for this and closed again.

    The largest face of each photo is taken. Raises BadPhoto, NoFaceFound, WrongWeights, WrongEncoder.
    """
    photos = [read_photo(image, number) for number, image in enumerate(images, start=1)]
    variant = adapter.recognised.variant
    found = None if variant.key in _WHOLE_PICTURE else find_faces(photos, models.pack(variant.key))
    faces = None if found is None else [largest(item) for item in found]
    vectors = np.stack([face.vector for face in faces]) if faces and variant.vector != "none" else None
    raw = RawFeatures(embeddings=vectors)
    if variant.clip != "none":
        seen, uncond = see(adapter, _Subjects([photo.pixels for photo in photos], faces), models)
        pooled = variant.clip == "pooled"
        clip = {"clip_pooled": seen.pooled} if pooled else {"clip_hidden": seen.hidden, "clip_uncond": uncond.hidden}
        raw = replace(raw, **clip)
    return Extracted(tuple(found or ()), raw, tuple(photo.label for photo in photos))


def find_faces(photos: Sequence[NamedPhoto], pack: Path) -> list[Found]:
    """The faces of each photo. Raises NoFaceFound for the first photo without one."""
    finder = FaceFinder.of_pack(pack)
    try:
        return [finder.find(photo.pixels, photo.label) for photo in photos]
    finally:
        finder.close()


@dataclass(frozen=True, eq=False)
class _Subjects:
    """What CLIP looks at: the aligned face of each picture, or the whole picture."""

    pictures: list[NDArray[np.uint8]]
    faces: list[Face] | None

    def at(self, size: int) -> list[NDArray[np.uint8]]:
        if self.faces is None:
            return self.pictures
        pairs = zip(self.pictures, self.faces, strict=True)
        return [norm_crop(picture, face.points, size) for picture, face in pairs]


def see(adapter: Adapter, subjects: _Subjects, models: ModelFolder) -> tuple[Features, Features]:
    """CLIP features of the subjects, and of zero pixel values."""
    path = models.encoder(adapter)
    file: TensorFile = open_tensors(path)
    spec = recognise_encoder(file, _config_beside(path))
    if _width(spec, adapter) != input_widths(adapter.recognised.projection)[1]:
        raise WrongEncoder(
            f"{path.name} is {spec.name} with features {_width(spec, adapter)} wide; {adapter.title} needs "
            f"{input_widths(adapter.recognised.projection)[1]}. Choose the encoder the adapter was trained with."
        )
    with Encoder.load(file, spec, torch.device("cpu")) as encoder:
        pixels = prepare(subjects.at(spec.image), spec.image)
        return encoder.features(pixels), encoder.uncond()


def _width(spec: Any, adapter: Adapter) -> int:
    return int(spec.projection if adapter.recognised.variant.clip == "pooled" else spec.hidden)


def _config_beside(path: Path) -> Mapping[str, object] | None:
    """The parsed config.json in the encoder's folder, or None."""
    try:
        content: object = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("Mapping[str, object]", content) if isinstance(content, dict) else None
