"""Which item of an answer speaks of which record; and where that is in doubt, nothing is sent again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crm_guard import GiveUpReason, get_report
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.envelope import read_envelope
from crm_guard._protocol.matching import repointed
from crm_guard._protocol.request_records import read_request

from .world import ALL_CALLS, CALLS, ORIGIN, Guarded, add_leads, guarded, ids_of, items_of, prepared

ONE, TWO, THREE = ids_of(3)
FOREIGN = "999999000000999999"
BY_ID = [name for name in ALL_CALLS if not CALLS[name].ordered]


def success(record_id: str | None = None, **details: Any) -> dict[str, Any]:
    return {"code": "SUCCESS", "status": "success", "message": "m", "details": named(record_id, details)}


def locked(record_id: str | None = None, **details: Any) -> dict[str, Any]:
    told = {"action": "zia_vision_processing", **named(record_id, details)}
    return {"code": "RECORD_LOCKED", "status": "error", "message": "m", "details": told}


def refused(code: str, record_id: str | None = None, **details: Any) -> dict[str, Any]:
    return {"code": code, "status": "error", "message": "m", "details": named(record_id, details)}


def named(record_id: str | None, details: dict[str, Any]) -> dict[str, Any]:
    return {"id": record_id, **details} if record_id else details


def answered(world: Guarded, items: Any, *, after: int = 0, status: int = 207) -> None:
    body = items if isinstance(items, dict | str) else {"data": items}
    world.engine.fault("answer", after=after, status=status, body=body, applied=False)


def surfaced(world: Guarded, request: Any, reason: GiveUpReason | None = GiveUpReason.UNMATCHED) -> None:
    """Check that the answer goes back as it came, at once."""
    response = world.send(request)
    assert response is world.transport.responses[0]
    assert (len(world.transport.sent), world.clock.waits) == (1, [])
    assert get_report(response).reason is reason
    assert get_report(response).remaining_request() is None


class TestInDoubtTheAnswerGoesBackAsItCame:
    """Under `raise_on="failure"`, too: nothing is raised, nothing is sent again."""

    @pytest.mark.parametrize(
        "items",
        [
            pytest.param([locked(ONE)], id="an item too few"),
            pytest.param([locked(ONE), locked(TWO), locked(THREE), locked(FOREIGN)], id="an item too many"),
            pytest.param([locked(ONE), locked(TWO), locked(FOREIGN)], id="a record that was not named"),
            pytest.param([locked(ONE), locked(TWO), success(FOREIGN)], id="another record written"),
            pytest.param([locked(ONE), locked(TWO), locked(TWO)], id="two items about one record"),
            pytest.param([success(ONE), locked(ONE), locked(THREE)], id="one record twice, another never"),
            pytest.param({"data": locked(ONE)}, id="one item for three"),
            pytest.param(locked(ONE), id="one bare item for three"),
            pytest.param(locked(), id="one bare item without an id"),
        ],
    )
    @pytest.mark.parametrize(
        "name", ["update", "upsert", "delete", "add_tags_string", "mass_update", "change_owner"]
    )
    def test_where_items_and_records_do_not_fit(self, name, items):
        world = guarded()
        add_leads(world.engine, [0, 0, 0])
        answered(world, items)
        surfaced(world, CALLS[name].of([ONE, TWO, THREE]))

    @pytest.mark.parametrize(
        ("name", "items"),
        [
            ("update", [locked(ONE, json_path="$.data[1].id"), locked(TWO), success(THREE)]),
            ("update", [locked(json_path="$.data[1].id"), locked(json_path="$.data[1].id"), success(THREE)]),
            ("update", [success(THREE), locked(json_path="$.data[2].id"), locked(TWO)]),
            ("mass_update", [locked(json_path="$.ids[1]"), locked(TWO), success(THREE)]),
        ],
    )
    def test_where_items_contradict_each_other(self, name, items):
        world = guarded()
        answered(world, items)
        surfaced(world, CALLS[name].of([ONE, TWO, THREE]))

    @pytest.mark.parametrize("items", [[success(FOREIGN), locked()], [locked(FOREIGN), locked()]])
    def test_where_another_record_stands_in_the_place_of_one_among_rows_without_ids(self, items):
        world = guarded()
        answered(world, items)
        body = {"data": [{"id": ONE, "Company": "Z"}, {"Email": "new@example.com"}]}
        surfaced(world, prepared("POST", f"{ORIGIN}/crm/v8/Leads/upsert", json.dumps(body)))

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_where_the_status_tells_of_a_failure(self, status):
        world = guarded()
        answered(world, [locked(ONE), success(TWO)], status=status)
        surfaced(world, CALLS["update"].of([ONE, TWO]))

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "Leads/actions/mass_update", '{"cvid":"5","data":[{"Company":"Z"}]}'),
            ("POST", "Leads/actions/mass_delete", f'{{"cvid":"5","ids":["{ONE}"]}}'),
            ("POST", "Leads/actions/mass_convert", f'{{"ids":["{ONE}"]}}'),
            ("POST", f"Leads/actions/add_tags?ids={ONE}", f'{{"ids":["{ONE}"],"tags":[]}}'),
            ("PUT", "Leads", f'{{"data":[{{"id":"{ONE}"}}],"data":[{{"id":"{ONE}"}}]}}'),
            ("PUT", "Leads", f'{{"data":[{{"id":"{ONE}"}}]'),
            ("DELETE", f"Leads?ids={ONE}&ids={TWO}", None),
        ],
    )
    def test_where_the_request_does_not_tell_its_records(self, method, path, body):
        world = guarded()
        answered(world, [locked(ONE)], status=400)
        surfaced(world, prepared(method, f"{ORIGIN}/crm/v8/{path}", body))

    def test_where_the_call_is_composite(self):
        world = guarded()
        inner = {"status_code": 400, "headers": {}, "body": {"data": [locked(ONE)]}}
        answered(world, {"__composite_requests": [success(response=inner)]}, status=200)
        sub = {"method": "PUT", "uri": f"/crm/v8/Leads/{ONE}", "body": {"data": [{"Company": "Z"}]}}
        body = json.dumps({"__composite_requests": [sub]})
        surfaced(world, prepared("POST", f"{ORIGIN}/crm/v8/__composite_requests", body))

    @pytest.mark.parametrize(
        "body",
        ['{"data":[{"code":"RECORD_LOCKED","details":{"act', '["RECORD_LOCKED"]', '{"data":[]} "RECORD_LOCKED"'],
    )
    def test_where_it_cannot_be_read(self, body):
        world = guarded()
        answered(world, body)
        surfaced(world, CALLS["update"].of([ONE]), None)

    @pytest.mark.parametrize("name", ["delete", "mass_update", "change_owner"])
    def test_where_external_ids_are_answered_by_ids_in_no_documented_order(self, name):
        world, call = guarded(shuffle=True, seed=2), CALLS[name]
        for index, record_id in enumerate((ONE, TWO)):
            fields = {"Ext": f"E{index}", "Last_Name": "L"}
            world.engine.add_record("Leads", record_id, fields=fields, refusals=3 * index or None)
        request = call.request(call.records(["E0", "E1"]), headers={"X-EXTERNAL": "Leads.Ext"})
        surfaced(world, request)
        assert world.engine.write_counts == {ONE: 1}

    def test_but_external_ids_of_rows_come_in_the_order_of_the_request(self):
        world = guarded()
        for index, record_id in enumerate((ONE, TWO)):
            fields = {"Ext": f"E{index}", "Last_Name": "L"}
            world.engine.add_record("Leads", record_id, fields=fields, refusals=3 * index or None)
        body = '{"data":[{"Ext":"E0","Company":"Z"},{"Ext":"E1","Company":"Z"}]}'
        headers = {"X-EXTERNAL": "Leads.Ext"}
        response = world.send(prepared("PUT", f"{ORIGIN}/crm/v8/Leads", body, headers))
        assert response.status_code == 200
        assert world.engine.write_counts == {ONE: 1, TWO: 1}

    def test_where_rows_that_name_no_record_come_out_of_order(self):
        world, call = guarded(), CALLS["upsert"]
        answered(world, [locked(TWO), success(FOREIGN)])
        surfaced(world, call.request(['{"Last_Name":"N"}', *call.records([TWO])]))


class TestADoubtfulAnswerToAResend:
    def test_keeps_what_is_certain_and_stops(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 5, 5, 5])
        answered(world, [success(ids[1]), locked(ids[2])], after=1)
        response = world.send(CALLS["mass_update"].of(ids))
        found = get_report(response).outcomes
        assert [outcome.succeeded for outcome in found] == [True, True, False, False]
        assert [outcome.uncertain for outcome in found] == [False, False, False, True]
        assert (get_report(response).reason, len(world.transport.sent)) == (GiveUpReason.UNMATCHED, 2)

    def test_with_an_item_too_many_stops_though_every_record_is_in_it(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 5, 5])
        answered(world, [success(ids[1]), locked(ids[2]), success(FOREIGN)], after=1)
        response = world.send(CALLS["mass_update"].of(ids))
        assert (get_report(response).reason, len(world.transport.sent)) == (GiveUpReason.UNMATCHED, 2)
        assert not any(outcome.uncertain for outcome in get_report(response).outcomes)

    def test_with_an_item_too_many_is_the_end_where_nothing_is_locked_any_more(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 5])
        answered(world, [success(ids[1]), success(FOREIGN)], after=1, status=200)
        response = world.send(CALLS["mass_update"].of(ids))
        assert (get_report(response).reason, response.status_code) == (None, 200)

    def test_that_is_bare_for_several_records_settles_none(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 5, 5])
        answered(world, locked(ids[1]), after=1, status=400)
        response = world.send(CALLS["add_tags"].of(ids))
        assert (get_report(response).reason, len(world.transport.sent)) == (GiveUpReason.FOLLOW_UP, 2)
        assert [outcome.retryable for outcome in get_report(response).outcomes] == [False, True, True]


class TestItemsOutOfOrder:
    @pytest.mark.parametrize("name", BY_ID)
    @pytest.mark.parametrize("seed", range(4))
    def test_are_laid_on_their_records_by_id(self, name, seed):
        world = guarded(shuffle=True, seed=seed)
        ids = add_leads(world.engine, [0, 1, 0, 2, 3, 0])
        response = world.send(CALLS[name].of(ids))
        assert [set(call.record_ids) for call in world.engine.calls[1:]] == [
            {ids[1], ids[3], ids[4]},
            {ids[3], ids[4]},
            {ids[4]},
        ]
        assert world.engine.write_counts == dict.fromkeys(ids, 1)
        first = json.loads(world.engine.calls[0].response_body)["data"]
        assert [item["details"]["id"] for item in items_of(response)] == [item["details"]["id"] for item in first]

    @pytest.mark.parametrize("name", ["update", "upsert"])
    def test_are_laid_on_rows_by_id_even_where_the_order_is_documented(self, name):
        world = guarded()
        ids = add_leads(world.engine, [0, 1, 2])
        world.engine.fault("reordered", times=None)
        response = world.send(CALLS[name].of(ids))
        assert (response.status_code, world.engine.write_counts) == (200, dict.fromkeys(ids, 1))

    def test_without_a_name_go_where_the_others_leave_room(self):
        world = guarded()
        answered(world, [refused("NOT_APPROVED"), locked(ONE), success(TWO)])
        response = world.send(CALLS["delete"].of([ONE, TWO, THREE]))
        outcomes = get_report(response).outcomes
        assert [(found.position, found.record_id) for found in outcomes] == [(2, THREE), (0, ONE), (1, TWO)]

    def test_without_a_name_keep_their_place_where_all_others_do(self):
        world = guarded()
        add_leads(world.engine, [0, 0, 0])
        answered(world, [success(ONE), locked(), locked(THREE)])
        world.send(CALLS["update"].of([ONE, TWO, THREE]))
        assert world.engine.calls[1].record_ids == (TWO, THREE)


class TestOneRecordInTwoRows:
    """The rows differ, so the later one has to win, as it would have without a lock."""

    def test_is_sent_again_in_both_while_both_are_refused(self):
        world, call = guarded(), CALLS["update"]
        (lead,) = add_leads(world.engine, [4])
        records = call.records([lead, lead])
        response = world.send(call.request(records))
        assert [sent for *_, sent in world.transport.sent] == [call.body(records)] * 3
        assert (response.status_code, world.engine.get(lead).fields["Company"]) == (200, "Zylker 1")

    @pytest.mark.parametrize("refusals", [1, 3])
    def test_is_not_sent_again_in_the_earlier_once_the_later_was_written(self, refusals):
        world, call = guarded(), CALLS["update"]
        (lead,) = add_leads(world.engine, [refusals])
        response = world.send(call.of([lead, lead]))
        assert world.engine.get(lead).fields["Company"] == "Zylker 1"
        assert [item["status"] for item in items_of(response)] == ["error", "success"]
        assert (get_report(response).reason, world.engine.writes(lead)) == (GiveUpReason.UNMATCHED, 1)

    def test_is_sent_again_in_the_later_once_the_earlier_was_written(self):
        world, call = guarded(), CALLS["update"]
        (lead,) = add_leads(world.engine, [0])
        answered(world, [success(lead), locked(lead)])
        records = call.records([lead, lead])
        world.send(call.request(records))
        assert world.transport.sent[1][3] == call.body(records[1:])


class TestTheMergedAnswer:
    @pytest.mark.parametrize("then", ["record_locking", "zia_vision_rejected", "review_process_pending"])
    @pytest.mark.parametrize("name", ALL_CALLS)
    def test_ends_with_a_later_refusal_of_another_kind(self, name, then):
        world = guarded()
        ids = add_leads(world.engine, [0, 0])
        world.engine.add_record("Leads", THREE, refusals=2, then=then)
        response = world.send(CALLS[name].of([*ids, THREE]))
        assert [len(call.record_ids) for call in world.engine.calls] == [3, 1, 1]
        assert world.engine.refusals(THREE) == 3
        assert [found.retryable for found in get_report(response).outcomes if not found.succeeded] == [False]
        assert get_report(response).reason is None

    def test_points_into_the_callers_request_and_not_into_the_resend(self):
        world, call = guarded(details_style="oas"), CALLS["update"]
        ids = add_leads(world.engine, [0, 1, 0, 1, 4])
        rows = call.records(ids)
        rows[3] = f'{{"id":"{ids[3]}","Company":1}}'
        response = world.send(call.request(rows))
        paths = [item["details"].get("json_path") for item in items_of(response)]
        assert paths == [None, None, None, "$.data[3].Company", None]

    def test_points_right_when_it_gives_up_too(self):
        world = guarded({"attempts": 3}, details_style="oas")
        response = world.send(CALLS["update"].of(add_leads(world.engine, [0, 1, 9])))
        assert items_of(response)[2]["details"]["json_path"] == "$.data[2].id"
        assert get_report(response).outcomes[2].record_id == THREE

    def test_leaves_every_other_byte_of_an_item_that_is_pointed_anew(self):
        raw = (
            '{"code":"MULTIPLE_OR_MULTI_ERRORS","status":"error" , "x":1.0,"message":"$.data[0]",'
            '"details":{"errors":[{"details":{"json_path":"$.data[0].A"}},{"details":{"json_path":"$.data[10].B"}},7,'
            '{"details":{"json_path":"\\u0024.data[0].\\u00e9"}}],"json_path": 5}}'
        )
        (item,) = read_envelope(f'{{"data":[{raw}]}}'.encode()).items
        after = repointed(item, "data", 0, 12).raw.decode()
        wanted = raw.replace('"$.data[0].A"', '"$.data[12].A"').replace(
            '"\\u0024.data[0].\\u00e9"', '"$.data[12].\\u00e9"'
        )
        assert after == wanted
        assert repointed(item, "ids", 0, 12).raw == item.raw
        assert repointed(item, "data", 3, 3) is item

    @pytest.mark.parametrize(
        ("name", "refusals", "first", "final"),
        [
            ("update", [0, 1], 207, 200),
            ("update", [1, 1], 400, 200),
            ("upsert", [0, 1], 207, 200),
            ("change_owner", [0, 1], 202, 200),
            ("change_owner", [1, 1], 400, 200),
            ("mass_delete", [2, 1], 400, 200),
        ],
    )
    def test_has_the_status_of_a_full_success_once_all_is_written(self, name, refusals, first, final):
        world = guarded()
        response = world.send(CALLS[name].of(add_leads(world.engine, refusals)))
        assert (world.engine.calls[0].status, response.status_code, response.reason) == (first, final, "OK")

    @pytest.mark.parametrize(
        ("name", "options", "status"),
        [
            ("update", {}, 207),
            ("update", {"sandbox": True}, 200),
            ("change_owner", {}, 202),
            ("change_owner", {"caller": "sdk"}, 207),
        ],
    )
    def test_has_the_status_that_crm_gave_to_a_mixed_answer_before(self, name, options, status):
        world = guarded({"attempts": 3}, **options)
        response = world.send(CALLS[name].of(add_leads(world.engine, [0, 1, 9])))
        assert response.status_code == status

    @pytest.mark.parametrize(("name", "status"), [("update", 207), ("change_owner", 202), ("mass_delete", 207)])
    def test_has_the_usual_status_of_a_mixed_answer_where_crm_gave_none(self, name, status):
        world = guarded()
        ids = [*add_leads(world.engine, [1]), world.engine.add_record("Leads", TWO, state="zia_vision_rejected")]
        response = world.send(CALLS[name].of(ids))
        assert [call.status for call in world.engine.calls] == [400, 200]
        assert response.status_code == status

    @pytest.mark.parametrize("version", ["2", "7", "8"])
    def test_counts_locks_and_successes_as_crm_would_have(self, version):
        world = guarded({"attempts": 3})
        ids = add_leads(world.engine, [0, 1, 2, 9, 9])
        body = world.send(CALLS["remove_tags"].of(ids, version)).json()
        assert body["locked_count"] == "2"
        assert body.get("success_count") == (None if version == "8" else "3")

    @pytest.mark.parametrize("given", ["1", 1])
    def test_counts_in_the_form_that_crm_used(self, given):
        world = guarded()
        ids = add_leads(world.engine, [0, 0, 0])
        items = [success(ids[0]), refused("INVALID_DATA", ids[1]), locked(ids[2])]
        answered(world, {"info": {"é": 1.50}, "locked_count": given, "data": items})
        body = world.send(CALLS["add_tags"].of(ids)).json()
        assert (body["locked_count"], body["info"]) == (type(given)(0), {"é": 1.5})

    def test_has_headers_that_fit_its_body_where_answers_are_compressed(self):
        world = guarded(gzip=True)
        response = world.send(CALLS["update"].of(add_leads(world.engine, [0, 1, 1])))
        assert "Content-Encoding" not in response.headers
        assert int(response.headers["Content-Length"]) == len(response.content)
        assert len(items_of(response)) == 3

    def test_asks_nothing_of_a_template_beside_the_ids(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 1])
        body = f'{{"data":[{{"Company":"A","id":"{FOREIGN}"}}],"ids":["{ids[0]}","{ids[1]}"],"over_write":true}}'
        response = world.send(prepared("POST", f"{ORIGIN}/crm/v8/Leads/actions/mass_update", body))
        assert world.transport.sent[1][3].decode() == body.replace(f'"{ids[0]}",', "")
        assert response.status_code == 200


def test_records_of_a_call_are_found_for_every_endpoint_of_these_tests():
    for call in CALLS.values():
        request = call.of([ONE, TWO])
        found = read_request(request.method, CrmUrl.of(request.url), lambda request=request: request.body)
        assert found.ids == (ONE, TWO), call.name
