"""A simulated time on which the waits of several threads overlap, as those on a real clock do."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from crm_guard.clock import Wake

_GRACE: Final = 0.03
"""Real seconds without news, after which a thread that does not wait is taken for absent."""

_POLL: Final = 0.001
"""Real seconds between two looks at the events of all blocked waits, which take turns."""


class _Wait(NamedTuple):
    event: Wake
    deadline: float

    def is_over(self, now: float) -> bool:
        return self.event.is_set() or now >= self.deadline


class Overlap:
    """An instant that moves to the earliest deadline of all waits, once nobody is about to wait. Thread-safe.

    A thread takes part from the first time it asks for the instant, or waits. A wait blocks while another thread
    that takes part is alive and does not wait: until it waits, too, or until nothing has changed for a grace of
    real time. After that it is absent until it waits again. So a thread alone never blocks, and one that joins
    others, or works on something else, costs one grace.

    A copy and a pickle have the instant alone.

    Args:
        time: The first instant, in seconds.
    """

    def __init__(self, time: float) -> None:
        self.time = time
        self._news = threading.Condition()  # reentrant: a signal handler may interrupt a wait, and wait
        self._present: dict[threading.Thread, _Wait | None] = {}
        self._absent: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._changed = 0.0

    def __reduce__(self) -> tuple[type[Overlap], tuple[float]]:
        return type(self), (self.time,)

    def now(self) -> float:
        """Return the instant; the thread that asks takes part from here on."""
        me = threading.current_thread()
        if me not in self._present:
            with self._news:
                if me not in self._absent:
                    self._note(me, None)
        return self.time

    def advance(self, seconds: float) -> None:
        """Move the instant; waits whose deadline has passed end."""
        with self._news:
            self._move_to(self.time + seconds)

    def wait(self, event: Wake, timeout: float) -> None:
        """Block until `event` is set or the instant is `timeout` seconds later; a negative one is none."""
        me = threading.current_thread()
        with self._news:
            wait = _Wait(event, self.time + timeout)
            try:
                self._note(me, wait)
                while not wait.is_over(self.time):
                    self._present[me] = wait  # again: a wait in a signal handler replaces it
                    if not self._moved():
                        self._news.wait(_POLL * len(self._present))
            finally:
                self._note(me, None)

    def _note(self, thread: threading.Thread, wait: _Wait | None) -> None:
        self._absent.discard(thread)
        self._present[thread] = wait
        self._changed = time.monotonic()

    def _moved(self) -> bool:
        """Move to the earliest deadline unless somebody may yet begin an earlier wait; return whether it moved."""
        pending = {thread: wait for thread, wait in self._present.items() if wait and wait.deadline > self.time}
        waits = {thread: wait for thread, wait in pending.items() if not wait.event.is_set()}
        if len(waits) < len(pending):
            self._news.notify_all()
        if not waits:
            return False
        others = self._present.keys() - waits.keys()
        in_grace = time.monotonic() - self._changed < _GRACE
        if in_grace and any(thread.is_alive() for thread in others):
            return False
        for thread in others:
            del self._present[thread]
        self._absent.update(others)
        self._move_to(min(wait.deadline for wait in waits.values()))
        return True

    def _move_to(self, instant: float) -> None:
        self.time = instant
        self._changed = time.monotonic()
        self._news.notify_all()
