"""A success is told only where an answer carries it; the merged status is that of the merged items."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard import CallError, GiveUpReason, get_report
from crm_guard._protocol.answer import read_answer
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.request_records import read_request
from crm_guard.simulator import FaultKind

from .test_faults import SINGLE
from .world import CALLS, ORIGIN, add_leads, guarded, prepared

INCONCLUSIVE: dict[str, Any] = {
    "an error without a code": {"status": "error"},
    "a list of nothing": {"data": [None]},
    "an empty list": {"data": [], "locked_count": "0"},
    "a text": {"message": "busy"},
    "an empty object": {},
    "a success without a code": {"status": "success"},
    "rows": {"data": [{"id": "1", "Company": "Z"}]},
    "a list at the top": [{"code": "SUCCESS", "status": "success"}],
    "null": None,
}
WRITES = SINGLE | {"upload photo": ("POST", "Leads/{}/photo", "image")}
LOCK = {"code": "RECORD_LOCKED", "details": {"action": "zia_vision_processing"}, "message": "", "status": "error"}
SUCCESS = {"code": "SUCCESS", "details": {}, "message": "", "status": "success"}


def resent(name: str, status: int, body: Any, *, applied: bool = False) -> tuple[Any, Any]:
    """Return world and response of a call about one record whose resend gets an answer of the test's own."""
    method, path, sent = WRITES[name]
    world = guarded()
    (lead,) = add_leads(world.engine, [1])
    world.engine.fault(FaultKind.ANSWER, after=1, status=status, body=body, applied=applied)
    return world, world.send(prepared(method, f"{ORIGIN}/crm/v8/{path.format(lead)}", sent))


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("body", INCONCLUSIVE.values(), ids=INCONCLUSIVE)
def test_a_resend_that_is_answered_without_a_result_is_uncertain(name, status, body):
    world, response = resent(name, status, body)
    assert response is world.transport.responses[-1]
    report = get_report(response)
    (outcome,) = report.outcomes
    assert (outcome.succeeded, outcome.uncertain, outcome.retryable) == (False, True, False)
    assert (report.reason, report.error.status) == (GiveUpReason.FOLLOW_UP, status)
    assert f"met {status} without a result, so" in outcome.hint
    assert len(world.engine.calls) == 2
    assert report.remaining_request() is None


@pytest.mark.parametrize("name", WRITES)
def test_a_bare_item_is_a_result(name):
    _, response = resent(name, 200, SUCCESS)
    report = get_report(response)
    assert [outcome.succeeded for outcome in report.outcomes] == [True]
    assert (report.reason, report.error) == (None, None)


class TestASuccessInAnotherForm:
    """Not every endpoint puts its result where the locks are."""

    def test_is_that_of_a_portal_invitation(self, crm, guard):
        lead = crm.add_record("Contacts", refusals=1)
        response = guard(raise_on="partial").post(
            f"{crm.url}/crm/v8/Contacts/{lead}/actions/portal_invite", json={"portal_invite": [{"language": "en"}]}
        )
        assert "portal_invite" in response.json()
        assert [(found.code, found.succeeded) for found in get_report(response).outcomes] == [("SUCCESS", True)]

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("convert", {"data": [{"Contacts": "5", "Deals": None, "Accounts": "7"}]}),
            ("update one", {"leads": [SUCCESS]}),
            ("delete one", {"result": SUCCESS}),
        ],
    )
    def test_is_a_success_after_a_wait(self, name, body):
        _, response = resent(name, 200, body)
        report = get_report(response)
        assert [(found.succeeded, found.uncertain) for found in report.outcomes] == [(True, False)]
        assert (report.reason, report.error) == (None, None)

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("update one", {"data": [{"Contacts": "5", "Deals": None, "Accounts": "7"}]}),
            ("convert", {"data": [{"Contacts": None, "Deals": None, "Accounts": None}]}),
            ("convert", {"leads": [SUCCESS, {"status": "error"}]}),
        ],
    )
    def test_is_not_made_of_something_else(self, name, body):
        _, response = resent(name, 200, body)
        assert [found.uncertain for found in get_report(response).outcomes] == [True]


class TestARead:
    @pytest.mark.parametrize("image", [b"\x89PNG", b""])
    def test_of_an_image_succeeds_with_an_image_or_without_one(self, crm, guard, leads, image):
        lead = crm.add_record("Leads", refusals=1, image=image or None)
        response = guard().get(f"{leads}/{lead}/photo")
        assert response.status_code == (200 if image else 204)
        assert [outcome.succeeded for outcome in get_report(response).outcomes] == [True]

    def test_of_conversion_options_succeeds_with_these(self, canned):
        lock = LOCK | {"details": {"id": "5", "action": "zia_vision_processing"}}
        session = canned((400, lock), (200, {"__conversion_options": {"Contacts": []}}))
        response = session.get(f"{ORIGIN}/crm/v8/Leads/5/__conversion_options")
        assert [outcome.succeeded for outcome in get_report(response).outcomes] == [True]

    @pytest.mark.parametrize("status", [302, 429, 502])
    def test_that_did_not_succeed_is_never_uncertain(self, canned, status):
        lock = LOCK | {"details": {"id": "5", "action": "zia_vision_processing"}}
        session = canned((400, lock), (status, b"", {"Location": ORIGIN}), (200, b""))
        report = get_report(session.get(f"{ORIGIN}/crm/v8/Leads/5/photo", allow_redirects=False))
        (outcome,) = report.outcomes
        assert (outcome.succeeded, outcome.uncertain, outcome.retryable) == (False, False, True)
        assert report.error.status == status


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(WRITES)),
    st.lists(
        st.tuples(
            st.sampled_from([200, 201, 202, 204, 207, 302, 400, 401, 403, 429, 500, 503]),
            st.sampled_from(["", *INCONCLUSIVE.values(), {"data": [SUCCESS]}, SUCCESS, {"data": [LOCK]}, LOCK]),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_no_schedule_of_answers_makes_a_success_that_none_of_them_carries(name, answers):
    method, path, sent = WRITES[name]
    world = guarded({"raise_on": "never"})
    (lead,) = add_leads(world.engine, [len(answers) + 1])
    for number, (status, body) in enumerate(answers):
        given_body = "" if status == 204 else body
        world.engine.fault(FaultKind.ANSWER, after=1 + number, status=status, body=given_body, applied=False)
    response = world.send(prepared(method, f"{ORIGIN}/crm/v8/{path.format(lead)}", sent))
    carried = any(body in ({"data": [SUCCESS]}, SUCCESS) and status != 204 for status, body in answers)
    written = world.engine.writes(lead) > 0  # once the planned answers are used up, CRM gives its own
    for outcome in get_report(response).outcomes:
        assert not outcome.succeeded or carried or written
        assert not (outcome.succeeded and outcome.uncertain)


class TestTheOneFunctionThatDecides:
    def answer(self, method: str, path: str, status: int, body: Any) -> Any:
        url = f"{ORIGIN}/crm/v8/{path}"
        call = read_request(method, CrmUrl.of(url), lambda: None)
        return read_answer(
            None, status, body if isinstance(body, bytes | None) else json.dumps(body).encode(), call
        )

    @pytest.mark.parametrize(
        ("method", "path", "status", "body", "conclusive"),
        [
            ("PUT", "Leads/1", 200, {"data": [SUCCESS]}, True),
            ("PUT", "Leads/1", 200, SUCCESS, True),
            ("PUT", "Leads/1", 400, LOCK, True),
            ("PUT", "Leads/1", 200, None, False),
            ("DELETE", "Leads/1/photo", 204, b"", False),
            ("POST", "Leads/1/photo", 200, None, False),
            ("GET", "Leads/1/photo", 200, None, True),
            ("GET", "Leads/1/photo", 204, b"", True),
            ("GET", "Leads/1/photo", 302, None, False),
            ("GET", "Leads/1/photo", 502, None, False),
        ],
    )
    def test_knows_each_case(self, method, path, status, body, conclusive):
        assert self.answer(method, path, status, body).conclusive is conclusive

    def test_reads_what_failed(self):
        body = {"code": "INVALID_TOKEN", "message": "invalid oauth token", "details": {}, "status": "error"}
        error = self.answer("PUT", "Leads/1", 401, body).error
        assert error == CallError(status=401, code="INVALID_TOKEN", message="invalid oauth token")
        assert self.answer("PUT", "Leads/1", 401, b"<html>").error == CallError(status=401)


class TestTheMergedStatus:
    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("status", [200, 201])
    def test_is_that_of_success_where_the_last_answer_is_a_bare_item(self, name, status):
        world = guarded()
        ids = add_leads(world.engine, [0, 1, 0])
        bare = SUCCESS | {"details": {"id": ids[1]}}
        world.engine.fault(FaultKind.ANSWER, after=1, status=status, body=bare, applied=True)
        response = world.send(CALLS[name].of(ids))
        assert [item["status"] for item in response.json()["data"]] == ["success"] * 3
        assert response.status_code == status

    @pytest.mark.parametrize("name", CALLS)
    def test_does_not_keep_that_of_a_first_answer_that_refused_all(self, name):
        world = guarded()
        ids = add_leads(world.engine, [1, 2])
        bare = SUCCESS | {"details": {"id": ids[1]}}
        world.engine.fault(FaultKind.ANSWER, after=2, status=200, body=bare, applied=True)
        response = world.send(CALLS[name].of(ids))
        assert world.engine.calls[0].status == 400
        assert response.status_code == 200

    @pytest.mark.parametrize("status", [202, 207, 400, 404])
    def test_is_never_one_that_denies_the_success_of_all(self, status):
        world = guarded()
        ids = add_leads(world.engine, [0, 1])
        body = {"data": [SUCCESS | {"details": {"id": ids[1]}}]}
        world.engine.fault(FaultKind.ANSWER, after=1, status=status, body=body, applied=True)
        response = world.send(CALLS["update"].of(ids))
        assert [item["status"] for item in response.json()["data"]] == ["success"] * 2
        assert response.status_code == 200

    def test_of_a_mixture_is_no_error(self):
        world = guarded()
        ids = add_leads(world.engine, [1, 1])
        items = [SUCCESS | {"details": {"id": ids[0]}}, SUCCESS | {"details": {"id": ids[1]}, "status": "error"}]
        world.engine.fault(FaultKind.ANSWER, after=1, status=400, body={"data": items[:1]}, applied=True)
        response = world.send(CALLS["update"].of(ids))
        assert response.status_code in {200, 207}

    def test_does_not_take_its_body_from_an_answer_of_another_shape(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 1, 0])
        body = {"data": SUCCESS | {"details": {"id": ids[1]}}}
        world.engine.fault(FaultKind.ANSWER, after=1, status=200, body=body, applied=True)
        assert len(world.send(CALLS["update"].of(ids)).json()["data"]) == 3

    def test_of_a_mixture_is_the_endpoints_own(self):
        world = guarded()
        ids = add_leads(world.engine, [1, 1])
        bare = {"code": "INVALID_DATA", "details": {"id": ids[1]}, "message": "", "status": "error"}
        body = {"data": [SUCCESS | {"details": {"id": ids[0]}}, bare]}
        world.engine.fault(FaultKind.ANSWER, after=1, status=207, body=body, applied=True)
        assert world.send(CALLS["update"].of(ids)).status_code == 207
