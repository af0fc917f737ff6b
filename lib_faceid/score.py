"""``python -m lib_faceid score A B``: how alike two faces are."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .engine.extract import ModelFolder
from .engine.faces import find_faces
from .errors import BadRequest
from .face.choice import LARGEST
from .face.similarity import cosine_matrix
from .face_argument import FACE_WORDS, read_face
from .library.person import load_person
from .library.photos import read_photo

EXAMPLE = """The likeness is the cosine of the two face vectors: 1 is the same photo, strangers are near 0.

example:
  python -m lib_faceid score anna.jpg picture.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("a", metavar="A", help="a photo, or a saved person (.safetensors)")
    parser.add_argument("b", metavar="B", help="another one")
    for side in ("a", "b"):
        parser.add_argument(f"--face-{side}", default="largest", help=f"which face of {side.upper()}: {FACE_WORDS}")
    parser.add_argument("--face-pack", help="folder of the face pack (default: models/insightface/buffalo_l)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Say the likeness."""
    pack = ModelFolder.default(args.face_pack, None).pack("faceid")
    sides = [_side(source, face, pack) for source, face in ((args.a, args.face_a), (args.b, args.face_b))]
    likeness = float(cosine_matrix(sides[0].vector, sides[1].vector)[0, 0])
    lines = [f"{likeness:.3f}  {args.a} and {args.b}", *(note for side in sides for note in side.notes)]
    report: dict[str, Any] = {"a": args.a, "b": args.b, "likeness": likeness}
    for name, side in zip(("a", "b"), sides, strict=True):
        report |= {f"face_{name}": side.number, f"notes_{name}": side.notes}
    sys.stdout.write((json.dumps(report) if args.json else "\n".join(lines)) + "\n")
    return 0


@dataclass(frozen=True, eq=False)
class _Side:
    """``vector`` (1, 512). ``number`` of the face in a photo, None for a saved person."""

    vector: np.ndarray
    number: int | None
    notes: list[str]


def _side(source: str, face: str, pack: Path) -> _Side:
    """The face meant in a photo, or the mean of a saved person's photos. Raises FaceIDError."""
    if Path(source).suffix != ".safetensors":
        faces = find_faces([read_photo(source)], pack, [read_face(face)])
        taken = faces.chosen[0]
        return _Side(taken.vector[None], taken.index, [f"{source} {note.words}" for note in faces.notes])
    if read_face(face) != LARGEST:
        raise BadRequest(
            f"{source} is a saved person, who has no faces to choose from. Leave out --face-a or --face-b."
        )
    return _Side(load_person(source).vector[None], None, [])
