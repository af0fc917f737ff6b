"""``--face`` on the command line: which face of a photo is meant, in words."""

from __future__ import annotations

from collections.abc import Sequence

from .engine.face_choices import read_choice
from .errors import BadRequest
from .face.choice import LARGEST, FaceChoice

FACE_WORDS = "largest, leftmost, a number from 1 (largest first), or box:x0,y0,x1,y1 in pixels (for a drawn face)"


def read_face(text: str) -> FaceChoice:
    """Raises BadRequest for words that name no face."""
    words = text.strip()
    choice = read_choice(f"box:{words[4:]}" if words.startswith("box ") else words)
    if choice is None:
        raise BadRequest(f"Which face is meant is said as {FACE_WORDS}; found {text!r}.")
    return choice


def read_faces(texts: Sequence[str], photos: int) -> list[FaceChoice]:
    """One choice for each photo, from none, one for all, or one for each. Raises BadRequest."""
    choices = [read_face(text) for text in texts] or [LARGEST]
    if len(choices) not in (1, photos):
        raise BadRequest(f"There are {photos} photos and --face {len(choices)} times. Give it once, or once for each.")
    return choices * photos if len(choices) == 1 else choices
