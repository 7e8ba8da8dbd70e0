"""One row on its way, and the batch that it travels in. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from crm_guard._protocol.envelope import Item
    from crm_guard._protocol.waits_and_budgets import Pacing
    from crm_guard.outcomes import RecordOutcome
    from crm_guard.row_results import RowResult


class Stage(enum.Enum):
    """Where a row is."""

    QUEUED = "queued"
    """It is yet to be sent, or waits for an earlier row with its key."""
    PARKED = "parked"
    """It waits for a lock."""
    IN_FLIGHT = "in flight"
    UNDIAGNOSED = "undiagnosed"
    """It was refused for good; its approval state is yet to be asked for."""
    DONE = "done"


class Group:
    """Rows that began to wait together.

    Args:
        left: How many of them still wait.
        over: Called once none of them does.
    """

    __slots__ = ("_left", "_over")

    def __init__(self, left: int, over: Callable[[Group], object]) -> None:
        self._left, self._over = left, over

    def leave(self) -> None:
        """Take in that one of them waits no more."""
        self._left -= 1
        if not self._left:
            self._over(self)


class Lock:
    """What a row that met a lock waits for.

    Attributes:
        pacing: Its waits and budgets.
        since: Instant of the first refusal, or of the wait before the first send.
        turn: Instant at which its own wait ends, whoever asks sooner.
        wait: Seconds of that wait.
        due: Instant at which it is to be looked at.
        rides: Instant from which on it goes along in a batch with room.
        ripe: Instant from which on it may be sent again if that costs no call of its own.
        asked: How many of its sends count against its `attempts`.
        group: The rows that it began to wait with, where that was told.
    """

    __slots__ = ("asked", "due", "group", "pacing", "rides", "ripe", "since", "turn", "wait")

    def __init__(self, pacing: Pacing, now: float) -> None:
        self.pacing = pacing
        self.since = self.turn = now
        self.due = self.rides = self.ripe = float("inf")
        self.asked = 0
        self.wait = 0.0
        self.group: Group | None = None

    def leave_group(self) -> None:
        """Take in that the row waits no more. Idempotent."""
        if self.group is not None:
            group, self.group = self.group, None
            group.leave()


class Row(msgspec.Struct, eq=False, gc=False):  # one for each row: made in a third of the time, in no cycle
    """One row on its way.

    Attributes:
        index: Where it stood in the input.
        value: The row, as it was given.
        encoded: The row as it goes into a request.
        keys: Its keys: rows that share one are written in input order.
        record_id: Its record, where it says so.
        stage: Where it is.
        attempts: How often it was sent.
        behind: How many of its keys an earlier row holds.
        refusal: CRM's most recent answer on it, where it refused the row.
        lock: What it waits for, None before it met a lock.
        result: What became of it.
    """

    index: int
    value: Any
    encoded: bytes
    record_id: str | None
    keys: Collection[Hashable]
    stage: Stage = Stage.QUEUED
    attempts: int = 0
    behind: int = 0
    refusal: RecordOutcome | None = None
    lock: Lock | None = None
    result: RowResult[Any] | None = None

    def __repr__(self) -> str:
        """Leave out the row's values."""
        return f"Row(index={self.index}, stage={self.stage.value!r}, attempts={self.attempts})"


class Batch:
    """Rows that are sent together, in the order in which they stand in the request.

    Attributes:
        rows: The rows.
        left_at: Instant at which they were handed to a worker.
        renewed: Whether its credentials are renewed before it is sent.
    """

    __slots__ = ("left_at", "renewed", "rows")

    def __init__(self, rows: Sequence[Row], left_at: float, *, renewed: bool) -> None:
        self.rows, self.left_at, self.renewed = rows, left_at, renewed


class Question:
    """Rows whose approval states are asked for together.

    Attributes:
        rows: The rows, each with the item that refused it.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[tuple[Row, Item]]) -> None:
        self.rows = rows

    @property
    def ids(self) -> tuple[str, ...]:
        """The records to ask about."""
        named = (item.record_id or row.record_id for row, item in self.rows)
        return tuple(dict.fromkeys(name for name in named if name))
