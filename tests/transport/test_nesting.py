"""Contexts, threads and greenlets: what is nested and what is not, and locks from before gevent's patch.

A guard that is reached through another guard's inner adapter only sends; and no other one takes itself for that.
`test_gevent.py` has the real greenlets.
"""

import asyncio
import contextvars
import threading
import warnings
from dataclasses import replace

import pytest
import requests
from requests.adapters import HTTPAdapter

from crm_guard import GuardAdapter, mount_guard
from crm_guard.locks import MemoryLockRegistry

URL = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"
ROW = {"data": [{"Company": "Zylker"}]}
QUICK = {"wait_initial": 0.005, "wait_max": 0.01, "raise_on": "never"}


DETAILS = {"id": "111112000000075003"}
LOCK = {"code": "RECORD_LOCKED", "details": DETAILS | {"action": "zia_vision_processing"}, "status": "error"}
LOCKED = {"data": [LOCK]}
APPLIED = {"data": [{"code": "SUCCESS", "details": DETAILS, "message": "record updated", "status": "success"}]}


class Keeper(HTTPAdapter):
    """Keeps the context of its last send, as a task, a greenlet or a thread that was begun inside would."""

    def __init__(self, during=lambda: None):
        super().__init__()
        self.during = during

    def send(self, request, **options):
        self.context = contextvars.copy_context()
        self.during()
        return super().send(request, **options)


@pytest.fixture
def session(crm):
    with requests.Session() as made:
        made.mount(crm.url, GuardAdapter(QUICK, inner=Keeper()))
        yield made


def put(session, crm, lead):
    return session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code


def test_a_call_that_comes_from_an_earlier_send_is_guarded(crm, session):
    inner = session.get_adapter(crm.url).inner
    assert put(session, crm, crm.add_record("Leads")) == 200
    assert inner.context.run(put, session, crm, crm.add_record("Leads", refusals=1)) == 200


def test_a_call_from_inside_a_send_is_nested_in_whatever_thread(crm, session):
    """It inherits the context: what `asyncio.to_thread` does."""
    found, inner = [], session.get_adapter(crm.url).inner
    lead = crm.add_record("Leads", refusals=1)

    def during():
        inner.during = lambda: None
        thread = threading.Thread(target=lambda: found.append(inner.context.run(put, other, crm, lead)))
        thread.start()
        thread.join()

    inner.during = during
    with requests.Session() as other:
        mount_guard(other, crm.url, settings=QUICK)
        with pytest.warns(UserWarning, match="a guard sends through another guard"):
            put(session, crm, crm.add_record("Leads"))
    assert found == [400]


def test_a_send_that_fails_leaves_nothing_behind(crm, session):
    inner = session.get_adapter(crm.url).inner

    def fail():
        inner.during = lambda: None
        raise requests.ConnectionError

    inner.during = fail
    with pytest.raises(requests.ConnectionError):
        put(session, crm, crm.add_record("Leads"))
    assert put(session, crm, crm.add_record("Leads", refusals=1)) == 200


def test_tasks_are_guarded_each_by_itself(crm, session):
    leads = [crm.add_record("Leads", refusals=1) for _ in range(8)]

    async def main():
        return await asyncio.gather(*(asyncio.to_thread(put, session, crm, lead) for lead in leads))

    assert asyncio.run(main()) == [200] * 8


class Patched:
    """A lock of another kind, as gevent puts it in the place of `threading.Lock`."""

    def __init__(self):
        self.lock = threading.RLock()

    def __enter__(self):
        return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


@pytest.mark.parametrize("registry", [MemoryLockRegistry, type("Far", (MemoryLockRegistry,), {})])
def test_a_registry_from_before_a_patch_begins_anew(canned, monkeypatch, registry):
    """Else a greenlet that yields inside its mutex would block all others, as gevent before 25.4 lets it."""
    locks = registry()
    session = canned((400, LOCKED), (200, APPLIED), diagnose=False)
    guard = session.get_adapter(URL)
    guard.context = replace(guard.context, locks=locks)
    monkeypatch.setattr(threading, "Lock", Patched)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [session.put(URL, json=ROW).status_code for _ in range(2)] == [200, 200]
    assert type(session.get_adapter(URL).locks.mutex) is Patched
    assert (session.get_adapter(URL).locks is locks) is (registry is MemoryLockRegistry)
    assert ["gevent" in str(warning.message) for warning in caught] == [True] * (registry is not MemoryLockRegistry)
