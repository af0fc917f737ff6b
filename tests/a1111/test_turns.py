"""Photos that each make a person of their own: every row of every batch has the tokens of its own picture's person."""

from __future__ import annotations

import pytest
import torch

import lib_faceid
from lib_faceid.engine.turns import Picture, turn_of

from .checks import assert_nothing_left, assert_stops, bare, drawn_with
from .fake_webui import Processing, sent

VECTORS = torch.randn(3, 512, generator=torch.Generator().manual_seed(5))
UNIT = {"embeddings": VECTORS.tolist(), "lora": 0, "start": 0}
PEOPLE = 3


@pytest.fixture
def people(made):
    adapter = made.load()
    return [lib_faceid.make_identity(adapter, embeddings=vector[None]) for vector in VECTORS]


@pytest.mark.parametrize("mode", ["cycle", "random"])
@pytest.mark.parametrize("prompts", [(1, 1), (2, 1, 3, 1)])
def test_every_picture_has_its_own_person(host, people, mode, prompts):
    job = host.run(*sent({**UNIT, "seed_mode": mode}), prompts=prompts, n_iter=3, seed=40)
    assert_nothing_left(host)
    assert (len(host.calls), job.comments) == (2 * 3, [])
    turns = set()
    for call in host.calls:
        drawn = [drawn_with(call, person) for person in people]
        for row, label in enumerate(call.rows):
            number = call.pass_number * len(prompts) + label.image
            turn = turn_of(Picture(number, 40 + number), PEOPLE, mode)
            turns.add(turn)
            torch.testing.assert_close(call.output[row], drawn[turn][row], atol=1e-5, rtol=1e-4)
            if label.side == "cond":
                assert not torch.allclose(call.output[row], drawn[(turn + 1) % PEOPLE][row], atol=1e-3)
                assert not torch.allclose(call.output[row], bare(call)[row], atol=1e-3)
    assert len(turns) > 1


def test_the_text_of_each_picture_names_its_own_person(host):
    job = host.run(*sent({**UNIT, "seed_mode": "cycle"}), prompts=(1, 1), n_iter=2)
    lines = job.texts[-1]["FaceID"]
    alone = [host.run(*sent({**UNIT, "embeddings": [vector]})).texts[0]["FaceID"] for vector in VECTORS.tolist()]
    assert len(set(alone)) == PEOPLE
    assert lines == [alone[0], alone[1], alone[2], alone[0]]


def test_one_photo_takes_every_turn(host):
    one = {**UNIT, "embeddings": VECTORS[:1].tolist()}
    together, cycle = (host.run(*sent({**one, "seed_mode": mode}), prompts=(1, 1)) for mode in ("together", "cycle"))
    assert torch.equal(together.pictures[0], cycle.pictures[0])
    assert together.texts == cycle.texts


def test_a_picture_alone_has_the_person_of_its_seed(host):
    """The same picture in a batch and alone."""
    random = {**UNIT, "seed_mode": "random"}
    batch = host.run(*sent(random), prompts=(1, 1, 1, 1), seed=7)
    lines = batch.texts[0]["FaceID"]
    for place in range(4):
        assert host.run(*sent(random), prompts=(1,), seed=7 + place).texts[0]["FaceID"] == [lines[place]]


def test_one_bad_photo_stops_the_unit(host):
    assert_stops(host, sent({**UNIT, "embeddings": None, "images": ["AAAA", "BBBB"], "seed_mode": "cycle"}), "Photo 1 ")


def test_seeds_that_another_script_changes_meanwhile(host):
    """The text names whoever acts, also where the seeds or the number of pictures changed after ours was asked."""
    args, p = sent({**UNIT, "seed_mode": "random"}), Processing(host, prompts=(1, 1), n_iter=2, seed=7)
    usual = host.run(*args, prompts=(1, 1), n_iter=2, seed=90).texts[-1]["FaceID"]
    begin = host.script.process
    host.script.process = lambda p, *args: (begin(p, *args), vars(p).update(seed=90))
    assert host.process(p, *args).texts[-1]["FaceID"] == usual
