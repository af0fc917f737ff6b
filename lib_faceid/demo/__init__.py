"""``python -m lib_faceid demo``: the whole path from a photo to pictures, on small models that it builds itself.

What happens is in story.py, the models in standins.py, the picture of the result in sheet.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FaceIDError
from .report import INTRODUCTION, as_json, in_words
from .sheet import save_sheet
from .story import PROMPTS, SETTINGS, Story, tell

_EXAMPLE = """example:
  python -m lib_faceid demo --keep stand-ins

Nothing is downloaded and no file is overwritten. The models are random stand-ins: the pictures are coloured noise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLE
    parser.add_argument(
        "--out", type=Path, default=Path("faceid-demo.png"), metavar="FILE", help="the sheet (default: faceid-demo.png)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the stand-in models in a new folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")


def run(args: argparse.Namespace) -> int:
    """0 when every promise was kept, 1 when one was not. Raises FaceIDError for places that cannot be written."""
    out = args.out.expanduser()
    ensure_out(out)
    with _workplace(args.keep) as folder:
        if not args.json:
            _say(INTRODUCTION)
        clock = Clock(aloud=not args.json)
        with clock:
            story: Story = tell(folder, clock.time)
        sheet = save_sheet(out, story)
    _say(as_json(story, sheet, clock.seconds) if args.json else in_words(story, sheet, args.keep))
    return 0 if story.succeeded else 1


def ensure_out(out: Path) -> None:
    """Raises FaceIDError when the sheet could not be written there."""
    if out.suffix.lower() != ".png":
        raise FaceIDError(f"--out names a .png file; found {out.name!r}. Give a name such as faceid-demo.png.")
    if not out.parent.is_dir():
        raise FaceIDError(f"There is no folder {out.parent} for the sheet. Create it first, or choose another --out.")


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    """The folder for the models: a new one that stays, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="faceid-demo-") as folder:
            yield Path(folder)
        return
    folder = keep.expanduser()
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FaceIDError(f"{folder} exists already and is left as it is. Give --keep a new folder.") from error
    except OSError as error:
        raise FaceIDError(f"The folder {folder} cannot be made ({error.strerror}). Give --keep another one.") from error
    yield folder


@dataclass
class Clock:
    """Times the steps, says each where ``aloud``, and shows a bar on stderr where a person looks."""

    aloud: bool
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    _bar: Any = None

    def __enter__(self) -> Clock:
        from tqdm import tqdm

        steps = 5 + len(PROMPTS) * len(SETTINGS)
        self._bar = tqdm(total=steps, desc="demo", unit="step", file=sys.stderr, disable=None, leave=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def time(self, sentence: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self.seconds[sentence] = time.perf_counter() - began
        self._bar.update()
        if self.aloud:
            self._bar.clear()
            _say(f"{self.seconds[sentence]:6.2f} s  {sentence}")
        return result


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
