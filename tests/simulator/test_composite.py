"""References, order, restrictions and rollback of composite requests. zoho/crm-oas: composite_requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

NEW_LEAD = {"sub_request_id": "1", "method": "POST", "uri": "/crm/v8/Leads",
            "body": {"data": [{"Last_Name": "Boyle", "Email": "b@x.test"}]}}  # fmt: skip
ID = "@{1:$.data[0].details.id}"


def _sub(number: str, method: str, uri: str, **further: Any) -> dict[str, Any]:
    return {"sub_request_id": number, "method": method, "uri": f"/crm/v8/{uri}", **further}


def _do(send: Send, engine: Engine, *subs: Any, **flags: Any) -> tuple[int, list[Any]]:
    reply = send(engine, "POST", "__composite_requests", {**flags, "__composite_requests": list(subs)})
    return reply.status, reply.json()["__composite_requests"]


def _statuses(items: list[Any]) -> list[int]:
    return [entry["details"]["response"]["status_code"] for entry in items]


class TestReferences:
    def test_a_new_record_is_updated_by_its_id_in_the_path(self, send: Send, engine: Engine) -> None:
        update = _sub("2", "PUT", f"Leads/{ID}", body={"data": [{"Company": "Zylker"}]})
        status, items = _do(send, engine, NEW_LEAD, update)
        assert (status, _statuses(items)) == (200, [201, 200])
        (record,) = engine.records.values()
        assert (record.fields["Company"], engine.writes(record.id)) == ("Zylker", 1)

    def test_they_work_in_the_query_the_params_and_the_body(self, send: Send, engine: Engine) -> None:
        text = f"made by {ID}, code @{{1:$.data[0].code}}"
        subs = (
            NEW_LEAD,
            _sub("2", "PUT", "Leads", body={"data": [{"id": ID, "Description": text}]}),
            _sub("3", "GET", f"Leads?ids={ID}&fields=Description"),
            _sub("4", "GET", "Leads", params={"ids": ID, "fields": "id"}),
        )
        status, items = _do(send, engine, *subs)
        (lead,) = engine.records
        assert (status, _statuses(items)) == (200, [201, 200, 200, 200])
        shown = [entry["details"]["response"]["body"]["data"][0] for entry in items[2:]]
        assert shown == [{"id": lead, "Description": f"made by {lead}, code SUCCESS"}, {"id": lead}]

    def test_a_text_that_is_one_reference_keeps_the_type_of_its_value(self, send: Send, engine: Engine) -> None:
        first = engine.add_record("Leads", fields={"Seats": 5, "Parts": [1, {"a": None}]})
        second = engine.add_record("Leads")
        values = {"Seats": "@{r:$.data[0].Seats}", "Parts": "@{r:$.data[0].Parts}", "Text": "@{r:$.data[0].Seats}!"}
        _do(send, engine, _sub("r", "GET", f"Leads/{first}"), _sub("w", "PUT", f"Leads/{second}",
            body={"data": [values]}))  # fmt: skip
        assert engine.get(second).fields == {"Seats": 5, "Parts": [1, {"a": None}], "Text": "5!"}

    @pytest.mark.parametrize(("method", "value"), [("DELETE", "{id}?"), ("DELETE", "{id}/photo"),
        ("POST", "{id}/actions/convert"), ("PUT", "{id}?x=/")])  # fmt: skip
    def test_a_value_cannot_change_the_path(self, send: Send, engine: Engine, method: str, value: str) -> None:
        """It is percent-encoded: a slash or a question mark in it stays a part of the segment."""
        victim = engine.add_record("Leads", image=b"x")
        names = engine.add_record("Leads", fields={"Name": value.format(id=victim)})
        _, items = _do(send, engine, _sub("r", "GET", f"Leads/{names}"),
                       _sub("w", method, "Leads/@{r:$.data[0].Name}", body={"data": [{}]}))  # fmt: skip
        assert _statuses(items)[0] == 200
        assert _statuses(items)[1] >= 400
        assert (engine.writes(victim), list(engine.records)) == (0, [victim, names])

    def test_a_value_cannot_change_the_query(self, send: Send, engine: Engine) -> None:
        lead = engine.add_record("Leads", fields={"Name": "id&fields=Secret", "Secret": "s"})
        _, items = _do(send, engine, _sub("r", "GET", f"Leads/{lead}"),
                       _sub("w", "GET", f"Leads/{lead}?fields=@{{r:$.data[0].Name}}"))  # fmt: skip
        assert items[1]["details"]["response"]["body"]["data"] == [{"id": lead}]

    @pytest.mark.parametrize("value", ["1/2", "1?2", "1&2", "1#2", "1%2F2", "1+2 3", "1=2;3", "é"])
    def test_a_value_arrives_as_it_is_in_the_path_and_in_the_query(
        self, send: Send, engine: Engine, value: str
    ) -> None:
        lead = engine.add_record("Leads", fields={"Key": value, "Email": f"{value}@x.test"})
        subs = (
            _sub("r", "GET", f"Leads/{lead}"),
            _sub("p", "GET", "Leads/@{r:$.data[0].Key}", headers={"X-EXTERNAL": "Leads.Key"}),
            _sub("q", "GET", "Leads/search?fields=id&email=@{r:$.data[0].Email}"),
        )
        _, items = _do(send, engine, *subs)
        assert _statuses(items) == [200, 200, 200]
        assert all(entry["details"]["response"]["body"]["data"][0]["id"] == lead for entry in items)

    def test_a_sub_may_refer_to_a_later_one_and_the_answers_keep_their_places(
        self, send: Send, engine: Engine
    ) -> None:
        update = _sub("2", "PUT", f"Leads/{ID}", body={"data": [{"Company": "Zylker"}]})
        status, items = _do(send, engine, update, NEW_LEAD)
        assert (status, _statuses(items)) == (200, [200, 201])
        assert [call.applied_ids for call in engine.calls] == [tuple([*engine.records] * 2)]

    @pytest.mark.parametrize("path", ["$.data[1].details.id", "$.data[0].details.nothing", "$.data.details",
        "$.data[0].code[0]", "$.data[0].details", "$.data[0].duplicate_field"])  # fmt: skip
    def test_one_that_leads_nowhere_fails_its_own_sub(self, send: Send, engine: Engine, path: str) -> None:
        """As does one to an object or to null, where a text is needed."""
        broken = f"@{{1:{path}}}"
        upsert = {**NEW_LEAD, "uri": "/crm/v8/Leads/upsert"}
        status, items = _do(send, engine, upsert, _sub("2", "DELETE", f"Leads/{broken}"), _sub("3", "GET", "org"))
        assert status == 207
        assert [entry["code"] for entry in items] == ["SUCCESS", "INVALID_REFERENCE", "SUCCESS"]
        assert items[1]["details"] == {"api_name": "uri", "json_path": "$.__composite_requests[1].uri",
                                       "reference": broken}  # fmt: skip

    def test_one_to_a_sub_that_failed_leads_nowhere(self, send: Send, engine: Engine) -> None:
        failing = {**NEW_LEAD, "body": {"data": [{}]}}
        status, items = _do(send, engine, failing, _sub("2", "DELETE", f"Leads/{ID}"))
        assert (status, items[1]["code"]) == (207, "INVALID_REFERENCE")

    def test_they_are_no_way_around_the_restrictions(self, send: Send, engine: Engine) -> None:
        names = {"Name": "__composite_requests", "Rows": [{"Last_Name": "A"}, {"Last_Name": "B"}]}
        lead = engine.add_record("Leads", fields=names)
        subs = (
            _sub("r", "GET", f"Leads/{lead}"),
            _sub("2", "POST", "@{r:$.data[0].Name}", body={"__composite_requests": [NEW_LEAD]}),
            _sub("3", "POST", "Leads", body={"data": "@{r:$.data[0].Rows}"}),
        )
        status, items = _do(send, engine, *subs)
        assert (status, [entry["code"] for entry in items]) == (207, ["SUCCESS", "NOT_SUPPORTED", "INVALID_DATA"])
        assert list(engine.records) == [lead]

    def test_they_cannot_blow_up_a_request(self, send: Send) -> None:
        """Their values together are at most as large as a body may be."""
        engine = Engine(max_body=1000)
        lead = engine.add_record("Leads", fields={"Description": "x" * 300})
        for count, code in ((3, "SUCCESS"), (4, "INVALID_REFERENCE")):
            fields = {f"Field_{number}": "@{r:$.data[0].Description}" for number in range(count)}
            subs = (_sub("r", "GET", f"Leads/{lead}"), _sub("2", "PUT", f"Leads/{lead}", body={"data": [fields]}))
            assert _do(send, engine, *subs)[1][1]["code"] == code

    @pytest.mark.parametrize("reference", ["@{2:$.data}", "@{:$.data}", "@{1:data}", "@{1:$}", "@{1:$.data[*].id}",
        "@{1:$..id}", "@{1:$.data[-1]}", "@{1:$['data']}", "@{1 :$.data}", "@{}"])  # fmt: skip
    def test_a_malformed_one_or_one_to_nobody_stops_everything(
        self, send: Send, engine: Engine, reference: str
    ) -> None:
        update = {"method": "PUT", "uri": "/crm/v8/Leads/7", "body": {"data": [{"Company": [reference]}]}}
        status, (found,) = _do(send, engine, NEW_LEAD, update)
        assert (status, found["code"]) == (400, "INVALID_REFERENCE")
        assert found["details"] == {
            "api_name": "Company[0]",
            "json_path": "$.__composite_requests[1].body.data[0].Company[0]",
            "reference": reference,
        }
        assert engine.records == {}

    @pytest.mark.parametrize("pairs", [["11"], ["12", "21"], ["12", "23", "31"]])
    def test_a_circle_stops_everything(self, send: Send, engine: Engine, pairs: list[str]) -> None:
        subs = [_sub(pair[0], "GET", f"Leads/@{{{pair[1]}:$.data[0].id}}") for pair in pairs]
        status, (found,) = _do(send, engine, _sub("9", "GET", "org"), *subs)
        assert (status, found["code"]) == (400, "LOOPING_FOUND")
        assert found["details"]["sub_request_indexes"] == list(range(1, len(pairs) + 1))


class TestRestrictions:
    @pytest.mark.parametrize(("sub", "code", "details"), [
        (_sub("1", "POST", "Leads/actions/mass_update"), "NOT_SUPPORTED", {"allowed_services"}),
        (_sub("1", "DELETE", "Leads?ids=1"), "NOT_SUPPORTED", {"allowed_services"}),
        (_sub("1", "POST", "Leads/1/photo"), "NOT_SUPPORTED", {"allowed_services"}),
        (_sub("1", "POST", "__composite_requests"), "NOT_SUPPORTED", {"allowed_services"}),
        (_sub("1", "PUT", "Leads", body={"data": [{}, {}]}), "INVALID_DATA",
         {"api_name", "json_path", "maximum_length"}),
        (_sub("1", "GET", "org", headers={"Authorization": "x"}), "INVALID_DATA",
         {"api_name", "json_path", "restricted_headers"}),
        (_sub("1", "GET", "org", headers={"X-CRM-ORG": "7"}), "INVALID_DATA",
         {"api_name", "json_path", "restricted_headers"}),
        (_sub("a b", "GET", "org"), "INVALID_DATA", {"api_name", "json_path", "regex", "expected_data_type"}),
        (_sub("9", "GET", "org"), "DUPLICATE_DATA", {"api_name", "json_path"}),
        (_sub("1", "HEAD", "org"), "INVALID_DATA", {"api_name", "json_path", "regex"}),
        (_sub("1", "GET", "org", params=[1]), "INVALID_DATA", {"api_name", "json_path", "expected_data_type"}),
    ])  # fmt: skip
    def test_what_is_not_allowed_stops_everything(
        self, send: Send, engine: Engine, sub: Any, code: str, details: set[str]
    ) -> None:
        good = {**NEW_LEAD, "sub_request_id": "9"}
        status, items = _do(send, engine, good, sub)
        assert (status, [entry["code"] for entry in items]) == (400, [code])
        assert items[0]["details"].keys() == details
        assert engine.records == {}

    @pytest.mark.parametrize(("sub", "fits", "key", "longest"), [
        (_sub("1" * 101, "GET", "org"), _sub("1" * 100, "GET", "org"), "sub_request_id", 100),
        (_sub("1", "GET", "org?a=" + "b" * 2035), _sub("1", "GET", "org?a=" + "b" * 2034), "uri", 2048),
    ])  # fmt: skip
    def test_what_is_too_long_stops_everything(
        self, send: Send, engine: Engine, sub: Any, fits: Any, key: str, longest: int
    ) -> None:
        status, (found,) = _do(send, engine, sub)
        where = {"api_name": key, "json_path": f"$.__composite_requests[0].{key}"}
        assert (status, found["code"], found["details"]) == (
            400,
            "INVALID_DATA",
            {"maximum_length": longest, **where},
        )
        assert len(fits[key]) == longest
        assert _do(send, engine, fits)[0] == 200

    @pytest.mark.parametrize("flag", ["rollback_on_fail", "parallel_execution"])
    @pytest.mark.parametrize("value", ["true", "false", 1, 0, [], {}])
    def test_a_flag_is_a_boolean(self, send: Send, engine: Engine, flag: str, value: Any) -> None:
        reply = send(engine, "POST", "__composite_requests", {flag: value, "__composite_requests": [NEW_LEAD]})
        where = {"expected_data_type": "boolean", "api_name": flag, "json_path": f"$.{flag}"}
        assert (reply.status, reply.json()["code"], reply.json()["details"]) == (400, "INVALID_DATA", where)
        assert engine.records == {}

    def test_references_without_end_are_refused_and_not_worked_on(self, send: Send, engine: Engine) -> None:
        fields = {f"F{number}": ID for number in range(999)}
        update = _sub("2", "PUT", f"Leads/{ID}", body={"data": [fields]})
        assert _do(send, engine, NEW_LEAD, update)[0] == 200
        status, (found,) = _do(send, engine, NEW_LEAD, update, _sub("3", "GET", "Leads", params={"ids": ID}))
        where = {"api_name": "ids", "json_path": "$.__composite_requests[2].params.ids"}
        assert (status, found["code"], found["details"]) == (400, "INVALID_DATA", where)
        assert "not simulated: more than 1000 references" in found["message"]
        assert len(engine.records) == 1

    def test_an_address_that_crm_does_not_know_is_answered_inside(self, send: Send, engine: Engine) -> None:
        status, items = _do(send, engine, NEW_LEAD, _sub("2", "GET", "Leads/1/nothing"))
        assert (status, _statuses(items)[0], len(engine.records)) == (200, 201, 1)
        assert _statuses(items)[1] >= 400

    @pytest.mark.parametrize(("limit", "busy", "status"), [(5, 0, 200), (5, 1, 429), (7, 2, 200), (3, 0, 200),
        (3, 1, 429)])  # fmt: skip
    def test_a_composite_takes_five_units_of_concurrency(self, limit: int, busy: int, status: int) -> None:
        """However many there are: where there are fewer, it has to be alone."""
        engine = Engine(concurrency=limit, latency=1.0)
        seen: list[int] = []

        def work(level: int) -> None:
            """Send the composite from within `busy` calls in service."""
            if level:
                org = Request(method="GET", path="/crm/v8/org")
                engine.handle(org, hold=lambda _seconds: work(level - 1))
                return
            body = b'{"__composite_requests":[{"method":"GET","uri":"/crm/v8/org"}]}'
            seen.append(
                engine.handle(Request(method="POST", path="/crm/v8/__composite_requests", body=body)).status
            )

        work(busy)
        assert seen == [status]
        work(0)
        assert seen[1] == 200


def _query(text: str) -> dict[str, Any]:
    return _sub("q", "POST", "coql", body={"select_query": text})


class TestReadsOfManyRecords:
    """A sub may read 25 records (OAS: the allowed APIs)."""

    @pytest.fixture
    def many(self) -> Engine:
        engine = Engine()
        account = engine.add_record("Accounts", "900", fields={"Account_Name": "A"})
        for number in range(1, 31):
            engine.add_record("Leads", number, fields={"Last_Name": "L", "Account_Name": {"id": account}})
        return engine

    @pytest.mark.parametrize("uri", ["Leads?fields=id", "Leads/search?fields=id&criteria=(Last_Name:equals:L)",
        "Accounts/900/Leads?fields=id"])  # fmt: skip
    def test_they_come_in_pages_of_25(self, send: Send, many: Engine, uri: str) -> None:
        pages = [
            _sub("a", "GET", uri),
            _sub("b", "GET", uri, params={"page": 2, "per_page": 25}),
            _sub("c", "GET", f"{uri}&per_page=7"),
        ]
        status, items = _do(send, many, *pages)
        bodies = [entry["details"]["response"]["body"] for entry in items]
        assert (status, [len(body["data"]) for body in bodies]) == (200, [25, 5, 7])
        assert [(body["info"]["per_page"], body["info"]["more_records"]) for body in bodies] == [
            (25, True), (25, False), (7, True)]  # fmt: skip
        seen = {record["id"] for body in bodies[:2] for record in body["data"]}
        assert seen == {str(number) for number in range(1, 31)}

    def test_a_query_without_a_limit_has_25(self, send: Send, many: Engine) -> None:
        text = "select id from Leads where id is not null"
        _, items = _do(send, many, _query(text), {**_query(f"{text} limit 5, 25"), "sub_request_id": "r"})
        whole, rest = (entry["details"]["response"]["body"] for entry in items)
        assert (len(whole["data"]), whole["info"]) == (25, {"count": 25, "more_records": True})
        assert (len(rest["data"]), rest["info"]) == (25, {"count": 25, "more_records": False})

    @pytest.mark.parametrize(("sub", "key", "place"), [
        (_sub("1", "GET", "Leads?fields=id&per_page=26"), "per_page", "uri"),
        (_sub("1", "GET", "Leads/search?fields=id&email=a%40x.test", params={"per_page": 200}), "per_page",
         "params.per_page"),
        (_sub("1", "GET", "Accounts/900/Leads", params={"per_page": "9" * 5000}), "per_page", "params.per_page"),
        (_sub("1", "GET", "users", params={"per_page": 26}), "per_page", "params.per_page"),
        (_query("select id from Leads where id is not null limit 26"), "select_query", "body.select_query"),
    ])  # fmt: skip
    def test_to_ask_for_more_stops_everything(
        self, send: Send, many: Engine, sub: Any, key: str, place: str
    ) -> None:
        status, (found,) = _do(send, many, NEW_LEAD, {**sub, "sub_request_id": "2"})
        where = {"api_name": key, "json_path": f"$.__composite_requests[1].{place}"}
        assert (status, found["code"], found["details"]) == (400, "INVALID_DATA", {"maximum_length": 25, **where})
        assert len(many.records) == 31

    @pytest.mark.parametrize("sub", [
        _sub("2", "GET", "Leads", params={"fields": "id", "per_page": "@{r:$.data[0].Number}"}),
        {**_query("select id from Leads where id > 0 limit @{r:$.data[0].Number}"), "sub_request_id": "2"},
    ])  # fmt: skip
    def test_a_reference_is_no_way_to_more(self, send: Send, many: Engine, sub: Any) -> None:
        many.add_record("Deals", "700", fields={"Number": 26})
        status, items = _do(send, many, _sub("r", "GET", "Deals/700"), sub)
        assert (status, [entry["code"] for entry in items]) == (207, ["SUCCESS", "INVALID_DATA"])

    @pytest.mark.parametrize("sub", [_sub("1", "GET", "Leads?fields=id&per_page=x"), _query("select from where"),
        _sub("1", "POST", "coql", body={"select_query": 7})])  # fmt: skip
    def test_what_is_wrong_besides_is_answered_inside(self, send: Send, many: Engine, sub: Any) -> None:
        status, items = _do(send, many, sub)
        assert (status, _statuses(items)) == (200, [400])


class TestRollback:
    def test_what_was_done_is_undone_and_names_the_one_that_failed(self, send: Send, engine: Engine) -> None:
        update = _sub("2", "PUT", f"Leads/{ID}", body={"data": [{"Company": 5}]})
        status, items = _do(send, engine, NEW_LEAD, update, _sub("3", "GET", "org"), rollback_on_fail=True)
        assert status == 207
        assert [entry["code"] for entry in items] == ["ROLLBACK_PERFORMED", "SUCCESS", "PROCESSING_STOPPED"]
        assert items[0]["details"] == {"rollbacked_by_sub_request_index": 1}
        assert (engine.records, engine.calls[-1].applied_ids) == ({}, ())

    def test_a_reference_that_leads_nowhere_is_a_failure(self, send: Send, engine: Engine) -> None:
        subs = (NEW_LEAD, _sub("2", "DELETE", "Leads/@{1:$.nothing}"))
        status, items = _do(send, engine, *subs, rollback_on_fail=True)
        assert (status, [entry["code"] for entry in items]) == (207, ["ROLLBACK_PERFORMED", "INVALID_REFERENCE"])
        assert engine.records == {}

    def test_a_refusal_by_a_record_that_is_undone_as_well_is_forgotten(self, send: Send) -> None:
        engine = Engine(validation_seconds=5.0)
        new = {**NEW_LEAD, "body": {"data": [{"Last_Name": "Boyle", "Record_Image": "x"}]}}
        update = _sub("2", "PUT", f"Leads/{ID}", body={"data": [{"Company": "Zylker"}]})
        status, items = _do(send, engine, new, update, rollback_on_fail=True)
        assert (status, [entry["code"] for entry in items]) == (207, ["ROLLBACK_PERFORMED", "SUCCESS"])
        assert items[1]["details"]["response"]["body"]["data"][0]["code"] == "RECORD_LOCKED"
        assert engine.records == {}

    def test_a_chain_that_succeeds_costs_two_credits(self, send: Send, engine: Engine) -> None:
        status, items = _do(send, engine, NEW_LEAD, _sub("2", "DELETE", f"Leads/{ID}"), rollback_on_fail=True)
        assert (status, _statuses(items), engine.credits_spent) == (200, [201, 200], 2)
