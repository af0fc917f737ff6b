"""``identities add``: a person from photos, a zip file or another extension's face file, for one adapter or two."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .core.unet_map import BASE_TITLES
from .engine.extract import Extracted, ModelFolder, extract
from .engine.features import RawFeatures
from .engine.prepare import make_identity
from .engine.readers import Readers
from .errors import BadIdentity
from .face.types import Face
from .face_argument import read_faces
from .library.face_files import FaceFile, read_face_file
from .library.identity import Identity
from .library.imports import read_zip
from .library.names import check_name
from .library.person import SavedPerson, make_thumbnail
from .library.photos import PhotoData, read_photo
from .library.store import Store
from .weights.adapter import Adapter, load_adapter

_AROUND = 1.8  # a face box ends at the chin and the forehead; a portrait shows hair and neck as well


@dataclass(frozen=True)
class Source:
    """What a person is made from: photos, or the vector of a face file; ``remarks`` are sentences for people."""

    photos: tuple[PhotoData, ...] = ()
    face: FaceFile | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Made:
    """Identities in the order of the adapters, what was seen in the photos, and what is to be told."""

    identities: list[Identity]
    thumbnail: NDArray[np.uint8] | None
    remarks: list[str]


def add_person(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Save the person; nothing is computed for a name that cannot be used. Raises FaceIDError."""
    name = check_name(args.name)
    adapters = _load_adapters(args)
    _check_place(args, store, adapters)
    source = _read_source(args)
    made = _make(args, adapters, source)
    path = _save(args, store, made, source)
    person = store.card(name)
    remarks = [*source.remarks, *made.remarks]
    return {"name": name, "bases": list(person.origins), "file": str(path), "bytes": person.size, "remarks": remarks}


def _load_adapters(args: argparse.Namespace) -> list[Adapter]:
    """Raises BadIdentity for two adapters of one base: a person has one identity for each."""
    adapters = [load_adapter(path, variant=args.variant) for path in args.adapter]
    for base, title in BASE_TITLES.items():
        names = [adapter.path.name for adapter in adapters if adapter.base == base]
        if len(names) > 1:
            raise BadIdentity(f"{' and '.join(names)} are for {title}. Give one adapter for each base.")
    return adapters


def _check_place(args: argparse.Namespace, store: Store, adapters: list[Adapter]) -> None:
    """Raises BadIdentity when the name is taken, or has nobody a base could be added to."""
    taken = store.taken(args.name)
    if args.add_base:
        if args.note:
            raise BadIdentity("--note belongs to a person who is saved anew; --add-base keeps the note there is.")
        held = store.card(args.name).origins
        for adapter in adapters:
            if adapter.base in held and not args.overwrite:
                raise BadIdentity(
                    f"{taken} is saved for {BASE_TITLES[adapter.base]} already and is left as it is. Say --overwrite "
                    "as well to replace that base alone, or choose an adapter for another."
                )
    elif taken and not args.overwrite:
        raise BadIdentity(
            f"A person called {taken} is saved already and is left as it is. Choose another name, say --overwrite to "
            "replace it, or --add-base to add another base to it."
        )


def _read_source(args: argparse.Namespace) -> Source:
    given = [bool(args.photos), args.zip is not None, args.face_file is not None]
    if sum(given) != 1:
        found = "none of them was given" if not any(given) else "several were given"
        raise BadIdentity(f"A person is made from photos, from --zip or from --face-file; {found}. Give one.")
    if args.zip is not None:
        unpacked = read_zip(args.zip)
        return Source(unpacked.photos, remarks=unpacked.skipped)
    if args.face_file is not None:
        if args.face:
            raise BadIdentity("--face chooses among the faces of a photo, and a face file has one. Leave it out.")
        return Source(face=read_face_file(args.face_file))
    return Source(tuple(PhotoData.of_file(path) for path in args.photos))


def _make(args: argparse.Namespace, adapters: list[Adapter], source: Source) -> _Made:
    options = {"structure": args.structure, "combine": args.combine}
    if source.face is not None:
        raws = [_face_file_features(adapter, source.face) for adapter in adapters]
        return _Made(_identities(adapters, raws, options), None, [])
    choices = read_faces(args.face, len(source.photos))
    models, readers = ModelFolder.default(args.face_pack, args.clip_encoder), Readers()
    try:
        seen = [extract(adapter, source.photos, models, choices=choices, readers=readers) for adapter in adapters]
    finally:
        readers.release()
    first = max(seen, key=lambda extracted: len(extracted.faces))  # adapters for the whole picture look for no face
    remarks = [f"{first.labels[note.photo - 1]} {note.words}" for note in first.notes]
    thumbnail = None if args.no_thumbnail else make_thumbnail(_portrait(source.photos[0], first))
    return _Made(_identities(adapters, [item.raw for item in seen], options), thumbnail, remarks)


def _identities(adapters: list[Adapter], raws: list[RawFeatures], options: dict[str, Any]) -> list[Identity]:
    return [make_identity(adapter, **vars(raw), **options) for adapter, raw in zip(adapters, raws, strict=True)]


def _face_file_features(adapter: Adapter, face: FaceFile) -> RawFeatures:
    if adapter.needs_clip:
        raise BadIdentity(
            f"{adapter.title} looks at the photo as well, and a face file has only the face vector. Give photos, or "
            "choose a plain FaceID adapter."
        )
    return RawFeatures(embeddings=face.vector)


def _portrait(photo: PhotoData, extracted: Extracted) -> NDArray[np.uint8]:
    """The square around the face of the first photo, or all of it where no face was looked for."""
    pixels = read_photo(photo).pixels
    return crop_portrait(pixels, extracted.faces[0]) if extracted.faces else pixels


def crop_portrait(pixels: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """The part of (H, W, 3) around a face, square unless the photo ends before."""
    x0, y0, x1, y1 = (float(value) for value in face.box)
    half = _AROUND * max(x1 - x0, y1 - y0) / 2
    part = pixels[_around((y0 + y1) / 2, half), _around((x0 + x1) / 2, half)]
    return part if part.size else pixels


def _around(middle: float, half: float) -> slice:
    return slice(max(0, int(middle - half)), max(0, int(middle + half) + 1))


def _save(args: argparse.Namespace, store: Store, made: _Made, source: Source) -> Path:
    if args.add_base:
        return [store.add_base(args.name, identity, overwrite=args.overwrite) for identity in made.identities][-1]
    note = args.note or (source.face.note if source.face is not None else "")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return store.save(
        SavedPerson(args.name, tuple(made.identities), made.thumbnail, note, now), overwrite=args.overwrite
    )
