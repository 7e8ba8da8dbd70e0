"""Counts what became of rows, and what it cost. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard.row_results import WriteCounts

if TYPE_CHECKING:
    from crm_guard.outcomes import RecordOutcome


class Tally:
    """Counts what became of rows, and what it cost. Used by one thread at a time.

    Attributes:
        written: Rows that CRM wrote.
        in_flight: Rows that are being sent.
        calls: Requests made.
        credits: What these cost.
        blocked: The outcomes of the first rows that stayed blocked.
    """

    def __init__(self, kept: int = 100) -> None:
        self.written = self.in_flight = self.calls = self.credits = 0
        self.blocked: list[RecordOutcome] = []
        self._kept = kept
        self._blocked = self._failed = self._uncertain = 0

    def add(self, outcome: RecordOutcome) -> None:
        """Count a row that CRM did not write, or that nothing else is known of."""
        if outcome.succeeded:
            self.written += 1
        elif outcome.uncertain:
            self._uncertain += 1
        elif outcome.blocked:
            self._blocked += 1
            if len(self.blocked) < self._kept:
                self.blocked.append(outcome)
        else:
            self._failed += 1

    def spend(self, calls: int, credits: int) -> None:  # noqa: A002 (the name of the count)
        """Count requests, and what they cost."""
        self.calls += calls
        self.credits += credits

    def sums(self, waiting: int) -> WriteCounts:
        """Return the counts of now."""
        return WriteCounts(
            written=self.written,
            blocked=self._blocked,
            failed=self._failed,
            uncertain=self._uncertain,
            waiting=waiting,
            in_flight=self.in_flight,
            calls=self.calls,
            credits=self.credits,
        )
