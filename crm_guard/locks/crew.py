"""A few threads that do what may block, so that whoever wants it done waits for a limited time."""

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


class NoTurn(Exception):  # noqa: N818 - no failure: a full house
    """Every thread was busy for the whole time; the work was not begun, and will not be."""


class _Job:
    """Something to do, and where its outcome is left: its result, or its error."""

    __slots__ = ("_outcome", "_turn", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._turn = threading.Lock()  # taken once: by the thread that begins, or the caller that gives up
        self._outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def do(self) -> None:
        """Do it, unless its caller has given up."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._outcome.put((self._work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the caller
            # The frames hold all that was read, and this job, in which the error stays if nobody waits for it.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            self._outcome.put((None, error))

    def outcome(self, seconds: float) -> tuple[Any, BaseException | None] | None:
        """Wait for the outcome; return None if there is none after `seconds`.

        The second half of the time is slept in small steps, and each counts as what it was meant to be. Where other
        threads compute, or the machine is busy, it takes longer, and so does the whole: Redis is not to blame then.
        """
        left, half = seconds, seconds / 2
        while left > 0:
            step = min(left - half, _SLICE) if left > half else _STEP
            left -= step
            with suppress(queue.Empty):
                return self._outcome.get(timeout=step)
        return None

    def give_up(self) -> bool:
        """See that it is not begun any more; return whether it has been."""
        return not self._turn.acquire(blocking=False)


class Crew:
    """Threads that do what may block, so that whoever wants it done waits for a limited time. Thread-safe.

    They start as needed, and are daemons: one that hangs delays neither a call nor the end of the process.

    Args:
        size: How many there are at most.
    """

    def __init__(self, size: int) -> None:
        self._size, self._hired, self._busy = size, 0, 0
        self._mutex = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    @property
    def idle(self) -> bool:
        """Whether nothing is being done, and nothing is left to do."""
        return self._busy == 0 and self._jobs.empty()

    def do(self, work: Callable[[], _Result], seconds: float) -> _Result:
        """Have `work` done, and return its result or raise its error; wait for it `seconds` in all.

        Raises:
            TimeoutError: It was begun in time, but not done. It goes on, and nobody will hear of its result.
            NoTurn: It was not begun in time.
            RuntimeError: There is no thread to be had.
        """
        job = _Job(work)
        try:
            self._put(job)
            outcome = job.outcome(seconds)
        finally:  # after Ctrl-C, too
            begun = job.give_up()
        if outcome is None:
            raise TimeoutError if begun else NoTurn
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return] # as `work` returned it

    def post(self, work: Callable[[], object]) -> None:
        """Have `work` done some time, and do not wait for it."""
        self._put(_Job(work))

    def close(self) -> None:
        """End the threads, each once it has done what it is doing."""
        for _ in range(self._hired):
            self._jobs.put(None)

    def _put(self, job: _Job) -> None:
        self._jobs.put(job)
        with self._mutex:
            if self._hired < self._size and self._hired - self._busy < self._jobs.qsize():
                threading.Thread(target=self._work, name="crm_guard-redis", daemon=True).start()
                self._hired += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._mutex:
                self._busy += 1
            job.do()
            with self._mutex:
                self._busy -= 1
            del job  # and with it the result, or the frames of an error
