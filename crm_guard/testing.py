"""A clock for tests: time passes at once while somebody waits, or when the test says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.clock import Wake

_mutex = threading.Lock()  # shared by all clocks, so that a clock can be copied and pickled


class ManualClock:
    """A clock for the guard and the simulator (`clock=` of either). A wait takes no real time.

    As a pytest fixture:

        import crm_guard
        import pytest
        import requests
        from crm_guard.simulator import Simulator
        from crm_guard.testing import ManualClock

        @pytest.fixture
        def clock():
            return ManualClock()

        @pytest.fixture
        def crm(clock):
            with Simulator(clock=clock) as simulator:
                yield simulator

        def test_a_locked_lead_is_written_after_its_lock(crm, clock):
            lead = crm.add_record("Leads", locked_for=60.0)
            with requests.Session() as session:
                crm_guard.mount_guard(session, crm.url, clock=clock)
                assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]}).ok
            assert clock.now() >= 60.0
            assert sum(clock.waits) == clock.now()

    All times are in seconds. Thread-safe: a lock makes each change of the time atomic, and `during_wait` is called
    outside it, in the thread that waits. Several threads may wait at once; each wait advances the clock by its own
    timeout, so two waits of 3 seconds advance it by 6. No wait blocks, so a wait cannot be ended by another thread
    later: let `during_wait` do what happens meanwhile.

    Args:
        start: The first instant, in seconds.
        during_wait: The attribute of that name.

    Attributes:
        waits: The timeout of each wait, in seconds, in the order in which they began. A wait on an event that is
            set already is no wait, and not listed.
        during_wait: Called without arguments in each wait, once its time has passed; `len(clock.waits)` is then the
            number of waits so far, this one included. It may unlock a record, advance the clock, raise, or set the
            event, as `GuardAdapter.stop_waiting` does. None: nothing is called. May be replaced at any time.
    """

    def __init__(self, start: float = 0.0, *, during_wait: Callable[[], object] | None = None) -> None:
        self._now = start
        self.waits: list[float] = []
        self.during_wait = during_wait

    def now(self) -> float:
        """Return the current instant, in seconds: `start`, and all that has passed since."""
        return self._now

    def __call__(self) -> float:
        """Return the current instant, in seconds: the simulator calls its clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much; 0 or more.

        Raises:
            ValueError: `seconds` is negative or NaN. Time does not go back.
        """
        if not seconds >= 0:
            msg = f"seconds={seconds!r} must be 0 or more"
            raise ValueError(msg)
        with _mutex:
            self._now += seconds

    def wait(self, event: Wake, timeout: float) -> bool:
        """Advance by `timeout` seconds at once, call `during_wait`, and return whether `event` is set.

        If `event` is set already, no time passes and `during_wait` is not called. The guard calls this.

        Args:
            event: Ends the wait when it is set.
            timeout: Seconds to wait; 0 or less is no time.
        """
        if event.is_set():
            return True
        with _mutex:
            self.waits.append(timeout)
            self._now += max(timeout, 0.0)
        if self.during_wait is not None:
            self.during_wait()
        return event.is_set()
