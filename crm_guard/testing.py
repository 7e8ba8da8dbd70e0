"""Test code that meets locks: a simulated CRM, a guarded session and a clock, as pytest fixtures or without.

The wheel brings a pytest plugin; there is nothing to install or to import::

    def test_a_locked_lead_is_written_once(zoho_crm, guarded_session):
        lead = zoho_crm.add_record("Leads", locked_for=60.0)
        assert guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]}).ok
        assert zoho_crm.writes(lead) == 1

The minute takes no time: guards wait on a clock that jumps. The fixtures live for one test:

- `zoho_crm: crm_guard.simulator.Simulator`: an embedded CRM on a free port of 127.0.0.1. While it
  runs, every host of Zoho is answered by it, and every guard waits on its clock.
- `zoho_clock: crm_guard.testing.ManualClock`: that clock. It moves while a guard waits, and by
  `zoho_clock.advance(60)`; `zoho_clock.waits` lists the waits.
- `guarded_session: requests.Session`: with a guard on `zoho_crm.url` and on Zoho's hosts. Proxies
  and `.netrc` of your machine do not apply to it.
- `crm_guard_settings: crm_guard.GuardSettings`: its policy. The environment (`CRM_GUARD_TIMEOUT`)
  does not count; for your program's own, define a fixture of this name that returns them.

Code under test needs no change. It may name `https://www.zohoapis.com`, call `requests.put(...)`,
mount a guard of its own, call `install()` or `write_records`, or use Zoho's SDK, before the test or
in it::

    import crm_guard
    import requests

    session = requests.Session()
    crm_guard.mount_guard(session)  # at import, long before the test


    def rename(lead):
        url = f"https://www.zohoapis.com/crm/v8/Leads/{lead}"
        return session.put(url, json={"data": [{"Company": "Zylker"}]})


    def test_rename_waits_for_the_lock(zoho_crm, zoho_clock):
        lead = zoho_crm.add_record("Leads", locked_for=60.0)
        assert rename(lead).status_code == 200
        assert zoho_clock.now() >= 60.0

That is so for every host of Zoho (`www.zohoapis.eu`, `sandbox.zohoapis.com`, `accounts.zoho.com`
for tokens), and for whatever sends with `requests` or urllib3's pool managers, in all threads of the
process, whatever proxies its environment names. URLs stay as they are, `response.url` too.
`pytestmark = pytest.mark.usefixtures("zoho_crm")` says so for a whole module.

Nor does a test write to a live CRM by mistake with another client, such as httpx, aiohttp,
`http.client` or a `urllib3.HTTPSConnectionPool` of your own: none of them reaches the simulator, and
meanwhile `socket.getaddrinfo`, which finds their addresses, refuses Zoho's names with an error that
tells why. Not seen is a client that has a proxy, a resolver of its own (curl, uvloop, aiodns) or an
open connection; nor what other processes do, or a thread that outlives its test. So join threads and
shut executors down before a test ends.

Afterwards hosts and time are as before, and each `install()` and `stop_waiting(for_good=True)` that
the code left behind is undone. A guard that it mounted on a session stays, on the system's clock again.

Time. Only the waits of guards take none: `time.sleep` sleeps, and locks do not end meanwhile; call
`zoho_clock.advance(...)` instead. Guards that were given a clock keep it, and Redis has its own: leave
`lock_registry` in memory. Waits of several threads overlap, as on a real clock, so that each thread
sees what it would see alone: time moves once all that have used the clock wait, and one of them that
does something else, such as joining the others, holds it up for 30 ms.

Settings and options, of a test, a class or a module (`pytestmark = ...`); the nearest wins::

    import pytest
    import crm_guard


    @pytest.mark.crm_guard(timeout=30, raise_on="partial")  # of GuardSettings
    @pytest.mark.zoho_crm(sandbox=True, seed=7)  # of crm_guard.simulator.Options
    def test_a_lock_outlives_the_budget(zoho_crm, guarded_session):
        lead = zoho_crm.add_record("Leads", locked_for=3600.0)
        with pytest.raises(crm_guard.RecordLockedError):
            guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]})
        assert zoho_crm.writes(lead) == 0

Below a failed test the report lists the calls: instant, method, path, status and what was refused;
no body, no token.

Beside `responses`: it answers for the other hosts, and lets Zoho's pass, as here. What it answers
for Zoho's hosts itself never reaches the simulator::

    import requests
    import responses
    from crm_guard.testing import ZOHO_URLS


    @responses.activate
    def test_a_lead_is_written_and_told(zoho_crm, guarded_session):
        responses.add_passthru(zoho_crm.url)
        responses.add_passthru(ZOHO_URLS)
        responses.post("https://chat.example/hook", json={})
        lead = zoho_crm.add_record("Leads", locked_for=60.0)
        url = f"https://www.zohoapis.com/crm/v8/Leads/{lead}"
        assert guarded_session.put(url, json={"data": [{"Company": "Zylker"}]}).ok
        assert requests.post("https://chat.example/hook", json={"text": "written"}).ok

With `responses` alone, and none of these fixtures: each send of a guarded call is a call of its own
in `responses.calls`, with its own body, and waits take their time. A GET for the approval state behind
`NOT_APPROVED` that you do not mock fails, which the guard tolerates; with `diagnose=False` it sends none.

Beside `vcrpy`: it sees calls to 127.0.0.1, never to Zoho's hosts, and must leave them alone::

    import vcr


    @vcr.use_cassette("chat.yaml", ignore_localhost=True)
    def test_nothing_of_the_simulator_is_recorded(zoho_crm, guarded_session):
        lead = zoho_crm.add_record("Leads", locked_for=60.0)
        url = f"https://www.zohoapis.com/crm/v8/Leads/{lead}"
        assert guarded_session.put(url, json={"data": [{"Company": "Zylker"}]}).ok

In a `unittest.TestCase`, a fixture that is used of itself hands them over::

    import unittest

    import pytest


    class LeadsTest(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _fixtures(self, zoho_crm, guarded_session):
            self.crm, self.session = zoho_crm, guarded_session

        def test_a_lead_is_written(self):
            lead = self.crm.add_record("Leads", locked_for=60.0)
            url = f"{self.crm.url}/crm/v8/Leads/{lead}"
            self.assertTrue(self.session.put(url, json={"data": [{"Company": "Zylker"}]}).ok)

With pytest-xdist each worker has a simulator of its own. With `--disable-socket` of pytest-socket, add
`--allow-hosts=127.0.0.1`. `-p no:crm_guard` switches the plugin off.
It loads neither `requests` nor the guard before a test asks for a fixture.

For more than one test, or without pytest, `simulated_zoho` is what is behind the fixture. Of several
the one that began last answers; they may end in any order::

    import pytest
    from crm_guard.testing import overlapping_clock, simulated_zoho

    clock = overlapping_clock()


    @pytest.fixture(scope="module")
    def crm():
        with simulated_zoho(clock, token="secret") as crm:
            yield crm

Typed, a test reads::

    from crm_guard.simulator import Simulator
    from crm_guard.testing import ManualClock
    from requests import Session


    def test_a_lead_is_written(zoho_crm: Simulator, zoho_clock: ManualClock, guarded_session: Session) -> None:
        lead = zoho_crm.add_record("Leads", locked_for=60.0)
        url = f"{zoho_crm.url}/crm/v8/Leads/{lead}"
        assert guarded_session.put(url, json={"data": [{"Company": "Zylker"}]}).ok
        assert sum(zoho_clock.waits) >= 60.0
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from crm_guard._testing import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Unpack

    from crm_guard.clock import Wake
    from crm_guard.simulator import EngineOptions, Simulator

ZOHO_URLS: Final = names.ZOHO_URLS
"""A pattern of the URLs on Zoho's hosts, for libraries that are to let them pass."""

_mutex = threading.Lock()  # shared by all clocks, so that a clock can be copied and pickled


@contextmanager
def simulated_zoho(clock: ManualClock | None = None, /, **options: Unpack[EngineOptions]) -> Iterator[Simulator]:
    """Have a simulated CRM answer for every host of Zoho, and every guard wait on its clock. For tests.

    ::

        import crm_guard
        import requests
        from crm_guard.testing import simulated_zoho

        with simulated_zoho(sandbox=True) as crm, crm_guard.install():
            lead = crm.add_record("Leads", refusals=3)
            url = f"https://www.zohoapis.com/crm/v8/Leads/{lead}"
            assert requests.put(url, json={"data": [{"Company": "Zylker"}]}).ok  # three waits, and no time

    It is for the whole process, whatever sends with `requests` or urllib3's pool managers: not for two tests at
    once in threads. Other clients find no address for Zoho's hosts. At the end each `install` that was left behind
    is undone, and after the last of several simulations each `stop_waiting(for_good=True)`.

    Args:
        clock: The time, for the simulator and for all guards without a `clock=`; None for one on which the waits of
            several threads overlap, as on the fixture `zoho_clock`.
        **options: Of the simulator, see :class:`crm_guard.simulator.Options`.

    Yields:
        The simulator, running.

    Raises:
        TypeError: An option is unknown, or the clock is given by name.
        ValueError: An option is out of range.
    """
    # Here, so that the clock alone costs nothing.
    from crm_guard._testing.hosts import zoho_hosts_at  # noqa: PLC0415
    from crm_guard._testing.system_time import system_time  # noqa: PLC0415
    from crm_guard.mounting import installations_undone  # noqa: PLC0415
    from crm_guard.simulator import Simulator  # noqa: PLC0415

    if "clock" in options:
        message = "simulated_zoho() takes its clock by position, and a ManualClock: guards wait on it, too"
        raise TypeError(message)
    time = clock or overlapping_clock()
    options["clock"] = time
    with system_time(time), Simulator(**options) as crm, zoho_hosts_at(crm.url), installations_undone():
        yield crm


class ManualClock:
    """A clock for the guard and the simulator (`clock=` of either). A wait takes no real time.

    The pytest fixture `zoho_clock` is one on which waits overlap (:func:`overlapping_clock`). By hand::

        import crm_guard
        import requests
        from crm_guard.simulator import Simulator
        from crm_guard.testing import ManualClock

        clock = ManualClock()
        with Simulator(clock=clock) as crm, requests.Session() as session:
            crm_guard.mount_guard(session, crm.url, clock=clock)
            lead = crm.add_record("Leads", refusals=2)
            assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]}).ok
        assert len(clock.waits) == 2
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
        self._add(seconds)

    def wait(self, event: Wake, timeout: float) -> bool:
        """Advance by `timeout` seconds at once, call `during_wait`, and return whether `event` is set.

        If `event` is set already, no time passes and `during_wait` is not called. The guard calls this.

        Args:
            event: Ends the wait when it is set.
            timeout: Seconds to wait; 0 or less is no time.
        """
        if event.is_set():
            return True
        self._sit_out(event, timeout)
        if self.during_wait is not None:
            self.during_wait()
        return event.is_set()

    def _add(self, seconds: float) -> None:
        with _mutex:
            self._now += seconds

    def _sit_out(self, event: Wake, timeout: float) -> None:  # noqa: ARG002 (of a clock on which waits overlap)
        with _mutex:
            self.waits.append(timeout)
            self._now += max(timeout, 0.0)


class _OverlappingClock(ManualClock):
    """A clock on which the waits of several threads pass together, see :class:`crm_guard._testing.overlap.Overlap`.

    A wait is ended by its event, too, whoever sets that.
    """

    def __init__(self, start: float = 0.0) -> None:
        from crm_guard._testing.overlap import Overlap  # noqa: PLC0415 (the other clock does without)

        super().__init__(start)
        self._overlap = Overlap(start)

    def now(self) -> float:
        return self._overlap.now()

    def __call__(self) -> float:
        return self._overlap.time  # a thread of the simulator never waits: it takes no part

    def _add(self, seconds: float) -> None:
        self._overlap.advance(seconds)

    def _sit_out(self, event: Wake, timeout: float) -> None:
        with _mutex:
            self.waits.append(timeout)
        self._overlap.wait(event, timeout)


def overlapping_clock() -> ManualClock:
    """Return a clock like the fixture `zoho_clock`: waits of several threads overlap, as on a real clock.

    The instant moves to the earliest end of all waits, once every thread that has used the clock waits. One that
    does not holds it up until nothing has happened for 30 ms of real time, and then not again before it waits. A
    thread alone never blocks. A wait ends early if its event is set, or if the clock is advanced beyond its end.
    """
    return _OverlappingClock()
