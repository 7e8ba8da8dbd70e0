"""The lock of the Record Locking feature, through its own calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

REASON = {"data": [{"Locked_Reason__s": "in audit"}]}
# zoho/crm-oas: locking_informations/getRecordLockingInformationOfTheRecord.
KEYS = {
    "id", "Locked_By__s", "Locked_For__s", "Locked_Reason__s", "Lock_Source__s", "Locked_Time__s",
    "Feature_Type__s", "Record_Locking_Configuration_Id__s", "Record_Locking_Rule_Id__s", "$editable",
    "$sharing_permission", "$field_states", "$zia_visions",
}  # fmt: skip


def _locks(send: Send, engine: Engine, record_id: str) -> str:
    path = f"Leads/{record_id}/Locking_Information__s"
    assert send(engine, "GET", path).status in (200, 204)
    return path


def test_a_record_is_locked_by_hand_explained_and_unlocked(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", fields={"Last_Name": "Doe"})
    path = _locks(send, engine, lead)
    assert send(engine, "GET", path).status == 204
    made = send(engine, "POST", path, REASON).json()["data"][0]["details"]["id"]
    assert send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}).json()["data"][0]["code"] == "RECORD_LOCKED"
    listed = send(engine, "GET", path).json()
    (lock,) = listed["data"]
    assert listed["info"] == {"per_page": 200, "count": 1, "page": 1, "more_records": False}
    assert (lock["id"], lock["Locked_Reason__s"], lock["Lock_Source__s"]) == (made, "in audit", "Manual")
    assert (lock["Locked_For__s"]["id"], lock["Locked_For__s"]["name"]) == (lead, "Doe")
    assert lock["Locked_By__s"] is not None
    assert lock.keys() == KEYS
    assert send(engine, "GET", f"{path}/{made}").json() == {"data": [lock]}
    send(engine, "PUT", f"{path}/{made}", {"data": [{"Locked_Reason__s": "audited"}]})
    assert send(engine, "GET", f"{path}/{made}").json()["data"][0]["Locked_Reason__s"] == "audited"
    assert send(engine, "DELETE", f"{path}/{made}").status == 200
    assert engine.get(lead).state is State.APPROVED
    assert send(engine, "GET", f"{path}/{made}").status == 400
    assert send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}).status == 200


def test_a_lock_by_a_rule_names_the_rule_and_stays(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", state="record_locking", lock_source="Automatic")
    path = _locks(send, engine, lead)
    (lock,) = send(engine, "GET", path).json()["data"]
    assert lock.keys() == KEYS
    assert (lock["Locked_By__s"], lock["Locked_Reason__s"], lock["$editable"]) == (None, None, False)
    assert lock["Record_Locking_Rule_Id__s"] is not None
    for method, body in (("DELETE", None), ("PUT", REASON)):
        reply = send(engine, method, f"{path}/{lock['id']}", body)
        assert (reply.status, reply.json()["code"]) == (403, "NOT_ALLOWED")
    assert engine.get(lead).state is State.RECORD_LOCKING


def test_a_later_lock_has_another_id_and_no_old_reason(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads")
    path = _locks(send, engine, lead)
    send(engine, "POST", path, REASON)
    (first,) = send(engine, "GET", path).json()["data"]
    engine.set_state(lead, "approved")
    engine.set_state(lead, "record_locking")
    (second,) = send(engine, "GET", path).json()["data"]
    assert second["id"] != first["id"]
    assert second["Locked_Reason__s"] is None
    assert send(engine, "DELETE", f"{path}/{first['id']}").status == 400


@pytest.mark.parametrize("data", [[{}], [{"Locked_Reason__s": ""}], [{"Locked_Reason__s": 5}]])
def test_a_lock_needs_a_reason(send: Send, engine: Engine, data: Any) -> None:
    lead = engine.add_record("Leads")
    reply = send(engine, "POST", _locks(send, engine, lead), {"data": data})
    assert (reply.status, reply.json()["data"][0]["code"]) == (400, "MANDATORY_NOT_FOUND")
    assert engine.get(lead).state is State.APPROVED


@pytest.mark.parametrize(("operation", "method", "suffix"), [("READ", "GET", ""), ("READ", "GET", "/1"),
    ("CREATE", "POST", ""), ("UPDATE", "PUT", "/1"), ("DELETE", "DELETE", "/1")])  # fmt: skip
def test_each_call_of_the_lock_api_needs_its_own_scope(
    send: Send, engine: Engine, operation: str, method: str, suffix: str
) -> None:
    path = f"Leads/{engine.add_record('Leads')}/Locking_Information__s{suffix}"
    assert send(engine, method, path, REASON).status != 401
    engine.deny_scope(None, "Leads", operation)
    assert send(engine, method, path, REASON).status == 401
