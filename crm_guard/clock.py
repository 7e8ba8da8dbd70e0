"""How a process stops waiting, and the clocks on which it waits.

A clean stop. Between SIGTERM and SIGKILL a process has some seconds.
`crm_guard.stop_waiting(for_good=True)`, in a signal handler too, ends all waits at once, and calls
that begin later do not wait::

    import signal
    import crm_guard

    signal.signal(signal.SIGTERM, lambda number, frame: crm_guard.stop_waiting(for_good=True))

A call whose records are locked then raises `RecordLockedError` with the reason `STOPPED`, or
returns where others of its records were written; `remaining_request()` of the error or the report
is what to send later. `write_records` awaits what is under way and raises, and `unfinished()` has
the rest. Nothing is sent twice. Only a SIGKILL in the middle of a send leaves a write of which
nobody knows the end: let the process have more seconds than one send may take, which is its connect
and read timeout and five seconds of diagnosis. `GuardAdapter.stop_waiting()` ends the waits of one
guard.

Kubernetes, systemd, scripts. A process with the id 1 ignores a SIGTERM that it does not handle, and
a shell in front of it does not pass it on: start Python itself (`command: ["python", "job.py"]`).
This job needs less than the 30 seconds of the default `terminationGracePeriodSeconds`. It is for
updates: `rows` are those of no earlier run, and `kept` lies on a volume that outlives the pod;
after a SIGKILL, what was kept before is written again::

    import json
    import signal
    from pathlib import Path

    import crm_guard

    signal.signal(signal.SIGTERM, lambda number, frame: crm_guard.stop_waiting(for_good=True))


    def job(session, url, rows, kept: Path):
        before = map(json.loads, kept.read_text().splitlines()) if kept.exists() else ()
        rows = iter([*before, *rows])
        with crm_guard.write_records(session, "PUT", url, rows, timeout=(5, 15)) as writer:
            try:
                for result in writer:
                    if not result.succeeded:
                        print(result.to_dict())
            except crm_guard.GuardError as error:
                if error.report.reason is not crm_guard.GiveUpReason.STOPPED:
                    raise
            finally:
                writer.close()
                left = [row.row for row in writer.unfinished() if row.may_be_sent]
                new = kept.with_suffix(".new")
                with new.open("w") as file:
                    for row in (*left, *rows):
                        print(json.dumps(row), file=file)
                new.replace(kept)

gunicorn has no hook for SIGTERM in a worker, so its configuration puts one before the worker's own.
A worker of the class `sync` that takes longer than gunicorn's `timeout` is ended in the middle of
its call: that must be above what a call may take, which is the guard's own `timeout` (120 s), a
send before and one after it, and 5 seconds of diagnosis::

    # gunicorn.conf.py
    import signal

    import crm_guard

    timeout = 150


    def post_worker_init(worker):
        before = signal.getsignal(signal.SIGTERM)

        def stop(number, frame):
            crm_guard.stop_waiting(for_good=True)
            before(number, frame)

        signal.signal(signal.SIGTERM, stop)

A view answers a stopped call with 503 and `Retry-After: {error.retry_after}`, or puts
`error.remaining_request()` on a queue.

Celery. With the recipe of `crm_guard.remaining` there is nothing to do: tasks never wait, the
worker ends after the sends under way, and what it has put off with `retry` stays in the broker for
the next worker. Without `timeout=0` the same tasks wait, which suits a pool of `threads`, `gevent`
or `solo`; then add this::

    import crm_guard
    from celery import signals


    @signals.worker_shutting_down.connect
    def stop(**about):
        crm_guard.stop_waiting(for_good=True)

Children of the `prefork` pool hear nothing of SIGTERM: there, do not wait. Leave `task_acks_late`
off: a task whose worker is killed would be run again, and may have written.

For tests: everything that waits takes a `Clock`, and sleeps on a `Wake`, which `Stops` can set.
Instants are `float` seconds on a monotonic scale with an arbitrary origin; timeouts are `float`
seconds.
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

    def wait_again(self) -> None:
        """Have calls that begin from now on wait, also after a stop for good."""
        self._for_good = False

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


def wait_again() -> None:
    """Take back every `stop_waiting(for_good=True)`, so that tests do not depend on those before them."""
    _begin_anew()
    for found in list(_everywhere):
        stops = found()
        if stops is not None:
            stops.wait_again()


def _begin_anew() -> None:
    _process.ends = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
