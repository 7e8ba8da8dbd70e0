"""Limits how many callers of one origin go at the same time. Pure: no threads, no clock."""

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
            self.awake[caller] = now + caller.verdict_timeout
            caller.has_slot = True
            del self.line[caller]
            caller.wake.set()

    def _reclaim(self, now: float) -> bool:
        """Take back the oldest slot if its caller reports no verdict."""
        caller, lost_at = next(iter(self.awake.items()))
        if now < lost_at:
            return False
        del self.awake[caller]
        caller.has_slot = False
        return True
