"""Who may go when a record is free: some callers of an origin at a time. Pure: no threads, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_guard.locks.lock import Caller


class WakeLimiter:
    """Slots for the callers of one origin between wake-up and verdict. First come, first served.

    Args:
        limit: How many slots there are.
    """

    __slots__ = ("_limit", "awake", "line")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.awake: dict[Caller, float] = {}  # those with a slot, and the instant at which each is considered lost
        self.line: dict[Caller, None] = {}  # those that wait for one

    def line_up(self, caller: Caller, now: float) -> None:
        """Put `caller` in line, unless it is there or has a slot."""
        if not caller.has_slot:
            self.line.setdefault(caller)
        self._wake_next(now)

    def release(self, caller: Caller, now: float) -> None:
        """Take `caller` out of the line, and give its slot, if any, to the next one."""
        self.line.pop(caller, None)
        self.awake.pop(caller, None)
        caller.has_slot = False
        self._wake_next(now)

    def next_lost(self) -> float:
        """Return the instant at which the next slot is considered lost."""
        return next(iter(self.awake.values()), float("inf"))

    def _wake_next(self, now: float) -> None:
        while self.line and (len(self.awake) < self._limit or self._reclaim(now)):
            caller = next(iter(self.line))
            caller.wake.set()  # first: if an interrupt comes between these lines, it looks and lines up again
            caller.has_slot = True
            self.awake[caller] = now + caller.verdict_timeout
            del self.line[caller]

    def _reclaim(self, now: float) -> bool:
        """Take back the oldest slot if its caller reports no verdict."""
        caller, lost_at = next(iter(self.awake.items()))
        if now < lost_at:
            return False
        del self.awake[caller]
        caller.has_slot = False
        return True


class Turns:
    """The slots of all origins.

    Args:
        limit: How many slots each origin has.

    Attributes:
        limiters: By origin, those that are in use.
    """

    __slots__ = ("_limit", "limiters")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.limiters: dict[str, WakeLimiter] = {}

    def line_up(self, caller: Caller, now: float) -> None:
        """Put `caller` in line, unless it is there or has a slot."""
        limiter = self.limiters.get(caller.origin)
        if limiter is None:
            limiter = self.limiters[caller.origin] = WakeLimiter(self._limit)
        limiter.line_up(caller, now)

    def release(self, caller: Caller, now: float) -> None:
        """Take `caller` out of the line, and give its slot, if any, to the next one."""
        limiter = self.limiters.get(caller.origin)
        if limiter is not None:
            limiter.release(caller, now)
            if not limiter.awake:
                del self.limiters[caller.origin]

    def next_lost(self, origin: str) -> float:
        """Return the instant at which the next slot of an origin that is in use is considered lost."""
        return self.limiters[origin].next_lost()
