"""Sampling passes in A1111: whatever happens in one, everything is as before afterwards and the next one is right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lib_faceid
from lib_faceid.core.patch import AttributePatch, live_patches
from lib_faceid.core.session import Session
from lib_faceid.hosts.a1111 import sampling
from lib_faceid.hosts.job import FaceIDStopped

from . import fake_sampling, fake_webui
from .fake_webui import Host, Processing, sent
from .models_folder import add_adapter, add_person, make_models, sd15_checkpoint
from .unets import assert_same_state, ldm_unet, state

ANNA = {"identity": "anna", "lora": 0, "start": 0}


@pytest.fixture
def root(tmp_path):
    return make_models(tmp_path / "models")


@pytest.fixture
def anna(root):
    return add_person(root, add_adapter(root, text=768))


@pytest.fixture
def host(root, anna, monkeypatch):
    return Host(root, monkeypatch)


def at(step, action):
    """For ``Host.during``: something happens before a denoiser call."""

    def during(denoiser):
        if denoiser.step == step:
            action()

    return during


def fail():
    raise RuntimeError("out of memory")


def bare(call):
    with torch.no_grad():
        return call.unet(call.x, call.timestep, context=call.context)


def acted(host):
    return [not torch.equal(bare(call), call.output) for call in host.calls]


def with_anna(call, anna):
    sides = [row.side for row in call.rows]
    with torch.no_grad(), lib_faceid.applied(call.unet, anna, rows=sides, weight=0.8, lora=0.0):
        return call.unet(call.x, call.timestep, context=call.context)


def assert_clean(host, before, sampler):
    assert_same_state(before, state(host.first_checkpoint.model.diffusion_model))
    assert "launch_sampling" not in vars(sampler)
    assert not sampler.model_wrap_cfg.inner_model._forward_pre_hooks
    assert live_patches() == []
    assert sampling._running == []
    assert host.reported == []


def interrupt(host):
    host.during = at(1, lambda: setattr(host.state, "interrupted", True))


def skip(host):
    host.during = at(1, lambda: setattr(host.state, "skipped", True))


def error_in_sampling(host):
    host.during = at(1, fail)


def error_in_a_tap(host):
    host.monkeypatch.setattr(Session, "rows_and_gains", lambda *args: fail())


def error_in_a_callback_of_ours(host):
    host.monkeypatch.setattr(sampling.Denoising, "announce", lambda *args: fail())


ENDS = {
    "normal": (lambda host: None, None),
    "interrupted": (interrupt, None),
    "skipped": (skip, None),
    "error in sampling": (error_in_sampling, RuntimeError),
    "error at the first step": (lambda host: setattr(host, "during", at(0, fail)), RuntimeError),
    "error in a tap": (error_in_a_tap, RuntimeError),
}


@pytest.mark.parametrize("settings", [{}, {"enable_hr": True}, {"one_sampler": True, "n_iter": 2}], ids=str)
@pytest.mark.parametrize(("prepare", "error"), ENDS.values(), ids=ENDS)
def test_everything_is_as_before(host, prepare, error, settings):
    before = state(host.unet)
    prepare(host)
    p = Processing(host, **settings)
    if error is None:
        host.process(p, *sent(ANNA))
    else:
        with pytest.raises(error, match="out of memory"):
            host.process(p, *sent(ANNA))
    assert_clean(host, before, p.sampler)


@pytest.mark.parametrize("prepare", [interrupt, skip])
def test_an_interrupted_picture_is_not_complained_about(host, prepare):
    host.during = at(0, lambda: setattr(host.state, "interrupted", True))
    job = host.run(*sent({**ANNA, "start": 0.9}))
    assert (host.calls, job.comments, "FaceID note" in job.texts[0]) == ([], [], False)
    prepare(host)
    assert host.run(*sent({**ANNA, "start": 0.9})).comments == []


def test_a_failing_callback_is_noticed(host):
    """The host swallows it; the taps then do not know their rows, and say so."""
    error_in_a_callback_of_ours(host)
    with pytest.raises(FaceIDStopped, match="called with 2 rows where 0 of this step's 0 rows"):
        host.run(*sent(ANNA))
    assert live_patches() == []


class TestTheSampler:
    def test_a_wrapper_that_was_there_is_back_afterwards(self, host, anna):
        heard, wrapped = [], []

        class Wrapped(fake_sampling.Sampler):
            def __init__(self, p):
                super().__init__(p)
                inner = self.launch_sampling
                wrapped.append(lambda steps, func: (heard.append(steps), inner(steps, func))[1])
                self.launch_sampling = wrapped[-1]

        host.monkeypatch.setattr(fake_webui, "Sampler", Wrapped)
        p = Processing(host)
        host.process(p, *sent(ANNA))
        assert heard == [2]
        assert vars(p.sampler)["launch_sampling"] is wrapped[0]
        assert all(acted(host))

    def test_a_wrapper_that_comes_while_it_runs_stays_and_is_named(self, host, tmp_path):
        path = tmp_path / "extensions" / "sd-webui-other" / "scripts" / "other.py"
        path.parent.mkdir(parents=True)
        path.write_text("def launch(steps, func):\n    return func()\n")
        theirs: dict = {}
        exec(compile(path.read_text(), str(path), "exec"), theirs)
        p = Processing(host)
        host.during = at(1, lambda: vars(p.sampler).update(launch_sampling=theirs["launch"]))
        job = host.process(p, *sent(ANNA))
        assert vars(p.sampler)["launch_sampling"] is theirs["launch"]
        assert "the extension sd-webui-other replaced the sampler's launch_sampling" in job.texts[0]["FaceID note"]
        assert str(tmp_path) not in str(job.comments)
        assert live_patches() == []

    def test_what_an_accident_left_is_swept(self, host, caplog):
        """Armed and never launched; and a hook whose owner is gone. A job without FaceID takes both away."""
        p = Processing(host)
        p.sampler = fake_sampling.Sampler(p)
        for callback in ("before_process", "process"):
            getattr(host.script, callback)(p, *sent(ANNA))
        host.script.process_before_every_sampling(p, *sent(ANNA))
        left = AttributePatch(host.state, "textinfo", "left behind")
        left.install()
        assert "launch_sampling" in vars(p.sampler)
        host.run()
        assert "the last job left 2 changes behind" in caplog.text
        assert "launch_sampling" not in vars(p.sampler)
        assert host.state.textinfo is None
        assert live_patches() == []


def test_announced_twice_and_sampled_once(host):
    """Hosts may call before a pass that then does not come."""
    p = Processing(host)
    script = host.script.process_before_every_sampling
    host.monkeypatch.setattr(
        host.script, "process_before_every_sampling", lambda *args, **kw: [script(*args, **kw), script(*args, **kw)]
    )
    job = host.process(p, *sent(ANNA))
    assert (acted(host), job.comments) == ([True, True], [])
    assert "launch_sampling" not in vars(p.sampler)
    assert live_patches() == []


def test_a_sampler_that_makes_no_step(host):
    job = host.run(*sent(ANNA), steps=0)
    assert job.texts[0]["FaceID note"].startswith("The sampler made no step, so the face was not added.")


class TestRefiner:
    def run(self, host, unet, **unit):
        """A job of four steps with another UNet from the third on."""
        return host.run(*sent({**ANNA, **unit}), steps=4, refiner=(2, lambda: host.load(unet, "refiner v2")))

    def assert_acted(self, host, anna, expected):
        assert acted(host) == expected
        for call, does in zip(host.calls, expected, strict=True):
            due = with_anna(call, anna) if does else bare(call)
            assert (call.output - due).abs().max() <= 1e-5

    def test_the_same_unet(self, host, anna):
        before, unet = state(host.unet), host.unet
        job = self.run(host, unet)
        self.assert_acted(host, anna, [True] * 4)
        assert_same_state(before, state(unet))
        assert (job.comments, live_patches(), host.reported) == ([], [], [])

    def test_another_unet_of_the_base(self, host, anna):
        first, other = host.unet, sd15_checkpoint(seed=1)
        before = state(first), state(other)
        seen = []
        host.during = at(3, lambda: seen.append(state(first)))
        job = self.run(host, other)
        assert [call.unet for call in host.calls] == [first, first, other, other]
        self.assert_acted(host, anna, [True] * 4)
        assert_same_state(before[0], seen[0])  # nothing of ours stays on the first one while the other is at work
        assert_same_state(before[0], state(first))
        assert_same_state(before[1], state(other))
        assert (job.comments, live_patches(), host.reported) == ([], [], [])

    def test_a_unet_that_is_not_supported(self, host, anna):
        """The picture is half made: what there is of it stays, and the person is told."""
        first = host.unet
        before = state(first)
        other = ldm_unet()
        other.forward = lambda x, timesteps, context: x * 0.5
        job = self.run(host, other)
        self.assert_acted(host, anna, [True, True, False, False])
        assert_same_state(before, state(first))
        told = r"From step 3 of 4 on (refiner v2) the picture was made without the face: "
        assert told in job.texts[0]["FaceID note"]
        assert (live_patches(), host.reported) == ([], [])

    def test_a_checkpoint_without_a_unet(self, host, anna):
        class Transformer(nn.Module):
            def forward(self, x, sigma, context, rows, step):
                return x * 0.5

        def load():
            host.load(None, "sd3")
            host.monkeypatch.setattr(fake_sampling.InnerModel, "forward", Transformer.forward)

        job = host.run(*sent(ANNA), steps=4, refiner=(2, load))
        assert "From step 3 of 4 on (sd3) the picture was made without the face" in job.texts[0]["FaceID note"]
        assert len(job.comments) == 1
        assert (live_patches(), host.reported) == ([], [])

    def test_a_remark_on_one_batch_is_not_in_the_next(self, host):
        def load():
            other = ldm_unet()
            other.forward = lambda x, timesteps, context: x * 0.5
            if host.passes == 0:
                host.load(other)

        job = host.run(*sent(ANNA), n_iter=2, refiner=(1, load))
        assert ["FaceID note" in text for text in job.texts] == [True, False]

    def test_the_error_after_a_switch_cleans_both(self, host):
        first, other = host.unet, sd15_checkpoint(seed=1)
        before = state(first), state(other)
        host.during = at(3, fail)
        with pytest.raises(RuntimeError):
            self.run(host, other)
        assert_same_state(before[0], state(first))
        assert_same_state(before[1], state(other))
        assert live_patches() == []


def test_only_passes_of_ours_matter(host):
    """A denoiser of another sampler, as extensions that sample by themselves have."""
    foreign = SimpleNamespace(denoiser=SimpleNamespace(sampler=object()))
    host.during = at(1, lambda: host.denoise(foreign))
    host.run(*sent(ANNA))
    assert (acted(host), host.reported) == ([True, True], [])
