"""Have every guard that was given no clock wait on another one, as if it were the system's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from crm_guard._testing.patches import replaced
from crm_guard.clock import SystemClock, wait_again
from crm_guard.locks.memory import forget_locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crm_guard.clock import Clock, Wake


@contextmanager
def system_time(clock: Clock) -> Iterator[None]:
    """Replace the time of all guards without a `clock=`, those that exist already included.

    What guards know of locks is forgotten at both ends: instants of one clock mean nothing on another, and the
    records of another simulator have the same ids. A `stop_waiting(for_good=True)` is taken back, too.

    Args:
        clock: The time from here to the end of the block.
    """

    def now(_: SystemClock) -> float:
        return clock.now()

    def wait(_: SystemClock, event: Wake, timeout: float) -> bool:
        return clock.wait(event, timeout)

    try:
        with replaced(SystemClock, now=now, wait=wait):
            forget_locks()
            wait_again()
            yield
    finally:
        forget_locks()
        wait_again()
