"""What is left for the threads of a writer: rows, and messages."""

from __future__ import annotations

import queue
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._protocol.scheduling.row import Row
    from crm_guard._protocol.scheduling.scheduler import Scheduler


class Inbox:
    """Rows and messages, to be taken by one thread at a time. Leaving something is reentrant, and never blocks.

    Attributes:
        rows: In input order. Each is there as soon as it was read, so that none is kept back for the next.
    """

    def __init__(self) -> None:
        self.rows: deque[Row] = deque()
        self._moving = 0  # on their way to the scheduler
        self._messages: queue.SimpleQueue[Callable[[float], object]] = queue.SimpleQueue()

    def __len__(self) -> int:
        """Return how many rows are not with the scheduler yet: rather too many than too few, in any thread."""
        return len(self.rows) + self._moving

    def put(self, message: Callable[[float], object]) -> None:
        """Leave a message: something to be called with the instant."""
        self._messages.put(message)

    def empty_into(self, scheduler: Scheduler, now: float) -> None:
        """Give all that is here to the scheduler: the messages, and then the rows.

        So a row that came before a message is there, too, once the scheduler decides what to do.
        """
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                break
            message(now)
        try:
            if rows := self._taken():
                scheduler.add(rows, now)
        finally:
            self._moving = 0

    def _taken(self) -> list[Row]:
        rows: list[Row] = []
        try:
            while True:
                self._moving += 1
                rows.append(self.rows.popleft())
        except IndexError:
            return rows
