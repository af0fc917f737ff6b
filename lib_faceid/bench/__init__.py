"""``python -m lib_faceid bench``: what an identity costs while a picture is made, beside other ways to add it.

No weight file is needed: layers have their true sizes and random weights. What is compared is in peers.py, what is
measured in measures.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..core.unet_map import BASE_TITLES, Base
from ..errors import FaceIDError
from .measures import CASES, CaseTimes, measure_case, measure_forms, measure_memory, measure_step, new_unet
from .report import Budget, Machine, Report, as_json, format_text
from .times import Stopwatch
from .unet import MODELS, Case, Material, Model

DEFAULT_ROUNDS = 9
STEP_ROUNDS = 3  # of some 13 s each on two CPU cores
QUICK_LATENT = (16, 16)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Per cent of a bare SD1.5 step at 512x512, and megabytes of the tap's tables for one identity of 4 tokens.
STEP_BUDGETS: Mapping[Case, float] = {Case(1, 4): 1.0, Case(4, 4, masked=True): 2.0}
MEMORY_BUDGETS: Mapping[Base, float] = {"sd15": 4.0, "sdxl": 60.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", choices=[*MODELS, "both"], default="both", help="whose layers (default: both)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto is cuda where it works")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32 on the CPU, float16 on cuda")
    parser.add_argument("--rounds", type=_read_rounds, help=f"turns of every candidate (default: {DEFAULT_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="one round on small pictures, to see that it runs")
    parser.add_argument("--json", action="store_true", help="every number, as one JSON object")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--forms", action="store_true", help="compare the forms that choose_form chooses from instead")
    what.add_argument(
        "--step", action="store_true", help="also run a bare SD1.5 UNet step (4 GB, a minute or two on a CPU)"
    )


def _read_rounds(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {word!r}")
    return int(word)


def run(args: argparse.Namespace) -> int:
    """Measure and write the report. Raises FaceIDError when the device or diffusers is missing."""
    plan = read_plan(args)
    report = plan.compare_forms() if args.forms else plan.compare_peers(with_step=args.step)
    sys.stdout.write(json.dumps(as_json(report)) + "\n" if args.json else format_text(report))
    return 0


def read_plan(args: argparse.Namespace) -> Plan:
    """Raises FaceIDError for a device that is not there and for --step without SD1.5."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise FaceIDError("--device cuda was asked for, and torch finds no CUDA device here. Use --device cpu.")
    if args.step and args.base == "sdxl":
        raise FaceIDError("--step runs the SD1.5 UNet, and --base sdxl leaves SD1.5 out. Use --base sd15 or both.")
    cuda = args.device != "cpu" and torch.cuda.is_available()
    models = [model for base, model in MODELS.items() if args.base in (base, "both")]
    return Plan(
        [replace(model, latent=QUICK_LATENT) for model in models] if args.quick else models,
        torch.device("cuda" if cuda else "cpu"),
        DTYPES[args.dtype or ("float16" if cuda else "float32")],
        args.rounds or (1 if args.quick else DEFAULT_ROUNDS),
        args.quick,
    )


@dataclass(frozen=True)
class Plan:
    """What to measure, on which device, in which dtype, how often."""

    models: Sequence[Model]
    device: torch.device
    dtype: torch.dtype
    rounds: int
    quick: bool = False

    def compare_peers(self, *, with_step: bool) -> Report:
        """Every case on every model, the memory of the tables, and the share of a step if asked."""
        cases = [times for model in self.models for times in self._cases(model)]
        step = self._step() if with_step else None
        budgets = [*check_memory(self.models, self.device), *check_step(cases, step)]
        return Report(self.machine(), cases, budgets=budgets, step=step)

    def compare_forms(self) -> Report:
        place, watch = {"device": self.device, "dtype": self.dtype}, Stopwatch(self.device)
        forms = [times for model in self.models for times in measure_forms(model, place, watch, self.rounds)]
        return Report(self.machine(), forms=forms)

    def _cases(self, model: Model) -> Iterator[CaseTimes]:
        material, watch = Material(model, self.device, self.dtype), Stopwatch(self.device)
        for case in CASES:
            yield measure_case(material, case, watch, self.rounds)
            gc.collect()  # hooks and what they hold refer to each other; tables of one case would pile up on the next

    def _step(self) -> float:
        model = next(model for model in self.models if model.base == "sd15")
        unet = new_unet(model, self.device, self.dtype)
        return measure_step(unet, model, Stopwatch(self.device), min(self.rounds, STEP_ROUNDS))

    def machine(self) -> Machine:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else cpu_name()
        dtype = str(self.dtype).removeprefix("torch.")
        return Machine(name, torch.get_num_threads(), torch.__version__, dtype, self.rounds, self.quick)


def check_memory(models: Sequence[Model], device: torch.device) -> list[Budget]:
    """In bfloat16, which takes as much as float16 and which every torch multiplies on a CPU."""
    return [
        Budget(
            f"Memory of the tap for one identity of 4 tokens on {BASE_TITLES[model.base]}, half precision",
            measure_memory(model, device, torch.bfloat16) / 1e6,
            MEMORY_BUDGETS[model.base],
            "MB",
        )
        for model in models
    ]


def check_step(cases: Sequence[CaseTimes], step: float | None) -> list[Budget]:
    """What the tap adds, as a percentage of a bare SD1.5 step of ``step`` seconds; nothing without one."""
    if step is None:
        return []
    return [
        Budget(f"{times.case.title}, of a bare SD1.5 step", 100 * times.added("tap") / step, limit, "%")
        for times in cases
        if times.model.base == "sd15" and (limit := STEP_BUDGETS.get(times.case)) is not None
    ]


def cpu_name() -> str:
    """The processor as Linux names it, else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
