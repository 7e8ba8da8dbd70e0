"""A real CRM on the loopback for each test; and after each, no thread of a writer is left."""

import signal
import threading

import pytest

from crm_guard.simulator import Simulator
from tests.bulk.world import nothing_lives, session_for, url_of

LIMIT = 20.0


class Hangs(BaseException):
    """A test does not come to its end."""


def _hang(number, frame):
    raise Hangs


@pytest.fixture(autouse=True)
def no_hang():
    """Ends a test that hangs, also where it waits for threads: a second alarm follows."""
    before = signal.signal(signal.SIGALRM, _hang)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 10.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture(autouse=True)
def no_thread_left(no_hang):
    yield
    assert nothing_lives(), threading.enumerate()


@pytest.fixture
def crm():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def session(crm):
    """A session with a guard, whose registry is empty in the end."""
    session = session_for(crm)
    yield session
    assert nothing_lives()
    guard = session.get_adapter(url_of(crm))
    session.close()
    assert not guard.locks
    assert not guard.context.stops._wakes


@pytest.fixture
def leads(crm):
    return url_of(crm)
