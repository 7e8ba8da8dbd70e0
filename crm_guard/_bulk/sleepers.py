"""The threads of a writer that have nothing to do, so that whoever brings something wakes one of them."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_guard.clock import Wake


class Sleepers:
    """The threads that sleep, or are about to, each by what wakes it. Thread-safe; waking is reentrant."""

    def __init__(self) -> None:
        self._wakes: deque[Wake] = deque()

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, wake: Wake) -> None:
        """Add a thread, unless it is there: from here on, whoever leaves a message wakes it or another."""
        if wake not in self._wakes:
            self._wakes.append(wake)

    def remove(self, wake: Wake) -> None:
        """Take out a thread that has something to do. No-op if it is not there."""
        with contextlib.suppress(ValueError):
            self._wakes.remove(wake)

    def wake_one(self) -> None:
        """Wake a thread, if there is one.

        It stays here until it has something to do: taken out by this, a Ctrl-C before it is woken would let it
        sleep on, and nobody would know of it.
        """
        with contextlib.suppress(IndexError):
            self._wakes[0].set()
