"""A request for just some records of a call: what was refused for good is kept as a dead letter, and sent later."""

import copy
import io
import json
import pickle

import pytest
import requests
import responses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import (
    GiveUpReason,
    GuardError,
    GuardReport,
    NotApprovedError,
    RecordLockedError,
    RecordOutcome,
    RemainingRequest,
    get_report,
)
from crm_guard.clock import Wake
from crm_guard.locks import WaitContext

from .calls.world import ALL_CALLS, CALLS, add_leads, guarded

URL = "https://www.zohoapis.com/crm/v8/Leads"
REJECTED = "zia_vision_rejected"
SECRET = {"Authorization": "Zoho-oauthtoken s3cret"}


def item(code, record_id=None, **details):
    named = {"id": record_id} if record_id else {}
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "details": {**named, **details}, "message": "text", "status": status}


def refused(record_id=None, **details):
    return item("NOT_APPROVED", record_id, **details)


def locked(record_id=None):
    return item("RECORD_LOCKED", record_id, action="zia_vision_processing")


def rows(*ids):
    return {
        "data": [{"id": record_id, "Company": "Zylker"} if record_id else {"Company": "Z"} for record_id in ids]
    }


def sent_ids(request):
    return [row.get("id") for row in json.loads(request.body)["data"]]


@pytest.fixture
def report_of(canned):
    """Returns the report of one batch update: `(status, items)` are CRM's answers."""

    def make(*answers, ids=("1", "2", "3"), method="PUT", path="", **policy):
        options = {"json": rows(*ids), "headers": SECRET}
        options |= {name: policy.pop(name) for name in ("json", "data", "headers") if name in policy}
        if "data" in options:
            del options["json"]
        found = [(status, body if isinstance(body, dict) else {"data": body}) for status, body in answers]
        session = canned(*found, raise_on="never", diagnose=False, **policy)
        return get_report(session.request(method, URL + path, **options))

    return make


@pytest.fixture
def mixed(report_of):
    """The report of three rows: written, refused for good, still locked."""
    return report_of((207, [item("SUCCESS", "1"), refused("2"), locked("3")]), timeout=0)


class TestWhatIsRefused:
    def test_nothing(self, mixed):
        for nothing in ((), [], iter(())):
            with pytest.raises(ValueError, match=r"outcomes=\(\) names no record: .* such as report\.blocked"):
                mixed.request_for(nothing)

    def test_what_is_of_another_report(self, mixed):
        other = RecordOutcome(position=1, record_id="2", code="NOT_APPROVED", message="text")
        for chosen in ([other], [*mixed.blocked, other]):
            with pytest.raises(ValueError, match="1 of the outcomes are not of this report"):
                mixed.request_for(chosen)

    def test_what_was_written(self, mixed):
        for chosen in (mixed.outcomes, mixed.outcomes[:1]):
            with pytest.raises(ValueError, match=r"has written 1 of 3 records.*: what was written must not be"):
                mixed.request_for(chosen)

    def test_what_may_have_been_written(self, report_of):
        report = report_of((500, {"code": "INTERNAL_ERROR", "details": {}, "message": "m", "status": "error"}))
        with pytest.raises(ValueError, match=r"is uncertain whether CRM has written 3 of 3 records .*: look there"):
            report.request_for(report.outcomes)

    def test_a_report_without_a_request(self):
        found = RecordOutcome(position=0, record_id="1", code="NOT_APPROVED")
        with pytest.raises(ValueError, match="has no request: it was made by hand"):
            GuardReport(outcomes=(found,)).request_for([found])
        with pytest.raises(ValueError, match="not of this report"):
            GuardError("no report").request_for([found])

    def test_a_request_that_cannot_be_copied_costs_no_result(self, canned):
        request = requests.Request("PUT", URL, json=rows("1", "2")).prepare()
        request._cookies = 5
        session = canned((207, {"data": [item("SUCCESS", "1"), refused("2")]}), diagnose=False)
        report = get_report(session.send(request))
        assert len(report.blocked) == 1
        with pytest.raises(ValueError, match="has no request"):
            report.request_for(report.blocked)

    @pytest.mark.parametrize("stream", [io.BytesIO, lambda body: iter([body])], ids=["a file", "a generator"])
    def test_a_stream(self, report_of, stream):
        data = stream(json.dumps(rows("1", "2")).encode())
        report = report_of((207, [item("SUCCESS", "1"), refused("2")]), data=data)
        for there in (report, pickle.loads(pickle.dumps(report))):  # noqa: S301
            with pytest.raises(ValueError, match="the body was a stream"):
                there.request_for(there.blocked)


class TestDoubt:
    """Where it is not certain which rows CRM means, none is sent."""

    @pytest.mark.parametrize(
        ("ids", "items"),
        [
            pytest.param(("1", "2"), [refused("2"), refused("2")], id="one record twice"),
            pytest.param(("1", "2"), [item("SUCCESS", "1"), refused("9")], id="a record that was not asked for"),
            pytest.param(("1", "2"), [item("SUCCESS", "1"), refused("2"), refused("2")], id="more than was sent"),
            pytest.param(
                (None, None),
                [refused(json_path="$.data[1]"), item("SUCCESS", "7", json_path="$.data[0]")],
                id="rows without ids in another order",
            ),
            pytest.param((None, None), [refused(json_path="$.data[1]")] * 2, id="one row twice"),
        ],
    )
    def test_about_a_batch(self, report_of, ids, items):
        report = report_of((207, items), ids=ids)
        assert report.reason is None
        with pytest.raises(ValueError, match="does not tell without doubt which records"):
            report.request_for(report.blocked)

    def test_of_some_rows_leaves_the_others(self, report_of):
        unnamed = item("INVALID_DATA", api_name="A"), item("INVALID_DATA", api_name="B")
        report = report_of((207, [refused("2"), item("SUCCESS", "1"), *unnamed]), ids=("1", "2", "3", "4"))
        assert sent_ids(report.request_for(report.blocked)) == ["2"]
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.outcomes[2:])

    def test_of_two_results_that_may_be_about_one_row(self, report_of):
        unnamed = item("INVALID_DATA", api_name="A"), item("INVALID_DATA", api_name="B")
        report = report_of((207, [refused("2"), *unnamed, item("SUCCESS", "1")]), ids=("1", "2", "3", "4"))
        assert [found.position for found in report.outcomes] == [1, 1, 2, 0]
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.outcomes[1:2])

    def test_that_kept_the_guard_from_sending_again_is_about_all(self, report_of):
        report = report_of((207, [locked("1"), item("SUCCESS", "1"), refused("2")]), ids=("1", "1", "2"))
        assert report.reason is GiveUpReason.UNMATCHED
        with pytest.raises(ValueError, match="does not tell without doubt what was applied"):
            report.request_for(report.blocked[1:])

    def test_that_the_guard_had(self, report_of):
        report = report_of((207, [item("SUCCESS", "1"), locked("9"), refused("3")]))
        assert report.reason is GiveUpReason.UNMATCHED
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.blocked[1:])

    def test_of_a_row_that_a_later_one_has_overtaken(self, report_of):
        report = report_of((207, [refused("1"), item("SUCCESS", "1"), refused("2")]), ids=("1", "1", "2"))
        with pytest.raises(ValueError, match="the same record was or may have been written by a later row"):
            report.request_for(report.blocked)
        assert sent_ids(report.request_for(report.blocked[1:])) == ["2"]

    def test_of_an_id_that_stands_there_twice_and_was_written(self, report_of):
        answer = [refused("1"), item("SUCCESS", "1"), refused("2")]
        for items in (answer, [answer[1], answer[0], answer[2]]):
            body = {"ids": ["1", "1", "2"], "data": [{"Company": "Zylker"}]}
            report = report_of((207, items), method="POST", path="/actions/mass_update", json=body)
            with pytest.raises(ValueError, match="stands in the request twice and was written"):
                report.request_for(report.blocked)
            assert json.loads(report.request_for(report.blocked[1:]).body)["ids"] == ["2"]

    def test_but_not_of_one_that_came_after(self, report_of):
        report = report_of((207, [item("SUCCESS", "1"), refused("1")]), ids=("1", "1"))
        assert sent_ids(report.request_for(report.blocked)) == ["1"]

    def test_of_a_job(self, report_of):
        report = report_of(
            (400, [refused("1")]), method="POST", path="/actions/mass_update", json={"cvid": "5", **rows(None)}
        )
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.blocked)

    def test_of_a_body_that_is_no_json(self, report_of):
        report = report_of((400, [refused("1")]), data=b'{"data":[')
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.blocked)

    def test_of_a_failing_server(self, report_of):
        for path in ("", "/1"):
            report = report_of((503, [refused("1")]), path=path, ids=("1",))
            with pytest.raises(ValueError, match="without doubt"):
                report.request_for(report.blocked)

    def test_of_a_call_whose_answer_names_another_record(self, report_of):
        report = report_of((400, [refused("9")]), path="/1")
        with pytest.raises(ValueError, match="without doubt"):
            report.request_for(report.blocked)

    def test_of_composite_requests(self, crm, guard, leads):
        ids = [crm.add_record("Leads", state=REJECTED) for _ in range(2)]
        subs = [
            {"sub_request_id": str(n), "method": "DELETE", "uri": f"/crm/v8/Leads/{record_id}"}
            for n, record_id in enumerate(ids)
        ]
        url = leads.replace("Leads", "__composite_requests")
        report = get_report(guard(diagnose=False).post(url, json={"__composite_requests": subs}))
        assert len(report.blocked) == 2
        with pytest.raises(ValueError, match="does not show all that was applied"):
            report.request_for(report.blocked)

    def test_of_the_entries_of_a_share(self, report_of):
        report = report_of((400, {"share": [refused("1"), refused("1")]}), method="POST", path="/1/actions/share")
        assert len(report.blocked) == 2
        with pytest.raises(ValueError, match="sent as a whole"):
            report.request_for(report.blocked[:1])


class TestTheRequest:
    def test_holds_the_given_records_and_is_else_the_same(self, report_of):
        body = b'{ "data" : [ {"id":"1"} , {"id": "2",  "Rate":1.50} ,{"id":"3","N":"\\u00e4"}], "trigger":[ ] }'
        report = report_of((207, [item("SUCCESS", "1"), refused("2"), refused("3")]), data=body)
        for chosen in (report.blocked, report.blocked[::-1], report.blocked * 2, iter(report.blocked)):
            found = report.request_for(chosen)
            assert (found.method, found.url, found.hooks) == ("PUT", URL, {"response": []})
            assert found.body == b'{ "data" : [{"id": "2",  "Rate":1.50},{"id":"3","N":"\\u00e4"}], "trigger":[ ] }'
            assert found.headers["Content-Length"] == str(len(found.body))
            assert found.headers["Authorization"] == SECRET["Authorization"]

    def test_for_all_is_the_callers_own(self, report_of):
        body = b'{"data": [{"id":"1"} ,{"id":"2"}]}'
        report = report_of((400, [refused("1"), refused("2")]), data=body)
        assert report.request_for(report.outcomes).body is body

    def test_about_one_record_is_the_callers_own(self, report_of):
        for answer in (refused("1"), refused(), item("INVALID_DATA", "7")):
            report = report_of((400, [answer]), path="/1?wf=1", data="{}")
            found = report.request_for(report.outcomes)
            assert (found.url, found.body) == (f"{URL}/1?wf=1", "{}")

    def test_of_text_becomes_bytes(self, report_of):
        text = json.dumps(rows("1", "2"))
        report = report_of((207, [item("SUCCESS", "1"), refused("2")]), data=text)
        assert sent_ids(report.request_for(report.blocked)) == ["2"]

    def test_names_records_of_another_system_too(self, report_of):
        report = report_of(
            (207, [item("SUCCESS", "70"), refused()]), ids=("a", "b"), headers={"X-EXTERNAL": "Leads.Key"}
        )
        assert sent_ids(report.request_for(report.blocked)) == ["b"]

    def test_is_a_new_one_each_time(self, mixed):
        first = mixed.request_for(mixed.blocked)
        first.headers["X-A"], first.body, first.url = "1", b"", "https://example.com"
        second = mixed.request_for(mixed.blocked)
        assert ("X-A" in second.headers, second.url, sent_ids(second)) == (False, URL, ["2", "3"])

    def test_is_of_the_call_as_it_was(self, canned):
        request = requests.Request("PUT", URL, json=rows("1", "2"), headers={"X-A": "1"}).prepare()
        session = canned((207, {"data": [item("SUCCESS", "1"), refused("2")]}), diagnose=False)
        report = get_report(session.send(request))
        request.headers["X-A"], request.url, request.body = "2", "https://example.com", b"other"
        found = report.request_for(report.blocked)
        assert (found.headers["X-A"], found.url, sent_ids(found)) == ("1", URL, ["2"])

    def test_for_what_is_locked_is_the_remaining_one(self, mixed):
        ours, remaining = mixed.request_for(mixed.outcomes[2:]), mixed.remaining_request()
        assert (ours.body, ours.url, ours.headers) == (remaining.body, remaining.url, remaining.headers)

    def test_for_a_refusal_of_another_kind_or_of_the_whole_call(self, report_of):
        report = report_of((207, [item("SUCCESS", "1"), item("INVALID_DATA", "2"), refused("3")]))
        assert sent_ids(report.request_for(report.outcomes[1:2])) == ["2"]
        expired = {"code": "INVALID_TOKEN", "details": {}, "message": "m", "status": "error"}
        report = report_of((401, expired))
        assert sent_ids(report.request_for(report.outcomes[::2])) == ["1", "3"]

    def test_stays_out_of_what_is_shown(self, mixed):
        for text in (repr(mixed), str(mixed), repr(mixed.request_for(mixed.blocked))):
            assert "s3cret" not in text
            assert "Zylker" not in text
        assert "RemainingRequest" not in repr(mixed)


class TestThatTravels:
    def test_leaves_its_credentials_behind(self, canned):
        session = canned((400, {"data": [refused("1"), refused("2")]}), diagnose=False)
        with pytest.raises(NotApprovedError) as caught:
            session.put(f"{URL}?token=s3cret&wf=1", json=rows("1", "2"), headers=SECRET | {"Cookie": "a=s3cret"})
        error = caught.value
        for thing in (error, error.report):
            carried = pickle.dumps(thing)
            assert b"s3cret" not in carried
            there = pickle.loads(carried)  # noqa: S301
            found = there.request_for(there.blocked[1:])
            assert (found.missing, found.url) == (("Authorization", "token"), f"{URL}?wf=1")
            assert sent_ids(found) == ["2"]
            assert "s3cret" not in json.dumps(found.to_dict())
            assert sent_ids(copy.deepcopy(thing).request_for(thing.blocked[1:])) == ["2"]
        kept = error.request_for(error.blocked[1:])
        assert (kept.missing, kept.headers["Authorization"]) == ((), SECRET["Authorization"])

    def test_from_the_query_of_ids_too(self, canned):
        session = canned((207, {"data": [item("SUCCESS", "1"), refused("2")]}), diagnose=False)
        report = get_report(
            session.delete("https://jane:s3cret@www.zohoapis.com/crm/v8/Leads?ids=1%2C2&token=s3cret")
        )
        there = pickle.loads(pickle.dumps(report))  # noqa: S301
        assert there.request_for(there.blocked).url == f"{URL}?ids=2"

    def test_only_where_there_is_something_to_send(self, report_of):
        written = report_of((200, [item("SUCCESS", n) for n in "123"]))
        assert b"Zylker" not in pickle.dumps(written)

    def test_in_another_exception(self, canned, clock):
        def interrupt():
            raise KeyboardInterrupt

        clock.during_wait = interrupt
        session = canned((207, {"data": [item("SUCCESS", "1"), locked("2"), refused("3")]}))
        with pytest.raises(KeyboardInterrupt) as caught:
            session.put(URL, json=rows("1", "2", "3"), headers=SECRET)
        carried = pickle.dumps(caught.value)
        report = get_report(pickle.loads(carried))  # noqa: S301
        assert b"s3cret" not in carried
        assert sent_ids(report.request_for(report.blocked)) == ["2", "3"]


class TestOfAnyReport:
    @responses.activate
    def test_without_a_guard(self):
        responses.put(URL, json={"data": [item("SUCCESS", "1"), refused("2"), locked("3")]}, status=207)
        report = get_report(requests.put(URL, json=rows("1", "2", "3"), timeout=5, headers=SECRET))
        for there in (report, pickle.loads(pickle.dumps(report))):  # noqa: S301
            assert sent_ids(there.request_for(there.blocked)) == ["2", "3"]

    @responses.activate
    def test_without_a_guard_of_records_of_another_system(self):
        responses.put(URL, json={"data": [item("SUCCESS", "70"), refused()]}, status=207)
        report = get_report(requests.put(URL, json=rows("a", "b"), timeout=5, headers={"X-EXTERNAL": "Leads.Key"}))
        assert sent_ids(report.request_for(report.blocked)) == ["b"]

    def test_after_several_answers(self, report_of):
        """The rows that are left keep their places, though CRM's last answer holds fewer."""
        answers = (
            (207, [item("SUCCESS", "1"), locked("2"), refused("3"), locked("4")]),
            (207, [item("SUCCESS", "2"), refused("4")]),
        )
        report = report_of(*answers, ids=("1", "2", "3", "4"))
        assert report.attempts == 2
        assert sent_ids(report.request_for(report.blocked)) == ["3", "4"]
        assert sent_ids(report.request_for(report.blocked[1:])) == ["4"]

    def test_after_a_resend_that_was_refused_as_a_whole(self, report_of):
        expired = {"code": "INVALID_TOKEN", "details": {}, "message": "m", "status": "error"}
        report = report_of((207, [item("SUCCESS", "1"), locked("2"), refused("3")]), (401, expired))
        assert report.reason is GiveUpReason.FOLLOW_UP
        assert sent_ids(report.request_for(report.blocked)) == ["2", "3"]

    def test_of_a_call_that_was_never_sent(self, crm, guard, leads, clock):
        """Its record is known to be locked, and the wait ends by a stop."""
        lead, session = crm.add_record("Leads", locked_for=1000), guard()
        other = session.guard.locks.waiter(WaitContext(clock, Wake(), lambda: False))
        other.verdict(locked=[f"{crm.url}|{lead}"], free=())

        def interrupt():
            raise KeyboardInterrupt

        clock.during_wait = interrupt
        with pytest.raises(KeyboardInterrupt) as caught:
            session.put(leads, json=rows(lead))
        clock.during_wait = None
        other.leave()
        report = get_report(caught.value)
        assert (report.attempts, len(report.blocked)) == (0, 1)
        assert sent_ids(report.request_for(report.blocked)) == [lead]

    def test_of_a_gateway_with_paths_of_its_own(self, canned):
        session = canned((207, {"data": [item("SUCCESS", "1"), refused("2")]}), diagnose=False, path_pattern="/")
        report = get_report(session.put("https://gateway.example/zoho/v8/Leads", json=rows("1", "2")))
        assert sent_ids(report.request_for(report.blocked)) == ["2"]


def put(ids):
    return "PUT", "", {"json": rows(*ids)}


def upsert(ids):
    return "POST", "/upsert", {"json": rows(*ids) | {"duplicate_check_fields": ["Email"]}}


def delete(ids):
    return "DELETE", f"?ids={','.join(ids)}&wf_trigger=false", {}


def tag(ids):
    return "POST", "/actions/add_tags", {"json": {"ids": json.dumps(ids), "tags": [{"name": "vip"}]}}


def mass_update(ids):
    return "POST", "/actions/mass_update", {"json": {"ids": ids, "data": [{"Company": "Zylker"}]}}


@pytest.mark.parametrize("call", [put, upsert, delete, tag, mass_update])
def test_a_dead_letter_is_sent_once_its_records_are_free_and_writes_each_once(crm, guard, leads, call):
    states = ["approved", REJECTED, "approved", REJECTED, "record_locking"]
    ids = [crm.add_record("Leads", state=state) for state in states]
    method, path, options = call(ids)
    session = guard(diagnose=False)
    report = get_report(session.request(method, leads + path, headers=SECRET, **options))
    assert [found.record_id for found in report.blocked] == [ids[1], ids[3], ids[4]]
    kept = json.dumps(pickle.loads(pickle.dumps(report)).request_for(report.blocked[:2]).to_dict())  # noqa: S301
    for record_id in ids[1:]:
        crm.set_state(record_id, "approved")
    answer = session.send(RemainingRequest.from_dict(json.loads(kept), headers=SECRET))
    assert answer.status_code in {200, 202}
    assert [crm.writes(record_id) for record_id in ids] == [1, 1, 1, 1, 0]
    session.send(report.request_for(report.blocked[2:]))
    assert crm.write_counts == dict.fromkeys(ids, 1)


def test_a_photo_is_kept_whole(crm, guard, leads):
    lead = crm.add_record("Leads", state=REJECTED)
    session, image = guard(diagnose=False), b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    with pytest.raises(NotApprovedError) as caught:
        session.post(f"{leads}/{lead}/photo", files={"file": ("a.png", image, "image/png")})
    kept = caught.value.request_for(caught.value.blocked)
    crm.set_state(lead, "approved")
    assert session.send(RemainingRequest.from_dict(json.loads(json.dumps(kept.to_dict())))).ok
    assert crm.writes(lead) == 1


def test_locked_records_are_among_those_that_can_be_kept(crm, guard, leads, clock):
    lead = crm.add_record("Leads", locked_for=60)
    with pytest.raises(RecordLockedError) as caught:
        guard(timeout=0).put(f"{leads}/{lead}", json=rows(None))
    clock.advance(60)
    assert guard().send(caught.value.request_for(caught.value.blocked)).ok
    assert crm.writes(lead) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(ALL_CALLS), data=st.data())
def test_any_subset_of_what_was_refused_is_asked_for_and_nothing_else(name, data):
    """Whether they were refused at once or only after some waits, in whatever order CRM answers."""
    count = data.draw(st.integers(2, 6))
    refusals = data.draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=count, max_size=count))
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    world = guarded({"raise_on": "never"})
    ids = add_leads(world.engine, refusals)
    for number in bad:
        locks = {"refusals": refusals[number], "then": REJECTED} if refusals[number] else {"state": REJECTED}
        world.engine.set_state(ids[number], **{"state": "approved", **locks})
    call = CALLS[name]
    report = get_report(world.send(call.of(ids)))
    assert {found.record_id for found in report.blocked} == {ids[number] for number in bad}
    chosen = data.draw(st.lists(st.sampled_from(report.blocked), min_size=1, unique=True))
    request = report.request_for(chosen)
    names = [ids[number] for number in sorted(found.position for found in chosen)]
    wanted = [call.records(ids)[ids.index(name)] for name in names]
    if len(names) < count:
        assert (request.url, request.body) == (call.url(wanted), call.body(wanted))
    assert {found.record_id for found in chosen} == set(names)
    for number in bad:
        world.engine.set_state(ids[number], "approved")
    before = dict(world.engine.write_counts)
    assert world.send(request).status_code < 300
    after = world.engine.write_counts
    assert {name for name in ids if after.get(name, 0) > before.get(name, 0)} == set(names)
    assert {after[name] for name in names} == {1}
