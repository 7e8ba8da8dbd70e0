"""Gives rows their results, each one result, and counts them. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from crm_guard._protocol.scheduling.order import Order
from crm_guard._protocol.scheduling.row import Stage
from crm_guard._protocol.scheduling.tally import Tally
from crm_guard.row_results import RowResult, Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard._protocol.scheduling.parking import Gate
    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.outcomes import GiveUpReason, RecordOutcome


class Endings:
    """The results of one writer. Used by one thread at a time.

    Args:
        gate: What others know of locks.

    Attributes:
        results: What became of rows, to be taken by whoever gave them.
        tally: Counts.
        open: How many rows have no result yet.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate, self._order = gate, Order()
        self.results: deque[RowResult[Any]] = deque()
        self.tally = Tally()
        self.open = 0

    def enter(self, rows: Sequence[Row]) -> list[Row]:
        """Take in rows, in input order; return those that need not wait for an earlier one."""
        self.open += len(rows)
        enter = self._order.enter
        return [row for row in rows if enter(row)]

    def finish_written(self, rows: Sequence[Row], told: Sequence[Written]) -> Sequence[Row]:
        """Give rows that met no lock, and that CRM wrote, their results, as `finish` does: nearly all rows."""
        done, append, leave = Stage.DONE, self.results.append, self._order.leave
        heirs: list[Row] = []
        for row, written in zip(rows, told, strict=True):
            row.stage, row.encoded = done, b""
            row.result = result = RowResult(row.index, row.value, True, written, row.attempts)
            append(result)
            if waiting := leave(row):
                heirs.extend(waiting)
        self.open -= len(rows)
        self.tally.written += len(rows)
        return heirs

    def finish(
        self, row: Row, told: Written | RecordOutcome, now: float, reason: GiveUpReason | None = None
    ) -> Sequence[Row]:
        """Give a row its result; return the rows that waited for it alone.

        Args:
            row: The row.
            told: What CRM said of it.
            now: The instant.
            reason: Why it is no longer waited for its lock.
        """
        lock = row.lock
        waited = 0.0
        if lock is not None:
            waited = now - lock.since
            if reason is None and (isinstance(told, Written) or not told.uncertain):
                self._gate.verdict(row, locked=False)
            self._gate.leave(row)
        succeeded = isinstance(told, Written) or told.succeeded
        if isinstance(told, Written):
            self.tally.written += 1
        else:
            self.tally.add(told)
        row.stage, row.encoded = Stage.DONE, b""
        row.result = RowResult(row.index, row.value, succeeded, told, row.attempts, waited, reason)
        self.open -= 1
        self.results.append(row.result)
        return self._order.leave(row)
