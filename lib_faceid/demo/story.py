"""What the demo does: two people from photos, pictures with and without them, and whether each promise was kept.

Every check compares pictures that were really drawn; nothing is taken for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..engine.prepare import make_identity
from ..errors import NoFaceFound
from ..face.pipeline import FaceFinder
from ..face.similarity import cosine
from ..face.types import Floats
from ..hosts.standalone import applied
from ..library.identity import Identity
from ..weights.adapter import load_adapter
from .standins import CONTEXT, StandIns, build_standins

Picture = NDArray[np.uint8]
Result = TypeVar("Result")
Step = Callable[[str, Callable[[], Result]], Result]

PROMPTS = ("prompt A", "prompt B")
SIDE = 128
STEPS = 5
_GUIDANCE = 5.0
_WORDS = 7
WITHOUT, OFF, ONCE, TWICE, AGAIN, OTHER, AFTER = (
    "without",
    "weight 0",
    "weight 1",
    "weight 2",
    "weight 1 again",
    "other person",
    "afterwards",
)
# name: (whose identity, weight); None draws without any FaceID. The order is the order of drawing.
SETTINGS: Mapping[str, tuple[str, float] | None] = {
    WITHOUT: None,
    OFF: ("Robin", 0.0),
    ONCE: ("Robin", 1.0),
    TWICE: ("Robin", 2.0),
    AGAIN: ("Robin", 1.0),
    OTHER: ("Kim", 1.0),
    AFTER: None,
}
SHOWN = (WITHOUT, ONCE, TWICE, OTHER)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo (H, W, 3) RGB, what the finder saw in it, and its likeness to the first photo."""

    name: str
    file: Path
    pixels: Picture
    box: tuple[float, ...]
    vector: Floats
    likeness: float


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture (SIDE, SIDE, 3) RGB, and how far from the one without FaceID: mean difference of 0..255 values.

    faces: found in it. likeness: of the largest face to Robin, else None. frame: of the whole picture taken for a
    face, which means nothing in noise.
    """

    prompt: str
    setting: str
    pixels: Picture
    reached: tuple[int, int, int | None] | None
    difference: float = 0.0
    faces: int = 0
    likeness: float | None = None
    frame: float = 0.0


@dataclass(frozen=True)
class Check:
    """One promise: its name for machines, its sentence for people, and whether the pictures kept it."""

    name: str
    promise: str
    holds: bool


@dataclass(frozen=True, eq=False)
class Story:
    """Everything that came out."""

    photos: tuple[Photo, ...]
    pictures: tuple[Drawn, ...]
    checks: tuple[Check, ...]

    def picture(self, prompt: str, setting: str) -> Drawn:
        return next(item for item in self.pictures if (item.prompt, item.setting) == (prompt, setting))

    @property
    def succeeded(self) -> bool:
        return all(check.holds for check in self.checks)


def tell(folder: Path, step: Step[Any]) -> Story:
    """Run all of it on stand-in models in ``folder``. ``step(sentence, work)`` does the work, timed, and announces."""
    models: StandIns = step("built the stand-in models (random weights, true layouts)", lambda: build_standins(folder))
    photos: tuple[Photo, ...] = step("drew three photos, found the faces, took their vectors", lambda: _take(models))
    adapter = step("read the adapter file", lambda: load_adapter(models.adapter))
    people: dict[str, Identity] = step(
        "looked at the faces with CLIP and made the tokens of two people",
        lambda: {
            name: make_identity(
                adapter, images=[photo.file], face_pack=models.face_pack, clip_encoder=models.clip_encoder
            )
            for name, photo in (("Robin", photos[0]), ("Kim", photos[2]))
        },
    )
    drawn: list[Drawn] = []
    for prompt in PROMPTS:
        for setting in SETTINGS:
            what = f"{prompt}: drew {setting if setting in (WITHOUT, AFTER) else 'with ' + setting}"
            drawn.append(step(what, lambda p=prompt, s=setting: _draw(models.pipe, people, p, s)))
    scored = step("searched the pictures for faces", lambda: _score(models, photos[0].vector, drawn))
    return Story(photos, tuple(scored), check_promises(scored))


def _take(models: StandIns) -> tuple[Photo, ...]:
    """Two photos of Robin and one of Kim, as files, with the face the finder sees in each."""
    from .faces import EVENING, GARDEN, KIM, ROBIN, SEASIDE, draw_photo

    photos: list[Photo] = []
    finder = FaceFinder.of_pack(models.face_pack)
    for name, person, occasion in (
        ("robin", ROBIN, GARDEN),
        ("robin-evening", ROBIN, EVENING),
        ("kim", KIM, SEASIDE),
    ):
        pixels = draw_photo(person, occasion)
        file = models.folder / f"{name}.png"
        Image.fromarray(pixels).save(file)
        face = finder.find(pixels, file.name).faces[0]
        likeness = cosine(face.vector, photos[0].vector if photos else face.vector)
        photos.append(Photo(name, file, pixels, tuple(map(float, face.box)), face.vector, likeness))
    finder.close()
    return tuple(photos)


def _draw(pipe: Any, people: Mapping[str, Identity], prompt: str, setting: str) -> Drawn:
    """One picture; the same prompt starts from the same noise in every setting."""
    chosen = SETTINGS[setting]
    if chosen is None:
        return Drawn(prompt, setting, _call(pipe, prompt), None)
    with applied(pipe, people[chosen[0]], weight=chosen[1]) as firing:
        pixels = _call(pipe, prompt)
    return Drawn(prompt, setting, pixels, (firing.calls, firing.expected, firing.fewest))


def _call(pipe: Any, prompt: str) -> Picture:
    generator = torch.Generator().manual_seed(1 + PROMPTS.index(prompt))
    words, empty = (torch.randn(1, _WORDS, CONTEXT, generator=generator) for _ in range(2))
    made = pipe(
        prompt_embeds=words,
        negative_prompt_embeds=empty,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=_GUIDANCE,
        generator=generator,
        output_type="np",
    )
    return np.round(made.images[0] * 255).astype(np.uint8)


def _score(models: StandIns, reference: Floats, drawn: list[Drawn]) -> list[Drawn]:
    finder = FaceFinder.of_pack(models.face_pack)
    bare = {item.prompt: item.pixels for item in drawn if item.setting == WITHOUT}
    seen = [_look(finder, reference, item, bare[item.prompt]) for item in drawn]
    finder.close()
    return seen


def _look(finder: FaceFinder, reference: Floats, item: Drawn, bare: Picture) -> Drawn:
    from .face_pack import FRACTIONS

    whole = finder.backend.embed(item.pixels, np.asarray(FRACTIONS * SIDE, np.float32))
    try:
        faces = finder.find(item.pixels).faces if item.setting in SHOWN else ()
    except NoFaceFound:
        faces = ()
    return Drawn(
        item.prompt,
        item.setting,
        item.pixels,
        item.reached,
        difference=float(np.abs(item.pixels.astype(float) - bare).mean()),
        faces=len(faces),
        likeness=cosine(faces[0].vector, reference) if faces else None,
        frame=cosine(whole, reference),
    )


def check_promises(drawn: list[Drawn]) -> tuple[Check, ...]:
    """Each promise, for every prompt."""

    def same(a: str, b: str) -> list[bool]:
        found = {(item.prompt, item.setting): item.pixels for item in drawn}
        return [np.array_equal(found[prompt, a], found[prompt, b]) for prompt in PROMPTS]

    acting = [item.reached for item in drawn if item.reached and item.setting != OFF]
    return (
        Check("weight_zero_is_off", "Weight 0 is bit for bit the picture without FaceID.", all(same(WITHOUT, OFF))),
        Check("person_changes_picture", "A person at weight 1 changes the picture.", not any(same(WITHOUT, ONCE))),
        Check("weight_matters", "Weight 2 gives another picture than weight 1.", not any(same(ONCE, TWICE))),
        Check("people_differ", "Two people give different pictures.", not any(same(ONCE, OTHER))),
        Check("person_repeats", "The same person gives the same picture again, bit for bit.", all(same(ONCE, AGAIN))),
        Check("nothing_stays", "Afterwards the UNet draws as before, bit for bit.", all(same(WITHOUT, AFTER))),
        Check(
            "all_layers_reached",
            "All 16 layers were reached in every UNet call.",
            bool(acting) and all(calls > 0 and expected == fewest == 16 for calls, expected, fewest in acting),
        ),
    )
