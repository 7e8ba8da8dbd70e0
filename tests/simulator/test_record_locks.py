"""The lock of the Record Locking feature, through its own calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, State
from crm_guard.testing import ManualClock

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


def _approval_state(send: Send, engine: Engine, lead: str) -> str:
    """Return the `$approval_state` of a lead, which a list shows as approved or not by the same state."""
    found = str(send(engine, "GET", f"Leads/{lead}").json()["data"][0]["$approval_state"])
    listed = send(engine, "GET", f"Leads?fields=id&ids={lead}").status == 200
    assert listed is (found in {"approved", "merge_pending"})
    return found


class TestALockByHandApprovesNothing:
    def _lock(self, send: Send, engine: Engine, lead: str) -> str:
        """Return the path of the lock."""
        path = f"Leads/{lead}/Locking_Information__s"
        return f"{path}/{send(engine, 'POST', path, REASON).json()['data'][0]['details']['id']}"

    def _refusal(self, send: Send, engine: Engine, lead: str) -> tuple[str, str | None]:
        reply = send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}).json()
        found = reply["data"][0] if "data" in reply else reply
        return found["code"], found["details"].get("action")

    @pytest.mark.parametrize("state", [state for state in State if state is not State.RECORD_LOCKING])
    def test_a_record_is_after_it_what_it_was_before(self, send: Send, engine: Engine, state: State) -> None:
        lead = engine.add_record("Leads", state=state)
        before = self._refusal(send, engine, lead)
        lock = self._lock(send, engine, lead)
        assert self._refusal(send, engine, lead) == ("RECORD_LOCKED", "record_locking")
        assert _approval_state(send, engine, lead) == state.approval_state
        assert send(engine, "DELETE", lock).status == 200
        assert engine.get(lead).state is state
        assert self._refusal(send, engine, lead) == before

    def test_a_check_goes_on_beneath_it(self, send: Send) -> None:
        clock = ManualClock()
        engine = Engine(clock=clock)
        leads = [engine.add_record("Leads", locked_for=60, then="zia_vision_rejected") for _ in range(2)]
        short, long = (self._lock(send, engine, lead) for lead in leads)
        clock.advance(59)
        send(engine, "DELETE", short)
        assert self._refusal(send, engine, leads[0]) == ("RECORD_LOCKED", "zia_vision_processing")
        clock.advance(1)
        assert engine.get(leads[1]).state is State.RECORD_LOCKING
        send(engine, "DELETE", long)
        assert [engine.get(lead).state for lead in leads] == [State.ZIA_VISION_REJECTED] * 2

    @pytest.mark.parametrize(("touches", "moment"), [(False, 0), (True, 60)])
    def test_a_check_that_ended_beneath_it_moves_the_record_when_it_ended(
        self, send: Send, touches: bool, moment: int
    ) -> None:
        clock = ManualClock()
        engine = Engine(clock=clock, validation_touches=touches)
        start = engine.now()
        lead = engine.add_record("Leads", locked_for=60)
        lock = self._lock(send, engine, lead)
        assert _approval_state(send, engine, lead) == "zia_vision_validation"
        clock.advance(100)
        assert _approval_state(send, engine, lead) == "approved"
        send(engine, "DELETE", lock)
        assert (engine.get(lead).state, engine.get(lead).modified - start) == (State.APPROVED, moment)

    def test_its_refusals_are_not_those_of_the_state_beneath(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", refusals=2)
        lock = self._lock(send, engine, lead)
        for _ in range(3):
            self._refusal(send, engine, lead)
        send(engine, "DELETE", lock)
        found = [self._refusal(send, engine, lead)[0] for _ in range(3)]
        assert found == ["RECORD_LOCKED", "RECORD_LOCKED", "SUCCESS"]

    def test_an_image_that_waits_waits_on(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", image_state="zia_image_pending")
        send(engine, "DELETE", self._lock(send, engine, lead))
        assert engine.get(lead).image_pending

    @pytest.mark.parametrize("freed", [Engine.unlock, lambda engine, lead: engine.set_state(lead, "approved")])
    def test_what_the_test_itself_says_is_final(
        self, send: Send, engine: Engine, freed: Callable[[Engine, str], None]
    ) -> None:
        lead = engine.add_record("Leads", state="zia_vision_rejected")
        self._lock(send, engine, lead)
        freed(engine, lead)
        assert engine.get(lead).state is State.APPROVED
        send(engine, "DELETE", self._lock(send, engine, lead))
        assert engine.get(lead).state is State.APPROVED

    def test_a_lock_that_was_there_from_the_start_leads_to_the_state_that_follows(
        self, send: Send, engine: Engine
    ) -> None:
        lead = engine.add_record("Leads", state="record_locking", then="merge_pending")
        path = f"Leads/{lead}/Locking_Information__s"
        (lock,) = send(engine, "GET", path).json()["data"]
        send(engine, "DELETE", f"{path}/{lock['id']}")
        assert engine.get(lead).state is State.MERGE_PENDING

    def test_a_later_lock_is_by_the_one_that_the_record_names(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", lock_source="Automatic")
        send(engine, "DELETE", self._lock(send, engine, lead))
        engine.set_state(lead, "record_locking")
        (lock,) = send(engine, "GET", f"Leads/{lead}/Locking_Information__s").json()["data"]
        assert lock["Lock_Source__s"] == "Automatic"


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
