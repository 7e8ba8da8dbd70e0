"""The scheduler: rows, answers and instants in; batches to send, instants to wake at, and results out. Pure.

Theory of operation. Every row is in one place: *queued* (fresh, urgent, or behind an earlier row with its key),
*in flight*, *parked* for a lock, *undiagnosed*, or *done*. Only done rows have a result, and each gets exactly one.
:meth:`Scheduler.next` hands out what to send now; :meth:`Scheduler.absorb` takes the answer. A row is sent again
only after CRM refused it (:mod:`crm_guard._protocol.scheduling.reading`), or where its batch never left.

A batch leaves as soon as it is full, when no more rows will come, or when a row is due and no fuller batch is in
sight. Locked rows wait in :mod:`crm_guard._protocol.scheduling.parking`, and delay no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crm_guard._protocol.call_events import Teller
from crm_guard._protocol.scheduling.desk import Desk
from crm_guard._protocol.scheduling.row import Batch, Stage
from crm_guard._protocol.scheduling.settling import Settling

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping, Sequence

    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.scheduling.end import End
    from crm_guard._protocol.scheduling.news import Newsroom
    from crm_guard._protocol.scheduling.parking import Gate
    from crm_guard._protocol.scheduling.reading import Reading
    from crm_guard._protocol.scheduling.row import Question, Row
    from crm_guard._protocol.scheduling.target import Target
    from crm_guard.outcomes import CallError, RecordOutcome
    from crm_guard.row_results import RowResult, WriteCounts
    from crm_guard.settings import GuardSettings


class Scheduler:
    """Decides which rows are sent when, and what became of each. Used by one thread at a time.

    Args:
        target: Where the rows go.
        judge: Judges items.
        settings: The policy.
        random: Returns a number from 0 (included) to 1.
        batch_size: How many rows a batch may hold.
        workers: How many calls may be under way.
        gate: What others know of locks; None: nothing is shared.
        renews: Whether credentials can be renewed.
    """

    def __init__(
        self,
        target: Target,
        judge: Judge,
        settings: GuardSettings,
        random: Callable[[], float],
        *,
        batch_size: int,
        workers: int,
        gate: Gate | None = None,
        renews: bool = False,
    ) -> None:
        self._size, self._renews = batch_size, renews
        self._waits = settings.timeout > 0 and bool(settings.retry_actions)
        teller = Teller(target.method, urlsplit(target.address.url).path, target.template.route.module)
        self._desk = Desk(judge, settings, random, size=batch_size, workers=workers, gate=gate, teller=teller)
        self._settling = Settling(self._desk, target.credits_of, workers=workers, renews=renews)

    # -- rows in, and what is known

    def add(self, rows: Sequence[Row], now: float) -> None:
        """Take in rows, in input order."""
        desk = self._desk
        gate = desk.gate
        ready = desk.endings.enter(rows)
        if gate and self._waits and desk.end is None:
            known = gate.known(ready)
            for row in ready:
                if row.index in known:
                    desk.parking.expect(row, now)
                    desk.news.locked(row)
            ready = [row for row in ready if row.index not in known]
            desk.publish(now)
        desk.queues.add(ready, now)

    def no_more(self) -> None:
        """Take in that no more rows will come."""
        self._desk.queues.ended = True

    def set_full(self, full: bool) -> None:
        """Take in whether no more rows are read until some are done. Any thread may do so."""
        self._desk.queues.full = full

    def look_early(self, row: Row, now: float) -> None:
        """Take in that others know more of a row's lock than they did."""
        self._desk.parking.look_early(row, now)

    def stop(self, end: End, now: float) -> None:
        """Send nothing any more; the first cause counts."""
        self._desk.stop(end, now)
        self._desk.publish(now)

    @property
    def newsroom(self) -> Newsroom:
        """Where the news come from: what is to be told. Another thread may take from its `outbox`."""
        return self._desk.news

    @property
    def end(self) -> End | None:
        """Why nothing is sent any more; None while it is."""
        return self._desk.end

    @property
    def results(self) -> deque[RowResult[Any]]:
        """What became of rows, to be taken by whoever gave them."""
        return self._desk.endings.results

    @property
    def blocked(self) -> Sequence[RecordOutcome]:
        """The outcomes of the first rows that stayed blocked."""
        return self._desk.endings.tally.blocked

    @property
    def backlog(self) -> int:
        """How many rows could be sent at once."""
        return self._desk.queues.backlog

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        desk = self._desk
        is_done = desk.queues.ended and desk.endings.open == 0
        return desk.under_way == 0 and (desk.end is not None or is_done)

    def sums(self) -> WriteCounts:
        """Return the counts of now."""
        return self._desk.endings.tally.sums(len(self._desk.parking.rows))

    # -- what to send

    def next(self, now: float) -> Batch | Question | None:
        """Return what to send now, None for nothing. Each batch or question must come back."""
        desk = self._desk
        if desk.end is not None:
            return None
        for row, reason in desk.parking.release(now):
            if reason is not None and row.refusal is not None:
                desk.finish(row, row.refusal, now, reason)
            else:
                desk.queues.hurry(row, now)
        desk.publish(now)
        if not desk.throttle.admits(desk.under_way, now):
            return None
        idle = desk.queues.ended and not desk.queues.has_some and not desk.under_way
        question = desk.diagnoses.take(now, idle=idle)
        if question is not None:
            desk.under_way += 1
            return question
        rows = self._load(now)
        return self._leave(rows, now) if rows else None

    def wakes_at(self, now: float) -> float:
        """Return the instant at which `next` may have something that it has not now; infinity for none."""
        desk, queues = self._desk, self._desk.queues
        if desk.end is not None:
            return float("inf")
        opens = desk.throttle.opens_at(desk.under_way)
        instants = [desk.diagnoses.due_at, queues.leaves_at()]
        if queues.ended and not queues.has_some:
            instants.append(desk.parking.ripe_at(self._size))
        if now < opens and (queues.has_some or desk.diagnoses):
            instants.append(now)
        return min(desk.parking.next_due(), max(min(instants), opens))

    def _load(self, now: float) -> list[Row]:
        queues, parking = self._desk.queues, self._desk.parking
        if whole := queues.next_whole():
            return whole
        is_ripe = queues.ended and not queues.has_some and parking.ripe_at(self._size) <= now
        if not is_ripe and not queues.is_time(now):
            return []
        rows = queues.take(now)
        return rows + parking.riders(self._size - len(rows), now)

    def _leave(self, rows: list[Row], now: float) -> Batch:
        in_flight = Stage.IN_FLIGHT
        for row in rows:
            row.stage = in_flight
            row.attempts += 1
        desk = self._desk
        desk.under_way += 1
        desk.endings.tally.in_flight += len(rows)
        desk.news.leaving(rows, now)
        renewed = desk.renewing or (self._renews and any(row.attempts > 1 for row in rows))
        return Batch(rows, now, renewed=renewed)

    # -- answers

    def absorb(self, batch: Batch, reading: Reading, now: float, source: Any = None) -> None:
        """Take in what CRM answered to a batch; see :meth:`Settling.absorb`."""
        self._settling.absorb(batch, reading, now, source)
        self._desk.publish(now, reading.error)

    def never_left(self, batch: Batch, error: CallError, now: float, source: Any = None) -> None:
        """Take in that no byte of a batch reached CRM."""
        self._settling.never_left(batch, error, now, source)
        self._desk.publish(now, error)

    def diagnosed(self, question: Question, states: Mapping[str, str], calls: int, now: float) -> None:
        """Take in the approval states that were asked for, as far as CRM told them."""
        self._settling.diagnosed(question, states, calls, now)
        self._desk.publish(now)
