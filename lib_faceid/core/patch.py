"""Changes to objects that are not ours, each with its way back.

A patch is installed and removed as a pair; removing leaves the object as it was found, including the *absence* of an
attribute. Every installed patch is listed in ``live_patches()``, so that what an accident has left behind can be found
and taken away later.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from torch import nn
from torch.utils.hooks import RemovableHandle

# Strongly: a patch whose owner was thrown away without removing it is just what has to be found.
_live: dict[Patch, None] = {}


def live_patches() -> list[Patch]:
    """Every patch that is installed now, in the order of installation; empty whenever no picture is being made."""
    return list(_live)


def sweep() -> list[Exception]:
    """Remove every patch that is installed, the last first. Returns what went wrong; never raises."""
    errors: list[Exception] = []
    for patch in reversed(live_patches()):
        try:
            patch.remove()
        except Exception as error:
            errors.append(error)
    return errors


class Patch(ABC):
    """One change with its undo. ``label`` says in words what is patched.

    ``retries``: undoing it is one step, so where that fails it can be tried again. Other patches undo all they can the
    first time.
    """

    retries = False

    def __init__(self, label: str) -> None:
        self.label = label
        self.installed = False

    def install(self) -> None:
        """Make the change. Raises RuntimeError when it is in place already."""
        if self.installed:
            raise RuntimeError(f"{self.label} is installed already")
        self._install()
        self.installed = True
        _live[self] = None

    def remove(self) -> None:
        """Undo the change; does nothing when it is not in place.

        Where undoing raises, the patch counts as removed unless it ``retries``: then it stays installed and listed.
        """
        if not self.installed:
            return
        self.installed = False
        try:
            self._remove()
        except BaseException:
            self.installed = self.retries
            raise
        finally:
            if not self.installed:
                _live.pop(self, None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label} {'installed' if self.installed else 'removed'}>"

    @abstractmethod
    def _install(self) -> None: ...

    @abstractmethod
    def _remove(self) -> None: ...


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls a bound method without keeping its object alive; for hooks and patches of that object.

    Otherwise object, patch and hook would form a circle, and the tensors of a picture would wait for the garbage
    collector.
    """
    reference = weakref.WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*args, **kwargs)

    return call


def do_all(actions: Iterable[Callable[[], object]]) -> None:
    """Give every action its turn, whatever happens; then raise the first failure."""
    failure: BaseException | None = None
    for action in actions:
        try:
            action()
        except BaseException as error:
            failure = failure or error
    if failure is not None:
        raise failure


_ABSENT = object()


class SharedPatch(Patch):
    """A patch with several holders: in place from the first ``hold`` to the last ``release``."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._holders = 0

    def hold(self) -> None:
        """Install for the first holder; others share it."""
        if not self._holders:
            self.install()
        self._holders += 1

    def release(self) -> None:
        """Remove with the last holder."""
        self._holders -= 1
        if not self._holders:
            self.remove()


class AttributePatch(Patch):
    """Sets ``target.<name>`` on the instance and puts back what was there, or nothing if nothing was.

    Only ``vars(target)`` is touched, so an attribute inherited from the class is shadowed and shows again after
    removal. ``disturbed`` becomes True when somebody else replaced our value meanwhile: theirs is then left alone,
    because it may wrap ours.
    """

    retries = True

    def __init__(self, target: object, name: str, value: object) -> None:
        super().__init__(f"{type(target).__name__}.{name}")
        self.target, self.name, self.value = target, name, value
        self.disturbed = False
        self._before: Any = _ABSENT

    def _install(self) -> None:
        self._before = vars(self.target).get(self.name, _ABSENT)
        vars(self.target)[self.name] = self.value

    def _remove(self) -> None:
        self.disturbed = vars(self.target).get(self.name, _ABSENT) is not self.value
        if self.disturbed:
            return
        if self._before is _ABSENT:
            del vars(self.target)[self.name]
        else:
            vars(self.target)[self.name] = self._before
        self._before = _ABSENT


class HookPatch(Patch):
    """A module hook given by a function that registers it, for example ``lambda m: m.register_forward_hook(f)``.

    torch keeps hooks in dictionaries of the module; removing the handle takes our entry out and leaves the others'
    order alone.
    """

    retries = True

    def __init__(self, label: str, module: nn.Module, register: Callable[[nn.Module], RemovableHandle]) -> None:
        super().__init__(label)
        self.module = module
        self._register = register
        self._handle: RemovableHandle | None = None

    def move_to(self, module: nn.Module) -> None:
        """Seat the hook on another module, after a library has put a wrapper in the place of the first."""
        self.remove()
        self.module = module
        self.install()

    def _install(self) -> None:
        self._handle = self._register(self.module)

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None


Installed = TypeVar("Installed", bound="PatchSet")


class PatchSet:
    """Several patches as one: all are installed or none, all are removed even if one removal fails.

    Use as a context manager. ``remove`` raises the first failure after every patch has had its turn.
    """

    def __init__(self, patches: Iterable[Patch]) -> None:
        self.patches = tuple(patches)

    def install(self) -> None:
        """Install in order. On an error what was installed is removed again and the error goes on."""
        try:
            for patch in self.patches:
                patch.install()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove in reverse order."""
        do_all(patch.remove for patch in reversed(self.patches))

    def __enter__(self: Installed) -> Installed:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
