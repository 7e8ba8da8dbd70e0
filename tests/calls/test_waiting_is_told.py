"""Nobody waits in silence: events and log lines of calls that wait for another call's answer."""

import logging
import threading
from itertools import pairwise

import pytest
import requests

from crm_guard import (
    GiveUpReason,
    GuardAdapter,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    get_report,
)
from crm_guard.clock import Wake
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator

ROW = {"data": [{"Company": "Zylker"}]}


class Steps:
    """A clock that time passes on only when it is told to; `asleep` is set while somebody sleeps on it."""

    def __init__(self):
        self.seconds, self.condition, self.sleepers = 0.0, threading.Condition(), 0

    def __call__(self):
        return self.seconds

    now = __call__

    def wait(self, event, timeout):
        due = self.seconds + timeout
        with self.condition:
            self.sleepers += 1
            self.condition.notify_all()
        while self.seconds < due and not event.wait(0.002):
            pass
        with self.condition:
            self.sleepers -= 1
        return event.is_set()

    def pass_on(self, seconds, sleepers=1):
        """Let time pass once so many threads sleep."""
        with self.condition:
            assert self.condition.wait_for(lambda: self.sleepers >= sleepers, 20)
            self.seconds += seconds


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def stepped_crm(steps):
    with Simulator(clock=steps) as crm:
        yield crm


class Writer:
    """A call in a thread of its own that notes its events."""

    def __init__(self, crm, steps, registry, lead, **policy):
        self.events, self.result, self.told = [], [], threading.Condition()
        settings = GuardSettings(**{"wait_initial": 3.0, "wait_max": 3.0, "wait_jitter": 0.0, **policy})
        self.adapter = GuardAdapter(settings, clock=steps, lock_registry=registry, hooks=[self.hear])
        self.url = f"{crm.url}/crm/v8/Leads/{lead}"
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def hear(self, event):
        with self.told:
            self.events.append(event)
            self.told.notify_all()

    def write(self):
        with requests.Session() as session:
            session.mount("http://", self.adapter)
            try:
                self.result.append(session.put(self.url, json=ROW).status_code)
            except RecordLockedError as error:
                self.result.append(error.reason)
            except requests.ConnectionError as error:
                self.result.append(error)

    def heard(self, kind, count=1):
        """Wait until so many events of a kind have come; return them."""
        with self.told:
            assert self.told.wait_for(lambda: len([e for e in self.events if e.kind == kind]) >= count, 20)
            return [event for event in self.events if event.kind == kind]

    def finished(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.result[0]


class TestACallOnARecordThatIsKnownToBeLocked:
    def test_tells_of_its_wait_before_it_sends_anything(self, stepped_crm, steps, caplog):
        registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=2.0)
        first = Writer(stepped_crm, steps, registry, lead)
        first.heard("waiting")
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            second = Writer(stepped_crm, steps, registry, lead)
            (waiting,) = second.heard("waiting")
            assert len(stepped_crm.calls) == 1
        assert [event.kind for event in second.events] == ["locked", "waiting"]
        assert (waiting.record_ids, waiting.records, waiting.code) == ((lead,), 1, "RECORD_LOCKED")
        assert (waiting.attempt, waiting.delay) == (0, pytest.approx(3.0 / 2**0.5)), "two calls need the record"
        assert (waiting.module, waiting.pending, waiting.again) == ("Leads", 1, False)
        line = (
            f"PUT /crm/v8/Leads/{lead}: waiting, 1 record ({lead}) RECORD_LOCKED zia_vision_processing, attempt 0"
        )
        assert line in caplog.text
        steps.pass_on(waiting.delay, sleepers=2)
        assert (first.finished(), second.finished()) == (200, 200)
        assert [event.kind for event in second.events] == ["locked", "waiting", "unlocked"]
        assert second.events[-1].waited == waiting.delay

    def test_that_is_refused_all_the_same_tells_of_its_own_wait_too(self, stepped_crm, steps):
        registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=1000.0)
        first = Writer(stepped_crm, steps, registry, lead, timeout=4.0)
        first.heard("waiting")
        second = Writer(stepped_crm, steps, registry, lead, timeout=60.0)
        second.heard("waiting")
        steps.pass_on(3.0, sleepers=2)
        assert first.finished() is GiveUpReason.TIMEOUT
        steps.pass_on(3.0)  # it asks now, in the place of the first
        second.heard("waiting", 2)
        second.adapter.stop_waiting()
        assert second.finished() is GiveUpReason.STOPPED
        told = [(event.kind.value, event.attempt) for event in second.events]
        assert told == [("locked", 0), ("waiting", 0), ("locked", 1), ("waiting", 1), ("gave_up", 1)]

    @pytest.mark.parametrize(
        ("fault", "status", "what"),
        [("429", 429, "429 TOO_MANY_REQUESTS"), ("401", 401, "401 INVALID_TOKEN"), ("502", 502, "502")],
    )
    def test_whose_first_send_meets_another_problem_tells_so_and_sets_nobody_off(
        self, stepped_crm, steps, fault, status, what
    ):
        registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=3.0)
        first = Writer(stepped_crm, steps, registry, lead, wait_initial=5.0, wait_max=5.0)
        first.heard("waiting")
        known = registry.waiter(WaitContext(steps, Wake(), lambda: False))  # a third call that needs it
        known.verdict(locked=[f"{stepped_crm.url}|{lead}"], free=[])
        second = Writer(stepped_crm, steps, registry, lead)
        second.heard("waiting")
        stepped_crm.fault(fault, method="PUT", after=1)  # the first one is written, the second one is not
        steps.pass_on(5.0, sleepers=2)
        assert (first.finished(), second.finished()) == (200, status)
        told = [(event.kind.value, event.attempt, str(event.error or "")) for event in second.events]
        assert told == [("locked", 0, ""), ("waiting", 0, ""), ("gave_up", 1, what)]
        known.leave()

    def test_whose_first_send_breaks_is_told_with_its_seconds(self, stepped_crm, steps):
        registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=3.0)
        first = Writer(stepped_crm, steps, registry, lead, wait_initial=5.0, wait_max=5.0)
        first.heard("waiting")
        second = Writer(stepped_crm, steps, registry, lead, wait_initial=60.0, wait_max=60.0)
        second.heard("waiting")
        stepped_crm.fault("reset", method="PUT", after=1)
        steps.pass_on(5.0, sleepers=2)
        assert first.finished() == 200
        report = get_report(second.finished())
        assert (report.reason, str(report.error), report.attempts) == (GiveUpReason.FOLLOW_UP, "ConnectionError", 1)
        assert report.waited == 5.0
        assert [(found.record_id, found.uncertain) for found in report.outcomes] == [(lead, True)]
        assert "met ConnectionError, so it may have been written" in report.outcomes[0].hint
        assert report.remaining_request() is None

    def test_is_told_again_each_time_that_it_lasts_twice_as_long(self, stepped_crm, steps):
        registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=1000.0)
        patient = {"attempts": 1000, "timeout": 9000.0}
        first = Writer(stepped_crm, steps, registry, lead, **patient)
        first.heard("waiting")
        second = Writer(stepped_crm, steps, registry, lead, wait_initial=1000.0, wait_max=1000.0, **patient)
        second.heard("waiting")
        for number in range(2, 26):
            steps.pass_on(3.0, sleepers=2)
            first.heard("waiting", number)
        assert steps.seconds == 72.0
        second.heard("waiting", 3)
        for writer in (first, second):
            writer.adapter.stop_waiting()
        assert {first.finished(), second.finished()} == {GiveUpReason.STOPPED}
        told = second.heard("waiting")
        assert {event.attempt for event in told} == {0}
        assert [event.again for event in told] == [False, *[True] * (len(told) - 1)]
        assert not any(event.again for event in first.heard("waiting")), "each of its waits is a new one"
        assert 3 <= len(told) <= 5, "and not at each of the two dozen rounds"
        for before, after in pairwise(told):
            assert after.waited >= 2 * (before.waited + before.delay)


def test_two_calls_share_the_questions_and_so_their_attempts(stepped_crm, steps):
    """They ask in turn, every 2.1 s. If one of them did, its four sends would be spent before the lock ends."""
    registry, lead = MemoryLockRegistry(), stepped_crm.add_record("Leads", locked_for=8.0)
    first = Writer(stepped_crm, steps, registry, lead, attempts=4)
    first.heard("waiting")
    second = Writer(stepped_crm, steps, registry, lead, attempts=4)
    second.heard("waiting")
    for refused in range(2, 6):
        steps.pass_on(3.0 / 2**0.5 + 0.001, sleepers=2)
        if refused < 5:
            first.heard("waiting", 1 + refused // 2)
            second.heard("waiting", 1 + (refused - 1) // 2)
    assert (first.finished(), second.finished()) == (200, 200)
    assert [len([e for e in one.events if e.kind == "resending"]) for one in (first, second)] == [3, 1]


class TestTheLine:
    def test_of_a_refusal_names_record_code_and_case(self, crm, guard, leads, caplog):
        lead = crm.add_record("Leads", state="zia_vision_rejected")
        with caplog.at_level(logging.INFO, "crm_guard"), pytest.raises(NotApprovedError) as caught:
            guard().put(f"{leads}/{lead}", json=ROW)
        (record,) = caplog.records
        about = f"blocked, 1 record ({lead}) NOT_APPROVED zia_rejected, attempt 1, waited 0.0 s"
        hint = caught.value.report.outcomes[0].hint
        assert record.getMessage() == f"PUT /crm/v8/Leads/{lead}: {about}: {hint}"

    def test_of_a_batch_has_one_for_each_reason(self, crm, guard, leads, events):
        states = ["zia_vision_rejected", "zia_vision_pending", "record_locking", "zia_vision_rejected", "approved"]
        ids = [crm.add_record("Leads", state=state) for state in states]
        guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        blocked = {
            (event.code, event.action, event.case): event.record_ids for event in events if event.kind == "blocked"
        }
        assert blocked == {
            ("NOT_APPROVED", None, "zia_rejected"): (ids[0], ids[3]),
            ("NOT_APPROVED", None, "zia_record_approval"): (ids[1],),
            ("RECORD_LOCKED", "record_locking", None): (ids[2],),
        }

    def test_of_a_wait_names_the_records_that_wait(self, crm, guard, leads, events):
        ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 1, 2)]
        guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        waiting = [event for event in events if event.kind == "waiting"]
        assert [event.record_ids for event in waiting] == [tuple(ids[1:]), tuple(ids[2:])]
        assert [event.pending for event in waiting] == [2, 1]
        assert {(event.code, event.action) for event in waiting} == {("RECORD_LOCKED", "zia_vision_processing")}
