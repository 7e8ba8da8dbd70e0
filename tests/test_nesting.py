"""A guard that is reached through another guard's inner adapter only sends; and no other one takes it for that."""

import asyncio
import contextvars
import threading

import pytest
import requests
from requests.adapters import HTTPAdapter

from crm_guard import GuardAdapter, mount_guard

ROW = {"data": [{"Company": "Zylker"}]}
QUICK = {"wait_initial": 0.005, "wait_max": 0.01, "raise_on": "never"}


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
