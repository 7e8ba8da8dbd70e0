"""FOLLOW_UP says what followed: status, code and Retry-After, in report, error text, event, log and hint."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import requests

from crm_guard import GiveUpReason, GuardError, RecordLockedError, get_report
from crm_guard.clock import Wake
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import FaultKind

from .world import CALLS, ORIGIN, add_leads, guarded

UNAUTHORIZED = {"code": "INVALID_TOKEN", "details": {}, "message": "invalid oauth token", "status": "error"}
THROTTLED = {"code": "TOO_MANY_REQUESTS", "details": {"retry_after": 60}, "message": "", "status": "error"}
FORBIDDEN = {"code": "NO_PERMISSION", "details": {}, "message": "", "status": "error"}
SOME = [0, 3, 3]
ALL = [3, 3, 3]


def followed(status: int, body: Any, refusals: list[int], **settings: Any) -> tuple[Any, Any, list[Any]]:
    """Return response, report and events of an update whose first resend met an answer without results."""
    events: list[Any] = []
    world = guarded(settings, adapter={"hooks": [events.append]})
    ids = add_leads(world.engine, refusals)
    world.engine.fault(FaultKind.ANSWER, after=1, status=status, body=body, applied=False)
    response = world.send(CALLS["update"].of(ids))
    return response, get_report(response), events


@pytest.mark.parametrize("refusals", [SOME, ALL], ids=["some locked", "all locked"])
class TestAnAnswerWithoutResults:
    @pytest.mark.parametrize(
        ("status", "body", "text", "advice"),
        [
            (401, UNAUTHORIZED, "401 INVALID_TOKEN", "Renew the access token"),
            (429, THROTTLED, "429 TOO_MANY_REQUESTS, Retry-After 60 s", "Wait for 60 s"),
            (403, FORBIDDEN, "403 NO_PERMISSION", "Resolve that first"),
        ],
    )
    def test_that_refuses_the_resend_is_named_everywhere(self, refusals, status, body, text, advice, caplog):
        with caplog.at_level(logging.WARNING, "crm_guard"):
            response, report, events = followed(status, body, refusals)
        assert response.status_code == (207 if refusals is SOME else status)
        assert (report.reason, str(report.error), report.error.refused) == (GiveUpReason.FOLLOW_UP, text, True)
        locked = [outcome for outcome in report.outcomes if not outcome.succeeded]
        assert [outcome.position for outcome in locked] == [index for index, count in enumerate(refusals) if count]
        assert all(text in found.hint and advice in found.hint and found.retryable for found in locked)
        assert not any("timeout" in found.hint for found in locked)
        assert (events[-1].kind, str(events[-1].error)) == ("gave_up", text)
        assert events[-1].hint == locked[0].hint
        (line,) = [record.getMessage() for record in caplog.records if record.guard_kind == "gave_up"]
        assert line.endswith(f", reason follow_up ({text}): {locked[0].hint}")
        with pytest.raises(RecordLockedError) as caught:
            report.raise_for_blocked()
        assert f"the next send met {text}." in str(caught.value)
        assert report.remaining_request() is not None

    def test_that_may_have_been_applied_is_named_too(self, refusals):
        _, report, events = followed(502, {"message": "bad gateway"}, refusals)
        assert (report.reason, str(report.error), report.error.refused) == (GiveUpReason.FOLLOW_UP, "502", False)
        sent = [outcome for outcome in report.outcomes if not outcome.succeeded]
        assert all(found.uncertain and "met 502, so" in found.hint for found in sent)
        assert str(events[-1].error) == "502"
        assert report.remaining_request() is None

    def test_moves_the_moment_for_a_later_try(self, refusals):
        assert followed(429, THROTTLED, refusals)[1].retry_after == 60.0
        assert 0 < followed(401, UNAUTHORIZED, refusals)[1].retry_after < 60.0

    def test_holds_nothing_personal_in_the_event(self, refusals):
        _, report, events = followed(403, FORBIDDEN | {"message": "Jane's"}, refusals)
        assert report.error.message == "Jane's"
        assert events[-1].error.message == ""
        assert "Jane" not in repr(events)


def test_what_followed_replaces_neither_the_hint_nor_the_status_of_another_refusal():
    world = guarded({"raise_on": "never"})
    ids = add_leads(world.engine, [3, 0])
    world.engine.set_state(ids[1], "zia_vision_rejected")
    world.engine.fault(FaultKind.THROTTLED, after=1)
    response = world.send(CALLS["update"].of(ids))
    locked, refused = get_report(response).outcomes
    assert "429 TOO_MANY_REQUESTS" in locked.hint
    assert "429" not in refused.hint
    assert refused.hint.startswith("CRM's answer does not tell these cases apart")
    assert response.status_code == 400, "the status of a call of which nothing was applied"


class TestTheHint:
    @pytest.mark.parametrize(
        ("settings", "longer"), [({"attempts": 1}, True), ({"timeout": 0}, True), ({"min_credits": 10}, False)]
    )
    def test_speaks_of_a_larger_budget_only_where_it_would_have_helped(self, settings, longer):
        world = guarded(settings | {"raise_on": "never"}, credits=5)
        response = world.send(CALLS["update"].of(add_leads(world.engine, [9])))
        (outcome,) = get_report(response).outcomes
        assert ("raise `timeout` and `attempts`" in outcome.hint) is longer

    def test_of_a_stopped_wait_does_not(self):
        world = guarded({"raise_on": "never"})
        world.clock.during_wait = world.adapter.stop_waiting
        report = get_report(world.send(CALLS["update"].of(add_leads(world.engine, [9]))))
        assert report.reason is GiveUpReason.STOPPED
        assert "raise" not in report.outcomes[0].hint
        assert "repeat the call later. Do not upload" in report.outcomes[0].hint


@pytest.mark.parametrize("refusals", [SOME, ALL], ids=["some locked", "all locked"])
@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.DROP, FaultKind.TRUNCATED])
def test_a_broken_connection_is_named_by_its_class(refusals, kind):
    events: list[Any] = []
    world = guarded(adapter={"hooks": [events.append]})
    ids = add_leads(world.engine, refusals)
    world.engine.fault(kind, after=1, applied=True)
    with pytest.raises(requests.RequestException) as caught:
        world.send(CALLS["update"].of(ids))
    name = type(caught.value if refusals is ALL else caught.value.__cause__).__name__
    report = get_report(caught.value)
    assert (report.reason, report.error.status, report.error.code) == (GiveUpReason.FOLLOW_UP, None, name)
    text = str(caught.value) if isinstance(caught.value, GuardError) else caught.value.__notes__[0]
    assert f"was broken off by {name} after 2 sends and" in text
    uncertain = [found for found in report.outcomes if found.uncertain]
    assert all(name in found.hint for found in uncertain)
    assert [found.position for found in uncertain] == [index for index, count in enumerate(refusals) if count]
    assert str(events[-1].error) == name


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_a_wait_has_a_reason_of_its_own_and_tells_the_seconds_waited(exception):
    events: list[Any] = []
    world = guarded({"wait_initial": 3.0, "wait_jitter": 0.0}, adapter={"hooks": [events.append]})

    def interrupt() -> None:
        if len(world.clock.waits) == 2:
            raise exception

    world.clock.during_wait = interrupt
    with pytest.raises(exception) as caught:
        world.send(CALLS["update"].of(add_leads(world.engine, SOME)))
    report = get_report(caught.value)
    assert (report.reason, report.error) == (GiveUpReason.INTERRUPTED, None)
    assert report.waited == pytest.approx(3.0 + 3.6), "the wait that was interrupted counts"
    assert "after 2 sends and 6.6 s of waiting" in caught.value.__notes__[0]
    assert (events[-1].kind, events[-1].reason, events[-1].waited) == (
        "gave_up",
        GiveUpReason.INTERRUPTED,
        report.waited,
    )
    assert report.remaining_request() is not None


def test_an_interrupt_in_the_wait_before_the_first_send_is_told_too():
    events: list[Any] = []
    registry = MemoryLockRegistry()
    world = guarded(
        {"share_locks": True, "wait_initial": 3.0, "wait_jitter": 0.0},
        adapter={"hooks": [events.append], "lock_registry": registry},
    )
    ids = add_leads(world.engine, [5, 5])
    other = registry.waiter(WaitContext(world.clock, Wake(), lambda: False))
    other.verdict(locked=[f"{ORIGIN}|{lead}" for lead in ids], free=[])

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.clock.during_wait = interrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        world.send(CALLS["update"].of(ids))
    report = get_report(caught.value)
    assert (report.reason, report.attempts, report.credits_spent) == (GiveUpReason.INTERRUPTED, 0, 0)
    assert report.waited == pytest.approx(3.0 / 2**0.5), "two calls need the records"
    assert [(found.record_id, found.retryable, found.uncertain) for found in report.outcomes] == [
        (ids[0], True, False),
        (ids[1], True, False),
    ]
    assert report.remaining_request().body == CALLS["update"].of(ids).body
    assert "after 0 sends and 2.1 s of waiting: 0 of 2 records were written" in caught.value.__notes__[0]
    assert [event.kind for event in events] == ["locked", "waiting", "gave_up"]
    assert (report.outcomes[0].action, report.retry_after) == ("zia_vision_processing", 5.0)
    assert "Zia is checking an image" in report.outcomes[0].hint
    with pytest.raises(RecordLockedError, match=r"Not sent, waited 2\.1 s: the call was interrupted"):
        report.raise_for_blocked()
    assert not world.transport.sent
    other.leave()
    assert not registry, "nothing is left behind"


def test_an_interrupt_in_a_resend_leaves_its_records_uncertain():
    world = guarded()

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    world.transport.after = interrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        world.send(CALLS["update"].of(add_leads(world.engine, SOME)))
    report = get_report(caught.value)
    assert (report.reason, report.error) == (GiveUpReason.INTERRUPTED, None)
    assert [found.uncertain for found in report.outcomes] == [False, True, True]
    assert "has no answer that names it" in report.outcomes[2].hint


def test_a_refresh_that_fails_is_what_followed():
    def refresh(request: requests.PreparedRequest) -> None:
        raise LookupError

    world = guarded(adapter={"refresh": refresh})
    with pytest.raises(GuardError) as caught:
        world.send(CALLS["update"].of(add_leads(world.engine, SOME)))
    report = caught.value.report
    assert (report.reason, str(report.error)) == (GiveUpReason.FOLLOW_UP, "LookupError")
    assert not any(found.uncertain for found in report.outcomes), "nothing was sent"
    assert "Once the connection works again" not in report.outcomes[2].hint


class TestOverHttp:
    def test_an_expired_token_is_named(self, crm, guard, leads):
        ids = [crm.add_record("Leads"), crm.add_record("Leads", refusals=2)]
        crm.fault(FaultKind.UNAUTHORIZED, method="PUT", after=1)
        response = guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        report = get_report(response)
        assert (response.status_code, str(report.error)) == (207, "401 INVALID_TOKEN")
        assert "401 INVALID_TOKEN" in report.outcomes[1].hint
