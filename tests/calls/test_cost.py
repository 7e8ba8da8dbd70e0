"""What a locked batch costs: calls and records on the wire, and work that grows with the records alone."""

from __future__ import annotations

import sys

import pytest

from crm_guard import get_report
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock

from .world import CALLS, EngineTransport, add_leads, guarded, items_of

LOCKED = range(5, 105, 10)


def counts(released: list[int]) -> list[int]:
    """Return refusals for a hundred leads, of which every tenth is locked."""
    found = iter(released)
    return [next(found) if index in LOCKED else 0 for index in range(100)]


@pytest.mark.parametrize(
    ("released", "resent"),
    [
        pytest.param([1] * 10, [10], id="together after one refusal"),
        pytest.param([4] * 10, [10, 10, 10, 10], id="together after four"),
        pytest.param(list(range(1, 11)), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1], id="one by one"),
        pytest.param([1] * 9 + [3], [10, 1, 1], id="all but one"),
    ],
)
def test_a_hundred_updates_with_ten_locked_send_ninety_records_once(released, resent):
    world = guarded()
    ids = add_leads(world.engine, counts(released))
    response = world.send(CALLS["update"].of(ids))
    assert [len(call.record_ids) for call in world.engine.calls] == [100, *resent]
    assert [call.method for call in world.engine.calls] == ["PUT"] * (1 + len(resent))
    assert world.engine.write_counts == dict.fromkeys(ids, 1)
    assert (response.status_code, len(items_of(response))) == (200, 100)
    report = get_report(response)
    assert (report.attempts, report.credits_spent) == (1 + len(resent), 1 + len(resent))
    # CRM weighs ten records as one credit.
    assert world.engine.credits_spent == 10 + sum(-(-count // 10) for count in resent)


def test_the_same_holds_over_the_wire_on_one_connection(guard, clock):
    with Simulator(clock=clock) as crm:
        ids = add_leads(crm, counts([3] * 10))
        call = CALLS["update"]
        session = guard(share_locks=False)
        session.mount(crm.url, session.guard)
        response = session.put(f"{crm.url}/crm/v8/Leads", data=call.body(call.records(ids)))
        assert [len(call.record_ids) for call in crm.calls] == [100, 10, 10, 10]
        assert (response.status_code, crm.connections) == (200, 1)


def work_of(size: int, name: str) -> int:
    """Return how many function calls the guard makes for a batch of which half is locked."""
    world, call = guarded(), CALLS[name]
    ids = add_leads(world.engine, [2 * (index % 2) for index in range(size)])
    request = call.of(ids)
    entered = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal entered
        if event in {"call", "c_call"} and "crm_guard/" in frame.f_code.co_filename:
            entered += "simulator" not in frame.f_code.co_filename

    sys.setprofile(count)
    try:
        response = world.send(request)
    finally:
        sys.setprofile(None)
    assert get_report(response).applied
    assert world.engine.write_counts == dict.fromkeys(ids, 1)
    return entered


@pytest.mark.parametrize("name", ["mass_update", "mass_delete", "add_tags_string"])
def test_five_hundred_records_with_half_of_them_locked_take_ten_times_the_work_of_fifty(name):
    few, many = work_of(50, name), work_of(500, name)
    assert many < 11 * few


def test_one_id_named_five_hundred_times_takes_no_more_than_that():
    world, call = guarded(), CALLS["mass_update"]
    (lead,) = add_leads(world.engine, [700])
    response = world.send(call.of([lead] * 500))
    assert [len(call.record_ids) for call in world.engine.calls] == [500, 500, 200]
    assert len(items_of(response)) == 500


def test_no_wait_of_these_tests_takes_time():
    world = guarded()
    assert isinstance(world.clock, ManualClock)
    assert isinstance(world.transport, EngineTransport)
