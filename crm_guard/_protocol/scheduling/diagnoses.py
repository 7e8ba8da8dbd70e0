"""Rows that a person must approve: their approval states are asked for together. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from crm_guard._protocol.approval_probe import IDS_PER_PROBE
from crm_guard._protocol.scheduling.row import Question

if TYPE_CHECKING:
    from crm_guard._protocol.envelope import Item
    from crm_guard._protocol.scheduling.row import Row


class Diagnoses:
    """The rows whose approval states are yet to be asked for. Used by one thread at a time.

    Args:
        gather: Seconds for which a row waits for others to be asked about with it.
    """

    def __init__(self, gather: float) -> None:
        self._gather = gather
        self._rows: deque[tuple[Row, Item]] = deque()
        self.due_at = float("inf")

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, item: Item, now: float) -> None:
        """Add a row, and the item that refused it."""
        self._rows.append((row, item))
        self.due_at = min(self.due_at, now + self._gather)

    def take(self, now: float, *, idle: bool) -> Question | None:
        """Return what to ask now: a full question, or less once it has waited or nothing else is left to do."""
        if len(self._rows) < IDS_PER_PROBE and now < self.due_at and not (idle and self._rows):
            return None
        if not self._rows:
            return None
        taken = [self._rows.popleft() for _ in range(min(len(self._rows), IDS_PER_PROBE))]
        self.due_at = now + self._gather if self._rows else float("inf")
        return Question(taken)

    def drain(self) -> Question:
        """Return all rows: nothing is asked any more."""
        taken = Question(list(self._rows))
        self._rows.clear()
        self.due_at = float("inf")
        return taken
