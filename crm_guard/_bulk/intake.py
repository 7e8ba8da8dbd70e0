"""Reads rows, as many as there is need and room for, and hands them to the threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from crm_guard._protocol.scheduling.end import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._bulk.crew import Crew
    from crm_guard._bulk.ledger import Ledger
    from crm_guard._protocol.scheduling.scheduler import Scheduler

T = TypeVar("T")

_MOST_AT_ONCE: Final = 25
"""Rows that are read before results are looked for."""
_SLOW: Final = 0.01
"""Seconds of reading from which on only one row is read at once."""


class Intake(Generic[T]):
    """Reads rows, and hands them to the threads. Used by the thread that takes the results.

    Args:
        ledger: Where the rows are kept.
        crew: The threads.
        scheduler: Tells how many rows could be sent at once.
        now: Returns the instant.
        most: How many rows may be pending.
        ahead: How many rows that could be sent at once are enough.
        chunk: How many rows are handed over together.
    """

    def __init__(
        self,
        ledger: Ledger[T],
        crew: Crew,
        scheduler: Scheduler,
        now: Callable[[], float],
        *,
        most: int,
        ahead: int,
        chunk: int,
    ) -> None:
        self._ledger, self._crew, self._scheduler, self._now = ledger, crew, scheduler, now
        self._most, self._ahead, self._chunk = most, ahead, min(chunk, _MOST_AT_ONCE)
        self._gulp = 1
        self._is_full = self._is_finished = False

    def may_read(self) -> bool:
        """Return whether there is need of more rows, and room."""
        ledger, scheduler = self._ledger, self._scheduler
        is_full = ledger.pending >= self._most
        if is_full is not self._is_full:
            self._is_full = is_full
            self._crew.set_full(is_full)
        if is_full or ledger.ended or scheduler.end is not None:
            return False
        return scheduler.backlog + len(ledger.chunk) < self._ahead

    def read(self, most: int | None = None) -> bool:
        """Read up to `most` rows, by default as many as reading is quick; return whether any may have come."""
        if not self.may_read():
            return False
        ledger, began = self._ledger, self._now()
        try:
            ledger.read_on(min(most or self._gulp, self._most - ledger.pending))
        except Exception as exc:  # noqa: BLE001 (raised once all results were taken)
            ledger.ended = True
            self._crew.stop(End(source=exc))
            return False
        is_quick = self._now() - began < _SLOW
        self._gulp = min(self._gulp * 2, _MOST_AT_ONCE) if is_quick else 1
        if len(ledger.chunk) >= self._chunk or ledger.ended:
            self.hand_over()
        return True

    def hand_over(self) -> None:
        """Hand the rows that were read to the threads."""
        ledger = self._ledger
        if ledger.chunk:
            chunk, ledger.chunk = ledger.chunk, []
            self._crew.give(chunk)
        if ledger.ended and not self._is_finished:
            self._is_finished = True
            self._crew.finish()
