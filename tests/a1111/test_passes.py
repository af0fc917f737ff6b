"""Sampling passes in A1111: whatever happens in one, everything is as before afterwards and the next one is right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lib_faceid.core.patch import AttributePatch, Patch, live_patches
from lib_faceid.core.session import Session
from lib_faceid.hosts.a1111 import sampling
from lib_faceid.hosts.job import FaceIDStopped

from ..unets import assert_same_state, state
from . import fake_sampling, fake_webui
from .checks import ANNA_THROUGHOUT, acted, assert_nothing_left, at, extension_file, fail
from .fake_webui import Processing, sent


class Stuck(Patch):
    """Cannot be taken away for a while."""

    retries = is_stuck = True

    def _install(self) -> None: ...

    def _remove(self) -> None:
        if self.is_stuck:
            raise OSError("stuck")


def assert_as_before(host, before, sampler):
    assert_same_state(before, state(host.first_checkpoint.model.diffusion_model))
    assert "launch_sampling" not in vars(sampler)
    assert not sampler.model_wrap_cfg.inner_model._forward_pre_hooks
    assert_nothing_left(host)


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
        host.process(p, *sent(ANNA_THROUGHOUT))
    else:
        with pytest.raises(error, match="out of memory"):
            host.process(p, *sent(ANNA_THROUGHOUT))
    assert_as_before(host, before, p.sampler)


@pytest.mark.parametrize("prepare", [interrupt, skip])
def test_an_interrupted_picture_is_not_complained_about(host, prepare):
    host.during = at(0, lambda: setattr(host.state, "interrupted", True))
    job = host.run(*sent({**ANNA_THROUGHOUT, "start": 0.9}))
    assert (host.calls, job.comments, "FaceID note" in job.texts[0]) == ([], [], False)
    prepare(host)
    assert host.run(*sent({**ANNA_THROUGHOUT, "start": 0.9})).comments == []


def test_a_failing_callback_is_noticed(host):
    """The host swallows it; the taps then do not know their rows, and say so."""
    error_in_a_callback_of_ours(host)
    with pytest.raises(FaceIDStopped, match="called with 2 rows where 0 of this step's 0 rows"):
        host.run(*sent(ANNA_THROUGHOUT))
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
        host.process(p, *sent(ANNA_THROUGHOUT))
        assert heard == [2]
        assert vars(p.sampler)["launch_sampling"] is wrapped[0]
        assert all(acted(host))

    def test_a_wrapper_that_comes_while_it_runs_stays_and_is_named(self, host, tmp_path):
        path = tmp_path / "extensions" / "sd-webui-other" / "scripts" / "other.py"
        theirs = extension_file(path, "def launch(steps, func):\n    return func()\n")
        p = Processing(host)
        host.during = at(1, lambda: vars(p.sampler).update(launch_sampling=theirs["launch"]))
        job = host.process(p, *sent(ANNA_THROUGHOUT))
        assert vars(p.sampler)["launch_sampling"] is theirs["launch"]
        assert "the extension sd-webui-other replaced the sampler's launch_sampling" in job.texts[0]["FaceID note"]
        assert str(tmp_path) not in str(job.comments)
        assert live_patches() == []

    def test_what_an_accident_left_is_swept(self, host, caplog):
        """Armed and never launched; and a hook whose owner is gone. A job without FaceID takes both away."""
        p = Processing(host)
        p.sampler = fake_sampling.Sampler(p)
        for callback in ("before_process", "process"):
            getattr(host.script, callback)(p, *sent(ANNA_THROUGHOUT))
        host.script.process_before_every_sampling(p, *sent(ANNA_THROUGHOUT))
        left = AttributePatch(host.state, "textinfo", "left behind")
        left.install()
        assert "launch_sampling" in vars(p.sampler)
        host.run()
        assert "the last job left 2 changes behind" in caplog.text
        assert "launch_sampling" not in vars(p.sampler)
        assert host.state.textinfo is None
        assert live_patches() == []

    def test_what_cannot_be_swept_does_not_stop_a_plain_job(self, host, caplog):
        """The log says so at every job, and pictures are made."""
        plain, stuck = host.run(), Stuck("stuck")
        stuck.install()
        for args, same in (((), True), (sent(ANNA_THROUGHOUT), False)):
            job = host.run(*args)
            assert "cannot be taken away; start the WebUI again" in caplog.text
            caplog.clear()
            assert live_patches() == [stuck]
            assert torch.equal(job.pictures[0], plain.pictures[0]) is same
        stuck.is_stuck = False
        host.run()
        assert live_patches() == []


def test_announced_twice_and_sampled_once(host):
    """Hosts may call before a pass that then does not come."""
    p = Processing(host)
    script = host.script.process_before_every_sampling
    host.monkeypatch.setattr(
        host.script, "process_before_every_sampling", lambda *args, **kw: [script(*args, **kw), script(*args, **kw)]
    )
    job = host.process(p, *sent(ANNA_THROUGHOUT))
    assert (acted(host), job.comments) == ([True, True], [])
    assert "launch_sampling" not in vars(p.sampler)
    assert live_patches() == []


def test_a_sampler_that_makes_no_step(host):
    job = host.run(*sent(ANNA_THROUGHOUT), steps=0)
    assert job.texts[0]["FaceID note"].startswith("The sampler made no step, so the face was not added.")


def test_only_passes_of_ours_matter(host):
    """A denoiser of another sampler, as extensions that sample by themselves have."""
    foreign = SimpleNamespace(denoiser=SimpleNamespace(sampler=object()))
    host.during = at(1, lambda: host.denoise(foreign))
    host.run(*sent(ANNA_THROUGHOUT))
    assert (acted(host), host.reported) == ([True, True], [])
