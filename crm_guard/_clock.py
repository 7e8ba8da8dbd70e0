"""Time, and waits that can be cut short.

Everything that waits takes a :class:`Clock`, so tests move time by hand, and an :class:`Interrupts`, so closing
the adapter ends every wait at once. Instants are seconds on a monotonic scale of no particular origin.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the guard needs of time. Implementations are thread-safe."""

    def now(self) -> float:
        """Return the current instant, in seconds on a monotonic scale."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; tell whether it is set."""
        ...


class SystemClock:
    """The real clock: `time.monotonic`, and real waits. Thread-safe, without state."""

    def now(self) -> float:
        """Return `time.monotonic()`: steps of the wall clock do not reach it."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; tell whether it is set."""
        return event.wait(timeout)


class Interrupts:
    """Wakes every wait under way, and only those: an adapter may be used again after `close()`.

    A caller takes a :meth:`ticket` when its call begins, and passes the event it sleeps on to :meth:`watch`.
    Thread-safe.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._closings = 0
        self._events: set[threading.Event] = set()

    def ticket(self) -> int:
        """Return a number that :meth:`closed_since` compares with."""
        return self._closings

    def closed_since(self, ticket: int) -> bool:
        """Tell whether :meth:`close` was called after `ticket` was taken."""
        return self._closings != ticket

    def watch(self, event: threading.Event, ticket: int) -> None:
        """Have `event` set by the next :meth:`close`; at once if it came since `ticket`."""
        with self._mutex:
            self._events.add(event)
            if self._closings != ticket:
                event.set()

    def unwatch(self, event: threading.Event) -> None:
        """Forget `event`."""
        with self._mutex:
            self._events.discard(event)

    def close(self) -> None:
        """Set every watched event."""
        with self._mutex:
            self._closings += 1
            for event in self._events:
                event.set()
