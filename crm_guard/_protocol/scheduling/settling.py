"""Takes in what CRM answered to a batch: which rows have a result, wait, or go again. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crm_guard._protocol.scheduling.end import End
from crm_guard._protocol.scheduling.reading import Kind, Told
from crm_guard._protocol.scheduling.row import Stage
from crm_guard.outcomes import GiveUpReason
from crm_guard.row_results import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crm_guard._protocol.scheduling.desk import Desk
    from crm_guard._protocol.scheduling.reading import Reading
    from crm_guard._protocol.scheduling.row import Batch, Question, Row
    from crm_guard.outcomes import CallError, RecordOutcome

_MOST_LOST: Final = 2
"""Batches per worker, one after the other, without a result for any row: then CRM is out of order."""
_FEWEST_LOST: Final = 5


class Settling:
    """Takes in what CRM answered. Used by one thread at a time.

    Args:
        desk: Where the rows are.
        credits_of: Returns what a call with so many rows costs.
        workers: How many calls may be under way.
        renews: Whether credentials can be renewed.
    """

    def __init__(self, desk: Desk, credits_of: Callable[[int], int], *, workers: int, renews: bool) -> None:
        self._desk, self._credits_of, self._renews = desk, credits_of, renews
        self._queues, self._parking, self._diagnoses = desk.queues, desk.parking, desk.diagnoses
        self._endings, self._throttle, self._settings = desk.endings, desk.throttle, desk.settings
        self._gate, self._news = desk.gate, desk.news
        self._most_lost = max(_MOST_LOST * workers, _FEWEST_LOST)
        self._lost = 0

    def absorb(self, batch: Batch, reading: Reading, now: float, source: Any = None) -> None:
        """Take in what CRM answered to a batch.

        Args:
            batch: The batch.
            reading: What the answer says.
            now: The instant.
            source: The response or the exception, for whoever ends the writer because of it.
        """
        self._back(batch)
        self._endings.tally.spend(1, self._credits_of(len(batch.rows)))
        kind = reading.kind
        if kind is Kind.THROTTLED:
            self._turned_away(batch, now, End(GiveUpReason.TIMEOUT, reading.error, source), reading.retry_after)
        elif kind is Kind.UNAUTHORIZED and self._renews and not batch.renewed:
            self._desk.renewing = True
            self._queues.put_back(batch.rows)
        elif kind in {Kind.UNAUTHORIZED, Kind.ALIKE}:
            self._settle(batch, reading, now)
            self._desk.stop(End(GiveUpReason.FOLLOW_UP, reading.error, source), now)
        else:
            if reading.error.status is not None:  # an answer came
                self._throttle.got_through(batch.left_at, now)
            self._settle(batch, reading, now)
            self._watch(reading, now, source)
        if reading.credits is not None and reading.credits <= self._settings.min_credits:
            self._desk.stop(End(GiveUpReason.CREDITS, None, source), now)

    def never_left(self, batch: Batch, error: CallError, now: float, source: Any = None) -> None:
        """Take in that no byte of a batch reached CRM."""
        self._back(batch)
        for row in batch.rows:
            row.attempts -= 1
        self._turned_away(batch, now, End(GiveUpReason.FOLLOW_UP, error, source), None)

    def diagnosed(self, question: Question, states: Mapping[str, str], calls: int, now: float) -> None:
        """Take in the approval states that were asked for, as far as CRM told them."""
        self._desk.under_way -= 1
        self._endings.tally.spend(calls, calls)
        self._desk.conclude(question, self._desk.judge.knowing(states), now)

    def _back(self, batch: Batch) -> None:
        self._desk.under_way -= 1
        self._endings.tally.in_flight -= len(batch.rows)

    def _turned_away(self, batch: Batch, now: float, end: End, retry_after: float | None) -> None:
        self._queues.put_back(batch.rows)
        if not self._throttle.turned_away(batch.left_at, now, retry_after):
            self._desk.stop(end, now)

    def _settle(self, batch: Batch, reading: Reading, now: float) -> None:
        if reading.kind is Kind.HALVES:
            self._queues.halve(batch.rows)
        elif not reading.rows:
            self._queues.put_back(batch.rows)
        else:
            self._take_all(batch.rows, reading, now)

    def _take_all(self, rows: Sequence[Row], reading: Reading, now: float) -> None:
        written: list[Row] = []
        answers: list[Written] = []
        apart: list[Row] = []
        for row, told in zip(rows, reading.rows, strict=True):
            if isinstance(told, Written):
                if row.lock is None:
                    written.append(row)
                    answers.append(told)
                else:
                    self._desk.finish(row, told, now)
            elif told is None:
                apart.append(row)
            else:
                self._take(row, told, reading, now)
        for heir in self._endings.finish_written(written, answers):
            self._queues.inherit(heir)
        self._queues.again(apart)

    def _take(self, row: Row, told: Told, reading: Reading, now: float) -> None:
        if told.locked:
            self._park(row, told.outcome, reading.retry_after, now)
        elif told.item is not None and self._asks_about(told.outcome):
            row.stage, row.refusal = Stage.UNDIAGNOSED, told.outcome
            if row.lock is not None:  # others need not wait for the diagnosis
                self._gate.verdict(row, locked=False)
                self._news.free(row)
            self._diagnoses.add(row, told.item, now)
        else:
            self._desk.finish(row, told.outcome, now, _reason(row, told.outcome))

    def _park(self, row: Row, outcome: RecordOutcome, retry_after: float | None, now: float) -> None:
        self._gate.verdict(row, locked=True, retry_after=retry_after or 0.0)
        self._news.locked(row)
        limit = self._parking.refuse(row, outcome, now, retry_after)
        if limit is not None:
            self._desk.finish(row, outcome, now, limit)
        elif self._desk.end is not None:
            self._gate.leave(row)

    def _asks_about(self, outcome: RecordOutcome) -> bool:
        asks = self._settings.diagnose and self._desk.end is None
        return asks and outcome.needs_approval and bool(outcome.record_id)

    def _watch(self, reading: Reading, now: float, source: Any) -> None:
        """Stop where one batch after the other comes back without a result for any of its rows."""
        rows = reading.rows
        is_lost = bool(rows) and all(isinstance(row, Told) and row.outcome.uncertain for row in rows)
        self._lost = self._lost + 1 if is_lost else 0
        if self._lost >= self._most_lost:
            self._desk.stop(End(GiveUpReason.FOLLOW_UP, reading.error, source), now)


def _reason(row: Row, outcome: RecordOutcome) -> GiveUpReason | None:
    """Return why a row that has its result is no longer waited for, None where there is nothing to wait for."""
    if outcome.retryable:
        return GiveUpReason.UNMATCHED
    return GiveUpReason.FOLLOW_UP if row.lock is not None and outcome.uncertain else None
