"""Replace functions of a process while something is in use, in whatever order its users come and go."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

T = TypeVar("T")


class Patch:
    """One attribute, replaced for a while.

    Args:
        owner: The class or module that defines it.
        name: Its name.
        around: Makes the replacement of an original: one that wraps it (`functools.wraps`), and passes all calls on
            to it while nothing is in use.
    """

    def __init__(self, owner: type | ModuleType, name: str, around: Callable[[Any], Any]) -> None:
        self._owner, self._name, self._around = owner, name, around
        self._ours: weakref.WeakSet[Any] = weakref.WeakSet()

    def install(self) -> None:
        """Replace the attribute, unless ours is there already."""
        current = vars(self._owner)[self._name]
        if current not in self._ours:
            ours = self._around(current)
            self._ours.add(ours)
            setattr(self._owner, self._name, ours)

    def remove(self) -> None:
        """Put the original back, unless somebody else has replaced ours: theirs may call ours, which stays."""
        if (current := vars(self._owner)[self._name]) in self._ours:
            setattr(self._owner, self._name, current.__wrapped__)


class _Use(Generic[T]):
    """One use of a thing, which may have several at once."""

    def __init__(self, item: T) -> None:
        self.item = item


class InUse(Generic[T]):
    """What is in use, the newest last; patches are there while anything is. Thread-safe.

    Args:
        changed: Called without a lock whenever another one is the newest, with whether there was none before or
            is none now.
        patches: Installed with the first, removed with the last.
    """

    def __init__(self, changed: Callable[[bool], object] = lambda _: None) -> None:
        self.patches: list[Patch] = []
        self._changed = changed
        self._mutex = threading.Lock()
        self._uses: list[_Use[T]] = []
        self._all: tuple[T, ...] = ()

    @property
    def all(self) -> tuple[T, ...]:
        """Everything in use, the newest last."""
        return self._all

    @contextmanager
    def using(self, item: T) -> Iterator[None]:
        """Have `item` in use until the end of the block, and the newest one until then or until the next."""
        use = _Use(item)
        with self._mutex:
            first = not self._uses
            self._set([*self._uses, use])
            if first:
                for patch in self.patches:
                    patch.install()
        try:
            self._changed(first)
            yield
        finally:
            self._end(use)

    def _end(self, use: _Use[T]) -> None:
        with self._mutex:
            was_newest = self._uses[-1] is use
            self._set([other for other in self._uses if other is not use])
            last = not self._uses
            if last:
                for patch in self.patches:
                    patch.remove()
        if was_newest:
            self._changed(last)

    def _set(self, uses: list[_Use[T]]) -> None:
        self._uses = uses
        self._all = tuple(use.item for use in uses)
