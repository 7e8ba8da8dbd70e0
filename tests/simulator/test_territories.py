"""Territories, of many records and of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

ASSIGN, REMOVE = "assign_territories", "remove_territories"
ZIA_MESSAGE = "Cannot update record that is not approved yet"
LOCK_MESSAGE = "Sorry, you cannot perform this operation as the record is locked."


def _row(record_id: str, *territories: str) -> dict[str, Any]:
    return {"id": record_id, "Territories": [{"id": entry} for entry in territories]}


def _many(send: Send, engine: Engine, action: str, *rows: dict[str, Any]) -> Reply:
    return send(engine, "POST", f"Leads/actions/{action}", {"data": list(rows)})


def test_territories_are_assigned_and_removed_per_record(send: Send, engine: Engine) -> None:
    first, second = engine.add_record("Leads"), engine.add_record("Leads")
    assigned = _many(send, engine, ASSIGN, _row(first, "7", "8"), _row(second, "8"))
    assert (engine.get(first).territories, engine.get(second).territories) == (["7", "8"], ["8"])
    removed = _many(send, engine, REMOVE, _row(first, "8"), _row(second, "8"))
    assert (engine.get(first).territories, engine.get(second).territories) == (["7"], [])
    assert (assigned.status, removed.status) == (200, 200)
    assert engine.write_counts == {first: 2, second: 2}


@pytest.mark.parametrize(("action", "done"), [(ASSIGN, "updated"), (REMOVE, "removed")])
def test_a_success_item_names_the_record(send: Send, engine: Engine, action: str, done: str) -> None:
    lead = engine.add_record("Leads")
    expected = {
        "code": "SUCCESS",
        "details": {"id": lead},
        "message": f"the territories data {done} successfully",
        "status": "success",
    }
    assert _many(send, engine, action, _row(lead, "7")).json() == {"data": [expected]}
    one = send(engine, "POST", f"Leads/{lead}/actions/{action}", {"data": [{"Territories": [{"id": "8"}]}]})
    assert (one.status, one.json()) == (200, {"data": [expected]})


def test_removing_what_is_not_there_changes_nothing(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    _many(send, engine, ASSIGN, _row(lead, "7"))
    assert _many(send, engine, REMOVE, _row(lead, "9")).status == 200
    assert engine.get(lead).territories == ["7"]


def test_a_territory_is_assigned_once_and_a_record_takes_ten(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    rows = [_row(lead, "7"), _row(lead, "7"), _row(lead, "8", "9", "8"), _row(lead, *map(str, range(100, 110)))]
    reply = _many(send, engine, ASSIGN, *rows)
    found = [(entry["code"], entry["details"].get("json_path")) for entry in reply.json()["data"]]
    assert reply.status == 202
    assert found == [
        ("SUCCESS", None),
        ("DUPLICATE_DATA", "$.data[1].Territories[0].id"),
        ("ALREADY_USED", "$.data[2].Territories[2].id"),
        ("LIMIT_EXCEEDED", "$.data[3].Territories"),
    ]
    used, full = reply.json()["data"][2:]
    assert used["details"]["exists_in"] == {"json_path": "$.data[2].Territories[0].id"}
    assert full["details"]["limit"] == 10
    assert (engine.get(lead).territories, engine.writes(lead)) == (["7"], 1)


def test_a_partly_refused_request_answers_202_with_items_in_the_order_of_the_rows(send: Send, clock: Any) -> None:
    """Whatever the option `shuffle` does to endpoints whose order is undocumented."""
    engine = Engine(clock=clock, shuffle=True)
    states = ("zia_vision_validation", "approved", "record_locking", "zia_vision_pending", "review_process_pending")
    ids = [engine.add_record("Leads", state=state) for state in states]
    reply = _many(send, engine, ASSIGN, *(_row(entry, "7") for entry in ids))
    items = reply.json()["data"]
    found = [(entry["code"], entry["details"].get("action"), entry["message"]) for entry in items]
    assert reply.status == 202
    assert [entry["details"]["id"] for entry in items] == ids
    assert found == [
        ("RECORD_LOCKED", "zia_vision_processing", ZIA_MESSAGE),
        ("SUCCESS", None, "the territories data updated successfully"),
        ("RECORD_LOCKED", "record_locking", LOCK_MESSAGE),
        ("NOT_APPROVED", None, ZIA_MESSAGE),
        ("NOT_REVIEWED", None, "record in review"),
    ]
    assert engine.write_counts == {ids[1]: 1}


def test_a_wholly_refused_request_answers_400_until_the_lock_ends(send: Send, engine: Engine, clock: Any) -> None:
    ids = [engine.add_record("Leads", locked_for=5.0) for _ in range(2)]
    rows = [_row(entry, "7") for entry in ids]
    assert _many(send, engine, ASSIGN, *rows).status == 400
    clock.advance(5.0)
    assert _many(send, engine, ASSIGN, *rows).status == 200
    assert [engine.get(entry).territories for entry in ids] == [["7"], ["7"]]


@pytest.mark.parametrize(("bad", "place"), [(None, ""), ([], ""), ({}, ""), ("7", ""), (["7"], "[0].id"),
    ([{"id": "8"}, {"name": "West"}], "[1].id")])  # fmt: skip
def test_a_row_needs_its_record_and_its_territories(send: Send, engine: Engine, bad: Any, place: str) -> None:
    lead = engine.add_record("Leads")
    rows: list[dict[str, Any]] = [{"Territories": [{"id": "7"}]}, _row("1", "7"), {"id": lead, "Territories": bad}]
    reply = _many(send, engine, ASSIGN, *rows)
    found = [(entry["code"], entry["details"]["json_path"]) for entry in reply.json()["data"]]
    assert reply.status == 400
    assert found == [
        ("MANDATORY_NOT_FOUND", "$.data[0].id"),
        ("INVALID_DATA", "$.data[1].id"),
        ("MANDATORY_NOT_FOUND", f"$.data[2].Territories{place}"),
    ]
    one = send(engine, "POST", f"Leads/{lead}/actions/{ASSIGN}", {"data": [{"Territories": bad}]})
    assert (one.status, one.json()["data"][0]["code"]) == (400, "MANDATORY_NOT_FOUND")
    assert engine.writes(lead) == 0


def test_one_record_takes_one_row_and_must_exist(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    rows = {"data": [_row(lead, "7"), _row(lead, "8")]}
    found = send(engine, "POST", f"Leads/{lead}/actions/{ASSIGN}", rows).json()
    assert (found["code"], found["details"]["maximum_length"]) == ("INVALID_DATA", 1)
    unknown = send(engine, "POST", f"Leads/1/actions/{ASSIGN}", {"data": [_row("1", "7")]})
    assert unknown.json()["details"] == {"resource_path_index": 1}
    assert engine.writes(lead) == 0


def test_copies_of_a_record_do_not_follow_its_territories(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    before = engine.get(lead)
    _many(send, engine, ASSIGN, _row(lead, "7"))
    before.territories.append("9")
    assert engine.get(lead).territories == ["7"]
