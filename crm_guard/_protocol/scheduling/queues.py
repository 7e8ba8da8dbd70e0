"""Rows that could be sent at once, and when a batch of them leaves. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from crm_guard._protocol.scheduling.row import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.settings import GuardSettings

_LINGERS: Final = 0.1
"""Share of a first wait for which a row that is due awaits a fuller batch while rows are being read."""


class Queues:
    """Rows that could be sent at once. Used by one thread at a time.

    Args:
        settings: The policy.
        size: How many rows a batch may hold.

    Attributes:
        ended: Whether no more rows will come.
        full: Whether no more rows are read until some are done.
    """

    def __init__(self, settings: GuardSettings, size: int) -> None:
        self._size, self._lingers = size, _LINGERS * settings.wait_initial
        self._fresh: deque[Row] = deque()
        self._urgent: deque[Row] = deque()
        self._urgent_since, self._came_at = float("inf"), float("-inf")
        self._whole: deque[Sequence[Row]] = deque()
        self.ended = self.full = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._urgent)

    @property
    def backlog(self) -> int:
        """How many rows could be sent at once."""
        return len(self) + sum(map(len, self._whole))

    def add(self, rows: Iterable[Row], now: float) -> None:
        """Add rows that were not sent before, and came in just now."""
        self._came_at = now
        self._fresh.extend(rows)

    def inherit(self, row: Row) -> None:
        """Add a row that waited for an earlier one: it is older than the other fresh ones."""
        self._fresh.appendleft(row)

    def hurry(self, row: Row, now: float) -> None:
        """Add a row whose wait is over: it goes before fresh ones."""
        if not self._urgent:
            self._urgent_since = now
        self._urgent.append(row)

    def again(self, rows: Iterable[Row]) -> None:
        """Add rows that CRM refused only together with others, before all but whole batches."""
        for row in reversed(list(rows)):
            row.stage = Stage.QUEUED
            self._urgent.appendleft(row)
            self._urgent_since = float("-inf")

    def halve(self, rows: Sequence[Row]) -> None:
        """Add rows to be sent in two batches, as one of them keeps the others from being taken."""
        middle = len(rows) // 2
        self.put_back(rows[:middle])
        self.put_back(rows[middle:])

    def put_back(self, rows: Sequence[Row]) -> None:
        """Add a batch that is sent as it is, before all others: CRM has not looked at its rows."""
        for row in rows:
            row.stage = Stage.QUEUED
        self._whole.append(rows)

    def next_whole(self) -> list[Row] | None:
        """Return a batch that is sent as it is, if there is one."""
        return list(self._whole.popleft()) if self._whole else None

    def take(self, now: float) -> list[Row]:
        """Return the rows of the next batch, those that are due first; the caller has asked `is_time`."""
        rows: list[Row] = []
        for queue in (self._urgent, self._fresh):
            while queue and len(rows) < self._size:
                rows.append(queue.popleft())
        self._urgent_since = now if self._urgent else float("inf")
        return rows

    def is_time(self, now: float) -> bool:
        """Return whether a batch may leave: it is full, or no fuller one is in sight."""
        if len(self) >= self._size:
            return True
        if not len(self):
            return False
        return self.ended or self.full or now >= self.leaves_at()

    def leaves_at(self) -> float:
        """Return the instant until which rows that are due await others: while rows come, but not for long."""
        if not self._urgent:
            return float("inf")
        return min(self._urgent_since, self._came_at) + self._lingers

    @property
    def has_some(self) -> bool:
        """Whether there is anything to be sent."""
        return bool(self._fresh or self._urgent or self._whole)
