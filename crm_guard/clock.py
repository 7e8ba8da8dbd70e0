"""Time, and waits that can be cut short.

Everything that waits takes a :class:`Clock`, so tests move time by hand, and sleeps on a :class:`Wake`, which
:class:`Stops` can set. Instants are seconds on a monotonic scale of no particular origin.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Protocol

_SLICE = 0.25


def _signal_slice() -> float:
    """Return the seconds after which a sleeping thread should look up: the main one is to hear of signals.

    Python runs signal handlers in the main thread, between two instructions. One that arrives in the microsecond
    before that thread falls asleep would be handled only when the sleep ends.
    """
    return _SLICE if threading.current_thread() is threading.main_thread() else threading.TIMEOUT_MAX


class Wake:
    """An event that may be set inside a signal handler. Thread-safe, for one waiting thread.

    `threading.Event.set` takes a lock, which the interrupted thread may hold; `queue.SimpleQueue.put` is documented
    as reentrant.
    """

    def __init__(self) -> None:
        self._set: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return not self._set.empty()

    def set(self) -> None:
        """Set it. Never blocks."""
        if self._set.empty():  # two at once may both put: one too many does no harm
            self._set.put(None)

    def clear(self) -> None:
        """Unset it."""
        while not self._set.empty():
            try:
                self._set.get_nowait()
            except queue.Empty:  # pragma: no cover (only where two threads clear it at once)
                return

    def wait(self, timeout: float) -> bool:
        """Block until it is set or `timeout` seconds have passed; return whether it is set."""
        end = time.monotonic() + timeout
        while not self._taken(min(max(end - time.monotonic(), 0.0), _signal_slice())):
            if time.monotonic() >= end:
                return False
        self._set.put(None)  # it stays set
        return True

    def _taken(self, timeout: float) -> bool:
        try:
            self._set.get(timeout=timeout)
        except queue.Empty:
            return False
        return True


class Clock(Protocol):
    """What the guard needs of time. Implementations are thread-safe."""

    def now(self) -> float:
        """Return the current instant, in seconds on a monotonic scale."""
        ...

    def wait(self, event: Wake, timeout: float) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set."""
        ...


class SystemClock:
    """The real clock: `time.monotonic`, and real waits. Thread-safe, without state."""

    def now(self) -> float:
        """Return `time.monotonic()`: steps of the wall clock do not reach it."""
        return time.monotonic()

    def wait(self, event: Wake, timeout: float) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set."""
        return event.wait(timeout)


class Stops:
    """Ends every wait under way, and only those: whoever waits later is not affected.

    A call remembers the current :attr:`token` when it begins, and has :meth:`watch` wake it. Every method may run
    inside a signal handler, also one that interrupts another of them: no lock is taken. Thread-safe.

    Attributes:
        token: Replaced by each :meth:`stop`; compare it by identity.
    """

    def __init__(self) -> None:
        self.token = object()
        self._wakes: dict[Wake, None] = {}
        _everywhere[weakref.ref(self, _forget)] = None

    def stop(self) -> None:
        """End every wait that began before."""
        self.token = object()  # first: who begins to watch from here on compares with it
        for wake in list(self._wakes):
            wake.set()

    def watch(self, wake: Wake, token: object) -> None:
        """Have `wake` set by the next :meth:`stop`; at once if there was one since `token` was current."""
        self._wakes[wake] = None
        if self.token is not token:
            wake.set()

    def unwatch(self, wake: Wake) -> None:
        """Forget `wake`."""
        self._wakes.pop(wake, None)


# A dictionary, and not a WeakSet: copying its keys is one step that no signal handler or thread can come between.
_everywhere: dict[weakref.ref[Stops], None] = {}


def _forget(gone: weakref.ref[Stops]) -> None:
    _everywhere.pop(gone, None)


def stop_waiting() -> None:
    """End the waits of every guard in the process at once, as when the process is asked to end.

    Each waiting call returns or raises what it has, with `GiveUpReason.STOPPED`; a call that waits before its first
    send, as its records are known to be locked, is sent once. Calls that begin later wait again. Safe inside a
    signal handler and in any thread.
    """
    for found in list(_everywhere):
        stops = found()
        if stops is not None:
            stops.stop()
