"""``python -m tests --live ADDRESS`` and ``python -m tests --fixtures MODELS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import company, endurance, errors, faults, inpaint, lifecycle, people, rows, timing
from .case import Case, select
from .client import Client, Unreachable
from .fixtures import remove_fixtures, write_fixtures
from .report import Report
from .runner import run_cases
from .webui import WRITE_FIXTURES, Setup, WebUI, restoring

USUAL = "http://127.0.0.1:7860"
SECTIONS = tuple(
    module.SECTION for module in (rows, people, timing, inpaint, errors, lifecycle, company, faults, endurance)
)
ROLES = {
    "other": "another checkpoint of the same base (hires fix, refiner, switching)",
    "twin": "another checkpoint with the same configuration file as the loaded one (switching)",
    "sdxl": "an SDXL checkpoint (an SD1.5 one where SDXL is loaded)",
    "sd2": "a checkpoint of SD2",
    "inpaint": "an inpainting checkpoint with 9 input channels",
    "ip2p": "an instruct-pix2pix checkpoint",
}
Say = Callable[[str], None]


def main(words: Sequence[str], say: Say | None = None) -> int:
    """0 done, 1 when a case does not hold or nothing could be tried."""
    say = say or _say
    options = build_parser().parse_args(words)
    if options.fixtures is not None:
        return _fixtures(options, say)
    cases = select(all_cases(), options.only)
    if options.list:
        for case in cases:
            say(f"{case.title}{'  (optional)' if case.optional else ''}")
        return 0
    try:
        return _run(options, cases, say)
    except Unreachable as error:
        say(f"{error} Start it with --api, and give the address it is told, such as {USUAL}.")
        return 1


def all_cases() -> list[Case]:
    return [case for section in SECTIONS for case in section.cases]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests",
        description="Tries the extension in a running WebUI over HTTP, or writes the files that this needs.",
    )
    verb = parser.add_mutually_exclusive_group(required=True)
    verb.add_argument(
        "--live", metavar="ADDRESS", nargs="?", const=USUAL, help=f"of a WebUI started with --api (without it: {USUAL})"
    )
    verb.add_argument(
        "--fixtures",
        metavar="MODELS",
        type=Path,
        help="write random adapters, saved people, a face pack, a CLIP tower and LoRAs into a WebUI's models folder "
        "(names begin with faceid-live; nothing is overwritten). True sizes take 2.5 GB",
    )
    parser.add_argument("--list", action="store_true", help="with --live: name the cases, and do nothing")
    parser.add_argument(
        "--channels",
        type=int,
        metavar="N",
        help="with --fixtures: adapters for small test checkpoints of N model_channels (levels N, 2N, 4N wide, true "
        "context), instead of those for real ones; 32 for most test rigs",
    )
    parser.add_argument("--remove", action="store_true", help="with --fixtures: remove these files instead")
    _add_choices(parser)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """What --live tries, and with what."""
    parser.add_argument("--only", metavar="PATTERN", default="", help='cases whose name has this in it, or matches "*"')
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of lines")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures, a multiple of 64 (128)")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps, at least 4 (4)")
    for role, words in ROLES.items():
        parser.add_argument(f"--checkpoint-{role}", metavar="NAME", default="", help=words)
    parser.add_argument("--jobs", type=int, default=300, help="how many jobs in a row are many (300)")
    parser.add_argument(
        "--bare",
        metavar="ADDRESS",
        default="",
        help="of a WebUI that never had the extension, with the same checkpoint: its plain pictures must be the same",
    )
    parser.add_argument(
        "--controlnet-model",
        metavar="NAME",
        default="",
        help="a ControlNet model for the loaded checkpoint, as ControlNet lists it (the first whose name fits)",
    )


def _fixtures(options: argparse.Namespace, say: Say) -> int:
    if not options.fixtures.is_dir():
        say(f"There is no folder {options.fixtures}. Name the models folder of the WebUI.")
        return 1
    if options.remove:
        remove_fixtures(options.fixtures, say)
    else:
        write_fixtures(options.fixtures, options.channels, say)
    return 0


def _run(options: argparse.Namespace, cases: Sequence[Case], say: Say) -> int:
    if options.size % 64 or options.size < 64 or options.steps < 4:
        say("--size is a multiple of 64, and --steps at least 4.")
        return 1
    named = {role: getattr(options, f"checkpoint_{role}") for role in ROLES}
    checkpoints = {role: name for role, name in named.items() if name}
    setup = Setup(options.size, options.steps, checkpoints, options.controlnet_model, options.bare, options.jobs)
    webui = WebUI(Client(options.live), setup)
    with restoring(webui):
        problem = "no case has this name" if not cases else describe_problem(webui)
        if problem:
            say(f"Nothing was tried: {problem}.")
            return 1
        report = Report(say, as_json=options.json)
        fit = webui.fit()
        small = ", small" if fit.narrow else ""
        report.begin(f"{options.live}: {webui.host}, {webui.checkpoint_now()} ({fit.base}{small}); {len(cases)} cases")
        return run_cases(webui, cases, report)


def describe_problem(webui: WebUI) -> str:
    """Why nothing can be tried; empty where all is ready."""
    if not webui.has_faceid():
        return "this WebUI has no script FaceID; install the extension, look into the WebUI's log, and start it again"
    fit = webui.fit()
    if not fit.adapters:
        return f"no fixture fits the loaded checkpoint ({' '.join(dict.fromkeys(fit.refusals))}); {WRITE_FIXTURES}"
    return ""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
