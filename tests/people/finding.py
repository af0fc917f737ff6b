"""Looking for people, as a host does."""

from __future__ import annotations

from pathlib import Path

from lib_faceid.engine.people import People, Person
from lib_faceid.engine.request import read_unit
from lib_faceid.library.photos import PhotoData

from ..face_packs import recogniser, save
from ..models_folder import photo, place_of

ONE = {"images": [photo(1)]}
VECTOR = [float(n % 7) for n in range(512)]


def find(people: People, root: Path, base: str = "sd15", **values: object) -> Person:
    return people.find(read_unit(values), place_of(root, base))


def photo_data(data: str = photo(1)) -> PhotoData:
    """As a unit has it, so that weight and face can be set."""
    return read_unit({"images": [data]}).images[0]


def retrain(pack: Path) -> None:
    """The pack with another recogniser file; what it computes is the same."""
    save(recogniser(normalises=True), pack / "w600k_r50.onnx")
