"""The threads of one writer: each takes the next batch, sends it, and brings back what CRM answered."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from crm_guard._protocol.scheduling.end import End
from crm_guard._protocol.scheduling.row import Batch
from crm_guard._protocol.scheduling.tally import Sums
from crm_guard.clock import Wake
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crm_guard._bulk.courier import Courier, Sent
    from crm_guard._protocol.scheduling.row import Question, Row
    from crm_guard._protocol.scheduling.scheduler import Scheduler
    from crm_guard.clock import Clock

_LONGEST: Final = 60.0
"""Seconds that a thread sleeps at most, for nothing but clocks that know no infinity."""


class Crew:
    """The threads of one writer.

    One mutex guards the scheduler, and only these threads take it. The thread that takes the results never does: it
    leaves messages, so that a Ctrl-C there, at whatever line, finds nothing half done.

    Args:
        scheduler: Decides what is sent when.
        courier: Sends.
        clock: Source of time.
        most: How many threads there may be.

    Attributes:
        bell: Set when there is something new for the thread that takes the results.
        sums: Counts, of one instant.
    """

    def __init__(self, scheduler: Scheduler, courier: Courier, clock: Clock, most: int) -> None:
        self._scheduler, self._courier, self._clock = scheduler, courier, clock
        self._most, self._hired = most, 0
        self._mutex = threading.Lock()
        self._inbox: queue.SimpleQueue[Callable[[float], object]] = queue.SimpleQueue()
        self._idle: deque[Wake] = deque()
        self._came: deque[None] = deque()  # one entry for each thread that began,
        self._went: deque[None] = deque()  # and for each that ended: appending is atomic
        self._is_last = self._abandoned = False
        self.bell = Wake()
        self.sums = Sums()

    # -- for the thread that takes the results; those marked reentrant for signal handlers and other threads, too

    def give(self, rows: Sequence[Row]) -> None:
        """Hand over rows, in input order."""
        self._tell(partial(_give, self._scheduler, rows))
        if not self._idle and self._hired < self._most:
            self._hire()

    def finish(self) -> None:
        """Say that no more rows will come."""
        if self._hired == 0:
            self._is_last = True
        self._tell(partial(_end_rows, self._scheduler))

    def stop(self, end: End) -> None:
        """Have nothing sent any more. Reentrant; never blocks."""
        self._is_last = True
        self._tell(partial(self._scheduler.stop, end))

    def set_full(self, full: bool) -> None:
        """Say whether no more rows are read until some are done: then no fuller batch is in sight."""
        self._scheduler.set_full(full)
        self._nudge()

    def look_at(self, row: Row) -> None:
        """Say that others learnt something of a row's lock. Reentrant; never blocks."""
        self._tell(partial(self._scheduler.look_early, row))

    def abandon(self) -> None:
        """Await nothing any more: what is being sent stays uncertain."""
        self._abandoned = True

    @property
    def over(self) -> bool:
        """Whether nothing is sent any more, and every answer is there."""
        return self._abandoned or (self._is_last and len(self._came) == len(self._went))

    # -- the threads

    def _tell(self, message: Callable[[float], object]) -> None:
        self._inbox.put(message)
        self._nudge()

    def _nudge(self) -> None:
        """Wake an idle thread, if there is one."""
        with contextlib.suppress(IndexError):
            self._idle.popleft().set()

    def _hire(self) -> None:
        context = contextvars.copy_context()  # for example the caller's tracing span
        name = f"crm_guard-writer-{self._hired}"
        thread = threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads can be started
            if not self._hired:
                raise
        self._hired += 1

    def _run(self) -> None:
        self._came.append(None)
        wake = Wake()
        try:
            while (job := self._next(wake)) is not None:
                self._perform(job)
        except BaseException as exc:  # noqa: BLE001 (a thread that dies in silence would be awaited for ever)
            with self._mutex:
                self._scheduler.stop(End(source=exc), self._clock.now())
        finally:
            self._is_last = True
            self._went.append(None)
            self._nudge()  # one after the other sees that it is over
            self.bell.set()

    def _next(self, wake: Wake) -> Batch | Question | None:
        """Wait for something to send, and return it; None once nothing will be sent any more."""
        while True:
            with self._mutex:
                wake.clear()
                if wake not in self._idle:  # from here on, whoever leaves a message wakes this thread or another
                    self._idle.append(wake)
                now = self._clock.now()
                self._drain(now)
                job = self._scheduler.next(now)
                over, until = self._scheduler.over, self._scheduler.wakes_at(now)
                self.sums = self._scheduler.sums()
                if job is not None or over:
                    with contextlib.suppress(ValueError):
                        self._idle.remove(wake)
            self.bell.set()
            if over:
                return None
            if job is not None:
                self._nudge()  # another watches the clock and the messages meanwhile
                return job
            self._clock.wait(wake, min(until - now, _LONGEST))

    def _drain(self, now: float) -> None:
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                return
            message(now)

    def _perform(self, job: Batch | Question) -> None:
        if isinstance(job, Batch):
            sent = self._courier.send(job)
            with self._mutex:
                if not self._abandoned:
                    _absorb(self._scheduler, job, sent, self._clock.now())
        else:
            states, calls = self._courier.ask(job)
            with self._mutex:
                if not self._abandoned:
                    self._scheduler.diagnosed(job, states, calls, self._clock.now())


def _give(scheduler: Scheduler, rows: Sequence[Row], now: float) -> None:
    scheduler.add(rows, now)


def _end_rows(scheduler: Scheduler, now: float) -> None:  # noqa: ARG001 (every message gets the instant)
    scheduler.no_more()


def _absorb(scheduler: Scheduler, batch: Batch, sent: Sent, now: float) -> None:
    if sent.fatal:
        scheduler.stop(End(GiveUpReason.FOLLOW_UP, sent.error, sent.source), now)
    if sent.reading is None:
        scheduler.never_left(batch, sent.error, now, sent.source)
    else:
        scheduler.absorb(batch, sent.reading, now, sent.source)
