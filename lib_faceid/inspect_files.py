"""``python -m lib_faceid inspect FILE…``: what weight files are, without loading them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from .core.unet_map import BASE_TITLES
from .errors import FaceIDError
from .weights.adapter import Adapter, load_adapter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".bin, .pth or .safetensors adapter files")
    parser.add_argument("--variant", help="for a renamed file: faceid-plus, faceid-plusv2, portrait-unnorm, …")
    parser.add_argument("--json", action="store_true", help="one JSON object for each file, a line each")


def run(args: argparse.Namespace) -> int:
    """Describe every file; 2 when one of them cannot be used."""
    reports = [_report(path, args.variant) for path in args.files]
    for report in reports:
        sys.stdout.write((json.dumps(report) if args.json else _in_words(report)) + "\n")
    return 2 if any("error" in report for report in reports) else 0


def _report(path: str, variant: str | None) -> dict[str, Any]:
    try:
        return {"file": path, **_facts(load_adapter(path, variant=variant))}
    except FaceIDError as error:
        return {"file": path, "error": str(error)}


def _facts(adapter: Adapter) -> dict[str, Any]:
    found = adapter.recognised
    return {
        "variant": adapter.variant,
        "title": found.variant.title,
        "how": found.how,
        "base": adapter.base,
        "context_width": found.context_width,
        "tokens": adapter.tokens,
        "vector": found.variant.vector,
        "clip": found.variant.clip,
        "lora_rank": found.lora_rank,
        "projection": {"kind": type(found.projection).__name__.removesuffix("Spec"), **asdict(found.projection)},
        "sha256": adapter.digest,
    }


def _in_words(report: dict[str, Any]) -> str:
    if "error" in report:
        return f"{report['file']}\n  {report['error']}"
    tokens = f"{report['tokens']} for each photo" if report["tokens"] else "one for each CLIP position"
    needs = {"normed": "face vector", "raw": "raw face vector", "none": ""}[report["vector"]]
    clip = {"hidden": "CLIP features (penultimate)", "pooled": "CLIP features (pooled)", "none": ""}[report["clip"]]
    lora = f"inside, rank {report['lora_rank']}" if report["lora_rank"] else "none inside"
    base = f"{BASE_TITLES[report['base']]} (context {report['context_width']})"
    return "\n".join(
        [
            report["file"],
            f"  {report['title']} for {base}, recognised {report['how']}",
            f"  needs   {' and '.join(part for part in (needs, clip) if part)}",
            f"  tokens  {tokens}",
            f"  LoRA    {lora}",
            f"  sha256  {report['sha256']}",
        ]
    )
