"""People saved in the models folder."""

from __future__ import annotations

import pytest
import torch

from lib_faceid.engine.people import People
from lib_faceid.errors import BadIdentity, BadRequest
from lib_faceid.library.person import SavedPerson

from ..models_folder import add_adapter, add_person
from .finding import ONE, VECTOR, find


def test_with_the_adapter_it_was_made_with(root, made):
    file = add_adapter(root, name="first.bin")
    anna = add_person(root, file)
    file.path.rename(file.path.with_name("renamed.bin"))
    add_adapter(root, seed=1, name="first.bin")
    people = People()
    person = find(people, root, identity="anna")
    assert torch.equal(person.identity.tokens, anna.tokens)
    assert (person.name, person.adapter.path.name, person.photos) == ("anna", "renamed.bin", ())
    assert find(people, root, identity="anna").identity is person.identity
    assert made == []


def test_for_the_base_of_the_checkpoint(root):
    identities = [add_adapter(root, base=base).identity() for base in ("sd15", "sdxl")]
    SavedPerson("anna", tuple(identities)).write(root / "ip-adapter" / "identities" / "anna.safetensors")
    people = People()
    for expected in [*identities, *identities]:
        person = find(people, root, expected.base, identity="anna")
        assert torch.equal(person.identity.tokens, expected.tokens)
        assert person.adapter.base == expected.base


def test_saved_again_under_the_name(root):
    file = add_adapter(root)
    add_person(root, file)
    people = People()
    first = find(people, root, identity="anna")
    add_person(root, file, seed=4)
    assert not torch.equal(find(people, root, identity="anna").identity.tokens, first.identity.tokens)


def test_a_copy_under_another_name(root):
    file = add_adapter(root)
    for name in ("anna", "anna copy"):
        add_person(root, file, name)
    saved = root / "ip-adapter" / "identities"
    (saved / "anna copy.safetensors").write_bytes((saved / "anna.safetensors").read_bytes())
    people = People()
    assert [find(people, root, identity=name).name for name in ("anna", "anna copy")] == ["anna", "anna copy"]


@pytest.mark.parametrize("name", ["../anna", "a/b", "a\\b", ".anna", "."])
def test_only_by_name(root, name):
    with pytest.raises(BadIdentity, match="A saved person is chosen by name"):
        find(People(), root, identity=name)


def test_not_together_with_photos(root):
    for more, words in ((ONE, "photos"), ({"embeddings": VECTOR}, "face vectors")):
        with pytest.raises(BadRequest, match=f"was given the saved person anna and {words} as well"):
            find(People(), root, identity="anna", **more)
    with pytest.raises(BadRequest, match="was given photos and face vectors as well"):
        find(People(), root, **ONE, embeddings=VECTOR)
