"""The threads of one writer: each takes the next batch, sends it, and brings back what CRM answered."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from crm_guard._bulk.inbox import Inbox
from crm_guard._bulk.sleepers import Sleepers
from crm_guard._protocol.scheduling.end import End
from crm_guard._protocol.scheduling.row import Batch
from crm_guard.clock import Wake
from crm_guard.outcomes import GiveUpReason
from crm_guard.row_results import WriteCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crm_guard._bulk.announcer import Announcer
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
        announcer: Tells the log and the hooks.
        clock: Source of time.
        most: How many threads there may be.
        size: How many rows a batch may hold.

    Attributes:
        inbox: Where rows are left for the threads; :meth:`call` says so.
        came: The threads that began.
        bell: Set when there is something new for the thread that takes the results.
        sums: Counts, of one instant, as far as the threads know them.
    """

    def __init__(
        self, scheduler: Scheduler, courier: Courier, announcer: Announcer, clock: Clock, most: int, size: int
    ) -> None:
        self._scheduler, self._courier, self._announcer, self._clock = scheduler, courier, announcer, clock
        self._most, self._size, self._hired = most, size, 0
        self._mutex = threading.Lock()
        self._idle, self.inbox = Sleepers(), Inbox()
        self.came: deque[threading.Thread] = deque()  # each thread that began,
        self._went: deque[None] = deque()  # and for each that ended: appending is atomic
        self._end: End | None = None  # what whoever stopped it first said
        self._is_last = self._abandoned = self._crashed = False
        self._process = os.getpid()
        self.bell, self.sums = Wake(), WriteCounts()

    # -- for the thread that takes the results; those marked reentrant for signal handlers and other threads, too

    def call(self) -> None:
        """Say that rows came in: whoever brings them may wait for the next one before it says anything else."""
        if self._idle:
            self._idle.wake_one()
        if self._hired < self._most:
            self.reinforce(self._size if self._hired else 1)

    def reinforce(self, least: int = 1) -> None:
        """Start another thread, if that many rows are there, and more batches than threads that are free."""
        worth = max(least, self._size * (1 + free) if (free := len(self._idle)) else 1)
        if self._hired < self._most and self.backlog >= worth and not self._is_last:
            self._hire()

    def finish(self) -> None:
        """Say that no more rows will come."""
        if self._hired == 0:
            self._is_last = True
        self._tell(partial(_end_rows, self._scheduler))

    def stop(self, end: End) -> None:
        """Have nothing sent any more. Reentrant; never blocks."""
        self._end = self._end or end
        self._tell(partial(self._scheduler.stop, end))
        self._is_last = True

    def set_full(self, full: bool) -> None:
        """Say whether no more rows are read until some are done: then no fuller batch is in sight."""
        self._tell(partial(_set_full, self._scheduler, full))

    def look_at(self, row: Row) -> None:
        """Say that others learnt something of a row's lock. Reentrant; never blocks."""
        self._tell(partial(self._scheduler.look_early, row))

    def abandon(self) -> None:
        """Await nothing any more: what is being sent stays uncertain."""
        self._abandoned = True
        self.stop(End(GiveUpReason.INTERRUPTED))

    @property
    def backlog(self) -> int:
        """How many rows could be sent at once, those included that no thread has looked at yet."""
        return len(self.inbox) + self._scheduler.backlog

    @property
    def end(self) -> End | None:
        """Why nothing is sent any more; None while it is."""
        return self._scheduler.end or self._end

    @property
    def is_foreign(self) -> bool:
        """Whether this is a forked process: the threads are those of its parent."""
        return os.getpid() != self._process

    @property
    def over(self) -> bool:
        """Whether nothing is sent any more, and every answer is there."""
        if self._abandoned or self.is_foreign:
            return True
        # One that is hired may not have come yet; one whose start was interrupted comes without being counted.
        return self._is_last and len(self._went) == max(self._hired, len(self.came))

    # -- the threads

    def _tell(self, message: Callable[[float], object]) -> None:
        self.inbox.put(message)
        self._idle.wake_one()

    def _hire(self) -> None:
        context = contextvars.copy_context()  # for example the caller's tracing span
        name = f"crm_guard-writer-{self._hired}"
        thread = threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads can be started
            if not self._hired:
                raise
            self._most = self._hired
        else:
            self._hired += 1

    def _run(self) -> None:
        self.came.append(threading.current_thread())
        wake = Wake()
        try:
            while (job := self._next(wake)) is not None:
                self._perform(job)
                self.bell.set()
                self._announcer.tell(self._fail)  # while it holds nothing that is to be sent
        except BaseException as exc:  # noqa: BLE001 (a thread that dies in silence would be awaited for ever)
            self._crashed = True  # what it was sending never comes back: nobody may wait for it
            self._fail(exc)
            with self._mutex, contextlib.suppress(Exception):  # it may be what failed
                self._scheduler.stop(End(source=exc), self._clock.now())
        finally:
            self._is_last = True
            # One that crashed may be in there still, and would be woken in place of another.
            self._idle.remove(wake)
            self._idle.wake_one()
            self._announcer.tell(self._fail)
            self._went.append(None)
            self._idle.wake_one()  # one after the other sees that it is over
            self.bell.set()

    def _next(self, wake: Wake) -> Batch | Question | None:
        """Wait for something to send, and return it; None once nothing will be sent any more."""
        while True:
            with self._mutex:
                wake.clear()
                self._idle.add(wake)
                now = self._clock.now()
                self.inbox.empty_into(self._scheduler, now)
                before = self._announcer.count
                job = self._scheduler.next(now)
                count = self._announcer.count
                over = self._scheduler.over or self._crashed
                if self._abandoned:  # asked once the rows are marked as being sent: so they are told as that
                    self._scheduler.stop(End(GiveUpReason.INTERRUPTED), now)  # the message may be yet to come
                    job, over = None, True
                until = self._scheduler.wakes_at(now)
                self.sums = self._scheduler.sums()
                if job is not None or over:
                    self._idle.remove(wake)
            self.bell.set()
            if over:
                return None
            if job is not None:
                self._idle.wake_one()  # another watches the clock and the messages meanwhile
                if count > before:  # that the job's rows wait no more, and are sent again
                    self._announcer.tell_up_to(count, self._fail)
                return job
            if self._announcer.has_news:
                self._idle.remove(wake)  # a hook may take its time
                self._idle.wake_one()
                self._announcer.tell(self._fail)
                continue
            if until < float("inf"):
                self._clock.wait(wake, min(until - now, _LONGEST))
            else:
                wake.wait(_LONGEST)  # for what another thread brings: no time need pass on the clock

    def _fail(self, exc: BaseException) -> None:
        self.stop(End(source=exc))

    def _perform(self, job: Batch | Question) -> None:
        courier, scheduler = self._courier, self._scheduler
        if isinstance(job, Batch):
            bring = partial(_absorb, scheduler, job, courier.send(job))
        else:
            bring = partial(_explain, scheduler, job, *courier.ask(job))
        with self._mutex:
            if not self._abandoned:
                bring(self._clock.now())


def _set_full(scheduler: Scheduler, full: bool, now: float) -> None:  # noqa: ARG001
    scheduler.set_full(full)


def _end_rows(scheduler: Scheduler, now: float) -> None:  # noqa: ARG001 (every message gets the instant)
    scheduler.no_more()


def _explain(scheduler: Scheduler, question: Question, states: Mapping[str, str], calls: int, now: float) -> None:
    scheduler.diagnosed(question, states, calls, now)


def _absorb(scheduler: Scheduler, batch: Batch, sent: Sent, now: float) -> None:
    if sent.fatal:
        scheduler.stop(End(GiveUpReason.FOLLOW_UP, sent.error, sent.source), now)
    if sent.reading is None:
        scheduler.never_left(batch, sent.error, now, sent.source)
    else:
        scheduler.absorb(batch, sent.reading, now, sent.source)
