"""``python -m lib_faceid VERB …``: the command line. Standard library only until the verb's module is imported.

A verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``; it declares ``--json`` itself.
Exit code 0: done, 2: bad input, 1: anything else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from . import environment
from .errors import FaceIDError

PROGRAM = "python -m lib_faceid"


class Verb(NamedTuple):
    module: str
    help: str


class VerbModule(Protocol):
    """What a verb's module provides."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


VERBS: Mapping[str, Verb] = {
    "bench": Verb("lib_faceid.bench", "measure what an identity costs while a picture is made"),
    "demo": Verb("lib_faceid.demo", "show the whole path on small models it builds itself"),
    "embed": Verb("lib_faceid.embed", "find the face in photos and save the person for an adapter"),
    "generate": Verb("lib_faceid.generate", "draw pictures of one person with a checkpoint, without a WebUI"),
    "identities": Verb("lib_faceid.identities_verb", "save people from photos, and list, rename, export, delete them"),
    "inspect": Verb("lib_faceid.inspect_files", "say what weight files are and whether they can be used"),
    "score": Verb("lib_faceid.score", "say how alike two faces are"),
}


def main(words: Sequence[str], verbs: Mapping[str, Verb] = VERBS) -> int:
    """Run one verb and return its exit code. SystemExit for help and for words argparse refuses."""
    name = _read_verb(words[:1], verbs)
    try:
        if not environment.has_packages():
            environment.ensure_environment(environment.RUNTIME_REQUIREMENTS)
        return _run_verb(name, verbs[name], words[1:])
    except KeyboardInterrupt:
        sys.stderr.write("Stopped before it was done.\n")
        return 1


def _read_verb(words: Sequence[str], verbs: Mapping[str, Verb]) -> str:
    """The verb alone: the parser of its own arguments lives in a module that may need torch."""
    parser = argparse.ArgumentParser(PROGRAM, description="Keep one person's face across pictures.")
    choices = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    for name, verb in verbs.items():
        choices.add_parser(name, help=verb.help, add_help=False)
    return cast("str", parser.parse_args(words).verb)


def _run_verb(name: str, verb: Verb, words: Sequence[str]) -> int:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # at import it reports that torchvision is absent
    module = cast("VerbModule", importlib.import_module(verb.module))
    parser = argparse.ArgumentParser(f"{PROGRAM} {name}", description=verb.help, allow_abbrev=False)
    module.add_arguments(parser)
    args = parser.parse_args(words)
    try:
        return module.run(args)
    except FaceIDError as error:
        _report(str(error), as_json=getattr(args, "json", False))
        return 2


def _report(sentence: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": sentence}) + "\n")
    else:
        sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
