"""What other calls and writers know of the locks of rows: each row that waits is a caller of the lock registry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from crm_guard._transport.event_log import logger
from crm_guard.clock import Wake
from crm_guard.locks import WaitContext
from crm_guard.locks.registry import SteppedWaiter
from crm_guard.remediation import RECORD_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crm_guard._protocol.scheduling.row import Row
    from crm_guard.clock import Clock
    from crm_guard.locks import LockRegistry, Waiter


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

    def knows(self, row: Row) -> bool:
        """Return whether the row's record is known to be locked."""
        key = self._key(row)
        known: list[bool] = []
        with _tolerated():
            known.append(key is not None and self._locks.knows((key,)))
        return any(known)

    def park(self, row: Row, delay: float, now: float) -> float:
        """Begin a wait of `delay` seconds for a row; return the instant at which to look."""
        key, at = self._key(row), now + delay
        with _tolerated():
            waiter = self._waiter(row) if key is not None else None
            if key is not None and isinstance(waiter, SteppedWaiter):
                at = waiter.begin((key,), delay)
        return at

    def look(self, row: Row, now: float) -> float | None:  # noqa: ARG002 (the registry has the same clock)
        """Return None if the row should be sent now, else the instant at which to look again."""
        waiter = self._waiters.get(row.index)
        again: float | None = None
        with _tolerated():
            if isinstance(waiter, SteppedWaiter):
                going, instant = waiter.look()
                again = None if going else instant
        return again

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        """Report CRM's answer to a row, which waits no more."""
        key = self._key(row)
        if key is None:
            return
        with _tolerated():
            keys, none = frozenset({key}), frozenset[str]()
            refused, accepted = (keys, none) if locked else (none, keys)
            self._waiter(row).verdict(locked=refused, free=accepted, retry_after=retry_after)

    def leave(self, row: Row) -> None:
        """End the wait of a row for good. Idempotent."""
        waiter = self._waiters.pop(row.index, None)
        if waiter is not None:
            with _tolerated():
                waiter.leave()

    def close(self) -> None:
        """End the waits of all rows. Idempotent."""
        while self._waiters:
            _, waiter = self._waiters.popitem()
            with _tolerated():
                waiter.leave()

    def _key(self, row: Row) -> str | None:
        """Return the key of a row's record, None for one that has no id of CRM's to share."""
        record_id = row.record_id
        if record_id is None and row.refusal is not None:
            record_id = row.refusal.record_id
        return f"{self._origin}|{record_id}" if record_id and RECORD_ID.fullmatch(record_id) else None

    def _waiter(self, row: Row) -> Waiter:
        waiter = self._waiters.get(row.index)
        if waiter is None:
            wake = _RowWake(row, self.woken)
            waiter = self._locks.waiter(WaitContext(self._clock, wake, _never))
            self._waiters[row.index] = waiter
        return waiter


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


@contextmanager
def _tolerated() -> Iterator[None]:
    """Log an error of the lock registry: what calls share must not cost the result of a row."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 (a registry of the user's own may raise anything)
        logger.warning("the lock registry failed: %s", type(exc).__name__)
