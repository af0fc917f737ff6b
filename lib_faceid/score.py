"""``python -m lib_faceid score A B``: how alike two faces are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from .engine.extract import ModelFolder, find_faces
from .errors import BadIdentity
from .face.select import largest
from .face.similarity import cosine_matrix
from .library.identity import load_identity
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
    parser.add_argument("--face-pack", help="folder of the face pack (default: models/insightface/buffalo_l)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Say the likeness."""
    pack = ModelFolder.default(args.face_pack, None).pack("faceid")
    likeness = float(cosine_matrix(_vector(args.a, pack), _vector(args.b, pack))[0, 0])
    words = f"{likeness:.3f}  {args.a} and {args.b}"
    sys.stdout.write((json.dumps({"a": args.a, "b": args.b, "likeness": likeness}) if args.json else words) + "\n")
    return 0


def _vector(source: str, pack: Path) -> np.ndarray:
    """(1, 512): of the largest face in a photo, or the mean of a saved person's photos."""
    if Path(source).suffix == ".safetensors":
        vectors = load_identity(source).vectors
        if vectors is None:
            raise BadIdentity(f"{source} was made with an adapter that uses no face vectors, so it cannot be compared.")
        return vectors.mean(dim=0, keepdim=True).numpy()
    return largest(find_faces([read_photo(source)], pack)[0]).vector[None]
