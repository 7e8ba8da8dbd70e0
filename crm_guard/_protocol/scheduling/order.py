"""Rows with one key are written in input order: the later waits for the earlier. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from crm_guard._protocol.scheduling.row import Row


class Order:
    """Which rows hold their keys, and which wait behind them. Used by one thread at a time."""

    def __init__(self) -> None:
        self._behind: dict[Hashable, deque[Row] | None] = {}  # by key that is held: the rows that wait for it

    def enter(self, row: Row) -> bool:
        """Line up a row for each of its keys; return whether it holds all of them."""
        behind = self._behind
        for key in row.keys:
            if key not in behind:
                behind[key] = None
                continue
            queue = behind[key]
            if queue is None:
                behind[key] = queue = deque()
            queue.append(row)
            row.behind += 1
        return row.behind == 0

    def leave(self, row: Row) -> Sequence[Row]:
        """Release the keys of a row that has a result; return the rows that hold all of theirs from now on."""
        behind = self._behind
        heirs: tuple[Row, ...] = ()
        for key in row.keys:
            queue = behind[key]
            if not queue:
                del behind[key]
                continue
            heir = queue.popleft()
            heir.behind -= 1
            if heir.behind == 0:
                heirs = (*heirs, heir)
        return heirs
