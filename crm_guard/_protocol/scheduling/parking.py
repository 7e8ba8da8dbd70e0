"""Rows that wait for a lock, and when each is to be sent again. Pure.

A row waits as a single call does: its own waits, its own budget. But its question costs a place in a batch, and not
a call. So a row whose wait is over travels with others; and once nothing else is to be sent and all that wait fit
into one call, this leaves after no more than a first wait: it is one call for a hundred rows as for one. A row that
goes along before its own wait is over spends none of its `attempts`; then it waits anew, with the others.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final, Protocol

from crm_guard._protocol.scheduling.row import Lock, Stage
from crm_guard._protocol.waits_and_budgets import Pacing
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.outcomes import RecordOutcome
    from crm_guard.settings import GuardSettings

_RIDES_FROM: Final = 0.3
"""Share of a first wait after which a row goes along where there is room, so that groups become one; and what may
be left of a wait that counts as over."""
_LOOKS: Final = 4
"""Rows that are looked at for each place in a batch."""
_MOMENT: Final = 0.01
"""Seconds, at least, until a row that may not go yet is looked at again."""
_FEW: Final = 64
"""Appointments that are kept in any case, outdated ones included."""


class Gate(Protocol):
    """What the calls of other writers and threads know of the locks of rows. Never raises."""

    def __bool__(self) -> bool:
        """Return whether any record may be known to be locked."""
        ...

    def known(self, rows: Sequence[Row]) -> Collection[int]:
        """Return the indexes of the rows whose records are known to be locked."""
        ...

    def park(self, row: Row, delay: float, now: float) -> float:
        """Begin a wait of `delay` seconds for a row; return the instant at which to look."""
        ...

    def look(self, row: Row, now: float) -> float | None:
        """Return None if the row should be sent now, else the instant at which to look again."""
        ...

    def may_ride(self, row: Row) -> bool:
        """Return whether a row may be sent before it is due: nobody else is to ask about its record."""
        ...

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        """Report CRM's answer to a row, which waits no more."""
        ...

    def leave(self, row: Row) -> None:
        """End the wait of a row for good. Idempotent."""
        ...

    def close(self) -> None:
        """End the waits of all rows. Idempotent."""
        ...


class OpenGate:
    """Knows nothing: each row waits its own time."""

    def __bool__(self) -> bool:
        """Return False."""
        return False

    def known(self, rows: Sequence[Row]) -> Collection[int]:  # noqa: ARG002 (the protocol's signature)
        """Return none."""
        return ()

    def park(self, row: Row, delay: float, now: float) -> float:  # noqa: ARG002
        """Return the end of the delay."""
        return now + delay

    def look(self, row: Row, now: float) -> float | None:  # noqa: ARG002
        """Return None."""
        return None

    def may_ride(self, row: Row) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        """No-op."""

    def leave(self, row: Row) -> None:
        """No-op."""

    def close(self) -> None:
        """No-op."""


class Parking:
    """The rows that wait for a lock. Used by one thread at a time.

    Args:
        settings: The policy: waits and budgets.
        random: Returns a number from 0 (included) to 1.
        gate: What others know of the locks.

    Attributes:
        rows: The rows by index; the one that was refused longest ago comes first.
        gate: What others know of the locks.
    """

    def __init__(self, settings: GuardSettings, random: Callable[[], float], gate: Gate) -> None:
        self._settings, self._random, self.gate = settings, random, gate
        self.rows: dict[int, Row] = {}
        self._short = _RIDES_FROM * settings.wait_initial
        self._due: list[tuple[float, int, Row]] = []
        self._seq = 0

    def refuse(
        self, row: Row, outcome: RecordOutcome, now: float, retry_after: float | None
    ) -> GiveUpReason | None:
        """Park a row that CRM refused for a lock; or return which budget forbids another wait."""
        lock = row.lock = row.lock or Lock(Pacing(self._settings, self._random), now)
        row.refusal, pacing = outcome, lock.pacing
        pacing.begin(now)
        if now + self._short >= lock.turn:  # else it only went along
            lock.asked += 1
            lock.wait = pacing.draw()
            lock.turn = max(lock.turn, now) + lock.wait
        in_time = now + lock.wait <= pacing.begin(now)
        wait = pacing.at_least(lock.wait if in_time else max(lock.turn - now, 0.0), retry_after)
        if retry_after:
            lock.turn = max(lock.turn, now + wait)
        limit = pacing.limit(attempts=lock.asked, credits=None, now=now)
        if limit is None:
            held = retry_after is not None and retry_after > 0
            lock.rides = float("inf") if held else now + self._short
            lock.ripe = max(lock.rides, now + min(wait, self._first_wait()))
            self._park(row, now)
        return limit

    def expect(self, row: Row, now: float) -> None:
        """Park a row before its first send, as its record is known to be locked."""
        row.lock = lock = Lock(Pacing(self._settings, self._random), now)
        lock.pacing.begin(now)
        lock.pacing.draw()
        self._park(row, now)

    def release(self, now: float) -> Iterator[tuple[Row, GiveUpReason | None]]:
        """Yield the rows that are due: those to send, and those whose budget ended, with the reason."""
        while self._due and self._due[0][0] <= now:
            due, _, row = heapq.heappop(self._due)
            lock = row.lock
            if lock is None or not _is_kept((due, 0, row)):
                continue  # it went along earlier
            again = self.gate.look(row, now)
            deadline = lock.pacing.begin(now)
            if again is None or (now >= deadline and row.refusal is None):
                yield self._unpark(row), None
            elif now >= deadline:
                yield self._unpark(row), GiveUpReason.TIMEOUT
            else:
                self._look_at(row, min(max(again, now + _MOMENT), deadline))

    def look_early(self, row: Row, now: float) -> None:
        """Take in that others know more of a row's lock than they did: it is looked at now."""
        if row.stage is Stage.PARKED and row.lock is not None:
            row.lock.rides = now
            self._look_at(row, now)

    def riders(self, most: int, now: float) -> list[Row]:
        """Unpark and return rows that go along in a batch with room, the one that was refused longest ago first."""
        going: list[Row] = []
        for row in itertools.islice(self.rows.values(), _LOOKS * most):
            lock = row.lock
            if len(going) == most or lock is None or now < lock.rides < float("inf"):
                break
            if lock.rides <= now:  # neither known to be locked by others, nor held by `Retry-After`
                if self.gate.may_ride(row):
                    going.append(row)
                else:  # another asks about it: that is no reason for a call of its own
                    lock.ripe = float("inf")
        return [self._unpark(row) for row in going]

    def next_due(self) -> float:
        """Return the instant at which the next row is due, or looks again."""
        while self._due:
            if _is_kept(self._due[0]):
                return self._due[0][0]
            heapq.heappop(self._due)
        return float("inf")

    def ripe_at(self, size: int) -> float:
        """Return the instant from which on a call for all parked rows may leave, if one of `size` holds them."""
        if not self.rows or len(self.rows) > size:
            return float("inf")
        return min(row.lock.ripe for row in self.rows.values() if row.lock is not None)

    def _park(self, row: Row, now: float) -> None:
        lock = row.lock
        if lock is None:
            return
        row.stage = Stage.PARKED
        self.rows[row.index] = row
        self._look_at(row, min(self.gate.park(row, lock.pacing.delay, now), lock.pacing.begin(now)))

    def _look_at(self, row: Row, instant: float) -> None:
        if row.lock is not None:
            row.lock.due = instant
        if len(self._due) > 2 * len(self.rows) + _FEW:  # mostly of rows that went along
            self._due = [entry for entry in self._due if _is_kept(entry)]
            heapq.heapify(self._due)
        self._seq += 1
        heapq.heappush(self._due, (instant, self._seq, row))

    def _unpark(self, row: Row) -> Row:
        del self.rows[row.index]
        row.stage = Stage.QUEUED
        if row.lock is not None:
            row.lock.leave_group()
        return row

    def _first_wait(self) -> float:
        policy = self._settings
        return policy.wait_initial * (1 - policy.wait_jitter * self._random())


def _is_kept(appointment: tuple[float, int, Row]) -> bool:
    """Return whether a row still waits for just that instant."""
    due, _, row = appointment
    return row.stage is Stage.PARKED and row.lock is not None and row.lock.due == due
