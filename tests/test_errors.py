"""Exceptions: what they say, what they carry, and that they travel."""

import copy
import io
import pickle

import pytest
import requests

from crm_guard import (
    ApprovalCase,
    GiveUpReason,
    GuardError,
    GuardReport,
    NotApprovedError,
    RecordLockedError,
    RecordOutcome,
    RemainingRequest,
    SettingsError,
    get_report,
)

URL = "https://www.zohoapis.com/crm/v8/Leads"
ID = "111112000000075003"


def item(code, record_id=ID, **details):
    status = "success" if code == "SUCCESS" else "error"
    return {
        "code": code,
        "details": {"id": record_id, **details},
        "message": "Cannot update record",
        "status": status,
    }


ZIA = item("RECORD_LOCKED", action="zia_vision_processing")
FEATURE = item("RECORD_LOCKED", "2", action="record_locking")
REFUSED = item("NOT_APPROVED", "3")


def raised(canned, *items, **policy):
    session = canned((400, {"data": list(items)}), **({"timeout": 0, "diagnose": False} | policy))
    with pytest.raises(GuardError) as caught:
        session.put(URL, json={"data": [{"id": found["details"]["id"]} for found in items]})
    return caught.value


class TestTheTree:
    @pytest.mark.parametrize("kind", [GuardError, RecordLockedError, NotApprovedError])
    def test_every_error_is_caught_as_one_of_requests(self, kind):
        assert issubclass(kind, GuardError)
        assert issubclass(kind, requests.HTTPError)
        assert issubclass(kind, requests.RequestException)

    def test_a_bad_setting_is_a_value_error_and_none_of_requests(self):
        assert issubclass(SettingsError, ValueError)
        assert not issubclass(SettingsError, requests.RequestException)

    @pytest.mark.parametrize("kind", [GuardError, RecordLockedError, NotApprovedError])
    def test_an_empty_error_answers_every_question(self, kind):
        error = kind()
        assert (error.outcomes, error.blocked, error.hint, error.record_ids) == ((), (), "", ())
        assert (error.reason, error.retry_after, error.remaining_request(), error.response) == (None,) * 4
        assert not getattr(error, "retryable", False)
        assert (getattr(error, "case", None), getattr(error, "candidates", ())) == (None, ())


class TestALock:
    def test_says_what_which_record_why_and_what_to_do_in_one_paragraph(self, canned):
        text = str(raised(canned, ZIA))
        assert text.startswith(f"CRM refused record {ID} with RECORD_LOCKED (zia_vision_processing).")
        assert "time budget (`timeout`)" in text
        assert "the lock ends by itself" in text
        assert "\n" not in text
        assert len(text) < 600

    def test_can_be_asked_everything(self, canned):
        error = raised(canned, ZIA)
        assert isinstance(error, RecordLockedError)
        assert error.retryable
        assert (error.record_ids, error.reason) == ((ID,), GiveUpReason.TIMEOUT)
        assert error.retry_after > 0
        assert error.hint == error.outcomes[0].hint == error.blocked[0].hint

    def test_that_stays_does_not_count_as_retryable_and_has_no_reason(self, canned):
        error = raised(canned, FEATURE)
        assert (error.retryable, error.reason, error.retry_after) == (False, None, None)
        assert error.remaining_request() is None
        assert "Locking_Information__s" in str(error)

    def test_among_others_that_stay_does_not_make_the_call_retryable(self, canned):
        error = raised(canned, ZIA, FEATURE)
        assert [outcome.retryable for outcome in error.blocked] == [True, False]
        assert not error.retryable

    def test_of_many_records_names_a_few(self, canned):
        error = raised(
            canned, *(item("RECORD_LOCKED", str(10**17 + n), action="zia_vision_processing") for n in range(9))
        )
        assert "9 of 9 records (100000000000000000, " in str(error)
        assert "100000000000000004, ...)" in str(error)


class TestAMissingApproval:
    def test_says_what_which_record_and_what_to_do_in_one_paragraph(self, canned):
        text = str(raised(canned, REFUSED))
        assert text.startswith("CRM refused record 3 with NOT_APPROVED.")
        assert "A retry before that only fails again." in text
        assert "\n" not in text

    def test_outweighs_a_lock_and_keeps_all_outcomes(self, canned):
        error = raised(canned, ZIA, REFUSED, FEATURE)
        assert isinstance(error, NotApprovedError)
        assert [outcome.code for outcome in error.outcomes] == ["RECORD_LOCKED", "NOT_APPROVED", "RECORD_LOCKED"]
        assert (error.record_ids, error.hint) == (("3",), error.outcomes[1].hint)
        assert "1 of 3 records (3) with NOT_APPROVED" in str(error)

    def test_names_the_candidates_where_the_case_is_not_known(self, canned):
        error = raised(canned, REFUSED)
        assert error.case is None
        assert error.candidates == (
            ApprovalCase.ZIA_REJECTED,
            ApprovalCase.RECORD_APPROVAL,
            ApprovalCase.APPROVAL_PROCESS,
        )

    def test_names_the_case_where_it_is_known(self, canned):
        state = {"data": [{"id": "3", "$approval_state": "zia_vision_rejected"}]}
        session = canned((400, {"data": [REFUSED]}), (200, state))
        with pytest.raises(NotApprovedError, match=r"NOT_APPROVED \(zia_rejected\)") as caught:
            session.put(f"{URL}/3", json={})
        assert (caught.value.case, caught.value.candidates) == (
            ApprovalCase.ZIA_REJECTED,
            (ApprovalCase.ZIA_REJECTED,),
        )
        assert caught.value.outcomes[0].approval_state == "zia_vision_rejected"

    def test_of_a_review_is_one_too(self, canned):
        assert raised(canned, item("NOT_REVIEWED")).case is ApprovalCase.REVIEW_PROCESS


def test_the_response_is_usable(canned):
    error = raised(canned, ZIA)
    assert (error.response.status_code, error.response.ok) == (400, False)
    assert error.response.json() == {"data": [ZIA]}
    assert error.request is error.response.request
    assert error.request.url == URL
    assert get_report(error) is get_report(error.response) is error.report
    with pytest.raises(requests.HTTPError):
        error.response.raise_for_status()


@pytest.mark.parametrize("action", ["jane@example.com", "a b", "x\ny", "\x1b[31m", "a" * 200])
def test_an_action_that_is_no_plain_word_stays_out_of_the_text(canned, action):
    error = raised(canned, item("RECORD_LOCKED", action=action))
    assert action not in str(error)
    assert action not in repr(error.report)
    assert error.outcomes[0].action == action


def travelled(error):
    return {
        "pickle": pickle.loads(pickle.dumps(error)),  # noqa: S301
        "copy": copy.copy(error),
        "deepcopy": copy.deepcopy(error),
    }


class TestTravelling:
    @pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
    @pytest.mark.parametrize("kind", [GuardError, RecordLockedError, NotApprovedError, SettingsError])
    def test_an_error_without_anything_travels(self, kind, way):
        there = travelled(kind("text"))[way]
        assert (type(there), str(there)) == (kind, "text")

    @pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
    @pytest.mark.parametrize("items", [(ZIA,), (REFUSED,), (ZIA, REFUSED)], ids=["lock", "refusal", "both"])
    def test_an_error_keeps_text_report_request_and_response(self, canned, items, way):
        error = raised(canned, *items)
        error.add_note("noted")
        there = travelled(error)[way]
        assert (type(there), str(there), there.__notes__) == (type(error), str(error), ["noted"])
        assert there.report == error.report
        assert there.outcomes == error.outcomes
        assert there.response.json() == error.response.json()
        assert (there.request.method, there.request.url, there.request.body) == ("PUT", URL, error.request.body)
        assert (there.retry_after, there.record_ids) == (error.retry_after, error.record_ids)

    def test_what_remains_to_be_sent_travels_too(self, canned):
        error = raised(canned, ZIA, FEATURE)
        there = pickle.loads(pickle.dumps(error)).remaining_request()  # noqa: S301
        assert isinstance(there, RemainingRequest)
        assert there.body == error.remaining_request().body
        assert there.url == URL

    @pytest.mark.parametrize("way", ["pickle", "deepcopy"])
    def test_hooks_and_streams_stay_behind(self, canned, way):
        session = canned((400, {"data": [ZIA]}), timeout=0)
        session.hooks["response"].append(lambda *_, **__: None)
        with pytest.raises(RecordLockedError) as caught, io.BytesIO(b"image") as file:
            session.post(f"{URL}/{ID}/photo", data=file, hooks={"response": lambda *_, **__: None})
        assert caught.value.remaining_request().body is file
        there = travelled(caught.value)[way]
        assert there.response.json() == {"data": [ZIA]}
        assert there.request.body is None
        assert there.request.hooks == {"response": []}
        assert there.remaining_request() is None  # without its body it would be another request

    def test_a_remaining_request_leaves_the_hooks_behind(self, canned):
        session = canned((400, {"data": [ZIA]}), timeout=0)
        with pytest.raises(RecordLockedError) as caught:
            session.put(f"{URL}/{ID}", json={}, hooks={"response": lambda *_, **__: None})
        there = pickle.loads(pickle.dumps(caught.value)).remaining_request()  # noqa: S301
        assert (there.hooks, there.body) == ({"response": []}, b"{}")

    def test_a_redirect_before_the_refusal_travels(self, canned):
        moved = (308, b"", {"Location": f"{URL}/{ID}", "Content-Type": "text/html"})
        session = canned(moved, (400, {"data": [ZIA]}), raise_on="never", timeout=0)
        response = session.put(URL, json={}, hooks={"response": lambda *_, **__: None})
        assert response.history
        with pytest.raises(RecordLockedError) as caught:
            get_report(response).raise_for_blocked()
        there = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
        assert [earlier.status_code for earlier in there.response.history] == [308]

    def test_the_original_is_left_as_it_was(self, canned):
        error = raised(canned, ZIA)
        hooks, body = error.request.hooks, error.request.body
        travelled(error)
        assert error.request.hooks is hooks
        assert error.request.body is body


def test_a_report_given_by_hand_is_as_good():
    outcome = RecordOutcome(position=0, record_id="5", code="RECORD_LOCKED", retryable=True, hint="wait")
    error = RecordLockedError("text", report=GuardReport(outcomes=(outcome,), retry_after=3.0))
    assert (error.hint, error.retry_after, error.retryable, error.record_ids) == ("wait", 3.0, True, ("5",))
