"""Run blocking functions in a few threads, so that the caller waits for a limited time."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_SLICE, _STEP = 0.125, 0.005
"""Seconds; see `_Job.outcome`."""

_Result = TypeVar("_Result")


class PoolBusy(Exception):  # noqa: N818 - not an error: every thread is in use
    """Every thread was busy for the whole time, or the pool is closed; the function will not be started."""


class _Job:
    """A function to run, and its outcome: a result or an error."""

    __slots__ = ("_claim", "_function", "_outcome")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._claim = threading.Lock()  # acquired once: by the thread that starts the job, or by who cancels it
        self._outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Run it, unless it was cancelled."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._outcome.put((self._function(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            # The frames hold all that was read, and this job, in which the error stays if nobody waits for it.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            self._outcome.put((None, error))

    def outcome(self, timeout: float) -> tuple[Any, BaseException | None] | None:
        """Wait for the outcome; return None if there is none after `timeout` seconds.

        The second half of the time is slept in small steps, each counted at its nominal length. If other threads
        compute, or the machine is busy, a step takes longer, and so does the whole: that is not Redis's fault.
        """
        left, half = timeout, timeout / 2
        while left > 0:
            step = min(left - half, _SLICE) if left > half else _STEP
            left -= step
            with suppress(queue.Empty):
                return self._outcome.get(timeout=step)
        return None

    def cancel(self) -> bool:
        """Prevent it from starting; return whether that was too late. No-op once it has started."""
        return not self._claim.acquire(blocking=False)


class WorkerPool:
    """A few threads that run blocking functions. Thread-safe.

    Threads start on demand, and are daemons: one that hangs delays neither a call nor the exit of the process.

    Args:
        size: Maximum number of threads.
    """

    def __init__(self, size: int) -> None:
        self._size, self._started, self._busy = size, 0, 0
        self._closed = False
        self._mutex = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing is queued."""
        return self._busy == 0 and self._jobs.empty()

    def run(self, function: Callable[[], _Result], timeout: float) -> _Result:
        """Run `function` in a thread; return its result or raise its error.

        Args:
            function: What to run.
            timeout: Seconds to wait in all.

        Raises:
            TimeoutError: It was started but did not finish in time. It goes on, and its result is dropped.
            PoolBusy: It was not started in time, or the pool is closed.
            RuntimeError: No thread can be started.
        """
        job = _Job(function)
        try:
            self._put(job)
            outcome = job.outcome(timeout)
        finally:  # after Ctrl-C, too
            started = job.cancel()
        if outcome is None:
            raise TimeoutError if started else PoolBusy
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return] # as `function` returned it

    def submit(self, function: Callable[[], object]) -> None:
        """Run `function` in a thread, without waiting for it.

        Raises:
            PoolBusy: The pool is closed.
            RuntimeError: No thread can be started.
        """
        self._put(_Job(function))

    def close(self) -> None:
        """End the threads once they have run what is queued; start nothing more. Idempotent."""
        with self._mutex:
            self._closed = True
            while self._started:
                self._started -= 1
                self._jobs.put(None)

    def _put(self, job: _Job) -> None:
        with self._mutex:
            if self._closed:  # a thread that started now would never end
                raise PoolBusy
            self._jobs.put(job)
            if self._started < self._size and self._started - self._busy < self._jobs.qsize():
                threading.Thread(target=self._work, name="crm_guard-redis", daemon=True).start()
                self._started += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._mutex:
                self._busy += 1
            job.run()
            with self._mutex:
                self._busy -= 1
            del job  # and with it the result, or the frames of an error
