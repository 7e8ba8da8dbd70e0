"""Many callers on one locked record, over real HTTP: few calls, each write once, no record waits for another."""

import threading
from dataclasses import replace

import pytest
import requests

from crm_guard import GuardAdapter, GuardSettings, RecordLockedError, RemainingRequest, get_report
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator

ROW = {"data": [{"Company": "Zylker"}]}
QUICK = {"wait_initial": 0.05, "wait_max": 0.1}


def hooked(adapter, *hooks):
    adapter.context = replace(adapter.context, hooks=hooks)


@pytest.fixture
def busy():
    """A CRM on the real clock that answers 429 to more than ten calls at once."""
    with Simulator(concurrency=10) as simulator:
        yield simulator


@pytest.fixture
def worker(busy):
    """Makes sessions of their own, as threads have, that share one registry."""
    sessions = []
    registry = MemoryLockRegistry(wake_at_once=10)

    def make(**settings):
        session = requests.Session()
        adapter = GuardAdapter(GuardSettings(**{**QUICK, **settings}), lock_registry=registry)
        session.mount(busy.url + "/", adapter)
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


def test_fifty_writers_of_a_record_known_to_be_locked_make_few_calls(busy, worker, together):
    lead = busy.add_record("Leads", locked_for=0.6)
    url = f"{busy.url}/crm/v8/Leads/{lead}"
    started = threading.Event()
    scout = worker()
    hooked(scout.get_adapter(url), lambda _: started.set())
    first = threading.Thread(target=lambda: scout.put(url, json=ROW))
    first.start()
    assert started.wait(10)
    sessions = [worker() for _ in range(50)]
    results = together([lambda session=session: session.put(url, json=ROW) for session in sessions])
    first.join(10)
    assert [response.status_code for response in results] == [200] * 50
    assert busy.writes(lead) == 51
    refused = [call for call in busy.calls if call.status != 200]
    assert len(refused) <= 16
    assert busy.max_concurrent <= 10


def test_a_lock_delays_no_other_record(busy, worker):
    locked, free = busy.add_record("Leads", state="zia_vision_validation"), busy.add_record("Leads")
    waiting = threading.Event()
    session = worker(attempts=1000)
    hooked(session.get_adapter(busy.url + "/"), lambda event: waiting.set() if event.kind == "waiting" else None)
    blocked = threading.Thread(target=lambda: session.put(f"{busy.url}/crm/v8/Leads/{locked}", json=ROW))
    blocked.start()
    assert waiting.wait(10)
    response = worker().put(f"{busy.url}/crm/v8/Leads/{free}", json=ROW)
    assert get_report(response).waited == 0.0
    busy.unlock(locked)
    blocked.join(10)
    assert busy.writes(locked) == 1


def test_a_locked_record_is_read_without_a_wait(busy, worker):
    lead = busy.add_record("Leads", state="zia_vision_validation")
    url = f"{busy.url}/crm/v8/Leads/{lead}"
    waiting = threading.Event()
    session = worker(attempts=1000)
    hooked(session.get_adapter(url), lambda event: waiting.set() if event.kind == "waiting" else None)
    blocked = threading.Thread(target=lambda: session.put(url, json=ROW))
    blocked.start()
    assert waiting.wait(10)
    assert get_report(worker(timeout=0.5).get(url)).waited == 0.0
    busy.unlock(lead)
    blocked.join(10)
    assert busy.writes(lead) == 1


@pytest.mark.parametrize("policy", [{"timeout": 0}, {"retry_actions": ()}, {"max_inspect_bytes": 0}])
def test_a_guard_that_never_waits_is_not_kept_waiting_by_what_others_know(crm, leads, clock, policy):
    def put(**settings):
        with requests.Session() as session:
            session.mount(crm.url, GuardAdapter(GuardSettings(**settings), clock=clock, lock_registry=registry))
            return session.put(f"{leads}/{lead}", json=ROW)

    lead, registry = crm.add_record("Leads"), MemoryLockRegistry()
    other = registry.waiter(WaitContext(clock, threading.Event(), lambda: False))
    other.verdict(locked=[f"{crm.url}|{lead}"], free=[])
    assert put(**policy).ok
    assert clock.waits == []
    assert put().ok
    assert clock.waits != []


def test_a_call_that_gives_up_leaves_no_lock_behind(crm, guard, leads):
    session = guard(timeout=10.0)
    lead = crm.add_record("Leads", state="zia_vision_validation")
    with pytest.raises(RecordLockedError):
        session.put(f"{leads}/{lead}", json=ROW)
    assert not session.guard.locks


def test_the_rest_of_a_batch_can_be_sent_later(crm, guard, leads, clock):
    ids = [crm.add_record("Leads", **({} if number % 10 else {"locked_for": 60.0})) for number in range(100)]
    response = guard(timeout=0).put(leads, json={"data": [{"id": lead, "Company": "Zylker"} for lead in ids]})
    report = get_report(response)
    assert response.status_code == 207
    assert report.retry_after > 0
    rest = RemainingRequest.from_dict(report.remaining_request().to_dict(), headers={"Authorization": "new"})
    clock.advance(60.0)
    assert guard().send(rest).status_code == 200
    assert {crm.writes(lead) for lead in ids} == {1}
    assert crm.calls[-1].record_ids == tuple(ids[::10])
