"""How many calls may be under way, and when: CRM answers 429 to too many, and may be out of reach. Pure.

CRM allows 5 to 25 calls at once for an organisation and app, and 10 for writes of more than ten rows (Zoho's API
limits, v8); which limit a 429 is about, it does not tell. So each 429 halves the number of calls, and each quiet
while allows one more. All pause: for `Retry-After` where CRM or a proxy sends it, else for the settings' waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard._protocol.waits_and_budgets import waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crm_guard.settings import GuardSettings


class Throttle:
    """The pace of all calls of one writer. Used by one thread at a time.

    Args:
        settings: The policy: its waits, and `timeout`, within which one call must get through.
        workers: How many calls may be under way at most.
        random: Returns a number from 0 (included) to 1.

    Attributes:
        allowed: How many calls may be under way now.
        resumes: Instant before which none may begin.
    """

    def __init__(self, settings: GuardSettings, workers: int, random: Callable[[], float]) -> None:
        self._settings, self._workers, self._random = settings, workers, random
        self.allowed = workers
        self.resumes = float("-inf")
        self._cut_at = float("-inf")  # calls that left before are part of the crowd that was cut down already
        self._quiet_until = float("-inf")
        self._until: float | None = None  # the end of the budget, while nothing gets through
        self._waits: Iterator[float] = waits(settings, random)

    def admits(self, under_way: int, now: float) -> bool:
        """Return whether another call may begin."""
        return now >= self.opens_at(under_way)

    def opens_at(self, under_way: int) -> float:
        """Return the instant from which on another call may begin; infinity: only once one has come back."""
        return self.resumes if under_way < self.allowed else float("inf")

    def turned_away(self, left_at: float, now: float, retry_after: float | None) -> bool:
        """Take in that a call came back unheard: 429, or no connection.

        Args:
            left_at: Instant at which the call began.
            now: The instant.
            retry_after: Seconds that CRM asks to wait.

        Returns:
            Whether another try is within the budget.
        """
        if self._until is None:
            self._until = now + self._settings.timeout
        first = left_at >= self._cut_at
        if first:
            self.allowed = max(self.allowed // 2, 1)
            self._cut_at = now
        pause = max(next(self._waits) if first else 0.0, retry_after or 0.0)
        self.resumes = max(self.resumes, now + pause)
        self._quiet_until = self.resumes + self._settings.wait_max
        return self._settings.timeout > 0 and self.resumes <= self._until

    def got_through(self, left_at: float, now: float) -> None:
        """Take in that CRM answered a call."""
        if left_at >= self._cut_at and self._until is not None:
            self._until = None
            self._waits = waits(self._settings, self._random)
        if self.allowed < self._workers and now >= self._quiet_until:
            self.allowed += 1
            self._quiet_until = now + self._settings.wait_max
