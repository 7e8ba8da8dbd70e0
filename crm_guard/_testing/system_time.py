"""Have every guard that was given no clock wait on another one, as if it were the system's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from crm_guard._testing.patches import InUse, Patch
from crm_guard.clock import SystemClock, wait_again
from crm_guard.locks.memory import forget_locks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from crm_guard.clock import Clock, Wake


def system_time(clock: Clock) -> AbstractContextManager[None]:
    """Replace the time of all guards without a `clock=`, those that exist already included.

    Of several such blocks the one that began last counts; they may end in any order. What guards know of locks is
    forgotten at each change of the clock: instants of one mean nothing on another, and the records of another
    simulator have the same ids. Where there is no other block, a `stop_waiting(for_good=True)` is taken back, too.

    Args:
        clock: The time from here to the end of the block.
    """
    return _clocks.using(clock)


def _begin_anew(outermost: bool) -> None:
    forget_locks()
    if outermost:
        wait_again()


_clocks: Final[InUse[Clock]] = InUse(_begin_anew)


def _simulated_now(original: Callable[[SystemClock], float]) -> Callable[[SystemClock], float]:
    @functools.wraps(original)
    def now(system: SystemClock) -> float:
        clocks = _clocks.all
        return clocks[-1].now() if clocks else original(system)

    return now


def _simulated_wait(
    original: Callable[[SystemClock, Wake, float], bool],
) -> Callable[[SystemClock, Wake, float], bool]:
    @functools.wraps(original)
    def wait(system: SystemClock, event: Wake, timeout: float) -> bool:
        clocks = _clocks.all
        return clocks[-1].wait(event, timeout) if clocks else original(system, event, timeout)

    return wait


_clocks.patches += (Patch(SystemClock, "now", _simulated_now), Patch(SystemClock, "wait", _simulated_wait))
