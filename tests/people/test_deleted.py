"""A saved person who is deleted is gone from the cache as well; others stay."""

from __future__ import annotations

from lib_faceid.__main__ import main
from lib_faceid.engine.people import People
from lib_faceid.engine.request import read_unit
from lib_faceid.library.store import Store

from ..models_folder import add_adapter, add_face_pack, make_models, photo, place_of


def test_what_was_made_from_the_same_photo_goes_with_the_person(tmp_path, capsys):
    root = make_models(tmp_path / "models")
    add_adapter(root)
    add_face_pack(root)
    place = place_of(root)
    people = People()
    people.keep_on_disk(place.models)
    anna, other = (people.find(read_unit({"images": [photo(seed)]}), place) for seed in (1, 2))
    anna.identity.save(place.identities / "anna.safetensors")
    assert main(["identities", "delete", "anna", "--yes", "--folder", str(place.identities)]) == 0
    assert "anna is deleted." in capsys.readouterr().out
    assert Store(place.identities).names() == []
    later = People()
    later.keep_on_disk(place.models)
    assert (later.knows(anna.key), later.knows(other.key)) == (False, True)


def test_where_there_is_no_cache(tmp_path, capsys):
    root = make_models(tmp_path / "models")
    made = add_adapter(root)
    made.identity(1).save(root / "ip-adapter" / "identities" / "anna.safetensors")
    folder = root / "ip-adapter" / "identities"
    assert main(["identities", "delete", "anna", "--yes", "--folder", str(folder)]) == 0
    assert list(folder.iterdir()) == []
