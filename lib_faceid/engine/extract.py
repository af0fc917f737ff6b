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
from ..face.choice import FaceChoice
from ..face.pack import pack_for
from ..face.types import Face, Floats, Found
from ..library.photos import PhotoData, read_photo
from ..vision.clip import Encoder, Features
from ..vision.pixels import prepare
from ..vision.recognise import recognise_encoder
from ..weights.adapter import Adapter
from ..weights.read import TensorFile, open_tensors
from .faces import Faces, Readers, find_faces
from .features import RawFeatures, input_widths
from .notes import Note

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

    ``labels`` are what sentences call the photos. The rest is as in ``Faces``.
    """

    found: tuple[Found, ...]
    raw: RawFeatures
    labels: tuple[str, ...] = ()
    chosen: tuple[Face, ...] = ()
    likeness: Floats | None = None
    notes: tuple[Note, ...] = ()

    @property
    def faces(self) -> tuple[Face, ...]:
        """The face taken from each photo."""
        return self.chosen


def extract(
    adapter: Adapter,
    images: Sequence[object],
    models: ModelFolder,
    *,
    choices: Sequence[FaceChoice] | None = None,
    readers: Readers | None = None,
) -> Extracted:
    """Features of the photos for an adapter.

    choices: which face of each photo is meant; without it the largest. An adapter that looks at the whole picture
    looks for none. readers: who has the face pack open; without it, it is opened for this and closed again, as CLIP
    always is. Raises BadPhoto, NoFaceFound, BadRequest, WrongWeights, WrongEncoder.
    """
    photos = [read_photo(image, number) for number, image in enumerate(images, start=1)]
    variant = adapter.recognised.variant
    faces = Faces()
    if variant.key not in _WHOLE_PICTURE:
        faces = find_faces(photos, models.pack(variant.key), choices, readers)
    vectors = np.stack([face.vector for face in faces.chosen]) if faces.chosen and variant.vector != "none" else None
    raw = RawFeatures(embeddings=vectors, weights=_weights(images))
    if variant.clip != "none":
        subjects = _Subjects([photo.pixels for photo in photos], list(faces.chosen) or None)
        seen, uncond = see(adapter, subjects, models, readers)
        pooled = variant.clip == "pooled"
        clip = {"clip_pooled": seen.pooled} if pooled else {"clip_hidden": seen.hidden, "clip_uncond": uncond.hidden}
        raw = replace(raw, **clip)
    return Extracted(raw=raw, labels=tuple(photo.label for photo in photos), **vars(faces))


def _weights(images: Sequence[object]) -> list[float] | None:
    """How much each photo counts, where a person said so; None where all count the same."""
    weights = [image.weight if isinstance(image, PhotoData) else 1.0 for image in images]
    return weights if any(weight != 1.0 for weight in weights) else None


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


def see(
    adapter: Adapter, subjects: _Subjects, models: ModelFolder, readers: Readers | None = None
) -> tuple[Features, Features]:
    """CLIP features of the subjects, and of zero pixel values; ``readers`` count them."""
    path = models.encoder(adapter)
    file: TensorFile = open_tensors(path)
    spec = recognise_encoder(file, _config_beside(path))
    if _width(spec, adapter) != input_widths(adapter.recognised.projection)[1]:
        raise WrongEncoder(
            f"{path.name} is {spec.name} with features {_width(spec, adapter)} wide; {adapter.title} needs "
            f"{input_widths(adapter.recognised.projection)[1]}. Choose the encoder the adapter was trained with."
        )
    if readers is not None:
        readers.count("weight_files")
        readers.count("encodings", 2)
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
