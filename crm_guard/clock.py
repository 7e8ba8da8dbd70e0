"""Clocks, and waits that can be interrupted.

Everything that waits takes a :class:`Clock`, so that tests can control time, and sleeps on a :class:`Wake`, which
:class:`Stops` can set. Instants are `float` seconds on a monotonic scale with an arbitrary origin; timeouts are
`float` seconds.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from typing import Protocol

_SLICE = 0.25


def _signal_slice() -> float:
    """Return the longest time to sleep without interruption, in seconds: short in the main thread, for signals.

    Python runs signal handlers in the main thread, between two instructions. The handler of a signal that arrives
    just before that thread falls asleep would run only when the sleep ends.
    """
    return _SLICE if threading.current_thread() is threading.main_thread() else threading.TIMEOUT_MAX


class Wake:
    """An event that can be set in a signal handler.

    Thread-safe: any thread may set it; one thread waits for it and clears it. :meth:`set` is reentrant and never
    blocks. `threading.Event.set` is neither: it acquires a lock, which the interrupted thread may hold.
    """

    def __init__(self) -> None:
        self._set: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return not self._set.empty()

    def set(self) -> None:
        """Set the event, and wake the waiting thread. Reentrant; never blocks."""
        if self._set.empty():  # two threads may both put: an extra item is harmless
            self._set.put(None)

    def clear(self) -> None:
        """Reset the event. Only for the thread that waits for it."""
        while not self._set.empty():
            try:
                self._set.get_nowait()
            except queue.Empty:  # pragma: no cover (only if two threads clear it at once)
                return

    def wait(self, timeout: float) -> bool:
        """Block until the event is set or the timeout expires; the event stays set.

        Args:
            timeout: Seconds, 0 or more.

        Returns:
            Whether the event is set.
        """
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
    """The source of time of a guard, its `clock=` argument. Implementations must be thread-safe."""

    def now(self) -> float:
        """Return the current instant, in seconds. It never decreases; its origin is arbitrary."""
        ...

    def wait(self, event: Wake, timeout: float) -> bool:
        """Block until `event` is set or the timeout expires.

        Args:
            event: Set by another thread or a signal handler.
            timeout: Seconds by this clock. May be 0 or less, which does not block.

        Returns:
            Whether `event` is set.
        """
        ...


class SystemClock:
    """The default clock: `time.monotonic`, and real waits. Thread-safe, stateless."""

    def now(self) -> float:
        """Return `time.monotonic()`, which changes of the system time do not affect."""
        return time.monotonic()

    def wait(self, event: Wake, timeout: float) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether `event` is set."""
        return event.wait(timeout)


class Stops:
    """Ends all waits of calls that began before :meth:`stop`; later calls are not affected, unless it is for good.

    A call remembers the current :attr:`token` when it begins, registers its event with :meth:`watch`, and ends its
    wait once the token is :meth:`over`. Thread-safe. Every method is also safe in a signal handler, and reentrant:
    no lock is taken.

    Attributes:
        token: Replaced by each :meth:`stop`.
    """

    def __init__(self) -> None:
        self.token = object()
        self._for_good = False
        self._wakes: dict[Wake, None] = {}
        _everywhere[weakref.ref(self, _forget)] = None

    def stop(self, *, for_good: bool = False) -> None:
        """End the waits of all calls that began before, and `for_good` of all that begin later. Never blocks."""
        self._for_good = self._for_good or for_good
        self.token = object()  # first: a call that begins to watch from here on compares with it
        for wake in list(self._wakes):
            wake.set()

    def over(self, token: object) -> bool:
        """Return whether a call must not wait that began when `token` was current."""
        return _process.ends or self._for_good or self.token is not token

    def watch(self, wake: Wake, token: object) -> None:
        """Have `wake` set by the next :meth:`stop`; at once if there has been one since `token` was current.

        Args:
            wake: The event on which the call sleeps.
            token: The value of :attr:`token` when the call began.
        """
        self._wakes[wake] = None
        if self.over(token):
            wake.set()

    def unwatch(self, wake: Wake) -> None:
        """Undo :meth:`watch`. No-op if `wake` is not watched."""
        self._wakes.pop(wake, None)


class _Process:
    """Whether `stop_waiting(for_good=True)` was called: then no guard that is made later waits either."""

    ends = False


_process = _Process()

# A dictionary, not a WeakSet: copying its keys is atomic for signal handlers and threads.
_everywhere: dict[weakref.ref[Stops], None] = {}


def _forget(gone: weakref.ref[Stops]) -> None:
    _everywhere.pop(gone, None)


def stop_waiting(*, for_good: bool = False) -> None:
    """End the waits of all guards in the process at once, for example on SIGTERM.

    Each waiting call returns or raises what it has, with `GiveUpReason.STOPPED`. A call that waits before its first
    send, because its records are known to be locked, is sent once. `write_records` sends nothing any more, awaits
    the sends under way, and raises. Thread-safe, safe in a signal handler, and never blocks.

    Args:
        for_good: Whether the process is about to end: calls that begin later are then sent once and do not wait,
            and `write_records` sends nothing. By default they wait as usual. A forked process waits again.
    """
    _process.ends = _process.ends or for_good
    for found in list(_everywhere):
        stops = found()
        if stops is not None:
            stops.stop(for_good=for_good)


def _begin_anew() -> None:
    _process.ends = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
