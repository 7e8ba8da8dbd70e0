"""The clock that users and our own tests move by hand."""

import copy
import math
import pickle
import subprocess
import sys
import threading

import pytest

from crm_guard.clock import Stops, Wake
from crm_guard.testing import ManualClock


def test_time_stands_still_while_nobody_waits():
    clock = ManualClock(start=1000.0)
    assert [clock.now(), clock(), clock.now()] == [1000.0] * 3
    assert clock.waits == []


def test_a_wait_passes_at_once_and_is_listed():
    clock, event = ManualClock(), Wake()
    assert clock.wait(event, 3.0) is False
    assert clock.wait(event, 0.5) is False
    assert (clock.now(), clock.waits) == (3.5, [3.0, 0.5])


@pytest.mark.parametrize("event", [Wake(), threading.Event()])
def test_a_wait_on_an_event_that_is_set_takes_no_time_and_is_not_listed(event):
    event.set()
    clock = ManualClock(during_wait=pytest.fail)
    assert clock.wait(event, 3.0) is True
    assert (clock.now(), clock.waits) == (0.0, [])


def test_what_happens_during_a_wait_sees_its_time_passed_and_may_set_the_event():
    event, seen = Wake(), []
    clock = ManualClock(start=5.0, during_wait=lambda: (seen.append((clock.now(), clock.waits[:])), event.set()))
    assert clock.wait(event, 3.0) is True
    assert seen == [(8.0, [3.0])]


def test_what_happens_during_a_wait_may_be_replaced_and_may_use_the_clock():
    clock, event, stops = ManualClock(), Wake(), Stops()
    clock.during_wait = lambda: clock.advance(10.0)
    assert clock.wait(event, 3.0) is False
    assert clock.now() == 13.0
    stops.watch(event, stops.token)
    clock.during_wait = stops.stop
    assert clock.wait(event, 1.0) is True


def test_an_exception_during_a_wait_is_raised_by_the_wait_whose_time_counts():
    def interrupt():
        raise KeyboardInterrupt

    clock = ManualClock(during_wait=interrupt)
    with pytest.raises(KeyboardInterrupt):
        clock.wait(Wake(), 3.0)
    assert (clock.now(), clock.waits) == (3.0, [3.0])


def test_a_wait_of_no_time_does_not_move_the_clock_back():
    clock = ManualClock()
    clock.wait(Wake(), -1.0)
    clock.wait(Wake(), 0)
    assert clock.now() == 0.0


def test_a_test_lets_time_pass_and_never_back():
    clock = ManualClock()
    clock.advance(2)
    clock.advance(0)
    assert clock.now() == 2.0
    for seconds in (-1, math.nan):
        with pytest.raises(ValueError, match="must be 0 or more"):
            clock.advance(seconds)
    assert clock.now() == 2.0


def test_each_wait_of_many_threads_advances_the_clock(together):
    clock, event = ManualClock(), Wake()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        results = together([lambda: [clock.wait(event, 1.0) or clock.advance(1.0) for _ in range(500)]] * 8)
    finally:
        sys.setswitchinterval(before)
    assert results == [[None] * 500] * 8
    assert (clock.now(), len(clock.waits)) == (8000.0, 4000)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])  # noqa: S301
def test_a_copy_goes_on_by_itself(twin):
    clock = ManualClock(start=7.0)
    other = twin(clock)
    other.advance(1.0)
    assert (clock.now(), other.now()) == (7.0, 8.0)


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, __future__, crm_guard, threading, typing; before = set(sys.modules);"
        "import crm_guard.testing; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['crm_guard._testing', 'crm_guard._testing.names', 'crm_guard.testing']\n"
