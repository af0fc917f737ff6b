"""``python -m lib_faceid embed PHOTO…``: the face in each photo, and the person they make for an adapter."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .engine.extract import Extracted, ModelFolder, extract
from .engine.faces import find_faces
from .engine.features import RawFeatures
from .engine.prepare import make_identity
from .errors import BadRequest
from .face.choice import FaceChoice
from .face.similarity import cosine_matrix
from .face_argument import FACE_WORDS, read_faces
from .face_crops import write_crops
from .library.photos import read_photo
from .weights.adapter import Adapter, load_adapter
from .weights.variants import VARIANTS

EXAMPLE = """examples:
  python -m lib_faceid embed anna1.jpg anna2.jpg --adapter ip-adapter-faceid_sd15.bin --out anna.safetensors
  python -m lib_faceid embed party.jpg --crops faces
  python -m lib_faceid embed party.jpg anna2.jpg --face 3 --face largest --weights 1,0.5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos of one person")
    parser.add_argument(
        "--face", action="append", default=[], help=f"which face: {FACE_WORDS}; once for all photos, or once for each"
    )
    parser.add_argument("--weights", help="how much each photo counts, such as 1,0.5,2 (default: all the same)")
    parser.add_argument("--crops", metavar="FOLDER", help="write every face that is found there, aligned and numbered")
    parser.add_argument("--adapter", help="adapter file to make the person for; needed for --out")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="for a renamed adapter file")
    parser.add_argument("--out", help="where to save the person, a new .safetensors file")
    parser.add_argument("--structure", type=float, default=1.0, help="FaceID Plus v2: likeness of pose and light (1)")
    parser.add_argument("--combine", choices=["mean", "concat"], help="several photos: as the adapter was trained")
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, the face vectors included")


def add_model_arguments(parser: Any) -> None:
    """Where the models that read photos are."""
    parser.add_argument("--face-pack", help="folder of the face pack (default: models/insightface/buffalo_l)")
    parser.add_argument("--clip-encoder", help="CLIP vision file (default: the one that fits in models/clip_vision)")


def run(args: argparse.Namespace) -> int:
    """Find the faces, say how they were found and how alike they are, and save the person if asked."""
    if args.out and not args.adapter:
        sys.stderr.write("--out needs --adapter: a person is made for the base of one adapter.\n")
        return 2
    choices, weights = read_faces(args.face, len(args.photos)), _read_weights(args.weights, len(args.photos))
    models = ModelFolder.default(args.face_pack, args.clip_encoder)
    adapter = load_adapter(args.adapter, variant=args.variant) if args.adapter else None
    extracted = _extract(adapter, args.photos, choices, models)
    report = _describe(args.photos, extracted)
    if weights is not None:
        report["weights"] = weights
    if args.crops:
        report["crops"] = [str(path) for path in write_crops(Path(args.crops), args.photos, extracted.found)]
    if adapter is not None:
        raw = replace(extracted.raw, weights=weights)
        person = make_identity(adapter, **vars(raw), structure=args.structure, combine=args.combine)
        report["adapter"], report["tokens"] = adapter.title, len(person.tokens)
        if args.out:
            report["saved"] = str(person.save(Path(args.out)))
    sys.stdout.write((json.dumps(report) if args.json else _in_words(report)) + "\n")
    return 0


def _read_weights(text: str | None, photos: int) -> list[float] | None:
    """Raises BadRequest unless there is one number for each photo."""
    if text is None:
        return None
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadRequest(f"--weights are numbers with commas between them, such as 1,0.5; found {text!r}.") from None
    if len(weights) != photos:
        raise BadRequest(f"There are {photos} photos and {len(weights)} weights; give one for each photo.")
    return weights


def _extract(
    adapter: Adapter | None, photos: Sequence[str], choices: Sequence[FaceChoice], models: ModelFolder
) -> Extracted:
    if adapter is not None:
        return extract(adapter, photos, models, choices=choices)
    named = [read_photo(path) for path in photos]
    return Extracted(raw=RawFeatures(), **vars(find_faces(named, models.pack("faceid"), choices)))


def _describe(files: list[str], extracted: Extracted) -> dict[str, Any]:
    if not extracted.chosen:
        return {"photos": [{"file": file} for file in files]}
    vectors = np.stack([face.vector for face in extracted.chosen])
    return {
        "photos": [_describe_photo(file, extracted, i) for i, file in enumerate(files)],
        "similarity": cosine_matrix(vectors, vectors).round(3).tolist(),
        "vectors": vectors.tolist(),
    }


def _describe_photo(file: str, extracted: Extracted, i: int) -> dict[str, Any]:
    found, face = extracted.found[i], extracted.chosen[i]
    return {
        "file": file,
        "box": face.box.round(1).tolist(),
        "points": face.points.round(1).tolist(),
        "score": round(face.score, 3),
        "number": face.index,
        "faces": len(found.faces),
        "how": found.used.words,
        "likeness": None if extracted.likeness is None else round(float(extracted.likeness[i]), 3),
        "notes": [note.words for note in extracted.notes if note.photo == i + 1],
    }


def _in_words(report: dict[str, Any]) -> str:
    lines = [line for photo in report["photos"] for line in _photo_in_words(photo)]
    if "adapter" in report:
        lines.append(f"{report['tokens']} tokens of {report['adapter']}")
    if "saved" in report:
        lines.append(f"saved as {report['saved']}")
    return "\n".join([*lines, *report.get("crops", [])])


def _photo_in_words(photo: dict[str, Any]) -> list[str]:
    if "box" not in photo:
        return [f"{photo['file']}: the whole picture"]
    x0, y0, x1, y1 = photo["box"]
    likeness = "" if photo["likeness"] is None else f", likeness to the others {photo['likeness']:.2f}"
    first = f"{photo['file']}: face of {x1 - x0:.0f}x{y1 - y0:.0f} px, found {photo['how']}{likeness}"
    return [first, *(f"{photo['file']} {words}" for words in photo["notes"])]
