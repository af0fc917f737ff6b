"""Patches leave no trace, whatever happens in between."""

from __future__ import annotations

import gc

import pytest
from torch import nn
from torch.utils.hooks import RemovableHandle

from lib_faceid.core.patch import AttributePatch, HookPatch, Patch, PatchSet, live_patches, sweep


class Thing:
    inherited = "class"

    def method(self) -> str:
        return "original"


class Failing(Patch):
    """Fails once where it is told to."""

    retries = True

    def __init__(self, on: str) -> None:
        super().__init__(f"failing on {on}")
        self.on = on

    def _install(self) -> None:
        if self.on == "install":
            raise ValueError("install")

    def _remove(self) -> None:
        if self.on == "remove":
            self.on = ""
            raise ValueError("remove")


def test_attribute_absence_is_remembered():
    thing = Thing()
    patch = AttributePatch(thing, "method", lambda: "patched")
    patch.install()
    assert thing.method() == "patched"
    patch.remove()
    assert vars(thing) == {}
    assert thing.method() == "original"


def test_attribute_value_is_remembered():
    thing = Thing()
    thing.inherited = "own"
    patch = AttributePatch(thing, "inherited", "patched")
    patch.install()
    patch.remove()
    assert vars(thing) == {"inherited": "own"}


def test_a_foreign_wrapper_is_left_alone_and_told():
    thing = Thing()
    patch = AttributePatch(thing, "method", lambda: "patched")
    patch.install()
    thing.method = lambda: "theirs"
    patch.remove()
    assert patch.disturbed
    assert thing.method() == "theirs"


def test_install_remove_install_remove():
    thing = Thing()
    patch = AttributePatch(thing, "x", 1)
    for _ in range(2):
        patch.install()
        assert live_patches() == [patch]
        patch.remove()
        patch.remove()
        assert live_patches() == []
        assert vars(thing) == {}


def test_a_second_installation_of_the_same_patch_is_refused():
    patch = AttributePatch(Thing(), "x", 1)
    patch.install()
    with pytest.raises(RuntimeError, match="installed already"):
        patch.install()
    patch.remove()


def test_hooks_of_others_keep_their_place():
    linear = nn.Linear(2, 2)
    linear.register_forward_hook(lambda *_: None)
    before = list(linear._forward_hooks.items())
    patch = HookPatch("linear", linear, lambda m: m.register_forward_hook(lambda *_: None))
    patch.install()
    assert len(linear._forward_hooks) == 2
    patch.remove()
    assert list(linear._forward_hooks.items()) == before


def test_a_hook_moves_to_a_wrapper():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    patch = HookPatch("linear", first, lambda m: m.register_forward_hook(lambda *_: None))
    patch.install()
    patch.move_to(second)
    assert not first._forward_hooks
    assert len(second._forward_hooks) == 1
    patch.remove()
    assert not second._forward_hooks


def test_failed_installation_takes_back_what_was_done():
    thing = Thing()
    patches = PatchSet([AttributePatch(thing, "x", 1), Failing("install")])
    with pytest.raises(ValueError, match="install"):
        patches.install()
    assert vars(thing) == {}
    assert live_patches() == []


def test_failed_removal_does_not_stop_the_others():
    thing = Thing()
    patches = PatchSet([AttributePatch(thing, "x", 1), Failing("remove"), AttributePatch(thing, "y", 2)])
    patches.install()
    with pytest.raises(ValueError, match="remove"):
        patches.remove()
    assert vars(thing) == {}
    assert live_patches() == [patches.patches[1]]
    assert sweep() == []
    assert live_patches() == []


def test_sweeping_takes_everything_away_and_tells_what_it_could_not():
    thing, failing = Thing(), Failing("remove")
    for patch in (AttributePatch(thing, "x", 1), failing, AttributePatch(thing, "x", 2)):
        patch.install()
    assert [str(error) for error in sweep()] == ["remove"]
    assert (vars(thing), live_patches()) == ({}, [failing])
    assert sweep() == live_patches() == []


def test_what_was_thrown_away_without_removing_it_is_found():
    module = nn.Linear(1, 1)
    HookPatch("hook", module, lambda m: m.register_forward_hook(lambda *_: None)).install()
    gc.collect()
    assert sweep() == live_patches() == []
    assert not module._forward_hooks


def test_a_hook_whose_removal_failed_is_removed_the_second_time(monkeypatch):
    module = nn.Linear(1, 1)
    patch = HookPatch("hook", module, lambda m: m.register_forward_hook(lambda *_: None))
    patch.install()
    with monkeypatch.context() as broken, pytest.raises(OSError, match="once"):
        broken.setattr(RemovableHandle, "remove", fail_once)
        patch.remove()
    assert len(module._forward_hooks) == 1
    patch.remove()
    assert not module._forward_hooks


def fail_once(handle):
    raise OSError("once")


def test_an_error_in_the_body_removes_and_goes_on():
    thing = Thing()
    with pytest.raises(KeyError), PatchSet([AttributePatch(thing, "x", 1)]):
        raise KeyError("body")
    assert vars(thing) == {}


def test_live_patches_can_be_read():
    patch = AttributePatch(Thing(), "x", 1)
    patch.install()
    assert repr(live_patches()[0]) == "<AttributePatch Thing.x installed>"
    patch.remove()
    assert repr(patch) == "<AttributePatch Thing.x removed>"


def test_what_cannot_be_undone_twice_is_not_tried_twice():
    class Once(Failing):
        retries = False

    patch = Once("remove")
    patch.install()
    with pytest.raises(ValueError, match="remove"):
        patch.remove()
    assert (patch.installed, live_patches()) == (False, [])
