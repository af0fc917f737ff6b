"""``python -m lib_faceid generate``: from a checkpoint and a person to pictures, without a WebUI."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .core.unet_map import BASE_TITLES, Base
from .embed import add_model_arguments
from .engine.acts import Together
from .engine.prepare import make_identity
from .errors import BadIdentity, FaceIDError, FaceIDWarning, WrongBase
from .generate_record import describe
from .hosts.checkpoint_parts import Checkpoint
from .hosts.checkpoints import load_pipeline, open_checkpoint
from .hosts.drawing import Drawing, draw
from .library.identity import Identity, load_identity
from .pictures import check_place, read_picture, write_picture
from .weights.adapter import Adapter, load_adapter

_LARGEST = (1024, 1024)  # for the free space, where the size is the checkpoint's own
_EXAMPLE = """example:
  python -m lib_faceid generate --checkpoint photon.safetensors --face anna1.jpg anna2.jpg \\
      --adapter ip-adapter-faceid_sd15.bin --prompt "a portrait in the rain" --size 512x768 --batch 4 --out pictures

Instead of photos, --identity takes a person saved with the verb embed. A saved person is enough; the adapter file adds
the LoRA it was trained with, for a closer likeness.
Pictures are never overwritten. Each carries what made it as text, without any photo. Nothing is downloaded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLE
    _add_person(parser.add_argument_group("person"))
    _add_picture(parser.add_argument_group("picture"))
    _add_machine(parser.add_argument_group("machine"))


def _add_person(group: Any) -> None:
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--face", type=Path, nargs="+", metavar="PHOTO", help="photos of one person; needs --adapter")
    source.add_argument("--identity", type=Path, metavar="FILE", help="a saved identity (.safetensors)")
    source.add_argument(
        "--embeddings", type=Path, metavar="FILE", help="face vectors (photos, 512) as .npy or .json; needs --adapter"
    )
    group.add_argument("--adapter", type=Path, metavar="FILE", help="the FaceID adapter the identity is made with")
    add_model_arguments(group)
    group.add_argument("--variant", help="for a renamed adapter: faceid-plus, faceid-plusv2, portrait-unnorm, …")
    group.add_argument("--weight", type=float, default=1.0, help="how strongly the face acts; 0 is off (default: 1)")
    group.add_argument("--lora", type=float, help="strength of the adapter's LoRA (default: 0.65 where there is one)")
    group.add_argument("--structure", type=float, help="share of pose and light from the photo, FaceID Plus v2 only")
    group.add_argument("--start", type=float, default=0.0, help="part of the steps after which it acts (default: 0)")
    group.add_argument("--end", type=float, default=1.0, help="part of the steps until which it acts (default: 1)")


def _add_picture(group: Any) -> None:
    group.add_argument("--prompt", default="", help="what to draw")
    group.add_argument("--negative", default="", metavar="PROMPT", help="what to avoid")
    group.add_argument("--seed", type=int, help="the same seed draws the same picture (default: a random one)")
    group.add_argument("--steps", type=int, default=25, help="default: 25")
    group.add_argument("--guidance", type=float, default=7.0, help="how closely to follow the prompt (default: 7)")
    group.add_argument("--size", type=_read_size, metavar="WxH", help="pixels (default: the checkpoint's, or --init's)")
    group.add_argument("--batch", type=int, default=1, help="number of pictures, seeds counting up (default: 1)")
    group.add_argument("--init", type=Path, metavar="PICTURE", help="draw from this picture (img2img)")
    group.add_argument("--mask", type=Path, metavar="PICTURE", help="draw only where it is white (inpaint)")
    group.add_argument("--denoise", type=float, default=0.75, help="how much of --init is replaced (default: 0.75)")


def _add_machine(group: Any) -> None:
    group.add_argument(
        "--checkpoint", required=True, type=Path, metavar="PATH", help=".safetensors, .ckpt, or a diffusers folder"
    )
    group.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="CLIP's vocab.json and merges.txt")
    group.add_argument("--device", help="cuda, mps or cpu (default: the best there is)")
    group.add_argument("--out", type=Path, default=Path(), metavar="PATH", help="a folder, or a name ending in .png")
    group.add_argument("--json", action="store_true", help="one JSON object for each picture, a line each")


def _read_size(word: str) -> tuple[int, int]:
    width, cross, height = word.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 512x768; found {word!r}")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    """Draw and save. Everything that can be wrong in the arguments is found before the checkpoint is loaded."""
    drawing = _read_drawing(args)
    check_place(args.out.expanduser(), drawing.batch, drawing.size or _LARGEST)
    checkpoint = open_checkpoint(args.checkpoint)
    person = _read_person(args, checkpoint.base)
    checkpoint.ensure_task(drawing.task)
    ensure_base(person.identity, checkpoint)
    with _hearing() as heard:
        pipe = load_pipeline(checkpoint, drawing.task, args.device, tokenizer=args.tokenizer)
        pipe.set_progress_bar_config(desc="drawing", disable=None, leave=False)  # None: only where a person looks
        record = describe(args, person.identity, checkpoint, pipe)
        for picture in draw(pipe, drawing, person.likeness):
            size = {"size": list(picture.image.size), "seed": picture.seed, "warnings": list(heard)}
            path = write_picture(args.out.expanduser(), picture.image, {**record, **size})
            _tell({"file": str(path), **record, **size}, as_json=args.json)
    for sentence in heard:
        sys.stderr.write(sentence + "\n")
    return 0


@dataclass(frozen=True)
class Person:
    """Who is drawn, and how strongly."""

    identity: Identity
    likeness: Together


def _read_drawing(args: argparse.Namespace) -> Drawing:
    return Drawing(
        prompt=args.prompt,
        negative=args.negative,
        seed=secrets.randbelow(2**32) if args.seed is None else args.seed,
        steps=args.steps,
        guidance=args.guidance,
        size=args.size,
        batch=args.batch,
        init=None if args.init is None else read_picture(args.init),
        mask=None if args.mask is None else read_picture(args.mask),
        strength=args.denoise,
    )


def _read_person(args: argparse.Namespace, base: Base) -> Person:
    adapter = None if args.adapter is None else load_adapter(args.adapter.expanduser(), variant=args.variant)
    identity = _read_identity(args, adapter, base)
    if args.structure is not None:
        identity = identity.with_structure(args.structure)
    likeness = Together(identity, args.weight, (args.start, args.end), lora=args.lora, adapter=adapter)
    try:
        likeness.acts()
    except ValueError as error:  # a weight or window that makes no sense
        raise FaceIDError(str(error)) from error
    return Person(identity, likeness)


def _read_identity(args: argparse.Namespace, adapter: Adapter | None, base: Base) -> Identity:
    if args.identity is not None:
        return load_identity(args.identity.expanduser(), base)
    if adapter is None:
        raise FaceIDError("A face becomes an identity through an adapter; name its file with --adapter.")
    if args.face is not None:
        photos = [path.expanduser() for path in args.face]
        return make_identity(adapter, images=photos, face_pack=args.face_pack, clip_encoder=args.clip_encoder)
    return make_identity(adapter, embeddings=read_embeddings(args.embeddings.expanduser()))


def read_embeddings(path: Path) -> np.ndarray:
    """Face vectors (k, 512) from a .npy or .json file; one vector may stand alone. Raises BadIdentity."""
    try:
        if path.suffix.lower() == ".json":
            found = np.asarray(json.loads(path.read_text(encoding="utf-8")), dtype=np.float32)
        else:
            found = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except FileNotFoundError as error:
        raise BadIdentity(f"There is no file {path} with face vectors.") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        wanted = "numbers of shape (photos, 512) in .npy or .json"
        raise BadIdentity(f"{path.name} holds no face vectors: expected {wanted}. Extract them again.") from error
    return found[None] if found.ndim == 1 else found


def ensure_base(identity: Identity, checkpoint: Checkpoint) -> None:
    """Raises WrongBase, before anything large is loaded, when the identity is for another base."""
    if (identity.base, identity.context_width) != (checkpoint.base, checkpoint.context_width):
        raise WrongBase(
            f"The identity is for {BASE_TITLES[identity.base]} (context {identity.context_width}) and "
            f"{checkpoint.path.name} is {BASE_TITLES[checkpoint.base]} (context {checkpoint.context_width}). Choose a "
            "checkpoint of the same base, or make the identity with an adapter for this one."
        )


@contextmanager
def _hearing() -> Iterator[Sequence[str]]:
    """Sentences that are told meanwhile, as they come; the libraries' own warnings are kept from the person."""
    heard: list[str] = []

    def listen(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, FaceIDWarning):
            heard.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", FaceIDWarning)
        warnings.showwarning = listen
        yield heard


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    words = f"{report['file']} (seed {report['seed']})"
    sys.stdout.write((json.dumps(report) if as_json else words) + "\n")
    sys.stdout.flush()
