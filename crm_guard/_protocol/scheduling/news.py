"""What a writer tells the log and the hooks: the events of rows that met a lock, or that are blocked. Pure.

What one answer, or one instant, brings for many rows is told together: one event for all that share a code, action,
case and reason. A wait is that of the rows that were refused together, until the last of them is sent again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from crm_guard._base.codes import RECORD_LOCKED
from crm_guard._protocol.call_events import is_blocked_for_good
from crm_guard._protocol.scheduling.row import Group, Stage
from crm_guard.events import EventKind, GuardEvent
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crm_guard._protocol.call_events import Teller
    from crm_guard._protocol.scheduling.end import End
    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.outcomes import CallError, RecordOutcome


class News(NamedTuple):
    """One thing to tell.

    Attributes:
        event: What happened; None where only the wait of `group` is over.
        group: The rows whose wait the event begins.
    """

    event: GuardEvent | None = None
    group: Group | None = None


class Newsroom:
    """Collects what happens to rows, and makes events of it. Used by one thread at a time.

    Args:
        teller: Makes the events.
        action: What locks rows whose records are known to be locked, None where that is not known.

    Attributes:
        outbox: What is to be told, in order. Another thread may take from it.
        count: How much was put into it so far.
    """

    def __init__(self, teller: Teller, action: str | None) -> None:
        self._teller, self._action = teller, action
        self.outbox: deque[News] = deque()
        self.count = 0
        self._locked: dict[int, Row] = {}  # by index: met a lock that has not ended
        self._refused: list[tuple[Row, RecordOutcome | None]] = []
        self._free: list[Row] = []
        self._blocked: list[tuple[Row, RecordOutcome]] = []
        self._given_up: list[tuple[Row, GiveUpReason, RecordOutcome | None]] = []

    def locked(self, row: Row) -> None:
        """Take in that CRM refused a row for a lock that passes, or that its record is known to be locked."""
        self._locked[row.index] = row
        self._refused.append((row, None))

    def free(self, row: Row) -> None:
        """Take in that CRM no longer refuses a row for its lock."""
        if self._locked.pop(row.index, None) is not None:
            self._free.append(row)

    def finished(self, row: Row, outcome: RecordOutcome | None, reason: GiveUpReason | None) -> None:
        """Take in that a row has its result: `outcome`, or None where it was written."""
        if reason is not None:
            self._locked.pop(row.index, None)
            self._given_up.append((row, reason, outcome))
            if reason is GiveUpReason.UNMATCHED:
                self._refused.append((row, outcome))
            return
        self.free(row)
        if outcome is not None and is_blocked_for_good(outcome):
            self._blocked.append((row, outcome))

    def leaving(self, rows: Iterable[Row], now: float) -> None:
        """Tell of the rows of a batch that are sent again after a lock; the batch is about to leave."""
        if self._locked:
            again = [row for row in rows if row.refusal is not None and row.index in self._locked]
            if again:
                self._tell(EventKind.RESENDING, again, now)

    def publish(self, now: float, end: End | None, error: CallError | None = None) -> None:
        """Make events of what was collected.

        Args:
            now: The instant.
            end: Why nothing is sent any more; None while it is.
            error: What the most recent send met as a whole.
        """
        if end is not None and self._locked:
            self._give_up_all(end)
            error = error or end.error
        if not (self._refused or self._free or self._blocked or self._given_up):
            return
        for (code, action), refused in _sorted((self._lock_of(row, told), row) for row, told in self._refused):
            self._tell(EventKind.LOCKED, refused, now, code=code, action=action or None)
        if self._free:
            self._tell(EventKind.UNLOCKED, self._free, now)
        if self._blocked:
            rows, outcomes = zip(*self._blocked, strict=True)
            for event in self._teller.of_blocked(outcomes, **self._about(rows, now)):
                self._put(News(event))
        self._tell_given_up(now, error)
        if end is None:
            self._tell_waits([row for row, _ in self._refused if row.stage is Stage.PARKED], now)
        for collected in (self._refused, self._free, self._blocked, self._given_up):
            collected.clear()

    def _give_up_all(self, end: End) -> None:
        for row in [row for row in self._locked.values() if row.stage is not Stage.IN_FLIGHT]:
            self.finished(row, row.refusal, end.reason or GiveUpReason.INTERRUPTED)
            if row.lock is not None:
                row.lock.leave_group()

    def _tell_given_up(self, now: float, error: CallError | None) -> None:
        named = (((reason, *self._lock_of(row, told)), (row, told)) for row, reason, told in self._given_up)
        for (reason, code, action), found in _sorted(named):
            rows, outcomes = zip(*found, strict=True)
            about = {"reason": GiveUpReason(reason), "code": code, "action": action or None}
            met = error if about["reason"] is GiveUpReason.FOLLOW_UP else None
            hint = next((outcome.hint for outcome in outcomes if outcome is not None), "")
            self._tell(EventKind.GAVE_UP, rows, now, hint=hint, error=met, **about)

    def _tell_waits(self, rows: Sequence[Row], now: float) -> None:
        locks = [row.lock for row in rows if row.lock is not None]
        if not locks:
            return
        group = Group(len(locks), self._end_wait)
        for lock in locks:
            lock.group = group
        code, action = self._lock_of(rows[0])
        delay = max(min(lock.due for lock in locks) - now, 0.0)
        about = {"code": code, "action": action or None, "delay": delay}
        self._tell(EventKind.WAITING, rows, now, group=group, **about)

    def _end_wait(self, group: Group) -> None:
        self._put(News(group=group))

    def _tell(
        self, kind: EventKind, rows: Sequence[Row], now: float, *, group: Group | None = None, **about: Any
    ) -> None:
        event = self._teller.event(kind, [_id_of(row) for row in rows], **self._about(rows, now), **about)
        self._put(News(event, group))

    def _put(self, news: News) -> None:
        self.count += 1
        self.outbox.append(news)

    def _lock_of(self, row: Row, told: RecordOutcome | None = None) -> tuple[str, str]:
        """Return code and action of the lock that a row met, an empty action where that is not known.

        Args:
            row: The row.
            told: CRM's most recent answer on it, which may be about the lock.
        """
        refusal = row.refusal or (told if told is not None and told.retryable else None)
        return (RECORD_LOCKED, self._action or "") if refusal is None else (refusal.code, refusal.action or "")

    def _about(self, rows: Sequence[Row], now: float) -> dict[str, Any]:
        """Return what the events of some rows have in common."""
        return {
            "attempt": max(row.attempts for row in rows),
            "waited": max(0.0 if row.lock is None else now - row.lock.since for row in rows),
            "pending": len(self._locked),
        }


def _id_of(row: Row) -> str | None:
    return row.record_id or (row.refusal.record_id if row.refusal is not None else None)


def _sorted(named: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    """Return what belongs to each name, the names sorted."""
    found: dict[Any, list[Any]] = {}
    for name, value in named:
        found.setdefault(name, []).append(value)
    return sorted(found.items())
