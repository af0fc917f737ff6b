"""``python -m lib_faceid identities list|add|show|rename|delete|export``: the people saved for later."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .core.unet_map import BASE_TITLES
from .embed import add_model_arguments
from .engine.extract import ModelFolder
from .engine.people import CACHE, People
from .engine.place import identities_folder
from .errors import BadIdentity, FaceIDError
from .face_argument import FACE_WORDS
from .identities_add import add_person
from .library.cache import DiskCache
from .library.identity import Identity
from .library.person import Card
from .library.store import Store
from .weights.variants import VARIANTS

EXAMPLE = """examples:
  python -m lib_faceid identities add anna anna1.jpg anna2.jpg --adapter ip-adapter-faceid_sd15.bin
  python -m lib_faceid identities add anna anna1.jpg anna2.jpg --adapter ip-adapter-faceid_sdxl.bin --add-base
  python -m lib_faceid identities export anna backup/
"""
_SHOWN_DIGEST = 12  # hex digits people compare by eye


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb, which has verbs of its own."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "list", "everybody who is saved")
    _add_arguments(_action(actions, "add", "save a person from photos, a zip file of photos or a face file"))
    _action(actions, "show", "what is saved of a person").add_argument("name", metavar="NAME")
    rename = _action(actions, "rename", "give a person another name")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new", metavar="NEW_NAME")
    delete = _action(actions, "delete", "delete a person's file for good")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="needed: nothing brings the person back")
    export = _action(actions, "export", "copy a person's file; nothing is overwritten")
    export.add_argument("name", metavar="NAME")
    export.add_argument("target", metavar="TARGET", help="a folder, or the copy's name")


def _action(actions: Any, name: str, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=words, description=words, allow_abbrev=False)
    parser.add_argument("--folder", type=Path, help="where people are saved (default: models/ip-adapter/identities)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="photos of the person")
    parser.add_argument("--zip", type=Path, metavar="FILE", help="a zip file of photos instead")
    parser.add_argument("--face-file", type=Path, metavar="FILE", help="a face of ReActor or FaceSwapLab instead")
    parser.add_argument(
        "--face", action="append", default=[], help=f"which face: {FACE_WORDS}; once for all photos, or once for each"
    )
    parser.add_argument("--adapter", action="append", required=True, metavar="FILE", help="one, or one for each base")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="for a renamed adapter file")
    parser.add_argument("--note", default="", metavar="TEXT", help="for example that the person agreed")
    parser.add_argument("--structure", type=float, default=1.0, help="FaceID Plus v2: likeness of pose and light (1)")
    parser.add_argument("--combine", choices=["mean", "concat"], help="several photos: as the adapter was trained")
    parser.add_argument("--no-thumbnail", action="store_true", help="keep no small picture of the face in the file")
    parser.add_argument("--overwrite", action="store_true", help="replace a person saved under this name")
    parser.add_argument(
        "--add-base",
        action="store_true",
        help="add to a person saved for another base; with --overwrite replace the base that is there",
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked, and say what was done."""
    store = Store(args.folder or identities_folder(ModelFolder.default(None, None)))
    report = _ACTIONS[args.action](args, store)
    sys.stdout.write((json.dumps(report) if args.json else _WORDS[args.action](report)) + "\n")
    return 0


def _list(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    del args
    people: list[dict[str, Any]] = []
    for name in store.names():
        try:
            people.append(_summary(store.card(name)))
        except FaceIDError as error:  # one damaged file must not hide the others
            people.append({"name": name, "error": str(error)})
    return {"folder": str(store.folder), "people": people}


def _show(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    card = store.card(args.name)
    identities = [{"base": base, **asdict(origin)} for base, origin in card.origins.items()]
    shape = None if card.thumbnail is None else list(card.thumbnail.shape[:2])
    return {**_summary(card), "file": str(store.path(args.name)), "thumbnail": shape, "identities": identities}


def _rename(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    path = store.rename(args.name, args.new)
    return {"renamed": args.name, "name": path.stem, "file": str(path)}


def _delete(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    path = store.path(args.name)
    if not args.yes:
        raise FaceIDError(f"{path} was not deleted: nothing brings it back. Say --yes to delete it.")
    _forget(store, args.name)  # first: where that fails it can be tried again, as long as the person is there
    removed = store.delete(args.name)
    return {"deleted": removed.name, "file": str(path), "sha256": removed.digest}


def _forget(store: Store, name: str) -> None:
    """Take what was made from the same photos out of the cache beside the people."""
    identities: Sequence[Identity] = ()
    with suppress(BadIdentity):  # a damaged person can be deleted as well
        identities = store.load(name).identities
    People(disk=DiskCache(store.folder / CACHE)).forget_person(name, identities)


def _export(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    return {"name": args.name, "exported": str(store.export(args.name, args.target))}


def _summary(card: Card) -> dict[str, Any]:
    facts = {"name": card.name, "bases": list(card.origins), "created": card.created, "bytes": card.size}
    return {**facts, "note": card.note}


def _list_in_words(report: Mapping[str, Any]) -> str:
    lines = [f"{person['name']}: {person.get('error') or _kept(person)}" for person in report["people"]]
    return "\n".join(lines) or f"Nobody is saved in {report['folder']}."


def _kept(person: Mapping[str, Any]) -> str:
    return f"{_titles(person)}, {person['bytes'] / 1e6:.1f} MB, {person['created']}"


def _titles(person: Mapping[str, Any]) -> str:
    return " and ".join(BASE_TITLES[base] for base in person["bases"])


def _show_in_words(report: Mapping[str, Any]) -> str:
    lines = [f"{report['name']}: {_kept(report)}", f"  file      {report['file']}"]
    lines += [f"  note      {report['note']}"] if report["note"] else []
    for item in report["identities"]:
        photos = "1 photo" if item["photos"] == 1 else f"{item['photos']} photos"
        digest, lora = item["adapter_sha256"][:_SHOWN_DIGEST], item["lora_sha256"][:_SHOWN_DIGEST]
        lines.append(f"  {BASE_TITLES[item['base']]:<9} {item['title']}, {photos}, {item['created']}")
        lines.append(f"            adapter {item['adapter_name']} (sha256 {digest})")
        lines += [f"            LoRA sha256 {lora}"] if lora else []
    return "\n".join(lines)


def _add_in_words(report: Mapping[str, Any]) -> str:
    return "\n".join([*report["remarks"], f"{report['name']} is saved for {_titles(report)}: {report['file']}"])


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Store], dict[str, Any]]] = {
    "list": _list,
    "add": add_person,
    "show": _show,
    "rename": _rename,
    "delete": _delete,
    "export": _export,
}
_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "list": _list_in_words,
    "add": _add_in_words,
    "show": _show_in_words,
    "rename": lambda report: f"{report['renamed']} is now called {report['name']}.",
    "delete": lambda report: f"{report['deleted']} is deleted.",
    "export": lambda report: f"{report['name']} was copied to {report['exported']}.",
}
