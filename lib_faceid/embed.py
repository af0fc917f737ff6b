"""``python -m lib_faceid embed PHOTO…``: the face in each photo, and the person they make for an adapter."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .engine.extract import ModelFolder, extract, find_faces
from .engine.features import RawFeatures
from .engine.prepare import make_identity
from .face.select import largest
from .face.similarity import cosine_matrix
from .face.types import Face
from .library.photos import read_photo
from .weights.adapter import load_adapter
from .weights.variants import VARIANTS

EXAMPLE = """example:
  python -m lib_faceid embed anna1.jpg anna2.jpg --adapter ip-adapter-faceid_sd15.bin --out anna.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos of one person; the largest face counts")
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
    """Find the faces, say how alike they are, and save the person if asked."""
    if args.out and not args.adapter:
        sys.stderr.write("--out needs --adapter: a person is made for the base of one adapter.\n")
        return 2
    models = ModelFolder.default(args.face_pack, args.clip_encoder)
    adapter = load_adapter(args.adapter, variant=args.variant) if args.adapter else None
    if adapter is None:
        found = find_faces([read_photo(path) for path in args.photos], models.pack("faceid"))
        faces, raw = [largest(item) for item in found], RawFeatures()
    else:
        extracted = extract(adapter, args.photos, models)
        faces, raw = list(extracted.faces), extracted.raw
    report = _describe(args.photos, faces)
    if adapter is not None:
        person = make_identity(adapter, **vars(raw), structure=args.structure, combine=args.combine)
        report["adapter"], report["tokens"] = adapter.title, len(person.tokens)
        if args.out:
            report["saved"] = str(person.save(Path(args.out)))
    sys.stdout.write((json.dumps(report) if args.json else _in_words(report)) + "\n")
    return 0


def _describe(files: list[str], faces: list[Face]) -> dict[str, Any]:
    if not faces:
        return {"photos": [{"file": file} for file in files]}
    vectors = np.stack([face.vector for face in faces])
    photos = [
        {"file": file, "box": face.box.round(1).tolist(), "score": round(face.score, 3)}
        for file, face in zip(files, faces, strict=True)
    ]
    return {
        "photos": photos,
        "similarity": cosine_matrix(vectors, vectors).round(3).tolist(),
        "vectors": vectors.tolist(),
    }


def _in_words(report: dict[str, Any]) -> str:
    lines = [_photo_in_words(report, i) for i in range(len(report["photos"]))]
    if "adapter" in report:
        lines.append(f"{report['tokens']} tokens of {report['adapter']}")
    if "saved" in report:
        lines.append(f"saved as {report['saved']}")
    return "\n".join(lines)


def _photo_in_words(report: dict[str, Any], i: int) -> str:
    photo = report["photos"][i]
    if "box" not in photo:
        return f"{photo['file']}: the whole picture"
    x0, y0, x1, y1 = photo["box"]
    return f"{photo['file']}: face of {x1 - x0:.0f}x{y1 - y0:.0f} px{_likeness(report['similarity'][i], i)}"


def _likeness(row: list[float], own: int) -> str:
    others = [value for i, value in enumerate(row) if i != own]
    return f", likeness to the others {sum(others) / len(others):.2f}" if others else ""
