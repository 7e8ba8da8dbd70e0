"""Every call that takes rows, with locked records and such that a person must approve among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import crm_guard
from crm_guard import ApprovalCase, GiveUpReason, GuardSettings, NotApprovedError, RecordLockedError
from tests.bulk.world import add, rows_of, session_for, take

OWNER, TERRITORY = {"id": "42"}, "7"
BY_IDS = {
    "mass_update": {"data": [{"Company": "Zylker"}]},
    "mass_delete": None,
    "add_tags": {"tags": [{"name": "vip"}]},
    "remove_tags": {"tags": [{"name": "vip"}]},
    "change_owner": {"owner": OWNER},
}
CALLS: dict[str, tuple[str, str, Any]] = {
    "update": ("PUT", "", None),
    "upsert": ("POST", "/upsert", {"duplicate_check_fields": ["Email"]}),
    "delete": ("DELETE", "", None),
    **{name: ("POST", f"/actions/{name}", body) for name, body in BY_IDS.items()},
    "assign_territories": ("POST", "/actions/assign_territories", None),
    "remove_territories": ("POST", "/actions/remove_territories", None),
}


def row_for(name: str, record_id: str) -> Any:
    if name == "update":
        return {"id": record_id, "Company": "Zylker"}
    if name == "upsert":
        return {"Email": f"{record_id}@x.test", "Last_Name": "L", "Company": "Zylker"}
    if "territories" in name:
        return {"id": record_id, "Territories": [{"id": TERRITORY}]}
    return record_id


def was_done(name: str, record: Any) -> bool:
    """Return whether a record is as the call makes it."""
    return {
        "delete": lambda: record.deleted,
        "mass_delete": lambda: record.deleted,
        "add_tags": lambda: "vip" in record.tags,
        "remove_tags": lambda: "vip" not in record.tags,
        "change_owner": lambda: str(OWNER["id"]) in str(record.owner),
        "assign_territories": lambda: TERRITORY in str(record.territories),
        "remove_territories": lambda: TERRITORY not in str(record.territories),
    }.get(name, lambda: record.fields.get("Company") == "Zylker")()


@pytest.mark.parametrize("name", CALLS)
def test_each_row_is_written_once_although_some_are_locked(crm, session, leads, name):
    ids = add(crm, 5) + add(crm, 3, refusals=2) + add(crm, 2, locked_for=0.03)
    ids += add(crm, 2, state="zia_vision_rejected")
    for record_id in ids:
        crm._store.records[record_id].fields |= {"Email": f"{record_id}@x.test", "Last_Name": "L"}
    method, path, body = CALLS[name]
    rows = [row_for(name, record_id) for record_id in ids]
    writer = crm_guard.write_records(session, method, leads + path, rows, body=body, batch_size=4, workers=2)
    results, error = take(writer)
    assert error is None
    results.sort(key=lambda result: result.index)
    assert [result.succeeded for result in results] == [True] * 10 + [False] * 2
    assert [result.outcome.record_id for result in results[:5]] == ids[:5]
    assert [crm.writes(record_id) for record_id in ids] == [1] * 10 + [0] * 2
    assert all(was_done(name, crm.get(record_id)) for record_id in ids[:10])
    assert [result.outcome.code for result in results[10:]] == ["NOT_APPROVED"] * 2
    assert {result.outcome.case for result in results[10:]} == {ApprovalCase.ZIA_REJECTED}
    assert all(result.row == row for result, row in zip(results, rows, strict=True))
    assert all(result.attempts >= 2 for result in results[5:8])
    assert all(result.waited > 0 for result in results[5:8])


def test_rows_without_ids_are_inserted_once_although_some_are_refused(crm, session, leads):
    crm.refuse_new("Leads", where=lambda row: row["Last_Name"] in {"Row 1", "Row 7"}, refusals=2)
    rows = [{"Last_Name": f"Row {number}"} for number in range(20)]
    results, error = take(crm_guard.write_records(session, "post", leads, rows, batch_size=4))
    assert (error, len(results)) == (None, 20)
    made = {record.fields["Last_Name"]: record.id for record in crm.records.values()}
    assert len(crm.records) == 20
    assert {result.row["Last_Name"]: result.outcome.record_id for result in results} == made


def test_upserts_of_one_email_are_written_in_input_order(crm, session, leads):
    crm.refuse_new("Leads", where=lambda row: row["Company"] == "0", refusals=2)
    rows = [{"Email": "A@x.test", "Last_Name": "L", "Company": str(number)} for number in range(5)]
    writer = crm_guard.write_records(
        session, "POST", f"{leads}/upsert", rows, body={"duplicate_check_fields": ["Email"]}, batch_size=3
    )
    results, _ = take(writer)
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    (record,) = crm.records.values()
    assert record.fields["Company"] == "4"


# -- what a person must approve


def gets(crm):
    return [call for call in crm.calls if call.method == "GET"]


def test_rows_that_are_not_approved_are_asked_about_together(crm, leads):
    """A hundred by one GET, though they come in many batches."""
    ids = add(crm, 60, state="zia_vision_rejected") + add(crm, 45, state="approval_process_pending") + add(crm, 45)
    with session_for(crm, GuardSettings(wait_initial=0.5, wait_max=0.5)) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=10)
        results, _ = take(writer)
    cases = [result.outcome.case for result in sorted(results, key=lambda result: result.index)]
    assert cases == [ApprovalCase.ZIA_REJECTED] * 60 + [ApprovalCase.APPROVAL_PROCESS] * 45 + [None] * 45
    assert 2 <= len(gets(crm)) <= 4
    assert writer.counts.blocked == 105
    assert writer.counts.calls == len(crm.calls)


def test_without_diagnosis_none_is_asked_about(crm, leads):
    policy = GuardSettings(wait_initial=0.01, wait_max=0.02, diagnose=False)
    ids = add(crm, 5, state="zia_vision_rejected")
    with session_for(crm, policy) as session:
        results, _ = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids)))
    assert not gets(crm)
    assert {result.outcome.case for result in results} == {None}
    assert all(ApprovalCase.ZIA_REJECTED in result.outcome.candidates for result in results)


@pytest.mark.parametrize("kind", ["reset", "401", "garbage", "empty"])
def test_a_diagnosis_that_fails_costs_no_result(crm, session, leads, kind):
    crm.fault(kind, method="GET", times=None)
    ids = add(crm, 3, state="zia_vision_rejected") + add(crm, 3)
    results, error = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids)))
    assert (error, len(results)) == (None, 6)
    assert sum(result.outcome.code == "NOT_APPROVED" for result in results) == 3


def test_the_diagnosis_carries_the_credentials_of_the_calls(leads, crm):
    crm.expire_token("secret")
    ids = add(crm, 2, state="zia_vision_rejected")
    with session_for(crm) as session:
        session.auth = lambda request: request.headers.update(Authorization="Zoho-oauthtoken secret") or request
        results, error = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids)))
    assert error is None
    assert {result.outcome.case for result in results} == {ApprovalCase.ZIA_REJECTED}
    assert len(gets(crm)) == 1


def test_raise_for_blocked_says_which_row_and_what_to_do(crm, session, leads):
    ids = add(crm, 3) + add(crm, 1, state="record_locking") + add(crm, 1, state="zia_vision_rejected")
    writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids))
    writer.raise_for_blocked()
    take(writer)
    with pytest.raises(NotApprovedError, match="2 of 5 rows are blocked, row 4 by NOT_APPROVED") as caught:
        writer.raise_for_blocked()
    assert {outcome.position for outcome in caught.value.outcomes} == {3, 4}
    writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids[:4]))
    take(writer)
    with pytest.raises(RecordLockedError, match="row 3 by RECORD_LOCKED"):
        writer.raise_for_blocked()
    writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids[:3]))
    take(writer)
    writer.raise_for_blocked()


@pytest.mark.parametrize(("timeout", "attempts"), [(0.0, 30), (0.05, 30), (5.0, 2)])
def test_each_row_waits_within_its_own_budget(crm, leads, timeout, attempts):
    policy = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=timeout, attempts=attempts)
    ids = add(crm, 3) + add(crm, 2, locked_for=60)
    with session_for(crm, policy) as session:
        results, error = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=2))
    assert error is None
    locked = [result for result in results if not result.succeeded]
    assert {result.index for result in locked} == {3, 4}
    reason = GiveUpReason.ATTEMPTS if attempts == 2 else GiveUpReason.TIMEOUT
    assert {result.reason for result in locked} == {reason}
    assert {result.outcome.code for result in locked} == {"RECORD_LOCKED"}


def test_a_batch_of_ids_has_as_many_as_it_may(crm, session, leads):
    ids = add(crm, 120)
    writer = crm_guard.write_records(
        session, "POST", f"{leads}/actions/add_tags", ids, body=BY_IDS["add_tags"], batch_size=120
    )
    results, _ = take(writer)
    (call,) = crm.calls
    assert (len(results), json.loads(call.body)["ids"]) == (120, ids)
    assert writer.counts.credits == 3
