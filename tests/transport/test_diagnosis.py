"""Which case is behind a NOT_APPROVED: learnt from CRM, over real HTTP, at the price of one call."""

import logging
import threading

import pytest
import requests

from crm_guard import ApprovalCase, GuardAdapter, GuardSettings, NotApprovedError, get_report
from crm_guard._transport import probe_thread as _diagnosis

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
ROW = {"data": [{"Company": "Zylker"}]}
REJECTED, RECORD, IMAGE = ApprovalCase.ZIA_REJECTED, ApprovalCase.RECORD_APPROVAL, ApprovalCase.IMAGE_APPROVAL
PROCESS, REVIEW = ApprovalCase.APPROVAL_PROCESS, ApprovalCase.REVIEW_PROCESS

CALLS = {
    "update": lambda s, leads, a: s.put(f"{leads}/{a}", json=ROW),
    "batch update": lambda s, leads, a: s.put(leads, json={"data": [{"id": a}]}),
    "delete": lambda s, leads, a: s.delete(f"{leads}/{a}"),
    "delete by ids": lambda s, leads, a: s.delete(leads, params={"ids": a}),
    "add tags": lambda s, leads, a: s.post(f"{leads}/{a}/actions/add_tags", json={"tags": [{"name": "hot"}]}),
    "mass update": lambda s, leads, a: s.post(f"{leads}/actions/mass_update", json={"ids": [a], **ROW}),
    "mass delete": lambda s, leads, a: s.post(f"{leads}/actions/mass_delete", json={"ids": [a]}),
    "convert": lambda s, leads, a: s.post(f"{leads}/{a}/actions/convert", json={"data": [{}]}),
    "conversion options": lambda s, leads, a: s.get(f"{leads}/{a}/__conversion_options"),
    "download image": lambda s, leads, a: s.get(f"{leads}/{a}/photo"),
    "upload image": lambda s, leads, a: s.post(f"{leads}/{a}/photo", files={"file": ("a.png", PNG, "image/png")}),
}
PHOTO = {"download image", "upload image"}
STATES = {
    "zia_vision_rejected": (REJECTED, REJECTED),
    "zia_vision_pending": (RECORD, IMAGE),
    "approval_process_pending": (PROCESS, PROCESS),
    "approval_process_rejected": (PROCESS, PROCESS),
    "webform_unapproved": (PROCESS, PROCESS),
    "email_parser_waiting": (PROCESS, PROCESS),
    "review_process_pending": (REVIEW, REVIEW),
}


@pytest.fixture
def refused(crm, guard, leads):
    """Makes a call that is refused, and returns the error."""

    def make(call, state, **options):
        lead = crm.add_record("Leads", state=state, image=PNG)
        session = guard(**options)
        session.headers["Authorization"] = "Zoho-oauthtoken abc"
        with pytest.raises(NotApprovedError) as caught:
            CALLS[call](session, leads, lead)
        return caught.value

    return make


# Mass delete hides a review behind INVALID_DATA.
SPOKEN_OF = [
    (call, state) for call in CALLS for state in STATES if (call, STATES[state][0]) != ("mass delete", REVIEW)
]


@pytest.mark.parametrize(("call", "state"), SPOKEN_OF)
def test_each_state_gives_its_case_on_each_endpoint(crm, refused, call, state):
    error = refused(call, state)
    case = STATES[state][call in PHOTO]
    assert error.case is case
    assert error.outcomes[0].approval_state == state
    assert error.hint == error.outcomes[0].hint
    assert error.hint in str(error)
    assert case.value in str(error)
    assert [made.method for made in crm.calls[1:]] == ["GET"]
    assert error.report.attempts == 1
    assert error.report.credits_spent == 2


@pytest.mark.parametrize("call", sorted(PHOTO))
def test_an_approved_record_whose_image_waits_is_case_three(refused, call):
    error = refused(call, "zia_image_pending")
    assert error.case is IMAGE
    assert error.outcomes[0].approval_state == "approved"


def test_a_rejected_record_that_cannot_be_deleted_is_not_told_to_get_another_image(refused):
    assert "upload another image" in refused("update", "zia_vision_rejected").hint
    assert "upload another image" not in refused("delete", "zia_vision_rejected").hint


def test_a_check_that_has_begun_again_is_no_case_but_a_time_to_come_back(crm, guard, leads, events):
    lead = crm.add_record("Leads", state="zia_vision_rejected")

    class Restarts(requests.adapters.HTTPAdapter):
        def send(self, request, **kwargs):
            response = super().send(request, **kwargs)
            if request.method == "PUT":
                crm.set_state(lead, "zia_vision_validation")
            return response

    with pytest.raises(NotApprovedError) as caught:
        guard(inner=Restarts()).put(f"{leads}/{lead}", json=ROW)
    assert caught.value.case is None
    assert caught.value.retry_after == GuardSettings().wait_max
    assert len(crm.calls) == 2


def test_two_hundred_and_fifty_records_are_diagnosed_with_three_calls(crm, guard, leads):
    states = list(STATES)
    ids = [crm.add_record("Leads", state=states[index % len(states)]) for index in range(250)]
    with pytest.raises(NotApprovedError) as caught:
        guard().post(f"{leads}/actions/mass_update", json={"ids": ids, **ROW})
    assert [made.method for made in crm.calls] == ["POST", "GET", "GET", "GET"]
    cases = {outcome.record_id: outcome.case for outcome in caught.value.outcomes}
    assert cases == {lead: STATES[states[index % len(states)]][0] for index, lead in enumerate(ids)}
    assert caught.value.report.credits_spent == 4


class TestPrice:
    """No more is asked than is worth it."""

    def test_nothing_is_asked_with_diagnose_off(self, crm, refused):
        error = refused("update", "zia_vision_rejected", diagnose=False)
        assert len(crm.calls) == 1
        assert error.case is None
        assert error.candidates == (REJECTED, RECORD, PROCESS)

    def test_nothing_is_asked_for_successes_locks_and_other_errors(self, crm, guard, leads):
        ids = [crm.add_record("Leads"), crm.add_record("Leads", state="record_locking"), "111112000000999999"]
        guard().put(leads, json={"data": [{"id": lead} for lead in ids]})
        assert len(crm.calls) == 1

    def test_nothing_is_asked_when_the_credits_are_spent(self, clock):
        refusal = {"code": "NOT_APPROVED", "details": {"id": "1"}, "status": "error"}
        sent = []

        class Canned(requests.adapters.HTTPAdapter):
            def send(self, request, **kwargs):
                sent.append(request)
                return canned(self, request, 400, refusal, {"X-API-CREDITS-REMAINING": "3"})

        session = requests.Session()
        session.mount("https://", GuardAdapter(GuardSettings(min_credits=3), clock=clock, inner=Canned()))
        with pytest.raises(NotApprovedError):
            session.put("https://www.zohoapis.com/crm/v8/Leads/1", json=ROW)
        assert len(sent) == 1

    def test_only_blocked_records_are_asked_for(self, crm, guard, leads):
        ids = [crm.add_record("Leads", state=state) for state in ("approved", "zia_vision_rejected")]
        guard().put(leads, json={"data": [{"id": lead} for lead in ids]})
        assert crm.calls[-1].query.startswith(f"ids={ids[1]}&")


def canned(adapter, request, status, body, headers=None):
    """A response that was never on a wire."""
    import io
    import json

    import urllib3

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    raw = urllib3.HTTPResponse(
        body=io.BytesIO(content),
        headers={"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})},
        status=status,
        preload_content=False,
    )
    return adapter.build_response(request, raw)


NOBODY = {"code": "OAUTH_SCOPE_MISMATCH", "details": {}, "message": "Unauthorized", "status": "error"}
FAILURES = {
    "no read scope": (401, NOBODY),
    "forbidden": (403, {"code": "NO_PERMISSION", "details": {}, "message": "permission denied", "status": "error"}),
    "no content": (204, b""),
    "a missing record": (200, {"data": [{"id": "2", "$approval_state": "zia_vision_rejected"}]}),
    "an unknown field": (
        400,
        {"code": "INVALID_QUERY", "details": {}, "message": "invalid field", "status": "error"},
    ),
    "an HTML page": (200, b"<html>maintenance</html>"),
    "half a body": (200, b'{"data":[{"id":"1","$approval'),
    "a state of another type": (200, {"data": [{"id": "1", "$approval_state": 7}]}),
    "a timeout": requests.ReadTimeout("slow"),
    "a broken connection": requests.ConnectionError("gone"),
    "a defect of an adapter below": RuntimeError("defect"),
}


class TestFailingDiagnosis:
    """It degrades to candidates, and never costs the result."""

    def session(self, clock, failure, sent=None):
        class Canned(requests.adapters.HTTPAdapter):
            def send(self, request, **kwargs):
                if sent is not None:
                    sent.append((request, kwargs))
                if request.method == "PUT":
                    refusal = {"code": "NOT_APPROVED", "details": {"id": "1"}, "message": "no", "status": "error"}
                    return canned(self, request, 400, refusal)
                if isinstance(failure, Exception):
                    raise failure
                return canned(self, request, *failure)

        session = requests.Session()
        session.mount("https://", GuardAdapter(GuardSettings(), clock=clock, inner=Canned()))
        return session

    @pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
    def test_what_cannot_be_learnt_leaves_the_candidates(self, clock, caplog, failure):
        caplog.set_level(logging.INFO, logger="crm_guard")
        with pytest.raises(NotApprovedError) as caught:
            self.session(clock, failure).put("https://www.zohoapis.com/crm/v8/Leads/1", json=ROW)
        assert caught.value.case is None
        assert caught.value.candidates == (REJECTED, RECORD, PROCESS)
        assert caught.value.response.json()["code"] == "NOT_APPROVED"
        assert not [record for record in caplog.records if "learnt" in record.getMessage()]

    def test_after_a_refused_scope_it_does_not_ask_again_for_that_module(self, clock):
        sent = []
        session = self.session(clock, FAILURES["no read scope"], sent)
        for module in ("Leads", "Leads", "Contacts"):
            with pytest.raises(NotApprovedError):
                session.put(f"https://www.zohoapis.com/crm/v8/{module}/1", json=ROW)
        assert [request.method for request, _ in sent] == ["PUT", "GET", "PUT", "PUT", "GET"]

    def test_only_credentials_travel_and_only_to_the_same_origin(self, clock):
        sent = []
        session = self.session(clock, FAILURES["no content"], sent)
        session.headers.update({"Authorization": "Zoho-oauthtoken abc", "X-Private": "secret", "orgId": "60"})
        session.cookies["session"] = "secret"
        session.verify, session.cert = "/etc/ca.pem", "/etc/client.pem"
        with pytest.raises(NotApprovedError):
            session.put("https://www.zohoapis.com:8443/crm/v8/Leads/1", json=ROW, timeout=(3, 60))
        (_, first), (probe, options) = sent
        assert probe.url.startswith("https://www.zohoapis.com:8443/crm/v8/Leads?ids=1&")
        assert {name.lower() for name in probe.headers} == {"authorization", "orgid", "accept"}
        assert probe.headers["Authorization"] == "Zoho-oauthtoken abc"
        assert (options["verify"], options["cert"]) == (first["verify"], first["cert"])
        connect, read = options["timeout"]
        assert connect == 3
        assert 4 < read <= _diagnosis.SECONDS
        assert first["timeout"] == (3, 60)

    def test_a_hostile_id_cannot_steer_the_question(self, clock):
        sent = []

        class Canned(requests.adapters.HTTPAdapter):
            def send(self, request, **kwargs):
                sent.append(request.url)
                refusal = {"code": "NOT_APPROVED", "details": {"id": "../../users?x=1&y"}, "status": "error"}
                return canned(self, request, 400, {"data": [refusal]})

        session = requests.Session()
        session.mount("https://", GuardAdapter(GuardSettings(raise_on="never"), clock=clock, inner=Canned()))
        response = session.put("https://www.zohoapis.com/crm/v8/Leads/1", json=ROW)
        assert len(sent) == 1
        assert get_report(response).outcomes[0].case is None


def test_a_diagnosis_that_hangs_ends_at_its_own_limit_with_what_was_learnt(crm, guard, leads, monkeypatch):
    free, asked = threading.Event(), iter(range(100))

    class Slow(requests.adapters.HTTPAdapter):
        def send(self, request, **kwargs):
            if request.method == "GET" and next(asked) == 2:
                free.wait(10)
            return super().send(request, **kwargs)

    monkeypatch.setattr(_diagnosis, "SECONDS", 0.3)
    ids = [crm.add_record("Leads", state="zia_vision_rejected") for _ in range(450)]
    session = guard(inner=Slow())
    with pytest.raises(NotApprovedError) as caught:
        session.post(f"{leads}/actions/mass_update", json={"ids": ids, **ROW})
    assert [made.method for made in crm.calls] == ["POST", "GET", "GET"]
    assert caught.value.report.credits_spent == 4
    assert sum(outcome.case is REJECTED for outcome in caught.value.outcomes) == 200
    with pytest.raises(NotApprovedError):  # nobody is sent after one that has not come back
        session.put(f"{leads}/{ids[0]}", json=ROW)
    assert [made.method for made in crm.calls] == ["POST", "GET", "GET", "PUT"]
    (astray,) = session.guard.context.late.values()
    free.set()
    astray.join(10)
    with pytest.raises(NotApprovedError) as caught:
        session.put(f"{leads}/{ids[0]}", json=ROW)
    assert caught.value.case is REJECTED


def test_a_token_without_read_scope_still_gets_its_candidates(crm, guard, leads):
    lead = crm.add_record("Leads", state="zia_vision_rejected")
    crm.deny_scope(None, "Leads", "READ")
    with pytest.raises(NotApprovedError) as caught:
        guard().put(f"{leads}/{lead}", json=ROW)
    assert caught.value.candidates == (REJECTED, RECORD, PROCESS)
    assert crm.calls[-1].status == 401


def test_the_states_of_a_mixed_batch_stand_beside_its_results(crm, guard, leads):
    ids = [
        crm.add_record("Leads", state=state)
        for state in ("approved", "zia_vision_rejected", "review_process_pending")
    ]
    response = guard().put(leads, json={"data": [{"id": lead} for lead in ids]})
    seen = [(outcome.succeeded, outcome.case) for outcome in get_report(response).outcomes]
    assert seen == [(True, None), (False, REJECTED), (False, REVIEW)]
