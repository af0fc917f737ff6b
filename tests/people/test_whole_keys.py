"""Somebody made from photos is named by a whole key, and an entry on disk only by its own."""

from __future__ import annotations

import pytest

from lib_faceid.errors import BadIdentity, BadRequest

from ..models_folder import photo
from .finding import ONE, find
from .test_disk import entries, kept


@pytest.mark.parametrize("part", [lambda key: key[:8], lambda key: "", lambda key: key + "0", lambda key: "saved:"])
def test_a_part_of_a_digest_names_nobody(ready, part):
    """Anybody could be shown, or forgotten, by the first letter."""
    people = kept(ready)
    anna = find(people, ready, **ONE)
    for again in (people, kept(ready)):
        assert not again.knows(part(anna.key))
        again.forget_person(f"digest:{part(anna.key)}")
        assert again.knows(anna.key)
        with pytest.raises((BadIdentity, BadRequest)):
            find(again, ready, identity=f"digest:{part(anna.key)}")


def test_an_entry_under_another_key_is_nobodys(ready):
    people = kept(ready)
    anna, ben = (find(people, ready, images=[photo(number)]) for number in (1, 2))
    first, second = (next(path for path in entries(ready) if path.stem == one.key) for one in (anna, ben))
    second.write_bytes(first.read_bytes())
    assert kept(ready).knows(ben.key)
    with pytest.raises(BadIdentity):
        find(kept(ready), ready, identity=f"digest:{ben.key}")
