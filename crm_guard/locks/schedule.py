"""When a caller asks about its records. Pure: no threads, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crm_guard.locks import pacing
from crm_guard.locks.lock import LONGEST

if TYPE_CHECKING:
    from crm_guard.locks.lock import Caller, Locks, Standing

_MOMENT: Final = 0.01
"""Seconds, at least, for which the answer to another's question is awaited: a tiny delay must not become a loop."""


def due(caller: Caller, locks: Locks) -> float:
    """Return the instant at which `caller` should ask, answering for the records that it leads."""
    records, oldest = [], float("inf")
    for key in caller.keys:
        lock = locks.get(key)
        if lock is None or lock.free:
            calls, since = (caller.share if key in caller.unshared else 1.0), caller.start
        else:
            calls, since = (lock.needed_by(caller) if lock.leader is caller else caller.share), lock.asked_at
            oldest = min(oldest, since)
        records.append((calls, since))
    return min(pacing.due(caller.delay, caller.start, records), oldest + LONGEST * caller.delay)


def looks_after_leaders(caller: Caller, locks: Locks, now: float) -> float:
    """Return the instant at which a caller that leads nothing looks whether it should."""
    leaderless = min(locks[key].leaderless_at(caller) for key in caller.keys if key in locks)
    return min(leaderless, now + max(LONGEST * caller.delay, _MOMENT))


def awaiting(caller: Caller, locks: Locks, standing: Standing, now: float) -> float:
    """Return the instant until which a caller that is due awaits that it may ask about all of its records."""
    moment = max(pacing.shortest(caller.delay), _MOMENT)
    closed = [locks[key] for key in standing.closed]
    if standing.open or standing.free:  # further questions about the others must not hold them back for ever
        return min(max(lock.asked_at for lock in closed) + moment, caller.start + LONGEST * caller.delay)
    soonest = min(max(lock.asked_at + moment, lock.not_before) for lock in closed)
    return soonest if soonest > now else now + moment


def expected(caller: Caller, locks: Locks, now: float) -> float:
    """Return the instant at which a waiting caller will probably go, or learn the answer to a question."""
    leaders = (locks[key].leader for key in caller.keys if key in locks and not locks[key].free)
    dues = [leader.due for leader in leaders if leader is not None and leader.due > now]
    one_more_round = now + caller.delay  # if somebody asks just now
    next_due = min(dues, default=one_more_round)
    return caller.due if now < caller.due < next_due else next_due
