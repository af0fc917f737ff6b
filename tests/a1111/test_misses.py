"""The face does not reach the picture, which is seen only while it is made: said under "stop" and under "warn"."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lib_faceid.core.entries import Entry
from lib_faceid.core.patch import live_patches
from lib_faceid.core.strength import Strength
from lib_faceid.core.tap import Taps
from lib_faceid.core.unet_map import find_layers
from lib_faceid.hosts.job import FaceIDStopped

from ..oracle_ldm import file_order
from ..unets import assert_same_state, state
from . import fake_sampling, fake_webui
from .checks import ANNA_THROUGHOUT, assert_nothing_left, assert_stops, drawn_with, extension_file
from .fake_webui import Processing, sent

LENIENT = {**ANNA_THROUGHOUT, "on_fail": "warn"}


def an_engine(host):
    """As TensorRT: the class has another forward, which knows no attention."""
    host.monkeypatch.setattr(type(host.unet), "forward", lambda unet, x, timesteps, context: x * 0.5)


def row_by_row(inner, x, sigma, context, rows, step):
    """A UNet call for each row, so that sides cannot be told."""
    unet = inner.checkpoint.model.diffusion_model
    return torch.cat([unet(x[n : n + 1], sigma[:1], context=context[n : n + 1]) for n in range(len(x))])


def rows_apart(host):
    host.monkeypatch.setattr(fake_sampling.InnerModel, "forward", row_by_row)


def no_unet_call(host):
    host.monkeypatch.setattr(fake_sampling.InnerModel, "forward", lambda inner, x, *rest: x * 0.5)


def tiles(host):
    host.rules.tiles, host.rules.together = 4, 2


def left_half():
    file = io.BytesIO()
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


MISSES = {
    "engine": (an_engine, {}, "ran without the attention modules the identity is added to. An engine"),
    "rows apart": (rows_apart, {}, "called with 1 rows where 2 of this step's 2 rows were expected"),
    "no call": (no_unet_call, {}, "The UNet was not called while sampling"),
    "mask and tiles": (tiles, {"mask": left_half()}, "works on 4 rows where 2 are known, as tiling extensions do"),
}


@pytest.mark.parametrize(("prepare", "unit", "sentence"), MISSES.values(), ids=MISSES)
def test_stops(host, prepare, unit, sentence):
    before = state(host.unet)
    prepare(host)
    assert_stops(host, sent({**ANNA_THROUGHOUT, **unit}), sentence)
    assert_same_state(before, state(host.unet))


@pytest.mark.parametrize("name", MISSES)
def test_a_stop_is_in_the_comments_as_well(host, name):
    """X/Y/Z plot swallows the error."""
    prepare, unit, _ = MISSES[name]
    prepare(host)
    p = Processing(host)
    with pytest.raises(FaceIDStopped) as caught:
        host.process(p, *sent({**ANNA_THROUGHOUT, **unit}))
    assert list(p.comments) == [f"FaceID: {caught.value}"]


@pytest.mark.parametrize("name", MISSES)
def test_goes_on(host, name):
    prepare, unit, sentence = MISSES[name]
    before = state(host.unet)
    prepare(host)
    job = host.run(*sent({**LENIENT, **unit}), steps=3)
    assert torch.equal(job.pictures[0], host.run(steps=3).pictures[0])
    note = job.texts[0]["FaceID note"]
    assert "FaceID" not in job.texts[0]
    assert note.startswith("The face was not applied: ")
    assert sentence in note
    assert job.comments == [f"FaceID: {note}"]
    assert_same_state(before, state(host.unet))
    assert_nothing_left(host)


def test_gives_up_in_the_middle(host, anna):
    """The first step has the face, the others are the bare UNet's, and it is said once."""
    host.during = lambda denoiser: rows_apart(host) if denoiser.step == 1 else None
    taps = []
    host.denoise_callbacks.append(lambda params: taps.append(len(live_patches())))
    job = host.run(*sent(LENIENT), steps=4)
    assert [count > 30 for count in taps] == [True, True, False, False]
    assert len(job.comments) == 1
    (call,) = host.calls
    assert [row.side for row in call.rows] == ["cond", "uncond"]
    assert (call.output - drawn_with(call, anna)).abs().max() <= 1e-5
    assert (live_patches(), host.reported) == ([], [])


def test_giving_up_in_one_batch_is_not_told_of_the_next(host):
    whole = fake_sampling.InnerModel.forward

    def forward(inner, *args):
        return (row_by_row if host.passes == 0 else whole)(inner, *args)

    host.monkeypatch.setattr(fake_sampling.InnerModel, "forward", forward)
    job = host.run(*sent(LENIENT), n_iter=2)
    assert len(host.calls) == 2
    assert [set(text) for text in job.texts] == [{"FaceID note"}, {"FaceID"}]


def test_one_strict_unit_is_enough(host):
    an_engine(host)
    with pytest.raises(FaceIDStopped, match="ran without the attention modules"):
        host.run(*sent(LENIENT, ANNA_THROUGHOUT))


def test_some_layers_are_passed_by_and_by_whom(host, tmp_path):
    """Somebody's forward on two cross-attentions: told, with the name of the extension, and no reason to stop."""
    path = tmp_path / "extensions-builtin" / "cacher" / "scripts" / "cache.py"
    theirs = extension_file(path, "def forward(x, context=None, mask=None):\n    return x\n")
    for attention in file_order(host.unet)[:2]:
        attention.forward = theirs["forward"]
    job = host.run(*sent(ANNA_THROUGHOUT))
    note = "The identity reached only 14 of 16 layers in some steps"
    assert job.texts[0]["FaceID note"].startswith(note)
    assert job.texts[0]["FaceID note"].endswith("Likely by: the extension cacher.")
    assert str(tmp_path) not in job.texts[0]["FaceID note"]


def test_no_step_in_the_window(host):
    """Progress 0 and 0.5."""
    job = host.run(*sent({**ANNA_THROUGHOUT, "start": 0.6, "end": 0.9}))
    assert job.texts[0]["FaceID note"].startswith("None of the 2 steps falls in the window from start to end (0.6 to")
    assert torch.equal(job.pictures[0], host.run().pictures[0])


def test_a_mask(host, anna):
    """White where the face acts, in any size."""
    host.run(*sent({**ANNA_THROUGHOUT, "mask": left_half()}))
    region = torch.zeros(64, 64)
    region[:, :32] = 1
    assert host.calls
    for call in host.calls:
        assert (call.output - drawn_with(call, anna, mask=region)).abs().max() <= 1e-5


def test_factors_of_the_layers_in_the_order_of_execution(host, anna):
    """Only the seventh attention the UNet runs, the one in the middle block: the last in the file."""
    host.run(*sent({**ANNA_THROUGHOUT, "layers": [0, 0, 0, 0, 0, 0, 1, *[0] * 9]}))
    entry = Entry(anna.kv, Strength(0.8, by_layer=(0.0,) * 15 + (1.0,)))
    assert host.calls
    for call in host.calls:
        source = SimpleNamespace(rows=lambda batch, known=call.rows: known)
        source.progress = lambda timestep: 0.0
        with torch.no_grad(), Taps(call.unet, find_layers(call.unet), [entry], source):
            due = call.unet(call.x, call.timestep, context=call.context)
        assert (call.output - due).abs().max() <= 1e-5


def test_a_sampler_that_is_none_of_the_hosts(host):
    """It cannot be wrapped, so neither stopped: the picture is made, and says that it has no face."""

    class Other(fake_sampling.Sampler):
        launch_sampling = None  # type: ignore[assignment]

        def sample(self, x, steps):
            return x

    host.monkeypatch.setattr(fake_webui, "Sampler", Other)
    job = host.run(*sent(ANNA_THROUGHOUT))
    assert set(job.texts[0]) == {"FaceID note"}
    assert "A script or sampler that goes its own way made this picture" in job.texts[0]["FaceID note"]
    assert (live_patches(), host.reported) == ([], [])
