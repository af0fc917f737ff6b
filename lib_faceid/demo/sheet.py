"""The contact sheet: the photos on the left, a row of pictures for each prompt, and which promises were kept."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import FaceIDError
from ..files import free_name, write_file
from .story import ONCE, OTHER, PROMPTS, SHOWN, TWICE, WITHOUT, Drawn, Photo, Story

_PAPER, _INK, _QUIET = (250, 248, 244), (44, 42, 50), (118, 114, 124)
_GOOD, _BAD = (52, 138, 92), (196, 52, 48)
_EDGE = 36
_TILE = 240
_GAP = 20
_TOP = 120
_ROW = 356
_PHOTO = 200
_LEFT = 2 * _EDGE + _PHOTO + 20  # where the pictures begin
_WIDTH = _LEFT + len(SHOWN) * _TILE + (len(SHOWN) - 1) * _GAP + _EDGE
_TITLES = {WITHOUT: "without FaceID", ONCE: "Robin, weight 1", TWICE: "Robin, weight 2", OTHER: "Kim, weight 1"}


def save_sheet(wanted: Path, story: Story) -> Path:
    """Write the sheet as PNG under a name that is free: faceid-demo.png, faceid-demo-2.png … Returns the path.

    Raises FaceIDError when the file cannot be written.
    """
    data = io.BytesIO()
    draw_sheet(story).save(data, format="PNG")
    try:
        return write_file(free_name(wanted), data.getvalue())
    except OSError as error:
        raise FaceIDError(f"{wanted.name} cannot be written ({error.strerror}). Choose another --out.") from error


def draw_sheet(story: Story) -> Image.Image:
    """The sheet as an RGB picture."""
    rows = (len(story.checks) + 1) // 2
    bottom = _TOP + len(PROMPTS) * _ROW + 14
    sheet = Image.new("RGB", (_WIDTH, bottom + 52 + 30 * rows + _EDGE), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_EDGE, 28), "FaceID demo: from a photo to pictures", 30)
    _write(
        pen,
        (_EDGE, 72),
        "Random stand-in models: the pictures are coloured noise, and show only that every step runs.",
        17,
        _QUIET,
    )
    for number, photo in enumerate(story.photos):
        _paste_photo(sheet, pen, photo, (_EDGE, _TOP + number * (_PHOTO + 39)))
    for row, prompt in enumerate(PROMPTS):
        for column, setting in enumerate(SHOWN):
            place = (_LEFT + column * (_TILE + _GAP), _TOP + row * _ROW)
            _paste_picture(sheet, pen, story.picture(prompt, setting), place)
    _list_checks(pen, story, bottom)
    return sheet


def _paste_photo(sheet: Image.Image, pen: ImageDraw.ImageDraw, photo: Photo, place: tuple[int, int]) -> None:
    picture = Image.fromarray(photo.pixels).resize((_PHOTO, _PHOTO), Image.Resampling.LANCZOS)
    sheet.paste(picture, place)
    whose = "Kim" if photo.name == "kim" else "Robin"
    what = "the reference photo" if photo.name == "robin" else f"likeness to the first {photo.likeness:.2f}"
    _write(pen, (place[0], place[1] + _PHOTO + 6), f"{whose}: {what}", 15)


def _paste_picture(sheet: Image.Image, pen: ImageDraw.ImageDraw, item: Drawn, place: tuple[int, int]) -> None:
    picture = Image.fromarray(item.pixels).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    sheet.paste(picture, place)
    x, y = place[0], place[1] + _TILE + 6
    _write(pen, (x, y), f"{item.prompt}: {_TITLES[item.setting]}", 17)
    for line, text in enumerate(_captions(item)):
        _write(pen, (x, y + 25 + 20 * line), text, 14, _QUIET)


def _captions(item: Drawn) -> tuple[str, str, str]:
    first = "as the UNet draws by itself" if item.setting == WITHOUT else f"changed by {item.difference:.1f} of 255"
    if item.likeness is None:
        return first, "no face found, as expected", f"(whole frame {item.frame:+.2f}: no meaning)"
    return first, "the finder took noise for a face,", f"likeness {item.likeness:+.2f}, which means nothing"


def _list_checks(pen: ImageDraw.ImageDraw, story: Story, top: int) -> None:
    pen.line((_EDGE, top, _WIDTH - _EDGE, top), fill=(222, 218, 210), width=2)
    _write(pen, (_EDGE, top + 12), "Compared, not claimed", 18)
    rows = (len(story.checks) + 1) // 2
    for number, check in enumerate(story.checks):
        x, y = _EDGE + number // rows * (_WIDTH // 2), top + 50 + 30 * (number % rows)
        _mark(pen, (x, y), holds=check.holds)
        _write(pen, (x + 28, y), check.promise, 16, _INK if check.holds else _BAD)


def _mark(pen: ImageDraw.ImageDraw, place: tuple[int, int], *, holds: bool) -> None:
    """A tick or a cross, drawn: the font that comes with Pillow has neither."""
    x, y = place
    if holds:
        pen.line([(x, y + 10), (x + 6, y + 16), (x + 17, y + 2)], fill=_GOOD, width=4, joint="curve")
    else:
        pen.line([(x + 1, y + 3), (x + 15, y + 17)], fill=_BAD, width=4)
        pen.line([(x + 15, y + 3), (x + 1, y + 17)], fill=_BAD, width=4)


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: tuple[int, int, int] = _INK
) -> None:
    try:
        font = ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1 there is one small font, which knows no size
        font = ImageFont.load_default()
    pen.text(place, text, fill=colour, font=font)
