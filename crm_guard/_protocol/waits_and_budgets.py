"""Decides the length of each wait, and when a call's budgets are spent. Pure.

How long Zia holds a record is published nowhere, so the settings alone say how long a lone call waits: ceilings
grow from `wait_initial` by the factor `wait_exp_base` up to `wait_max`, and each wait is
`ceiling * (1 - wait_jitter * random())`. Where CRM itself asks for a longer wait (`Retry-After`), that is kept.
Calls that share a lock may go sooner or later than this: :mod:`crm_guard.locks.table`.
`tests/benchmarks/waits.py` compares these waits with those of other libraries.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import backoff

from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crm_guard._protocol.answer import Answer
    from crm_guard.settings import GuardSettings


class Pacing:
    """The waits and the budgets of one call. Used by one thread.

    Args:
        settings: The policy.
        random: Returns a number from 0 (included) to 1, as `random.random` does. Called once for each wait.

    Attributes:
        delay: Seconds of the wait that comes next.
        deadline: Instant at which the time budget ends, None until :meth:`begin`.
    """

    def __init__(self, settings: GuardSettings, random: Callable[[], float]) -> None:
        self._settings, self._random = settings, random
        self._waits = waits(settings, random)
        self.delay = 0.0
        self.deadline: float | None = None

    @property
    def longest(self) -> float:
        """Seconds after which a later call makes sense where CRM has not said when."""
        return self._settings.wait_max

    def begin(self, now: float) -> float:
        """Start the time budget at the first refusal or wait; return its end."""
        if self.deadline is None:
            self.deadline = now + self._settings.timeout
        return self.deadline

    def draw(self, asked: float | None = None) -> float:
        """Return the seconds of the next wait: those of the settings, or what CRM `asked` for if that is longer."""
        wait = next(self._waits, None)
        if wait is None:  # an exception inside a generator ends it: start a new one
            self._waits = waits(self._settings, self._random)
            wait = next(self._waits)
        return self.at_least(wait, asked)

    def after(self, answer: Answer[Any], *, pending: bool) -> None:
        """Choose the next wait, once an answer was absorbed."""
        if pending:
            self.draw(answer.retry_after)
        else:
            self.at_least(self.delay, answer.retry_after)

    def at_least(self, *seconds: float | None) -> float:
        """Raise the next wait to the longest of `seconds`, and return it."""
        self.delay = max(found or 0.0 for found in seconds)
        return self.delay

    def limit(self, *, attempts: int, credits: int | None, now: float) -> GiveUpReason | None:  # noqa: A002
        """Return the budget that forbids another wait and send, or None.

        Args:
            attempts: Sends so far.
            credits: API credits left, None where CRM did not say.
            now: The instant of the most recent answer.
        """
        if attempts >= self._settings.attempts:
            return GiveUpReason.ATTEMPTS
        if self.out_of_credits(credits):
            return GiveUpReason.CREDITS
        # Written so that NaN counts as too late.
        in_time = self._settings.timeout > 0 and now + self.delay <= self.begin(now)
        return None if in_time else GiveUpReason.TIMEOUT

    def out_of_credits(self, credits: int | None) -> bool:  # noqa: A002
        """Return whether the API credits left forbid another request."""
        return credits is not None and credits <= self._settings.min_credits


def waits(settings: GuardSettings, random: Callable[[], float]) -> Iterator[float]:
    """Return the waits of one call in seconds, without end: whoever asks decides when to stop.

    The first one is a real wait too, and none is below `wait_initial * (1 - wait_jitter)`.

    Args:
        settings: The policy.
        random: Returns a number from 0 (included) to 1, as `random.random` does. Called once for each wait.
    """
    return (ceiling * (1 - settings.wait_jitter * random()) for ceiling in _ceilings(settings))


def _ceilings(settings: GuardSettings) -> Iterator[float]:
    ceilings = backoff.expo(base=settings.wait_exp_base, factor=settings.wait_initial, max_value=settings.wait_max)
    next(ceilings)  # backoff's generators yield None once, before the first wait
    while (ceiling := _next_of(ceilings)) is not None:
        yield ceiling
    yield from repeat(settings.wait_max)


def _next_of(ceilings: Iterator[float]) -> float | None:
    """Return the next ceiling; None once a huge base has jumped from below `wait_max` to beyond every float."""
    try:
        return next(ceilings)
    except OverflowError:
        return None
