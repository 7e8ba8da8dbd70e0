"""What most tests need: a simulated CRM, a guarded session, and a clock that nobody waits for."""

import gc
import io
import json
import threading

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from crm_guard import GuardAdapter, GuardSettings
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock


def pytest_collection_finish():
    """Leave what the collection made out of every later garbage collection: there are thousands of tests."""
    gc.collect()
    gc.freeze()


class Recorder(list):
    """A hook that keeps every event."""

    def __call__(self, event):
        self.append(event)

    def kinds(self):
        return [event.kind.value for event in self]


class Canned(HTTPAdapter):
    """Gives the answers it was made with, the last one again and again: `(status, body[, headers])`."""

    def __init__(self, answers):
        super().__init__()
        self.answers = list(answers)
        self.sent = []
        self.given = []

    def send(self, request, **options):
        status, body, *more = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        raw = HTTPResponse(
            body=io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode()),
            headers={"Content-Type": "application/json", **(more[0] if more else {})},
            status=status,
            preload_content=False,
        )
        self.sent.append(request)
        self.given.append(self.build_response(request, raw))
        return self.given[-1]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def events():
    return Recorder()


@pytest.fixture
def crm(clock):
    """A simulated CRM in which time passes only while somebody waits."""
    with Simulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture
def guard(crm, clock, events):
    """Makes sessions with a guard on the simulated CRM."""
    sessions = []

    def make(**options):
        policy = {name: options.pop(name) for name in list(options) if name in GuardSettings.__struct_fields__}
        session = requests.Session()
        adapter = GuardAdapter(GuardSettings(**policy), clock=clock, hooks=[events], **options)
        session.mount(crm.url + "/", adapter)
        session.guard = adapter
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def canned(clock, events):
    """Makes sessions with a guard that get prepared answers, without any network."""

    def make(*answers, hooks=(), **policy):
        session = requests.Session()
        session.inner = Canned(answers)
        adapter = GuardAdapter(GuardSettings(**policy), clock=clock, hooks=[events, *hooks], inner=session.inner)
        session.mount("https://", adapter)
        return session

    return make


@pytest.fixture
def leads(crm):
    """The URL of the simulated CRM's leads."""
    return f"{crm.url}/crm/v8/Leads"


@pytest.fixture
def together():
    """Runs functions in threads that start at the same moment; returns their results, exceptions included."""

    def run(functions, timeout=20):
        barrier = threading.Barrier(len(functions))
        results = [None] * len(functions)

        def one(index, function):
            barrier.wait(timeout)
            try:
                results[index] = function()
            except Exception as exc:  # noqa: BLE001 (the test looks at it)
                results[index] = exc

        threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate(functions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
        assert not any(thread.is_alive() for thread in threads), "a thread hangs"
        return results

    return run
