"""Rows of create and upsert that are refused before they become records."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]


def _is_x(row: dict[str, Any]) -> bool:
    return row.get("Last_Name") == "X"


def _create(send: Send, engine: Engine, *names: str, path: str = "Leads") -> Reply:
    return send(engine, "POST", path, {"data": [{"Last_Name": name} for name in names]})


def _names(engine: Engine) -> list[str]:
    return [record.fields["Last_Name"] for record in engine.records.values()]


def test_a_new_row_is_refused_as_often_as_planned_and_then_created_once(send: Send, engine: Engine) -> None:
    plan = engine.refuse_new("Leads", where=_is_x, refusals=2)
    assert [_create(send, engine, "X").status for _ in range(3)] == [400, 400, 201]
    assert (_names(engine), plan.refused) == (["X"], 2)


def test_a_partly_refused_create_answers_207_in_the_order_of_the_rows(send: Send, engine: Engine) -> None:
    """The items of refused rows name their index in this request; the others are created."""
    engine.refuse_new("Leads", where=_is_x, refusals=1)
    reply = _create(send, engine, "A", "X", "B")
    items = reply.json()["data"]
    assert reply.status == 207
    assert [entry["code"] for entry in items] == ["SUCCESS", "RECORD_LOCKED", "SUCCESS"]
    assert items[1] == {
        "code": "RECORD_LOCKED",
        "details": {"api_name": "id", "json_path": "$.data[1].id", "action": "zia_vision_processing"},
        "message": "Cannot update record that is not approved yet",
        "status": "error",
    }
    assert _names(engine) == ["A", "B"]


def test_the_index_of_a_refused_row_is_that_of_each_request(send: Send, engine: Engine) -> None:
    engine.refuse_new("Leads", where=_is_x, refusals=2)
    items = [_create(send, engine, *names).json()["data"][-1] for names in ("ABX", "X")]
    assert [entry["details"]["json_path"] for entry in items] == ["$.data[2].id", "$.data[0].id"]


def test_new_rows_are_refused_until_an_instant(send: Send, engine: Engine, clock: Any) -> None:
    engine.refuse_new("Leads", locked_for=5.0)
    assert _create(send, engine, "X").status == 400
    clock.advance(4.9)
    assert _create(send, engine, "X").status == 400
    clock.advance(0.1)
    assert _create(send, engine, "X").status == 201


def test_the_earlier_end_counts(send: Send, engine: Engine, clock: Any) -> None:
    engine.refuse_new("Leads", locked_for=5.0, refusals=1)
    assert [_create(send, engine, "X").status for _ in range(2)] == [400, 201]
    clock.advance(5.0)
    assert _create(send, engine, "Y").status == 201


def test_without_an_end_new_rows_are_refused_until_accepted_again(send: Send, engine: Engine, clock: Any) -> None:
    engine.refuse_new("Leads")
    clock.advance(1e9)
    assert _create(send, engine, "X").status == 400
    assert _create(send, engine, "X", path="Contacts").status == 201
    engine.accept_new()
    assert _create(send, engine, "X").status == 201


def test_each_row_has_its_own_refusals_and_equal_rows_share_them(send: Send, engine: Engine) -> None:
    engine.refuse_new("Leads", refusals=1)
    assert _create(send, engine, "A", "B").status == 400
    reply = _create(send, engine, "A", "B", "C", "C")
    assert [entry["code"] for entry in reply.json()["data"]] == ["SUCCESS", "SUCCESS", "RECORD_LOCKED", "SUCCESS"]


def test_of_two_plans_the_first_due_takes_a_row(send: Send, engine: Engine) -> None:
    first = engine.refuse_new("Leads", where=_is_x, refusals=1)
    second = engine.refuse_new("Leads", refusals=1)
    _create(send, engine, "X", "Y")
    assert (first.refused, second.refused) == (1, 1)
    assert _create(send, engine, "X").status == 400
    assert _create(send, engine, "X").status == 201


def test_only_the_inserting_rows_of_an_upsert_are_refused(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", fields={"Email": "a@x.com", "Last_Name": "Doe"})
    engine.refuse_new("Leads", refusals=1)
    rows = [{"Last_Name": "New"}, {"Email": "a@x.com", "Last_Name": "Roe"}]
    reply = send(engine, "POST", "Leads/upsert", {"data": rows})
    refused, updated = reply.json()["data"]
    assert reply.status == 207
    assert (refused["code"], refused.keys() & {"action", "duplicate_field"}) == ("RECORD_LOCKED", set())
    assert refused["details"]["action"] == "zia_vision_processing"
    assert (updated["code"], updated["action"]) == ("SUCCESS", "update")
    assert engine.writes(lead) == 1
    assert send(engine, "POST", "Leads/upsert", {"data": rows[:1]}).status == 200
    assert _names(engine) == ["Roe", "New"]


def test_a_row_that_cannot_be_created_is_not_counted_as_locked(send: Send, engine: Engine) -> None:
    plan = engine.refuse_new("Leads")
    reply = send(engine, "POST", "Leads", {"data": [{"Company": "Zylker"}]})
    assert reply.json()["data"][0]["code"] == "MANDATORY_NOT_FOUND"
    assert plan.refused == 0


@pytest.mark.parametrize(("state", "code", "action"), [
    ("record_locking", "RECORD_LOCKED", "record_locking"), ("merge_pending", "RECORD_LOCKED", None),
    ("review_process_pending", "NOT_REVIEWED", None),
])  # fmt: skip
def test_a_new_row_can_be_refused_for_other_causes(
    send: Send, engine: Engine, state: str, code: str, action: str | None
) -> None:
    engine.refuse_new("Leads", state=state)
    (found,) = _create(send, engine, "X").json()["data"]
    assert (found["code"], found["details"].get("action")) == (code, action)


@pytest.mark.parametrize("path", ["Leads", "Leads/upsert"])
def test_one_new_row_that_is_not_approved_is_refused_bare_and_one_of_several_by_its_index(
    send: Send, engine: Engine, path: str
) -> None:
    engine.refuse_new("Leads", where=_is_x, state="zia_vision_rejected")
    alone = _create(send, engine, "X", path=path)
    assert (alone.status, alone.json()["code"], alone.json()["details"]) == (
        400, "NOT_APPROVED", {"resource_path_index": 0})  # fmt: skip
    items = _create(send, engine, "A", "X", path=path).json()["data"]
    assert (items[1]["code"], items[1]["details"]["json_path"]) == ("NOT_APPROVED", "$.data[1].id")


@pytest.mark.parametrize("state", ["approved", "zia_image_pending", "frozen"])
def test_a_state_that_refuses_nothing_is_an_error(engine: Engine, state: str) -> None:
    with pytest.raises(ValueError, match=r"refuses no new rows|not a valid State"):
        engine.refuse_new("Leads", state=state)


def test_a_rehearsed_create_uses_up_no_refusal(send: Send, engine: Engine) -> None:
    """Even where the condition holds something that cannot be copied."""
    mutex = threading.Lock()

    class Guarded:
        def __init__(self) -> None:
            self.mutex = mutex

        def all(self, row: dict[str, Any]) -> bool:
            with self.mutex:
                return bool(row)

    plan = engine.refuse_new("Leads", where=Guarded().all, refusals=1)
    engine.fault("truncated")
    _create(send, engine, "X")
    assert plan.refused == 0
    assert [_create(send, engine, "X").status for _ in range(2)] == [400, 201]


def test_threads_lose_no_refusal_and_create_each_row_once(engine: Engine) -> None:
    plan = engine.refuse_new("Leads", refusals=3)
    barrier = threading.Barrier(8)

    def work(name: str) -> None:
        body = f'{{"data":[{{"Last_Name":"{name}"}}]}}'.encode()
        barrier.wait()
        while engine.handle(Request(method="POST", path="/crm/v8/Leads", body=body)).status != 201:
            pass

    threads = [threading.Thread(target=work, args=(name,)) for name in "ABCDEFGH"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(_names(engine)), plan.refused) == (list("ABCDEFGH"), 24)


@pytest.mark.parametrize("path", ["Leads", "Leads/upsert"])
def test_a_fault_refuses_a_whole_create_or_upsert_with_a_bare_item(send: Send, engine: Engine, path: str) -> None:
    body = {
        "code": "NOT_APPROVED",
        "details": {"resource_path_index": 0},
        "message": "record not approved",
        "status": "error",
    }
    engine.fault("answer", method="POST", path=r"/Leads(/upsert)?$", status=400, body=body)
    reply = _create(send, engine, "A", "B", path=path)
    assert (reply.status, reply.json()) == (400, body)
    assert engine.records == {}
    assert _create(send, engine, "A", "B", path=path).status < 300
