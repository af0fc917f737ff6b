"""Two cartoon people and the photos of them, drawn here. The magenta frame is what the synthetic detector finds.

Everything is drawn three times as large and made smaller, which smooths the edges. Positions on a face are parts of
its frame, with eyes, nose and mouth where ArcFace's crop has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .face_pack import Box, draw_marker

SIDE = 480
"""Pixels of a photo. The detector sees it as 640 px, so that one of its cells of 8 px is 6 px here."""
_FINE = 3
_FRAME = 1 / 21  # of the face's frame: 12 px, two cells
_INK = (52, 40, 46)
Colour = tuple[int, int, int]
Hair = Literal["short", "long"]


@dataclass(frozen=True)
class Person:
    """What stays the same in every photo of somebody."""

    name: str
    skin: Colour
    hair: Colour
    eyes: Colour
    style: Hair
    glasses: bool = False


@dataclass(frozen=True)
class Occasion:
    """What changes from photo to photo: where the face is, the weather, the clothes, how broad the smile is (0..1)."""

    box: Box
    sky: Colour
    hills: Colour
    shirt: Colour
    smile: float


ROBIN = Person("Robin", (244, 202, 170), (196, 92, 40), (64, 128, 92), "short")
KIM = Person("Kim", (150, 100, 72), (38, 30, 40), (70, 44, 30), "long", glasses=True)
GARDEN = Occasion((114, 90, 366, 342), (168, 214, 240), (132, 184, 112), (52, 98, 150), 0.6)
EVENING = Occasion((84, 126, 324, 366), (250, 206, 160), (150, 116, 130), (206, 164, 60), 1.0)
SEASIDE = Occasion((126, 84, 378, 336), (198, 232, 224), (84, 160, 176), (214, 92, 84), 0.8)


def draw_photo(person: Person, occasion: Occasion) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3) RGB: the person on this occasion, the face in a magenta frame."""
    image = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), occasion.sky)
    canvas = _Canvas(ImageDraw.Draw(image), occasion.box)
    _draw_view(canvas, occasion)
    _draw_body(canvas, person, occasion)
    _draw_head(canvas, person)
    _draw_features(canvas, person, occasion.smile)
    photo = np.array(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    draw_marker(photo, occasion.box, score=0.9, edge=_FRAME)
    return photo


class _Canvas:
    """Draws at positions in parts of the face's frame."""

    def __init__(self, draw: ImageDraw.ImageDraw, box: Box) -> None:
        self.draw = draw
        self._x, self._y = box[0] * _FINE, box[1] * _FINE
        self._side = (box[2] - box[0]) * _FINE

    def width(self, part: float) -> int:
        return max(1, round(part * self._side))

    def at(self, *positions: tuple[float, float]) -> list[tuple[float, float]]:
        return [(self._x + x * self._side, self._y + y * self._side) for x, y in positions]

    def oval(self, middle: tuple[float, float], size: tuple[float, float], fill: Colour) -> None:
        self.draw.ellipse(self._around(middle, size), fill=fill)

    def ring(self, middle: tuple[float, float], radius: float, colour: Colour) -> None:
        self.draw.ellipse(self._around(middle, (radius, radius)), outline=colour, width=self.width(0.014))

    def arc(self, middle: tuple[float, float], size: tuple[float, float], angles: tuple[int, int]) -> None:
        self.draw.arc(self._around(middle, size), *angles, fill=_INK, width=self.width(0.016))

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: Colour, width: float) -> None:
        self.draw.line(self.at(start, end), fill=colour, width=self.width(width))

    def _around(self, middle: tuple[float, float], size: tuple[float, float]) -> list[tuple[float, float]]:
        (x, y), (across, down) = middle, size
        return self.at((x - across, y - down), (x + across, y + down))


def _draw_view(canvas: _Canvas, occasion: Occasion) -> None:
    canvas.oval((1.22, -0.08), (0.16, 0.16), (255, 236, 160))
    for x, y, size in ((-0.25, 1.35, 0.75), (0.75, 1.5, 0.9), (1.45, 1.3, 0.62)):
        shade = tuple(round(value * (1.12 - 0.12 * size)) for value in occasion.hills)
        canvas.oval((x, y), (size, size * 0.62), (shade[0], shade[1], shade[2]))


def _draw_body(canvas: _Canvas, person: Person, occasion: Occasion) -> None:
    if person.style == "long":
        canvas.oval((0.5, 0.66), (0.415, 0.56), person.hair)
    canvas.draw.rounded_rectangle(canvas.at((0.39, 0.8), (0.61, 1.2)), canvas.width(0.1), fill=_darker(person.skin))
    canvas.oval((0.5, 1.55), (0.62, 0.48), occasion.shirt)
    canvas.oval((0.5, 1.1), (0.15, 0.1), _darker(person.skin))


def _draw_head(canvas: _Canvas, person: Person) -> None:
    if person.style == "short":
        canvas.oval((0.5, 0.4), (0.37, 0.32), person.hair)
    for x in (0.15, 0.85):
        canvas.oval((x, 0.57), (0.05, 0.085), _darker(person.skin))
    canvas.oval((0.5, 0.57), (0.345, 0.385), person.skin)
    if person.style == "short":
        for x, y, size in ((0.24, 0.27, 0.12), (0.4, 0.19, 0.13), (0.57, 0.19, 0.13), (0.74, 0.26, 0.12)):
            canvas.oval((x, y), (size, size), person.hair)
    else:
        canvas.draw.pieslice(canvas.at((0.13, 0.07), (0.87, 0.72)), 180, 360, fill=person.hair)
        canvas.oval((0.55, 0.42), (0.28, 0.1), person.skin)


def _draw_features(canvas: _Canvas, person: Person, smile: float) -> None:
    for x in (0.342, 0.656):
        canvas.oval((x, 0.462), (0.062, 0.05), (255, 255, 252))
        canvas.oval((x, 0.464), (0.038, 0.042), person.eyes)
        canvas.oval((x, 0.464), (0.018, 0.022), _INK)
        canvas.oval((x + 0.013, 0.448), (0.009, 0.011), (255, 255, 255))
        canvas.oval((x + (0.5 - x) * -0.38, 0.66), (0.062, 0.042), _blushing(person.skin))
        canvas.arc((x, 0.41), (0.075, 0.05), (215, 325))
    canvas.arc((0.5, 0.615), (0.036, 0.03), (20, 160))
    depth = 0.03 + 0.05 * smile
    mouth = canvas.at((0.371, 0.79 - depth / 2), (0.631, 0.79 + depth * 1.3))
    canvas.draw.chord(mouth, 0, 180, fill=(158, 52, 60))
    teeth = canvas.at((0.4, 0.79 + depth * 0.4), (0.602, 0.79 + depth * 0.4 + 0.02))
    canvas.draw.rounded_rectangle(teeth, canvas.width(0.006), fill=(255, 250, 244))
    if person.glasses:
        for x in (0.342, 0.656):
            canvas.ring((x, 0.462), 0.115, (226, 190, 90))
        canvas.line((0.457, 0.455), (0.541, 0.455), (226, 190, 90), 0.014)


def _darker(colour: Colour) -> Colour:
    return (round(colour[0] * 0.9), round(colour[1] * 0.87), round(colour[2] * 0.86))


def _blushing(colour: Colour) -> Colour:
    return (min(255, colour[0] + 6), round(colour[1] * 0.86), round(colour[2] * 0.84))
