"""The story in words for people and in JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .standins import ADAPTER_NAME
from .story import Drawn, Photo, Story

INTRODUCTION = """The whole path: photo, face, vector, CLIP features, tokens, UNet, picture, likeness.
The models are small stand-ins with random weights, so the pictures are coloured noise and prove only that the path
runs. For faces, use real weights.
"""


def in_words(story: Story, sheet: Path, keep: Path | None) -> str:
    """What was found, promise by promise, and where the sheet is."""
    lines = ["", *(f"{'yes' if check.holds else 'NO ':3}  {check.promise}" for check in story.checks), ""]
    lines += [_likeness_in_words(story), f"The sheet is {sheet}."]
    if keep is not None:
        lines += [f"The stand-in models and photos are in {keep}; try them (FACEID_MODELS={keep}):", _suggest(keep)]
    if not story.succeeded:
        lines.append("At least one promise was NOT kept: this installation does not work as it should.")
    return "\n".join(lines)


def as_json(story: Story, sheet: Path, seconds: Mapping[str, float]) -> str:
    """One line."""
    content = {
        "stand_ins": True,
        "succeeded": story.succeeded,
        "sheet": str(sheet),
        "checks": {check.name: check.holds for check in story.checks},
        "photos": [_photo(photo) for photo in story.photos],
        "pictures": [_picture(item) for item in story.pictures],
        "seconds": {sentence: round(value, 3) for sentence, value in seconds.items()},
    }
    return json.dumps(content)


def _likeness_in_words(story: Story) -> str:
    robin, evening, kim = story.photos
    found = sum(item.faces > 0 for item in story.pictures)
    pictures = (
        f"the finder took noise for a face in {found} of those shown, which means nothing"
        if found
        else "no face was found in the pictures, as is to be expected of noise"
    )
    return (
        f"Likeness of the photos to {robin.file.name}: {evening.likeness:.2f} for another photo of Robin, "
        f"{kim.likeness:.2f} for Kim.\nLikeness of the pictures: {pictures}."
    )


def _suggest(keep: Path) -> str:
    return (
        f"  python -m lib_faceid inspect {keep / ADAPTER_NAME}\n"
        f"  python -m lib_faceid embed {keep / 'robin.png'} --adapter {keep / ADAPTER_NAME} --out robin.safetensors\n"
        f"  python -m lib_faceid score {keep / 'robin.png'} {keep / 'kim.png'}"
    )


def _photo(photo: Photo) -> dict[str, Any]:
    box = [round(value, 1) for value in photo.box]
    return {"name": photo.name, "box": box, "likeness": round(photo.likeness, 4)}


def _picture(item: Drawn) -> dict[str, Any]:
    return {
        "prompt": item.prompt,
        "setting": item.setting,
        "layers": item.reached and dict(zip(("calls", "expected", "fewest"), item.reached, strict=True)),
        "difference": round(item.difference, 3),
        "faces": item.faces,
        "likeness": item.likeness,
        "frame_likeness_meaningless": round(item.frame, 4),
    }
