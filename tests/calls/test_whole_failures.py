"""An answer that has no result for each record is told for each record, alike and truly."""

import csv
import io
import json

import pytest
import requests
import responses

from crm_guard import ApprovalCase, GuardAdapter, GuardSettings, NotApprovedError, get_report
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.request_records import read_request
from crm_guard.simulator import FaultKind

ORIGIN = "https://www.zohoapis.com/crm/v8/"
IDS = [str(111112000000142001 + number) for number in range(100)]
ROWS = {"data": [{"id": record_id, "Company": "Z"} for record_id in IDS]}
LISTED = {"ids": IDS}

BATCHES = {
    "update": ("PUT", "Leads", ROWS),
    "create": ("POST", "Leads", {"data": [{"Last_Name": "Z"}] * 100}),
    "upsert": ("POST", "Leads/upsert", ROWS),
    "delete": ("DELETE", f"Leads?ids={','.join(IDS)}", None),
    "add tags": ("POST", "Leads/actions/add_tags", LISTED | {"tags": [{"name": "vip"}]}),
    "mass update": ("POST", "Leads/actions/mass_update", LISTED | {"data": [{"Company": "Z"}]}),
    "mass delete": ("POST", "Leads/actions/mass_delete", LISTED),
    "change owner": ("POST", "Leads/actions/change_owner", LISTED | {"owner": {"id": "7"}}),
    "mass convert": ("POST", "Leads/actions/mass_convert", LISTED),
}
REFUSALS = {
    "401": (401, {"code": "INVALID_TOKEN", "details": {}, "message": "invalid oauth token", "status": "error"}),
    "403": (403, {"code": "NO_PERMISSION", "details": {}, "message": "permission denied", "status": "error"}),
    "404": (404, {"code": "INVALID_URL_PATTERN", "details": {}, "message": "no", "status": "error"}),
    "413": (413, "<html>too large</html>"),
    "429": (429, {"code": "TOO_MANY_REQUESTS", "details": {}, "message": "slow down", "status": "error"}),
    "400, bare": (400, {"code": "INVALID_DATA", "details": {"api_name": "x"}, "message": "no", "status": "error"}),
    "400, an object": (
        400,
        {
            "data": {
                "code": "INVALID_DATA",
                "details": {"expected_data_type": "x"},
                "message": "",
                "status": "error",
            }
        },
    ),
    "400, a limit": (
        400,
        {"data": [{"code": "LIMIT_EXCEEDED", "details": {"limit": 100}, "message": "", "status": "error"}]},
    ),
    "400, no JSON": (400, "bad request"),
    "400, empty": (400, ""),
}
DOUBTS = {
    "500": (500, {"code": "INTERNAL_ERROR", "details": {}, "message": "oops", "status": "error"}),
    "502": (502, "<html>bad gateway</html>"),
    "503": (503, ""),
    "200, no items": (200, {"message": "busy"}),
    "200, an empty list": (200, {"data": []}),
    "200, HTML": (200, "<html>maintenance</html>"),
}


def answered(method, path, sent, status, body, *, session=None, **headers):
    """Return the response to a call, from a session without a guard unless one is given."""
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/html" if text.startswith("<") else "application/json"
    with responses.RequestsMock() as mock:
        mock.add(method, ORIGIN + path, body=text, status=status, content_type=kind, headers=headers)
        return (session or requests.Session()).request(method, ORIGIN + path, json=sent)


@pytest.fixture
def guarded(clock, events):
    with requests.Session() as session:
        session.mount("https://", GuardAdapter(GuardSettings(diagnose=False), clock=clock, hooks=[events]))
        yield session


@pytest.mark.parametrize("is_guarded", [False, True], ids=["plain", "guarded"])
@pytest.mark.parametrize("call", BATCHES.values(), ids=BATCHES)
class TestACallForManyRecords:
    @pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
    def test_that_was_refused_has_an_outcome_for_each(self, guarded, call, answer, is_guarded):
        report = get_report(answered(*call, *answer, session=guarded if is_guarded else None))
        assert [outcome.position for outcome in report.outcomes] == list(range(100))
        assert [outcome.record_id for outcome in report.outcomes] == (
            IDS if call is not BATCHES["create"] else [None] * 100
        )
        assert {
            (found.succeeded, found.uncertain, found.blocked, found.retryable) for found in report.outcomes
        } == {(False, False, False, False)}
        status, body = answer
        item = body.get("data", body) if isinstance(body, dict) else {}
        code = (item[0] if isinstance(item, list) else item).get("code", "")
        assert {outcome.code for outcome in report.outcomes} == {code}
        assert (report.error.status, report.error.code, report.error.refused) == (status, code, True)

    @pytest.mark.parametrize("answer", DOUBTS.values(), ids=DOUBTS)
    def test_that_may_have_been_applied_has_an_uncertain_one_for_each(self, guarded, call, answer, is_guarded):
        report = get_report(answered(*call, *answer, session=guarded if is_guarded else None))
        assert [outcome.position for outcome in report.outcomes] == list(range(100))
        assert {(found.succeeded, found.uncertain, found.retryable) for found in report.outcomes} == {
            (False, True, False)
        }
        assert all(f"{answer[0]}" in found.hint and "read the record" in found.hint for found in report.outcomes)
        assert (report.error.status, report.error.refused) == (answer[0], False)


class TestTheCause:
    def test_of_a_refusal_that_names_a_row_is_told_for_that_row_alone(self):
        details = {"api_name": "id", "json_path": "$.data[3].id"}
        item = {"code": "MANDATORY_NOT_FOUND", "details": details, "message": "", "status": "error"}
        report = get_report(answered("PUT", "Leads", ROWS, 400, {"data": [item]}))
        assert len(report.outcomes) == 100
        assert report.outcomes[3].code == "MANDATORY_NOT_FOUND"
        others = [found for found in report.outcomes if found.position != 3]
        assert {(found.code, found.succeeded, found.uncertain) for found in others} == {("", False, False)}
        assert all("another record" in found.hint for found in others)

    def test_may_be_a_locked_record_named_by_its_id(self, guarded):
        lock = {"code": "RECORD_LOCKED", "status": "error", "message": ""}
        lock["details"] = {"action": "record_locking", "id": IDS[7]}
        report = get_report(answered(*BATCHES["add tags"], 400, lock))
        assert (len(report.outcomes), [found.position for found in report.blocked]) == (100, [7])
        assert [found.record_id for found in report.blocked] == [IDS[7]]

    def test_is_not_looked_for_among_the_errors_of_tags(self):
        item = {
            "code": "INVALID_DATA",
            "details": {"json_path": "$.tags[0].name"},
            "message": "",
            "status": "error",
        }
        report = get_report(answered(*BATCHES["add tags"], 400, {"tags": [item]}))
        assert [found.record_id for found in report.outcomes] == IDS
        assert {found.code for found in report.outcomes} == {"INVALID_DATA"}


NOT_APPROVED = {"code": "NOT_APPROVED", "details": {"resource_path_index": 0}, "message": "", "status": "error"}


class TestABareNotApproved:
    @pytest.mark.parametrize("name", ["create", "upsert", "update"])
    def test_is_raised_for_every_row(self, guarded, name):
        with pytest.raises(NotApprovedError) as caught:
            answered(*BATCHES[name], 400, NOT_APPROVED, session=guarded)
        assert len(caught.value.outcomes) == 100
        assert str(caught.value).startswith("CRM refused 100 of 100 records")
        assert caught.value.candidates[0] is ApprovalCase.ZIA_REJECTED
        assert caught.value.report.error.code == "NOT_APPROVED"

    def test_is_diagnosed_for_all_of_them(self, crm, guard, leads):
        ids = [crm.add_record("Leads"), crm.add_record("Leads", state="zia_vision_rejected")]
        crm.fault(FaultKind.ANSWER, method="PUT", status=400, body=NOT_APPROVED)
        with pytest.raises(NotApprovedError) as caught:
            guard().put(leads, json={"data": [{"id": lead} for lead in ids]})
        states = [outcome.approval_state for outcome in caught.value.outcomes]
        assert states == ["approved", "zia_vision_rejected"]
        assert [outcome.case for outcome in caught.value.outcomes] == [None, ApprovalCase.ZIA_REJECTED]

    def test_is_one_event_for_all_of_them(self, guarded, events):
        with pytest.raises(NotApprovedError):
            answered(*BATCHES["upsert"], 400, NOT_APPROVED, session=guarded)
        (event,) = [event for event in events if event.kind == "blocked"]
        assert (event.records, event.record_ids[:2], event.code) == (100, tuple(IDS[:2]), "NOT_APPROVED")


class TestACallAboutOneRecord:
    @pytest.mark.parametrize("path", ["Leads/5", "Leads/5/actions/convert", "Leads/5/photo"])
    def test_has_one_outcome_whatever_came(self, path):
        for status, body in (*REFUSALS.values(), *DOUBTS.values()):
            if isinstance(body, dict) and "data" in body and body["data"]:
                continue
            method = "PUT" if path == "Leads/5" else "POST"
            report = get_report(answered(method, path, {}, status, body))
            (outcome,) = report.outcomes
            refused = 400 <= status < 500
            assert (outcome.position, outcome.record_id, outcome.succeeded) == (0, "5", False)
            assert outcome.uncertain is not refused or isinstance(body, dict), (status, body)

    @pytest.mark.parametrize("path", ["vehicles/5", "Leads/5/actions/some_news"])
    def test_of_a_module_or_an_endpoint_that_is_not_known_has_one_too(self, path):
        (outcome,) = get_report(answered("PUT", path, {}, *REFUSALS["401"])).outcomes
        assert (outcome.record_id, outcome.code) == ("5", "INVALID_TOKEN")

    def test_that_only_reads_is_never_uncertain(self):
        for status in (429, 502):
            (outcome,) = get_report(answered("GET", "Leads/5/photo", None, status, "")).outcomes
            assert (outcome.succeeded, outcome.uncertain) == (False, False)


INTERNAL_ERROR = {"code": "INTERNAL_ERROR", "details": {}, "message": "", "status": "error"}


class TestAFailingServer:
    """What a 5xx says was refused may have been applied all the same."""

    @pytest.mark.parametrize("status", [500, 502, 503])
    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("PUT", "Leads/1", {}),
            ("POST", "Leads/1/actions/convert", {}),
            ("DELETE", "Leads?ids=1", None),
            ("POST", "Leads", {"data": [{"Last_Name": "Z"}]}),
        ],
    )
    def test_leaves_one_record_uncertain(self, status, method, path, sent):
        for body in (INTERNAL_ERROR, {"data": [INTERNAL_ERROR]}):
            (outcome,) = get_report(answered(method, path, sent, status, body)).outcomes
            assert (outcome.succeeded, outcome.uncertain) == (False, True)
            assert f"met {status}" in outcome.hint

    def test_leaves_each_of_several_uncertain(self):
        rows = {"data": ROWS["data"][:3]}
        for body in ({"data": [INTERNAL_ERROR] * 3}, {"data": [INTERNAL_ERROR | {"details": {"id": IDS[1]}}]}):
            outcomes = get_report(answered("PUT", "Leads", rows, 503, body)).outcomes
            assert [outcome.uncertain for outcome in outcomes] == [True] * 3

    def test_leaves_a_read_and_a_lock_as_they_are(self):
        (read,) = get_report(answered("GET", "Leads/1/photo", None, 500, INTERNAL_ERROR)).outcomes
        assert not read.uncertain
        lock = INTERNAL_ERROR | {"code": "RECORD_LOCKED", "details": {"id": "1", "action": "zia_vision_processing"}}
        (locked,) = get_report(answered("PUT", "Leads/1", {}, 500, lock)).outcomes
        assert (locked.blocked, locked.uncertain) == (True, False)

    @pytest.mark.parametrize("status", [408, 409])
    def test_is_also_a_gateway_that_gave_up_waiting(self, status):
        report = get_report(answered("PUT", "Leads", ROWS, status, "<html>"))
        assert {outcome.uncertain for outcome in report.outcomes} == {status == 408}


class TestAnOddAnswer:
    @pytest.mark.parametrize("status", [200, 207])
    def test_with_a_bare_error_is_told_for_each_record(self, status):
        rows = {"data": ROWS["data"][:3]}
        report = get_report(answered("PUT", "Leads", rows, status, INTERNAL_ERROR))
        assert [(found.position, found.uncertain) for found in report.outcomes] == [(0, True), (1, True), (2, True)]

    def test_that_names_one_of_two_rows_for_a_record_names_neither(self):
        rows = {"data": [{"id": "1"}, {"id": "1"}, {"id": "2"}]}
        lock = {"code": "RECORD_LOCKED", "details": {"id": "1", "action": "record_locking"}, "status": "error"}
        report = get_report(answered("PUT", "Leads", rows, 400, lock | {"message": ""}))
        assert [(found.record_id, found.blocked) for found in report.outcomes] == [
            ("1", True),
            ("1", True),
            ("2", True),
        ]

    def test_with_a_success_in_it_is_read_item_by_item(self):
        done = {"code": "SUCCESS", "details": {"id": IDS[1]}, "message": "", "status": "success"}
        report = get_report(answered("PUT", "Leads", {"data": ROWS["data"][:3]}, 400, {"data": [done]}))
        assert [(found.record_id, found.succeeded) for found in report.outcomes] == [(IDS[1], True)]


class TestACallThatNamesNoRecords:
    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("POST", "Leads/actions/mass_update", {"cvid": "1", "data": [{}]}),
            ("PUT", "Leads", "not what CRM wants"),
            ("GET", "Leads", None),
            ("POST", "settings/variables", {}),
            ("PUT", "settings/variables", {"variables": [{"id": "1"}]}),
            ("PUT", "org", {"org": [{}]}),
            ("POST", "users", {"users": [{}]}),
            ("POST", "coql", {"select_query": "x"}),
        ],
    )
    def test_has_no_outcome_but_an_error(self, method, path, sent):
        report = get_report(answered(method, path, sent, *REFUSALS["401"]))
        assert report.outcomes == ()
        assert str(report.error) == "401 INVALID_TOKEN"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PUT", "settings/fields/5"),
            ("PUT", "users/111"),
            ("DELETE", "users/111"),
            ("PUT", "settings/variables"),
            ("PUT", "org"),
            ("PUT", "actions/watch"),
            ("DELETE", "actions/watch?channel_ids=1"),
            ("POST", "users"),
        ],
    )
    @pytest.mark.parametrize(
        "body", [{"fields": [{"id": "5"}]}, {"users": [{"code": "SUCCESS", "status": "success"}]}]
    )
    def test_of_another_endpoint_may_succeed_in_any_way(self, method, path, body):
        report = get_report(answered(method, path, {}, 200, body))
        assert (report.outcomes, report.error) == ((), None)


class TestTheError:
    def test_is_short_and_holds_nothing_personal(self):
        body = {"code": "jane@example.com", "message": "Jane's", "status": "error", "details": {}}
        error = get_report(answered("PUT", "Leads", ROWS, 400, body)).error
        assert (str(error), error.code, error.message) == ("400", "", "Jane's")
        assert "Jane" not in repr(error)

    @pytest.mark.parametrize(
        ("details", "headers", "seconds"),
        [
            ({"retry_after": 60, "limit": 100}, {}, 60.0),
            ({}, {"Retry-After": "7"}, 7.0),
            ({"retry_after": 60}, {"Retry-After": "7"}, 7.0),
            ({"retry_after": True}, {}, None),
            ({"retry_after": -1}, {}, None),
            ({"retry_after": 1e300}, {}, None),
            ({"retry_after": "60"}, {}, None),
            ([], {}, None),
        ],
    )
    def test_says_when_to_try_again(self, details, headers, seconds):
        body = {"code": "RATE_LIMIT_EXCEEDED", "details": details, "message": "", "status": "error"}
        report = get_report(answered("PUT", "Leads", ROWS, 429, body, **headers))
        assert report.error.retry_after == report.retry_after == seconds
        assert ("Retry-After" in str(report.error)) is (seconds is not None)

    def test_is_none_where_each_record_has_its_own_result(self):
        items = [
            {"code": "INVALID_DATA", "details": {"id": record_id}, "message": "", "status": "error"}
            for record_id in IDS
        ]
        report = get_report(answered("PUT", "Leads", ROWS, 400, {"data": items}))
        assert (report.error, len(report.outcomes)) == (None, 100)

    def test_travels_in_a_pickle(self):
        import pickle

        report = get_report(answered("PUT", "Leads", ROWS, *REFUSALS["429"]))
        assert pickle.loads(pickle.dumps(report)).error == report.error  # noqa: S301


class TestABodyThatIsNotThere:
    @pytest.mark.parametrize(
        "take",
        [
            lambda response: next(response.iter_content(5)),
            lambda response: response.raw.read(),
            lambda response: response.raw.read(5),
            lambda response: response.close(),
        ],
    )
    def test_is_neither_read_on_nor_guessed_at(self, take):
        with responses.RequestsMock() as mock:
            mock.put(
                ORIGIN + "Leads", json={"data": [{"code": "SUCCESS", "status": "success", "details": {}}] * 100}
            )
            response = requests.put(ORIGIN + "Leads", json=ROWS, stream=True)
        take(response)
        at = response.raw.tell()
        assert get_report(response).outcomes == ()
        assert response.raw.tell() == at

    def test_as_it_breaks_off_is_not_taken_for_a_short_one(self):
        with responses.RequestsMock() as mock:
            mock.put(
                ORIGIN + "Leads", body="{", headers={"Content-Length": "100"}, auto_calculate_content_length=False
            )
            response = requests.put(ORIGIN + "Leads", json=ROWS, stream=True)
        response.raw.enforce_content_length, response.raw.length_remaining = True, 99
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            get_report(response)


class TestAStreamThatIsGone:
    @pytest.mark.parametrize(("status", "count"), [(200, 0), (400, 100)])
    def test_tells_of_its_status_alone(self, status, count):
        with responses.RequestsMock() as mock:
            mock.put(ORIGIN + "Leads", json={"data": []}, status=status)
            response = requests.put(ORIGIN + "Leads", json=ROWS, stream=True)
            list(response.iter_content(100))
        report = get_report(response)
        assert len(report.outcomes) == count
        assert {outcome.uncertain for outcome in report.outcomes} <= {False}


def test_a_csv_of_failures_lists_every_row_that_was_not_written(crm, guard, leads):
    ids = [crm.add_record("Leads") for _ in range(100)]
    rows = {"data": [{"id": lead, "Company": "Zylker"} for lead in ids]}
    for kind in (FaultKind.UNAUTHORIZED, FaultKind.THROTTLED, FaultKind.BAD_GATEWAY):
        crm.fault(kind, method="PUT")
        response = guard().put(leads, json=rows)
        text = io.StringIO()
        table = csv.writer(text)
        for outcome in get_report(response).outcomes:
            if not outcome.succeeded:
                table.writerow([outcome.record_id, outcome.code, outcome.uncertain])
        assert [row[0] for row in csv.reader(io.StringIO(text.getvalue()))] == ids, kind


def test_reading_a_refusal_is_linear_in_its_records():
    """Eight thousand items for eight thousand and one records: quadratic matching would take half a minute."""
    ids = [str(10**17 + number) for number in range(8_001)]
    items = [{"code": "X", "details": {"id": i}, "message": "", "status": "error"} for i in ids[1:]]
    url = ORIGIN + "Leads/actions/mass_update"
    body = json.dumps({"ids": ids, "data": [{}]}).encode()
    call = read_request("POST", CrmUrl.of(url), lambda: body)
    assert len(call.ids) == 8_001
    report = get_report(
        answered("POST", "Leads/actions/mass_update", {"ids": ids, "data": [{}]}, 400, {"data": items})
    )
    assert len(report.outcomes) == 8_001
    assert report.outcomes[0].code == ""
