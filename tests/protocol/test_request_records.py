"""Which records a request names, and which of these an item of the answer speaks of."""

import json
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.envelope import read_envelope
from crm_guard._protocol.matching import resolve
from crm_guard._protocol.request_records import Part, read_request

BASE = "https://www.zohoapis.com/crm/v8/"


def call_of(method, path, body=None, **options):
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return read_request(method, CrmUrl.of(BASE + path), lambda: sent, **options)


def refuse(**details):
    return {"code": "RECORD_LOCKED", "status": "error", "message": "", "details": details}


class TestTheRecordsOfARequest:
    @pytest.mark.parametrize(
        ("method", "path", "body", "ids", "home"),
        [
            ("PUT", "Leads/7", None, ("7",), ""),
            (
                "PUT",
                "Leads",
                {"data": [{"id": "1"}, {"id": 2}, {}, "x", {"id": [3]}]},
                ("1", "2", None, None, None),
                "body.data",
            ),
            ("PUT", "Leads", {"data": []}, (), "body.data"),
            ("POST", "Leads/upsert", {"data": [{"Email": "a@b.c"}]}, (None,), "body.data"),
            ("POST", "Leads/actions/mass_update", {"ids": ["1", 2], "data": [{}]}, ("1", "2"), "body.ids"),
            ("POST", "Leads/actions/add_tags", {"ids": '["1", "2"]', "tags": []}, ("1", "2"), "body.ids"),
            ("POST", "Leads/actions/add_tags?ids=1,2", {"tags": []}, ("1", "2"), "query.ids"),
            ("DELETE", "Leads?ids=1,2", None, ("1", "2"), "query.ids"),
            ("DELETE", "Leads?ids=1%2C2%2c3&wf_trigger=false", None, ("1", "2", "3"), "query.ids"),
            ("DELETE", "Leads?wf_trigger=false&ids=1", b"", ("1",), "query.ids"),
            ("DELETE", "Leads?ids=1,,%202%20", None, ("1", None, "2"), "query.ids"),
            ("DELETE", "Leads?ids=1%2C+2", None, ("1", "2"), "query.ids"),
            ("DELETE", "Leads?myids=8&ids=1#ids=9", None, ("1",), "query.ids"),
        ],
    )
    def test_are_found_where_the_endpoint_has_them(self, method, path, body, ids, home):
        call = call_of(method, path, body)
        assert (call.ids, call.home) == (ids, home)
        assert call.names_one == (home == "")

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "Leads/actions/mass_update", {"cvid": "5", "ids": ["1"]}),
            ("POST", "Leads/actions/mass_delete?cvid=5&ids=1", {}),
            ("POST", "Leads/actions/add_tags?ids=9", {"ids": ["1"]}),
            ("POST", "Leads/actions/add_tags", {"ids": "1,2"}),
            ("POST", "Leads/actions/add_tags", {"ids": {"a": 1}}),
            ("POST", "Leads/actions/add_tags", {"ids": "[1"}),
            ("POST", "Leads/actions/add_tags", {"ids": 5}),
            ("POST", "Leads/actions/add_tags", {"ids": None}),
            ("PUT", "Leads", {"data": {"id": "1"}}),
            ("PUT", "Leads", {"data": "x"}),
            ("PUT", "Leads", {"rows": []}),
            ("PUT", "Leads", [{"id": "1"}]),
            ("PUT", "Leads", None),
            ("PUT", "Leads", b""),
            ("PUT", "Leads", b'{"data":[{"id":"1"}'),
            ("PUT", "Leads", b'{"data":[{"id":"1"}],"data":[{"id":"2"}]}'),
            ("PUT", "Leads", b"\xff\xfe"),
            ("PUT", "Leads", b'\xef\xbb\xbf{"data":[{"id":"1"}]}'),
            ("PUT", "Leads", b"[" * 100_000),
            ("PUT", "Leads", b'{"data":[' + b"9" * 5000 + b"]}"),
            ("DELETE", "Leads", None),
            ("DELETE", "Leads?ids=", None),
            ("DELETE", "Leads?ids=1&ids=2", None),
            ("POST", "__composite_requests", {"__composite_requests": {}}),
            ("POST", "__composite_requests", {}),
            ("POST", "__composite_requests", b"nonsense"),
        ],
        ids=lambda value: repr(value)[:50],
    )
    def test_are_not_guessed(self, method, path, body):
        call = call_of(method, path, body)
        assert call.ids is None
        assert call.narrow([0]) == Part()

    def test_of_external_fields_are_not_known_by_the_values(self):
        one = call_of("PUT", "Leads/4915112345678", external=True)
        assert (one.ids, one.route.record_id, one.route.names_record) == ((None,), None, True)
        assert call_of("DELETE", "Leads?ids=a@b.c,4915", external=True).ids == (None, None)
        assert call_of("PUT", "Leads", b"?", external=True).ids is None

    def test_a_body_is_only_asked_for_where_records_stand_in_it(self):
        def body():
            pytest.fail("a photo has no records in it")

        for method, path in (("POST", "Leads/1/photo"), ("PUT", "Leads/1"), ("GET", "Leads"), ("POST", "coql")):
            assert read_request(method, CrmUrl.of(BASE + path), body).names_one

    def test_of_a_composite_call_are_those_of_its_sub_requests(self):
        subs = [
            {"method": "PUT", "uri": "/crm/v8/Leads/1"},
            {"method": "get", "uri": "https://www.zohoapis.com/crm/v8/Leads/2?fields=id"},
            {"method": "DELETE", "uri": "/crm/x/v2.1/Leads/3"},
            {"method": "POST", "uri": "/crm/v8/Leads"},
            {"method": "GET"},
            {"method": 1, "uri": "/crm/v8/Leads/4"},
            "nonsense",
            None,
        ]
        call = call_of("POST", "__composite_requests", {"__composite_requests": subs})
        assert call.ids == ("1", "2", "3", None, None, None, None, None)
        assert call.reads == {1}


class TestTheRecordOfAnItem:
    BATCH = ("PUT", "Leads", {"data": [{"id": "1"}, {"id": "2"}]})
    IDS = ("POST", "Leads/actions/add_tags", {"ids": ["1", "2"]})
    ONE = ("PUT", "Leads/7", {"data": [{}]})
    MANY_BY_QUERY = ("DELETE", "Leads?ids=1,2", None)

    @pytest.mark.parametrize(
        ("request_", "items", "wanted", "source"),
        [
            (BATCH, [refuse(id="9", json_path="$.data[0]")], "9", "details.id"),
            (BATCH, [refuse(record_id="9")], "9", "details.record_id"),
            (BATCH, [refuse(json_path="$.data[1].id")], "2", "json_path->body.data[1].id"),
            (IDS, [refuse(json_path="$.ids[1]")], "2", "json_path->body.ids[1]"),
            (BATCH, [refuse(json_path="$.data[0].id", resource_path_index=1)], "1", "json_path->body.data[0].id"),
            (BATCH, [refuse(json_path="$.ids[1]")], None, "none"),
            (IDS, [refuse(json_path="$.data[1]")], None, "none"),
            (BATCH, [refuse(json_path="$.data[*].id")], None, "none"),
            (BATCH, [refuse(json_path="$.data[5].id")], None, "none"),
            (BATCH, [refuse(json_path="data[1]")], None, "none"),
            (BATCH, [refuse(json_path=["$.data[1]"])], None, "none"),
            (BATCH, [refuse(json_path="$.data[999999999999]")], None, "none"),
            (BATCH, [refuse(resource_path_index=1)], None, "none"),
            (BATCH, [refuse()], None, "none"),
            (BATCH, [refuse(), refuse()], "1", "position->body.data[0].id"),
            (MANY_BY_QUERY, [refuse(), refuse()], "1", "position->query.ids[0]"),
            (ONE, [refuse(resource_path_index=1)], "7", "resource_path_index->path[1]"),
            (ONE, [refuse(resource_path_index=0)], "7", "path[1]"),
            (ONE, [refuse(json_path="$.data[0].id")], "7", "path[1]"),
            (ONE, [refuse()], "7", "path[1]"),
            (ONE, [refuse(id="8")], "8", "details.id"),
            (("POST", "Leads", {"data": [{}]}), [refuse()], None, "none"),
        ],
    )
    def test_is_resolved_in_the_documented_order(self, request_, items, wanted, source):
        envelope = read_envelope(json.dumps({"data": items}).encode())
        assert resolve(call_of(*request_), envelope, 0) == (wanted, source)

    def test_a_bare_item_speaks_of_no_position(self):
        envelope = read_envelope(json.dumps(refuse()).encode())
        assert resolve(call_of("PUT", "Leads", {"data": [{"id": "1"}]}), envelope, 0) == (None, "none")

    def test_of_a_composite_answer_is_that_of_its_sub_request(self):
        subs = [{"method": "PUT", "uri": "/crm/v8/Leads/1"}, {"method": "POST", "uri": "/crm/v8/Leads"}]
        call = call_of("POST", "__composite_requests", {"__composite_requests": subs})
        answers = [
            {
                "code": "SUCCESS",
                "status": "success",
                "details": {"response": {"status_code": 400, "body": refuse(**named)}},
            }
            for named in ({}, {}, {"id": "5"}, {})
        ]
        envelope = read_envelope(json.dumps({"__composite_requests": answers}).encode(), reads=call.reads)
        assert [resolve(call, envelope, index) for index in range(4)] == [
            ("1", "sub[0].path"),
            (None, "none"),
            ("5", "sub[2].details.id"),
            (None, "none"),
        ]


PATHS = st.sampled_from(
    [
        ("PUT", "Leads"),
        ("POST", "Leads/upsert"),
        ("DELETE", "Leads?ids=1,2"),
        ("POST", "Leads/actions/add_tags"),
        ("POST", "Leads/actions/mass_convert"),
        ("POST", "__composite_requests"),
        ("PUT", "Leads/1"),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data(), target=PATHS, external=st.booleans())
def test_no_body_at_all_makes_the_reader_raise(documents, data, target, external):
    body = data.draw(st.binary(max_size=40) | documents.map(lambda value: json.dumps(value).encode()) | st.none())
    call = call_of(*target, body, external=external)
    answer = read_envelope(json.dumps(data.draw(documents)).encode(), reads=call.reads)
    for index, item in enumerate(answer.items if answer else ()):
        record_id, source = resolve(call, answer, index)
        assert (record_id is None) == (source == "none")
        assert isinstance((item.code, item.message, item.succeeded, item.retryable(("x",)), item.raw), tuple)
    if call.ids is not None:
        everything = range(len(call.ids))
        assert call.narrow(everything) == Part()
        for position in everything:
            part = call.narrow([position])
            assert part.url is None or part.url.startswith(BASE)
            if part.body is not None:
                address = CrmUrl.of(BASE + target[1])
                again = read_request(target[0], address, partial(getattr, part, "body"), external=external)
                assert again.ids == (call.ids[position],)
