"""What other calls and writers know of the locks of rows: each row that waits is a caller of the lock registry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from crm_guard._transport.event_log import complain
from crm_guard.clock import Wake
from crm_guard.locks import WaitContext
from crm_guard.locks.registry import known_among
from crm_guard.remediation import RECORD_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.clock import Clock
    from crm_guard.locks import LockRegistry, Waiter
    from crm_guard.locks.registry import SteppedWaiter

T = TypeVar("T")


class SharedGate:
    """The rows of one writer in a lock registry. Used by one thread at a time.

    Args:
        locks: The registry.
        clock: Gives the instants of waits.
        origin: Scheme, host and port of the records.

    Attributes:
        woken: Called with a row of which others learnt something, in any thread, also below locks: must not block.
    """

    def __init__(self, locks: LockRegistry, clock: Clock, origin: str) -> None:
        self._locks, self._clock, self._origin = locks, clock, origin
        self.woken: Callable[[Row], object] = _ignored
        self._waiters: dict[int, Waiter] = {}

    def __bool__(self) -> bool:
        return bool(self._locks)

    def known(self, rows: Sequence[Row]) -> Collection[int]:
        """Return the indexes of the rows whose records are known to be locked."""
        index_of = {key: row.index for row in rows if (key := self._key(row)) is not None}
        nothing: Collection[str] = ()
        return {index_of[key] for key in _tried(lambda: known_among(self._locks, index_of), nothing)}

    def park(self, row: Row, delay: float, now: float) -> float:
        """Begin a wait of `delay` seconds for a row; return the instant at which to look."""
        key = self._key(row)
        waiter = None if key is None else self._stepped(row)
        if key is None or waiter is None:
            return now + delay
        return _tried(partial(waiter.begin, (key,), delay), now + delay)

    def look(self, row: Row, now: float) -> float | None:  # noqa: ARG002 (the registry has the same clock)
        """Return None if the row should be sent now, else the instant at which to look again."""
        waiter = self._stepped(row) if row.index in self._waiters else None
        if waiter is None:
            return None
        going, again = _tried(waiter.look, (frozenset({""}), 0.0))
        return None if going else again

    def may_ride(self, row: Row) -> bool:
        """Return whether a row may be sent before it is due: nobody else is to ask about its record."""
        waiter = self._stepped(row) if row.index in self._waiters else None
        return waiter is None or _tried(waiter.may_ask, otherwise=True)

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        """Report CRM's answer to a row, which waits no more."""
        key = self._key(row)
        waiter = None if key is None else self._waiter(row)
        if key is not None and waiter is not None:
            refused, accepted = ((key,), ()) if locked else ((), (key,))
            _tried(partial(waiter.verdict, locked=refused, free=accepted, retry_after=retry_after), None)

    def leave(self, row: Row) -> None:
        """End the wait of a row for good. Idempotent."""
        waiter = self._waiters.pop(row.index, None)
        if waiter is not None:
            _tried(waiter.leave, None)

    def close(self) -> None:
        """End the waits of all rows. Idempotent."""
        while self._waiters:
            _, waiter = self._waiters.popitem()
            _tried(waiter.leave, None)

    def _key(self, row: Row) -> str | None:
        """Return the key of a row's record, None for one that has no id of CRM's to share."""
        record_id = row.record_id
        if record_id is None and row.refusal is not None:
            record_id = row.refusal.record_id
        return f"{self._origin}|{record_id}" if record_id and RECORD_ID.fullmatch(record_id) else None

    def _waiter(self, row: Row) -> Waiter | None:
        waiter = self._waiters.get(row.index)
        if waiter is None:
            context = WaitContext(self._clock, _RowWake(row, self.woken), _never)
            waiter = _tried(partial(self._locks.waiter, context), None)
            if waiter is not None:
                self._waiters[row.index] = waiter
        return waiter

    def _stepped(self, row: Row) -> SteppedWaiter | None:
        """Return the waiter of a row if it can be asked without blocking: a registry of the user's own may not."""
        waiter = self._waiter(row)
        return cast("SteppedWaiter", waiter) if hasattr(waiter, "begin") and hasattr(waiter, "may_ask") else None


class _RowWake(Wake):
    """Tells the writer that a row should be looked at, instead of waking a thread that sleeps for it."""

    def __init__(self, row: Row, woken: Callable[[Row], object]) -> None:
        super().__init__()
        self._row, self._tell = row, woken

    def set(self) -> None:
        """Tell the writer. Reentrant; never blocks."""
        self._tell(self._row)


def _ignored(row: Row) -> None:
    """No-op."""


def _never() -> bool:
    return False


def _tried(call: Callable[[], T], otherwise: T) -> T:
    """Return what a call returns; log an error of the registry: what calls share must not cost a row its result."""
    try:
        return call()
    except Exception as exc:  # noqa: BLE001 (a registry of the user's own may raise anything)
        complain("the lock registry failed: %s", type(exc).__name__)
        return otherwise
