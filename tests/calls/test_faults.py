"""Whatever goes wrong half way: results reach the caller, and no record is written twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from requests.exceptions import ChunkedEncodingError
from urllib3 import Retry
from urllib3.exceptions import MaxRetryError, NewConnectionError

from crm_guard import (
    EventKind,
    GiveUpReason,
    GuardAdapter,
    GuardError,
    GuardEvent,
    NotApprovedError,
    get_report,
)
from crm_guard._protocol.exchange import Exchange
from crm_guard.simulator import FaultKind, Simulator

from .world import ALL_CALLS, CALLS, ORIGIN, Guarded, add_leads, guarded, ids_of, items_of, prepared

REFUSALS = [0, 1, 2, 3, 4, 5]
BREAKS = {FaultKind.RESET, FaultKind.DROP, FaultKind.TRUNCATED}
# Answers that come from in front of CRM: the call was not looked at.
GATES = {FaultKind.UNAUTHORIZED, FaultKind.THROTTLED}
SPOILED = {FaultKind.TOO_FEW_ITEMS, FaultKind.EXTRA_ITEM, FaultKind.FOREIGN_ID}
HARMLESS = {FaultKind.SLOW, FaultKind.REORDERED}
SILENT = {FaultKind.SERVER_ERROR, FaultKind.BAD_GATEWAY, FaultKind.EMPTY, FaultKind.GARBAGE, FaultKind.ANSWER}
BODY = {"data": []}

# A photo is read, and a conversion is refused when repeated: both have their own rules below.
SINGLE = {
    "update one": ("PUT", "Leads/{}", '{"data":[{"Company":"Z"}]}'),
    "delete one": ("DELETE", "Leads/{}", None),
    "tag one": ("POST", "Leads/{}/actions/add_tags", '{"tags":[{"name":"vip"}]}'),
    "owner of one": ("POST", "Leads/{}/actions/change_owner", '{"owner":{"id":"42"}}'),
    "share": ("POST", "Leads/{}/actions/share", '{"share":[{"shared_with":{"id":"7"}}]}'),
    "convert": ("POST", "Leads/{}/actions/convert", '{"data":[{"overwrite":true}]}'),
    "delete photo": ("DELETE", "Leads/{}/photo", None),
    "invite": ("POST", "Leads/{}/actions/portal_invite", '{"portal_invite":[{"language":"en"}]}'),
}


def outcome_of(world: Guarded, request: requests.PreparedRequest) -> tuple[Any, Any]:
    """Send; return the response, from the error if need be, and the error."""
    try:
        return world.send(request), None
    except requests.RequestException as exc:
        return exc.response, exc


@pytest.mark.parametrize("name", ALL_CALLS)
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("kind", list(FaultKind))
class TestAFaultInABatch:
    """Records 0 to 5; record n is refused n times; the fault strikes at the n-th resend."""

    def test_costs_no_result_and_no_second_write(self, name, applied, kind):
        for resend in (1, 3):
            self.strike(name, resend, kind, applied=applied)

    def strike(self, name: str, resend: int, kind: FaultKind, *, applied: bool) -> None:
        world, call = guarded(), CALLS[name]
        ids = add_leads(world.engine, REFUSALS)
        fault = world.engine.fault(kind, after=resend, applied=applied, body=BODY)
        response, error = outcome_of(world, call.of(ids))
        assert fault.delivered == 1
        report = get_report(error if error is not None else response)
        found = {outcome.record_id: outcome for outcome in report.outcomes}
        struck = set(ids[resend:])
        assert list(found) == list(ids) or set(found) == set(ids)
        assert max(world.engine.write_counts.values()) == 1

        earlier = {record_id for log in world.engine.calls[:resend] for record_id in log.applied_ids}
        assert {record_id for record_id in earlier if found[record_id].succeeded} == earlier == set(ids[:resend])
        said = {item["details"].get("id"): item["status"] for item in items_of(response)}
        assert all(said[record_id] == "success" for record_id in earlier)

        if kind in HARMLESS:
            self.check_harmless(world, found, applied=applied)
            return
        assert len(world.engine.calls) == 1 + resend
        assert report.reason in {GiveUpReason.FOLLOW_UP, GiveUpReason.UNMATCHED}
        assert (error is None) == (kind not in BREAKS)
        uncertain = {record_id for record_id in ids if found[record_id].uncertain}
        if kind in BREAKS | SILENT:
            assert uncertain == struck
        elif kind in GATES:
            assert uncertain == set()
        elif kind is not FaultKind.EXTRA_ITEM:
            assert len(uncertain) == 1
            assert uncertain <= struck
        if applied and kind not in GATES:
            # Whatever CRM did, the report does not say of any record that it did not.
            for record_id in ids:
                state = found[record_id]
                assert state.uncertain or state.succeeded == bool(world.engine.writes(record_id))
        assert {outcome.record_id for outcome in report.outcomes if outcome.retryable} == (
            struck - uncertain - {record_id for record_id in ids if found[record_id].succeeded}
        )
        self.check_rest(report, kind, world, struck)

    def check_harmless(self, world: Guarded, found: dict[str, Any], *, applied: bool) -> None:
        assert all(outcome.succeeded for outcome in found.values())
        assert not any(outcome.uncertain for outcome in found.values())
        assert set(world.engine.write_counts.values()) == {1} or not applied

    def check_rest(self, report: Any, kind: FaultKind, world: Guarded, struck: set[str]) -> None:
        """The rest can be sent later where it is certain, and only there."""
        rest = report.remaining_request()
        if kind in GATES:
            assert rest is not None
            text = f"{rest.url} {rest.body}"
            assert {record_id for record_id in ids_of(len(REFUSALS)) if record_id in text} == struck
        else:
            assert rest is None


@pytest.mark.parametrize("name", list(SINGLE))
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in {FaultKind.SLOW, FaultKind.REORDERED}])
class TestAFaultInACallAboutOneRecord:
    def test_hands_over_what_came_and_writes_once_at_most(self, name, applied, kind):
        for resend in (1, 3):
            self.strike(name, resend, kind, applied=applied)

    def strike(self, name: str, resend: int, kind: FaultKind, *, applied: bool) -> None:
        world = guarded()
        (lead,) = add_leads(world.engine, [3])
        world.engine.fault(kind, after=resend, applied=applied, body=BODY)
        method, path, body = SINGLE[name]
        request = prepared(method, f"{ORIGIN}/crm/v8/{path.format(lead)}", body)
        response, error = outcome_of(world, request)
        assert world.engine.writes(lead) <= 1
        struck = world.engine.calls[resend]
        if kind in BREAKS:
            assert not isinstance(error, GuardError)
            assert isinstance(error, requests.ConnectionError | ChunkedEncodingError)
            assert "crm_guard" in error.__notes__[0]
            assert get_report(error).outcomes[0].uncertain
            assert len(world.engine.calls) == 1 + resend
            return
        assert error is None
        (outcome, *_) = get_report(response).outcomes
        if kind in GATES | SILENT:
            assert response is world.transport.responses[resend]
            assert get_report(response).reason is GiveUpReason.FOLLOW_UP
            assert len(world.engine.calls) == 1 + resend
            assert (outcome.uncertain, outcome.succeeded) == (kind in SILENT, False)
            assert outcome.retryable == (kind in GATES)
        elif outcome.succeeded and applied:
            assert world.engine.writes(lead) == 1
        assert struck.fault == kind.value


class TestAGate:
    @pytest.mark.parametrize("kind", ["401", "429"])
    def test_leaves_the_merged_answer_with_its_own_status(self, kind):
        world = guarded()
        ids = add_leads(world.engine, [0, 3, 0])
        world.engine.fault(kind, after=1, retry_after=40)
        response = world.send(CALLS["update"].of(ids))
        assert (response.status_code, [item["code"] for item in items_of(response)]) == (
            207,
            ["SUCCESS", "RECORD_LOCKED", "SUCCESS"],
        )
        assert get_report(response).retry_after >= (40 if kind == "429" else 1)

    def test_of_html_does_not_lend_its_content_type_to_the_merged_answer(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 3])
        world.engine.fault("502", after=1)
        response = world.send(CALLS["update"].of(ids))
        assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
        assert int(response.headers["Content-Length"]) == len(response.content)

    def test_is_handed_over_as_it_came_where_nothing_was_obtained_before(self):
        for kind in ("401", "429", "500", "502"):
            world = guarded()
            ids = add_leads(world.engine, [3, 3])
            world.engine.fault(kind, after=1)
            response = world.send(CALLS["update"].of(ids))
            assert response is world.transport.responses[-1]
            assert response.status_code == int(kind)
            assert get_report(response).reason is GiveUpReason.FOLLOW_UP
            assert [found.uncertain for found in get_report(response).outcomes] == [kind in {"500", "502"}] * 2


class TestATransportError:
    def test_stays_itself_where_nothing_was_obtained(self):
        world = guarded()
        world.engine.fault("reset", after=1)
        with pytest.raises(requests.ConnectionError) as caught:
            world.send(CALLS["delete"].of(add_leads(world.engine, [3, 3])))
        assert not isinstance(caught.value, GuardError)
        assert [found.uncertain for found in get_report(caught.value).outcomes] == [True, True]

    def test_is_the_cause_where_results_would_be_lost(self):
        world = guarded()
        world.engine.fault("drop", after=2)
        ids = add_leads(world.engine, [0, 1, 3])
        with pytest.raises(GuardError) as caught:
            world.send(CALLS["delete"].of(ids))
        assert isinstance(caught.value.__cause__, requests.ConnectionError)
        assert [found.succeeded for found in caught.value.outcomes] == [True, True, False]
        assert caught.value.response.status_code == 207
        assert get_report(caught.value.__cause__).outcomes == caught.value.outcomes
        assert caught.value.remaining_request() is None

    def test_before_a_byte_was_sent_makes_nothing_uncertain(self):
        world = guarded()
        ids = add_leads(world.engine, [0, 3])

        def refuse(number: int) -> None:
            if number == 2:
                raise requests.ConnectTimeout

        world.transport.before = refuse
        with pytest.raises(GuardError) as caught:
            world.send(CALLS["update"].of(ids))
        assert [found.uncertain for found in caught.value.outcomes] == [False, False]
        assert ids[1] in str(caught.value.remaining_request().body)

    @pytest.mark.parametrize(("retries", "doubt"), [(Retry(0, read=False), False), (Retry(2), True), (None, False)])
    @pytest.mark.parametrize("nested", [False, True])
    def test_of_the_last_of_several_tries_says_nothing_of_the_first(self, retries, doubt, nested):
        world = guarded()
        ids = add_leads(world.engine, [0, 1])
        if retries is not None:
            world.transport.max_retries = retries
        if nested:
            with pytest.warns(UserWarning, match="through another guard"):
                world.adapter = GuardAdapter(world.adapter.settings, inner=world.adapter, clock=world.clock)

        def refused(number: int) -> None:
            if number == 2:
                raise requests.ConnectionError(MaxRetryError(None, "/", NewConnectionError(None, "refused")))

        setattr(world.transport, "after" if doubt else "before", refused)
        with pytest.raises(GuardError) as caught:
            world.send(CALLS["update"].of(ids))
        assert world.engine.writes(ids[1]) == doubt
        assert [found.uncertain for found in caught.value.outcomes] == [False, doubt]
        assert ("read the record before you repeat" in caught.value.hint) is doubt
        assert (caught.value.remaining_request() is None) is doubt


@pytest.mark.parametrize("name", ["update", "delete", "add_tags"])
@pytest.mark.parametrize("number", [1, 2, 3])
class TestCtrlC:
    def test_in_a_wait_keeps_every_result(self, name, number):
        world = guarded()
        ids = add_leads(world.engine, REFUSALS)
        world.clock.during_wait = lambda: interrupt_at(number)(len(world.clock.waits))
        report = self.interrupted(world, CALLS[name].of(ids))
        assert [found.succeeded for found in report.outcomes] == [index < number for index, _ in enumerate(ids)]
        assert not any(found.uncertain for found in report.outcomes)
        assert len(world.engine.calls) == number
        assert (report.reason, report.remaining_request() is not None) == (GiveUpReason.INTERRUPTED, True)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_in_a_send_keeps_every_result_and_marks_the_rest(self, name, number, when):
        world = guarded()
        ids = add_leads(world.engine, REFUSALS)
        setattr(world.transport, when, interrupt_at(number + 1))
        report = self.interrupted(world, CALLS[name].of(ids))
        assert [found.succeeded for found in report.outcomes] == [index < number for index, _ in enumerate(ids)]
        assert [found.uncertain for found in report.outcomes] == [index >= number for index, _ in enumerate(ids)]
        assert max(world.engine.write_counts.values()) == 1

    def interrupted(self, world: Guarded, request: requests.PreparedRequest) -> Any:
        with pytest.raises(KeyboardInterrupt) as caught:
            world.send(request)
        assert "crm_guard" in caught.value.__notes__[0]
        return get_report(caught.value)


class TestAnInterrupt:
    @pytest.mark.parametrize("filled", [0, 1, 2])
    def test_while_an_answer_is_taken_in_costs_none_of_its_results(self, monkeypatch, filled):
        world = guarded()
        ids = add_leads(world.engine, [0, 1, 1, 9])
        update, count = Exchange._updated, iter(range(100))

        def interrupted(exchange: Any, number: int, sent_index: int, item: Any) -> Any:
            if next(count) == filled:
                raise KeyboardInterrupt
            return update(exchange, number, sent_index, item)

        monkeypatch.setattr(Exchange, "_updated", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            world.send(CALLS["update"].of(ids))
        report = get_report(caught.value)
        assert [found.succeeded for found in report.outcomes] == [True, True, True, False]
        assert not any(found.uncertain for found in report.outcomes)
        assert [world.engine.writes(record_id) for record_id in ids] == [1, 1, 1, 0]
        assert json.loads(report.remaining_request().body)["data"][0]["id"] == ids[3]
        assert [found.retryable for found in report.outcomes] == [False, False, False, True]

    @pytest.mark.parametrize("kind", list(EventKind))
    def test_in_a_hook_carries_every_result_away(self, kind):
        def leave(event: GuardEvent) -> None:
            if event.kind is kind:
                raise SystemExit(3)

        world = guarded({"attempts": 2}, adapter={"hooks": [leave]})
        ids = [*add_leads(world.engine, [0, 1, 9]), "555000000000000099"]
        world.engine.add_record("Leads", ids[3], state="record_locking")
        with pytest.raises(SystemExit) as caught:
            world.send(CALLS["update"].of(ids))
        report = get_report(caught.value)
        assert [found.record_id for found in report.outcomes] == ids
        assert [found.succeeded for found in report.outcomes] == [
            bool(world.engine.writes(record_id)) for record_id in ids
        ]
        rest = str(report.remaining_request().body)
        assert [record_id in rest for record_id in ids] == [found.retryable for found in report.outcomes]


def interrupt_at(wanted: int) -> Any:
    def interrupt(number: int) -> None:
        if number == wanted:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("resends", [0, 1])
def test_an_error_of_the_refreshing_function_is_no_send(resends):
    left = [resends]

    def refresh(request: requests.PreparedRequest) -> None:
        left[0] -= 1
        if left[0] < 0:
            message = "no token"
            raise LookupError(message)

    world = guarded(adapter={"refresh": refresh})
    ids = add_leads(world.engine, [0, 2])
    with pytest.raises(GuardError) as caught:
        world.send(CALLS["update"].of(ids))
    assert isinstance(caught.value.__cause__, LookupError)
    assert [(found.succeeded, found.uncertain) for found in caught.value.outcomes] == [
        (True, False),
        (False, False),
    ]
    assert caught.value.report.attempts == len(world.engine.calls) == 1 + resends
    assert ids[1] in str(caught.value.remaining_request().body)


def test_a_record_that_is_gone_after_its_lock_is_final():
    world = guarded()
    ids = add_leads(world.engine, [0, 9, 2])
    world.clock.during_wait = lambda: world.engine._store.records.pop(ids[1], None)
    response = world.send(CALLS["update"].of(ids))
    assert [item["code"] for item in items_of(response)] == ["SUCCESS", "INVALID_DATA", "SUCCESS"]
    assert [call.record_ids for call in world.engine.calls[2:]] == [(ids[2],)]


def test_a_refusal_for_good_raises_only_when_nothing_was_written():
    for refusals, raises in (([1, 1], True), ([0, 1], False)):
        world = guarded()
        ids = add_leads(world.engine, refusals, then="zia_vision_rejected")
        request = CALLS["update"].of(ids)
        if raises:
            with pytest.raises(NotApprovedError):
                world.send(request)
        else:
            assert world.send(request).status_code == 207


@pytest.mark.parametrize("name", ["update", "mass_delete", "add_tags_string"])
@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.parametrize("compresses", [False, True])
def test_no_fault_over_real_sockets_costs_a_result(guard, clock, name, kind, compresses):
    with Simulator(clock=clock, gzip=compresses) as crm:
        ids = add_leads(crm, REFUSALS[:4])
        crm.fault(kind, after=2, applied=True, body=json.dumps(BODY))
        call = CALLS[name]
        session = guard(share_locks=False, diagnose=False)
        session.mount(crm.url, session.guard)
        url = call.url(call.records(ids)).replace(ORIGIN, crm.url)
        try:
            carrier = session.request(call.method, url, data=call.body(call.records(ids)))
        except GuardError as exc:
            carrier = exc
        found = {outcome.record_id: outcome for outcome in get_report(carrier).outcomes}
        assert all(found[record_id].succeeded for record_id in ids[:2])
        assert max(crm.write_counts.values()) == 1
        assert all(
            found[record_id].uncertain or found[record_id].succeeded or not crm.writes(record_id) or kind in GATES
            for record_id in ids
        )
