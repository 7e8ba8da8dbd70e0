"""Threads that wait at the same time: each sees what it would see alone."""

from __future__ import annotations

import copy
import pickle
import threading
import time

import pytest
import requests

import crm_guard
from crm_guard._testing import overlap
from crm_guard.clock import Wake
from crm_guard.testing import overlapping_clock

ROW = {"data": [{"Company": "Zylker"}]}


def test_it_is_the_clock_of_the_fixture(zoho_clock):
    assert type(zoho_clock) is type(overlapping_clock())


@pytest.fixture
def patient(monkeypatch):
    """Have a clock wait for a thread that does not wait, however slow this machine is."""
    monkeypatch.setattr(overlap, "_GRACE", 60.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("many", [1, 5, 10])
class TestLikeAlone:
    def test_each_has_its_own_budget(self, zoho_crm, zoho_clock, together, many):
        leads = [zoho_crm.add_record("Leads", refusals=8) for _ in range(many)]

        def put(lead):
            with requests.Session() as session:
                crm_guard.mount_guard(session)
                return session.put(f"https://www.zohoapis.com/crm/v8/Leads/{lead}", json=ROW).status_code

        assert together([lambda lead=lead: put(lead) for lead in leads]) == [200] * many
        assert zoho_crm.write_counts == dict.fromkeys(leads, 1)

    @pytest.mark.crm_guard(attempts=8)
    def test_no_lock_ends_too_soon(self, zoho_crm, guarded_session, together, many):
        leads = [zoho_crm.add_record("Leads", locked_for=100.0) for _ in range(many)]

        def put(lead):
            with pytest.raises(crm_guard.RecordLockedError) as caught:
                guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{lead}", json=ROW)
            return caught.value.report.reason

        reasons = together([lambda lead=lead: put(lead) for lead in leads])
        assert reasons == [crm_guard.GiveUpReason.ATTEMPTS] * many

    def test_short_and_long_locks_at_once(self, zoho_crm, guarded_session, together, many):
        def put(number):
            lead = zoho_crm.add_record("Leads", str(number), refusals=number % 4)
            response = guarded_session.put(f"{zoho_crm.url}/crm/v8/Leads/{lead}", json=ROW)
            return response.status_code, crm_guard.get_report(response).attempts

        done = together([lambda number=number: put(number) for number in range(many)])
        assert done == [(200, 1 + number % 4) for number in range(many)]


class TestWaits:
    """On the clock itself."""

    @pytest.fixture
    def clock(self):
        return overlapping_clock()

    @pytest.fixture
    def begun(self, clock):
        """Starts a function in a thread, and returns once that many waits are under way."""
        threads = []

        def start(function, waits):
            threads.append(threading.Thread(target=function, daemon=True))
            threads[-1].start()
            until = time.monotonic() + 20.0
            while sum(map(bool, list(clock._overlap._present.values()))) < waits and time.monotonic() < until:
                time.sleep(0.001)
            return threads[-1]

        yield start
        for thread in threads:
            thread.join(20.0)
            assert not thread.is_alive()

    def test_those_of_one_thread_follow_each_other_and_block_never(self, clock, monkeypatch):
        monkeypatch.setattr(threading.Condition, "wait", pytest.fail)
        assert [clock.wait(Wake(), seconds) for seconds in (3.0, 0.1, 0.0, -1.0)] == [False] * 4
        assert (clock.now(), clock(), clock.waits) == (3.1, 3.1, [3.0, 0.1, 0.0, -1.0])

    def test_those_of_many_threads_pass_together(self, clock, together, patient):
        def wait(seconds):
            clock.now()
            gate.wait(20.0)
            for _ in range(6):
                clock.wait(Wake(), seconds)
            return clock.now()

        gate = threading.Barrier(3)
        ends = together([lambda seconds=seconds: wait(seconds) for seconds in (1.0, 2.0, 3.0)])
        assert ends[2] == clock() == 18.0
        assert sorted(clock.waits) == [1.0] * 6 + [2.0] * 6 + [3.0] * 6

    def test_one_ends_when_another_thread_sets_its_event(self, clock, begun, patient):
        event, done = Wake(), []
        clock.now()  # this thread takes part, and does not wait
        thread = begun(lambda: done.append((clock.wait(event, 60.0), clock())), 1)
        event.set()
        thread.join(20.0)
        assert done == [(True, 0.0)]

    def test_a_thread_whose_wait_was_ended_is_busy_until_it_waits_again(self, clock, begun, patient):
        def other():
            clock.wait(event, 60.0)
            event.clear()
            cleared.set()
            resumed.wait(20.0)
            clock.wait(Wake(), 5.0)
            instants.append(clock())

        event, cleared, resumed, instants = Wake(), threading.Event(), threading.Event(), []
        clock.now()
        thread = begun(other, 1)
        event.set()
        assert cleared.wait(20.0)
        threading.Timer(0.02, resumed.set).start()
        clock.wait(Wake(), 10.0)
        thread.join(20.0)
        assert instants == [5.0]
        assert clock() == 10.0

    def test_one_ends_when_the_clock_is_advanced_by_hand(self, clock, begun, patient):
        done = []
        clock.now()
        thread = begun(lambda: done.append(clock.wait(Wake(), 60.0)), 1)
        clock.advance(60.0)
        thread.join(20.0)
        assert done == [False]
        assert clock() == 60.0

    def test_a_thread_that_waits_no_more_costs_one_grace(self, clock, together):
        def once():
            clock.wait(Wake(), 1.0)
            assert over.wait(20.0)

        def often():
            clock.wait(Wake(), 1.0)
            for _ in range(2000):
                clock.wait(Wake(), 1.0)
            over.set()

        over, before = threading.Event(), time.monotonic()
        together([once, often])
        assert time.monotonic() - before < 20.0  # it would be 60, with a grace for each wait

    def test_a_thread_that_looks_at_the_clock_again_and_again_costs_one_grace_too(self, clock, begun, monkeypatch):
        monkeypatch.setattr(overlap, "_GRACE", 0.4)
        clock.during_wait = lambda: time.sleep(0.002)  # so that each wait is looked at
        thread = begun(lambda: [clock.wait(Wake(), 1.0) for _ in range(100)], 0)
        until = time.monotonic() + 20.0
        while clock.now() < 100.0 and time.monotonic() < until:
            time.sleep(0.001)
        assert clock.now() == 100.0  # it would be 50, with a grace for each wait
        thread.join(20.0)

    def test_a_thread_that_has_ended_costs_nothing(self, clock, together, monkeypatch):
        together([lambda: clock.wait(Wake(), 1.0)] * 3)
        monkeypatch.setattr(threading.Condition, "wait", pytest.fail)
        now = clock()
        clock.wait(Wake(), 1.0)
        assert clock() == now + 1.0

    def test_an_exception_during_a_wait_blocks_nobody(self, clock, together):
        def interrupt():
            raise ZeroDivisionError

        clock.during_wait = interrupt
        done = together([lambda: clock.wait(Wake(), 1.0)] * 3)
        assert [type(error) for error in done] == [ZeroDivisionError] * 3
        clock.during_wait = None
        assert clock.wait(Wake(), 1.0) is False

    def test_what_happens_during_a_wait_may_use_the_clock_and_other_threads(self, clock):
        def meanwhile():
            clock.during_wait = None
            other = threading.Thread(target=lambda: clock.wait(Wake(), 5.0))
            other.start()
            other.join(20.0)
            clock.advance(10.0)
            clock.wait(Wake(), 1.0)

        clock.during_wait = meanwhile
        clock.wait(Wake(), 3.0)
        assert clock() == 19.0

    @pytest.mark.parametrize("twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])  # noqa: S301
    def test_a_copy_goes_on_by_itself(self, clock, twin):
        clock.wait(Wake(), 7.0)
        other = twin(clock)
        other.wait(Wake(), 1.0)
        assert (clock(), other(), other.waits) == (7.0, 8.0, [7.0, 1.0])
