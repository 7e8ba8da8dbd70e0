"""Reads rows, as many as there is need and room for, and calls the threads to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from crm_guard._protocol.scheduling.end import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._bulk.crew import Crew
    from crm_guard._bulk.ledger import Ledger

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
        now: Returns the instant.
        most: How many rows may be pending.
        ahead: How many rows that could be sent at once are enough.

    Attributes:
        is_slow: Whether reading took long most recently: then results are not kept waiting for it.
    """

    def __init__(
        self,
        ledger: Ledger[T],
        crew: Crew,
        now: Callable[[], float],
        *,
        most: int,
        ahead: int,
    ) -> None:
        self._ledger, self._crew, self._now = ledger, crew, now
        self._most, self._ahead = most, ahead
        self._gulp = 1
        self._is_full = self._is_finished = self.is_slow = False

    def may_read(self) -> bool:
        """Return whether there is need of more rows, and room."""
        return self._room() > 0

    def read(self, most: int | None = None) -> bool:
        """Read up to `most` rows, by default as many as reading is quick; return whether any may have come."""
        room = self._room()
        if room <= 0:
            return False
        ledger, crew, began = self._ledger, self._crew, self._now()
        try:
            for _ in ledger.read_on(min(most or self._gulp, room)):
                crew.call()
        except Exception as exc:  # noqa: BLE001 (raised once all results were taken)
            ledger.ended = False  # nobody knows what would have come
            self._crew.stop(End(source=exc))
            return False
        self.is_slow = self._now() - began >= _SLOW
        self._gulp = 1 if self.is_slow else min(self._gulp * 2, _MOST_AT_ONCE)
        if ledger.ended and not self._is_finished:
            self._is_finished = True
            crew.finish()
        return True

    def _room(self) -> int:
        ledger, crew = self._ledger, self._crew
        is_full = ledger.pending >= self._most
        if is_full is not self._is_full:
            self._is_full = is_full
            crew.set_full(is_full)
        if is_full or ledger.ended or crew.end is not None:
            return 0
        return min(self._most - ledger.pending, self._ahead - crew.backlog)
