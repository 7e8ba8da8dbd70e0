"""Creates that are refused in part, territories, and codes that Zoho's OpenAPI files list beside them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard import ApprovalCase, GiveUpReason, GuardError, NotApprovedError, RecordLockedError, get_report
from crm_guard.simulator import FaultKind

from .test_faults import GATES
from .world import CALLS, ORIGIN, add_leads, guarded, items_of, prepared

CREATES = {"create": "Leads", "upsert": "Leads/upsert"}


def rows_of(count: int) -> list[dict[str, str]]:
    return [{"Last_Name": f"Row {number}"} for number in range(count)]


def create(path: str, rows: list[dict[str, str]]) -> Any:
    return prepared("POST", f"{ORIGIN}/crm/v8/{path}", json.dumps({"data": rows}))


def names(world: Any) -> list[str]:
    return sorted(record.fields["Last_Name"] for record in world.engine.records.values())


@pytest.mark.parametrize("path", CREATES.values(), ids=CREATES)
class TestANewRowThatIsRefused:
    def test_is_sent_again_alone_and_created_once(self, path):
        world, rows = guarded(), rows_of(5)
        world.engine.refuse_new("Leads", where=lambda row: row["Last_Name"] in {"Row 1", "Row 3"}, refusals=2)
        response = world.send(create(path, rows))
        assert [item["status"] for item in items_of(response)] == ["success"] * 5
        assert [len(json.loads(body)["data"]) for *_, body in world.transport.sent] == [5, 2, 2]
        assert names(world) == [row["Last_Name"] for row in rows]

    def test_answers_as_if_it_had_never_been_refused(self, path):
        twin, world, rows = guarded(), guarded(), rows_of(6)
        world.engine.refuse_new("Leads", where=lambda row: row["Last_Name"] in {"Row 0", "Row 5"}, refusals=1)
        plain, response = twin.send(create(path, rows)), world.send(create(path, rows))
        assert response.status_code == plain.status_code
        said = [[(item["code"], item["message"]) for item in items_of(found)] for found in (plain, response)]
        assert said[0] == said[1]
        created = [item["details"]["id"] for item in items_of(response)]
        by_id = {record.id: record.fields["Last_Name"] for record in world.engine.records.values()}
        assert [by_id[record_id] for record_id in created] == [row["Last_Name"] for row in rows]

    def test_that_stays_refused_is_told_by_its_position(self, path):
        world = guarded({"timeout": 0})
        world.engine.refuse_new("Leads", where=lambda row: row["Last_Name"] == "Row 1")
        report = get_report(world.send(create(path, rows_of(3))))
        assert [found.position for found in report.blocked] == [1]
        assert report.reason is GiveUpReason.TIMEOUT
        assert json.loads(report.remaining_request().body) == {"data": [{"Last_Name": "Row 1"}]}

    def test_is_not_sent_again_after_an_answer_was_lost(self, path):
        world = guarded()
        world.engine.refuse_new("Leads", where=lambda row: row["Last_Name"] == "Row 1", refusals=1)
        world.engine.fault(FaultKind.RESET, after=1, applied=True)
        with pytest.raises(GuardError) as caught:
            world.send(create(path, rows_of(3)))
        assert [found.uncertain for found in caught.value.outcomes] == [False, True, False]
        assert names(world) == ["Row 0", "Row 1", "Row 2"]

    def test_of_which_none_is_created_raises(self, path):
        world = guarded({"timeout": 0})
        world.engine.refuse_new("Leads")
        with pytest.raises(RecordLockedError) as caught:
            world.send(create(path, rows_of(3)))
        assert [found.position for found in caught.value.outcomes] == [0, 1, 2]
        assert names(world) == []


ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=8)
PATHS = st.sampled_from(sorted(CREATES.values()))


def created_by(path: str, refusals: list[int], kind: Any, *, after: int, applied: bool) -> tuple[list[str], Any]:
    """Create rows that are refused so many times each, with a fault; return whom CRM created, and the report."""
    world = guarded({"raise_on": "never"})
    rows = rows_of(len(refusals))
    for row, count in zip(rows, refusals, strict=True):
        if count:
            world.engine.refuse_new("Leads", where=lambda new, row=row: new == row, refusals=count)
    if kind is not None:
        world.engine.fault(kind, after=after, applied=applied, body={"data": []})
    try:
        report = get_report(world.send(create(path, rows)))
    except Exception as error:  # noqa: BLE001 (whatever it is, it carries the report)
        report = get_report(error)
    return names(world), report


@settings(max_examples=80, deadline=None)
@given(PATHS, ROWS, st.sampled_from([None, *FaultKind]), st.integers(1, 3), st.booleans())
def test_p2_no_row_is_ever_created_twice_and_no_result_is_lost(path, refusals, kind, resend, applied):
    created, report = created_by(path, refusals, kind, after=resend, applied=applied)
    assert len(created) == len(set(created))
    assert [found.position for found in report.outcomes] == list(range(len(refusals)))
    honest = kind is None or (applied and kind not in GATES)  # else the answer says what CRM did not do
    for row, outcome in zip(rows_of(len(refusals)), report.outcomes, strict=True):
        if honest and not outcome.uncertain:
            assert outcome.succeeded == (row["Last_Name"] in created)


@settings(max_examples=80, deadline=None)
@given(PATHS, ROWS, st.sampled_from(list(FaultKind)))
def test_p2_nor_after_a_first_answer_that_is_out_of_order_short_foreign_or_lost(path, refusals, kind):
    created, _ = created_by(path, refusals, kind, after=0, applied=True)
    assert len(created) == len(set(created))


class TestTerritories:
    @pytest.mark.parametrize("name", ["assign_territories", "remove_territories"])
    def test_of_a_locked_record_are_written_once(self, name):
        world = guarded()
        ids = add_leads(world.engine, [0, 2, 0])
        response = world.send(CALLS[name].of(ids))
        assert (response.status_code, [item["code"] for item in items_of(response)]) == (200, ["SUCCESS"] * 3)
        assert [call.record_ids for call in world.engine.calls] == [tuple(ids), (ids[1],), (ids[1],)]
        assert set(world.engine.write_counts.values()) == {1}

    @pytest.mark.parametrize("name", ["assign_territories", "remove_territories"])
    def test_in_part_are_202_as_crm_has_it(self, name):
        world = guarded()
        ids = add_leads(world.engine, [0, 1])
        world.engine.add_record("Leads", "9", state="zia_vision_rejected")
        response = world.send(CALLS[name].of([*ids, "9"]))
        assert (response.status_code, len(get_report(response).blocked)) == (202, 1)

    def test_that_are_scheduled_are_a_success(self):
        world = guarded()
        ids = add_leads(world.engine, [1, 0])
        item = {"code": "SCHEDULED", "details": {"id": ids[0], "job_id": "7"}, "message": "", "status": "success"}
        world.engine.fault(FaultKind.ANSWER, after=1, status=202, body={"data": [item]}, applied=True)
        response = world.send(CALLS["assign_territories"].of(ids))
        assert (response.status_code, [item["code"] for item in items_of(response)]) == (
            202,
            ["SCHEDULED", "SUCCESS"],
        )

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
    def test_are_matched_by_id_as_their_order_is_not_documented(self, order):
        world = guarded()
        ids = add_leads(world.engine, [1, 1, 1])
        lock = {"code": "RECORD_LOCKED", "message": "", "status": "error"}
        items = [lock | {"details": {"id": ids[at], "action": "zia_vision_processing"}} for at in order]
        world.engine.fault(FaultKind.ANSWER, status=400, body={"data": items}, applied=False)
        assert world.send(CALLS["assign_territories"].of(ids)).status_code == 200
        assert set(world.engine.write_counts.values()) == {1}

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "actions/assign_territories", {"data": [{"Territories": [{"id": "7"}]}]}),
            ("POST", "actions/remove_territories", {"data": [{"Territories": [{"id": "7"}]}]}),
            ("PUT", "actions/blueprint", {"blueprint": [{"transition_id": "7", "data": {}}]}),
            ("POST", "actions/send_mail", {"data": [{"from": {"email": "a@b.example"}, "to": [], "subject": "s"}]}),
            ("POST", "actions/clone", {"data": [{}]}),
        ],
    )
    def test_and_other_calls_for_one_record_wait_over_http(self, crm, guard, leads, method, path, body):
        lead = crm.add_record("Leads", refusals=2, fields={"Last_Name": "Rowland"})
        response = guard().request(method, f"{leads}/{lead}/{path}", json=body)
        assert response.ok
        assert get_report(response).attempts == 3
        assert crm.writes(lead) == 1


class TestOtherCodes:
    @pytest.mark.parametrize("status", [202, 207])
    def test_not_merged_is_an_outcome_that_no_wait_changes(self, status):
        world = guarded()
        ids = add_leads(world.engine, [0, 0])
        items = [
            {"code": "SUCCESS", "details": {"id": ids[0]}, "message": "", "status": "success"},
            {"code": "NOT_MERGED", "details": {"id": ids[1]}, "message": "", "status": "error"},
        ]
        world.engine.fault(FaultKind.ANSWER, status=status, body={"data": items}, applied=True)
        response = world.send(CALLS["change_owner"].of(ids))
        assert response is world.transport.responses[-1]
        found = get_report(response).outcomes
        assert [(one.record_id, one.code, one.succeeded, one.retryable, one.blocked) for one in found] == [
            (ids[0], "SUCCESS", True, False, False),
            (ids[1], "NOT_MERGED", False, False, False),
        ]

    def test_not_merged_beside_a_lock_does_not_keep_the_lock_from_being_waited_out(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 1])
        items = [
            {"code": "NOT_MERGED", "details": {"id": ids[0]}, "message": "", "status": "error"},
            {
                "code": "RECORD_LOCKED",
                "details": {"id": ids[1], "action": "zia_vision_processing"},
                "message": "",
                "status": "error",
            },
        ]
        world.engine.fault(FaultKind.ANSWER, status=400, body={"data": items}, applied=False)
        response = world.send(CALLS["change_owner"].of(ids))
        assert [item["code"] for item in items_of(response)] == ["NOT_MERGED", "SUCCESS"]
        assert response.status_code == 202

    @pytest.mark.parametrize("path", CREATES.values(), ids=CREATES)
    def test_a_bare_not_approved_stops_a_create(self, path):
        world = guarded()
        body = {"code": "NOT_APPROVED", "details": {"resource_path_index": 0}, "message": "", "status": "error"}
        world.engine.fault(FaultKind.ANSWER, status=400, body=body, applied=False)
        with pytest.raises(NotApprovedError) as caught:
            world.send(create(path, rows_of(3)))
        assert [found.position for found in caught.value.outcomes] == [0, 1, 2]
        assert ApprovalCase.ZIA_REJECTED in caught.value.candidates
        assert len(world.transport.sent) == 1


def test_version_9_is_served_and_guarded(crm, guard):
    ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 1)]
    rows = {"data": [{"id": lead, "Company": "Z"} for lead in ids]}
    response = guard().put(f"{crm.url}/crm/v9/Leads", json=rows)
    assert (response.status_code, get_report(response).attempts) == (200, 2)
