"""An embedded Zoho CRM for tests: real HTTP, records that lock and unlock, faults on demand.

It answers the calls that :func:`served_calls` lists (`crm-guard simulate --served`), and refuses
them the way CRM does while Zia looks at a record's image. Any other path or method gets CRM's
answer to an unknown one, with the words "not simulated". One answer promises what does not come:
a mass update or a mass deletion by a custom view (`cvid`) is "scheduled successfully", as CRM says,
but there are no custom views here, and the job never changes a record. Name the records by `ids`.

It imports nothing of the guard, and works with any HTTP client:

    import requests
    from crm_guard.simulator import Simulator

    with Simulator() as crm:
        lead = crm.add_record("Leads", locked_for=2.0)
        answer = requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]})
        assert answer.status_code == 400  # RECORD_LOCKED, for two seconds
        assert crm.writes(lead) == 0

As a pytest fixture, with a clock that the test moves:

    import pytest
    from crm_guard.simulator import Simulator
    from crm_guard.testing import ManualClock

    @pytest.fixture
    def clock():
        return ManualClock()

    @pytest.fixture
    def crm(clock):
        with Simulator(clock=clock, token="secret") as simulator:
            yield simulator

    def test_a_locked_lead_opens_after_its_check(crm, clock):
        lead = crm.add_record("Leads", locked_for=30.0)
        clock.advance(30.0)
        assert crm.get(lead).state == "approved"

:class:`Engine` is the same CRM without a socket: give it a :class:`Request`, get a :class:`Reply`.

Programs in other languages set and read its state over HTTP, with `Simulator(control=True)` or the
command `crm-guard simulate`: see :mod:`crm_guard.simulator.control`.

All times are seconds. Every public method is thread-safe.
"""

from .engine import Engine
from .faults import FOREIGN_ID, Fault, FaultKind
from .messages import Call, Reply, Request
from .new_rows import NewRefusal
from .records import Record, State
from .routes import ServedCall, served_calls
from .server import Simulator
from .visit import EngineOptions, Options

__all__ = [
    "FOREIGN_ID",
    "Call",
    "Engine",
    "EngineOptions",
    "Fault",
    "FaultKind",
    "NewRefusal",
    "Options",
    "Record",
    "Reply",
    "Request",
    "ServedCall",
    "Simulator",
    "State",
    "served_calls",
]
