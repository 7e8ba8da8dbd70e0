"""Reports: what became of each record, also of calls that never passed a guard."""

import asyncio
import copy
import pickle

import pytest
import requests
import responses
import tenacity

from crm_guard import (
    GiveUpReason,
    GuardAdapter,
    GuardReport,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    RecordOutcome,
    get_report,
)
from crm_guard.report import attach_report, attached_report

URL = "https://www.zohoapis.com/crm/v8/Leads"


def item(code, record_id, **details):
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "details": {"id": record_id, **details}, "message": "secret words", "status": status}


LOCK = item("RECORD_LOCKED", "2", action="zia_vision_processing")
MIXED = {"data": [item("SUCCESS", "1"), LOCK, item("NOT_APPROVED", "3"), item("INVALID_DATA", "4")]}
ROWS = {"data": [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}]}


def outcome(code, **options):
    return RecordOutcome(position=0, code=code, **options)


class TestAnOutcome:
    @pytest.mark.parametrize(
        ("found", "blocked", "needs_approval"),
        [
            (outcome("RECORD_LOCKED"), True, False),
            (outcome("NOT_APPROVED"), True, True),
            (outcome("NOT_REVIEWED"), True, True),
            (outcome("INVALID_DATA"), False, False),
            (outcome(""), False, False),
            (outcome("RECORD_LOCKED", succeeded=True), False, False),
            (outcome("NOT_APPROVED", succeeded=True), False, False),
        ],
    )
    def test_is_blocked_by_a_lock_or_a_missing_approval(self, found, blocked, needs_approval):
        assert (found.blocked, found.needs_approval) == (blocked, needs_approval)

    def test_whose_image_is_checked_again_says_so(self):
        assert outcome("NOT_APPROVED", approval_state="zia_vision_validation").checked_again
        assert not outcome("NOT_APPROVED", approval_state="approved").checked_again
        assert not outcome("RECORD_LOCKED", approval_state="zia_vision_validation").checked_again

    def test_shows_ids_and_plain_words_only(self):
        shown = repr(
            outcome("RECORD_LOCKED", record_id="4", action="record_locking", message="secret", hint="long")
        )
        assert "'4'" in shown
        assert "record_locking" in shown
        hidden = repr(outcome("jane@example.com", record_id="jane@example.com", action="jane@example.com"))
        assert "secret" not in shown
        assert "jane" not in hidden

    def test_is_equal_by_value_and_travels(self):
        found = outcome("NOT_APPROVED", record_id="3")
        assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found  # noqa: S301
        assert hash(found) == hash(copy.copy(found))


class TestAReport:
    def test_of_nothing_blocks_nothing(self):
        report = GuardReport()
        assert (report.blocked, report.applied, report.remaining_request()) == ((), False, None)
        assert report.raise_for_blocked() is None

    def test_of_other_refusals_only_blocks_nothing(self):
        assert GuardReport(outcomes=(outcome("INVALID_DATA"),)).raise_for_blocked() is None

    def test_raises_for_a_missing_approval_before_a_lock(self):
        locked, refused = outcome("RECORD_LOCKED"), outcome("NOT_APPROVED")
        with pytest.raises(RecordLockedError):
            GuardReport(outcomes=(locked,)).raise_for_blocked()
        for outcomes in ((locked, refused), (refused, locked), (refused,)):
            with pytest.raises(NotApprovedError) as caught:
                GuardReport(outcomes=outcomes).raise_for_blocked()
            assert caught.value.outcomes == outcomes

    @pytest.mark.parametrize("reason", GiveUpReason)
    def test_says_why_nobody_waits_any_longer(self, reason):
        report = GuardReport(
            outcomes=(outcome("RECORD_LOCKED", hint="Wait."),), attempts=3, waited=4.25, reason=reason
        )
        with pytest.raises(RecordLockedError, match=r"Sent 3 times, waited 4\.2 s: .+\. Wait\.$"):
            report.raise_for_blocked()

    def test_can_raise_as_often_as_asked_and_is_not_changed(self, canned):
        session = canned((207, MIXED), diagnose=False, timeout=0)
        report = get_report(session.put(URL, json=ROWS))
        for _ in range(2):
            with pytest.raises(NotApprovedError) as caught:
                report.raise_for_blocked()
            assert caught.value.report is report
            assert caught.value.response is session.inner.given[0]
            assert caught.value.response.json() == MIXED

    def test_shows_neither_response_nor_request_nor_message(self, canned):
        session = canned((207, MIXED), diagnose=False, timeout=0)
        report = get_report(
            session.put(URL, json=ROWS | {"note": "hush"}, headers={"Authorization": "Zoho-oauthtoken x1"})
        )
        assert "outcomes=" in repr(report)
        for secret in ("Response", "Request", "secret words", "hush", "x1"):
            assert secret not in repr(report)

    def test_leaves_its_response_behind_when_it_travels(self, canned):
        session = canned((207, MIXED), diagnose=False, timeout=0)
        report = get_report(session.put(URL, json=ROWS))
        there = pickle.loads(pickle.dumps(report))  # noqa: S301
        assert there == report
        with pytest.raises(NotApprovedError) as caught:
            there.raise_for_blocked()
        assert (caught.value.response, caught.value.request) == (None, None)
        assert there.remaining_request().body == report.remaining_request().body

    def test_gives_a_new_remaining_request_each_time(self, canned):
        session = canned((207, MIXED), diagnose=False, timeout=0)
        report = get_report(session.put(URL, json=ROWS, headers={"X-A": "1"}))
        first = report.remaining_request()
        first.headers["X-A"] = "2"
        first.body = b""
        first.register_hook("response", print)
        first.url = "https://example.com/"
        second = report.remaining_request()
        assert (second.headers["X-A"], second.url, second.hooks) == ("1", URL, {"response": []})
        assert second.body == b'{"data":[{"id": "2"}]}' or b'"2"' in second.body
        assert session.inner.sent[0].headers["X-A"] == "1"


class TestAReportOfAnyResponse:
    @responses.activate
    def test_tells_the_records_without_a_guard(self):
        responses.put(URL, json=MIXED, status=207)
        report = get_report(requests.put(URL, json=ROWS, timeout=5))
        assert [(found.record_id, found.code) for found in report.outcomes] == [
            ("1", "SUCCESS"),
            ("2", "RECORD_LOCKED"),
            ("3", "NOT_APPROVED"),
            ("4", "INVALID_DATA"),
        ]
        assert [found.record_id for found in report.blocked] == ["2", "3"]
        assert (report.attempts, report.waited, report.credits_spent, report.reason) == (1, 0.0, 1, None)
        assert report.applied
        assert report.remaining_request() is None

    @responses.activate
    def test_follows_the_error_of_raise_for_status(self):
        responses.put(f"{URL}/2", json={"data": [LOCK]}, status=400)
        response = requests.put(f"{URL}/2", json={}, timeout=5)
        with pytest.raises(requests.HTTPError) as caught:
            response.raise_for_status()
        assert get_report(caught.value).outcomes == get_report(response).outcomes
        assert get_report(caught.value).blocked

    def test_follows_the_error_of_raise_for_status_to_the_guards_own(self, canned):
        response = canned((400, {"data": [LOCK]}), raise_on="never", attempts=1).put(f"{URL}/2", json={})
        with pytest.raises(requests.HTTPError) as caught:
            response.raise_for_status()
        assert get_report(caught.value) is get_report(response)
        assert get_report(response).reason is GiveUpReason.ATTEMPTS

    @responses.activate
    def test_of_a_body_that_the_caller_has_read_as_a_stream_is_empty(self):
        responses.put(URL, json=MIXED, status=207)
        response = requests.put(URL, json=ROWS, timeout=5, stream=True)
        assert b"".join(response.iter_content(7))
        assert get_report(response).outcomes == ()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), requests.ConnectionError(), OSError()])
    def test_of_an_error_without_one_is_empty(self, error):
        assert get_report(error) == GuardReport()

    def test_of_an_error_that_carries_one_is_that(self):
        report, error = GuardReport(attempts=3), KeyboardInterrupt()
        attach_report(error, report)
        assert get_report(error) is report

    def test_cannot_be_attached_where_there_is_no_room_and_that_is_no_error(self):
        class Narrow:
            __slots__ = ()

        carrier = Narrow()
        attach_report(carrier, GuardReport())
        assert attached_report(carrier) is None

    def test_does_not_take_any_attribute_of_that_name_for_a_report(self):
        error = OSError()
        error.report = "a text"
        assert get_report(error) == GuardReport()

    @pytest.mark.parametrize("request_", [None, requests.PreparedRequest(), requests.Request("PUT", URL).prepare()])
    def test_of_a_response_made_by_hand_is_empty(self, request_):
        response = requests.Response()
        response.status_code = 400
        response.request = request_
        assert get_report(response).outcomes == ()

    def test_hides_the_value_of_an_external_field(self, canned):
        refusal = {"data": [item("RECORD_LOCKED", "", action="zia_vision_processing")]}
        session = canned((400, refusal), raise_on="never", timeout=0)
        headers = {"X-EXTERNAL": "Leads.Phone"}
        guarded = session.put(f"{URL}/4915112345678", json={}, headers=headers)
        for report in (get_report(guarded), get_report(session.inner.given[0])):
            assert report.outcomes[0].record_id is None


class TestAnExceptionThatWrapsTheGuards:
    """Clients raise errors of their own; the report is found behind them."""

    def caught(self, canned, raising):
        session = canned((400, {"data": [LOCK]}), timeout=0)
        try:
            raising(lambda: session.put(URL, json={"data": [{"id": "2"}]}))
        except BaseException as error:  # noqa: BLE001
            return error
        pytest.fail("nothing was raised")

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_is_followed_to_its_cause(self, canned, depth):
        def raising(send):
            try:
                send()
            except RecordLockedError as error:
                found = error
            for _ in range(depth):
                wrapped = RuntimeError()
                wrapped.__cause__, found = found, wrapped
            raise found

        report = get_report(self.caught(canned, raising))
        assert (report.reason, report.outcomes[0].record_id) == (GiveUpReason.TIMEOUT, "2")

    def test_is_followed_to_what_was_handled_when_it_was_raised(self, canned):
        def raising(send):
            try:
                send()
            except RecordLockedError:
                raise LookupError from None

        assert get_report(self.caught(canned, raising)).reason is GiveUpReason.TIMEOUT

    def test_may_be_a_group(self, canned):
        text = "tasks"

        def raising(send):
            try:
                send()
            except RecordLockedError as error:
                raise ExceptionGroup(text, [ValueError(), error]) from None

        assert get_report(self.caught(canned, raising)).reason is GiveUpReason.TIMEOUT

    def test_may_be_that_of_asyncio(self, canned):
        async def main(send):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(send))

        error = self.caught(canned, lambda send: asyncio.run(main(send)))
        assert isinstance(error, BaseExceptionGroup)
        assert get_report(error).reason is GiveUpReason.TIMEOUT

    def test_may_be_that_of_a_retry_library(self, canned):
        retry = tenacity.retry(stop=tenacity.stop_after_attempt(2))
        error = self.caught(canned, lambda send: retry(send)())
        assert isinstance(error, tenacity.RetryError)
        assert get_report(error).reason is GiveUpReason.TIMEOUT

    def test_may_lead_back_to_itself(self):
        error, other = ValueError(), KeyError()
        error.__cause__, other.__context__ = other, error
        assert get_report(error).outcomes == ()

    def test_that_carries_a_response_without_a_report_gives_way_to_one_with(self, canned):
        def raising(send):
            plain = requests.HTTPError(response=requests.Response())
            try:
                send()
            except RecordLockedError as error:
                raise plain from error

        assert get_report(self.caught(canned, raising)).reason is GiveUpReason.TIMEOUT

    def test_of_another_call_does_not_speak_for_the_one_that_was_being_handled(self, canned):
        other = canned((500, b"", {"Content-Type": "text/html"}))

        def raising(send):
            try:
                send()
            except RecordLockedError:
                other.put(f"{URL}/777", json={}).raise_for_status()

        error = self.caught(canned, raising)
        assert isinstance(error.__context__, RecordLockedError)
        assert [(found.record_id, found.uncertain) for found in get_report(error).outcomes] == [("777", True)]

    def test_of_requests_knows_its_own_request_alone(self, canned):
        def raising(send):
            try:
                send()
            except RecordLockedError:
                requests.get("http://127.0.0.1:9/crm/v8/Leads/777", timeout=5)

        assert get_report(self.caught(canned, raising)).outcomes == ()


def test_a_gateway_with_paths_of_its_own_is_read_as_its_guard_reads_it(clock):
    with responses.RequestsMock() as mock, requests.Session() as session:
        session.mount("https://", GuardAdapter(GuardSettings(path_pattern="/"), clock=clock))
        mock.put("https://gw.example/api/v8/Leads", status=401, json={"code": "INVALID_TOKEN"})
        response = session.put("https://gw.example/api/v8/Leads", json=ROWS)
    report = get_report(response)
    assert ([found.record_id for found in report.outcomes], str(report.error)) == (
        list("1234"),
        "401 INVALID_TOKEN",
    )
    del response.connection
    assert get_report(response).outcomes == ()
