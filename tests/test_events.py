"""Events: what a hook is told, in which order, and that it cannot do any harm."""

import dataclasses
import logging

import pytest

from crm_guard import (
    ApprovalCase,
    CallError,
    EventKind,
    GiveUpReason,
    GuardEvent,
    NotApprovedError,
    RecordLockedError,
)
from crm_guard._transport.event_log import emit, log_event

URL = "https://www.zohoapis.com/crm/v8/Leads"


def item(code, record_id="1", **details):
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "details": {"id": record_id, **details}, "message": "", "status": status}


def lock(record_id="1"):
    return item("RECORD_LOCKED", record_id, action="zia_vision_processing")


LOCKED = (400, {"data": [lock()]})
DONE = (200, {"data": [item("SUCCESS")]})
REFUSED = (400, {"data": [item("NOT_APPROVED")]})


class TestTheOrder:
    def test_of_a_lock_that_ends(self, canned, events):
        canned(LOCKED, LOCKED, DONE).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "waiting", "resending", "waiting", "resending", "unlocked"]
        assert [event.attempt for event in events] == [1, 1, 2, 2, 3, 3]
        assert all(event.record_ids == ("1",) for event in events)
        assert all((event.method, event.path) == ("PUT", "/crm/v8/Leads/1") for event in events)

    def test_of_a_lock_that_ends_in_a_refusal(self, canned, events):
        with pytest.raises(NotApprovedError):
            canned(LOCKED, REFUSED, diagnose=False).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "waiting", "resending", "unlocked", "blocked"]

    def test_of_giving_up(self, canned, events):
        with pytest.raises(RecordLockedError):
            canned(LOCKED, attempts=2).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "waiting", "resending", "gave_up"]
        assert [event.reason for event in events] == [None, None, None, GiveUpReason.ATTEMPTS]

    def test_of_failing_fast(self, canned, events):
        with pytest.raises(RecordLockedError):
            canned(LOCKED, timeout=0).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "gave_up"]

    def test_of_a_refusal(self, canned, events):
        with pytest.raises(NotApprovedError):
            canned(REFUSED, diagnose=False).put(f"{URL}/1", json={})
        assert events.kinds() == ["blocked"]

    def test_of_a_batch_tells_the_records_apart(self, canned, events):
        mixed = {"data": [item("SUCCESS", "1"), lock("2"), lock("3"), item("NOT_APPROVED", "4")]}
        again = {"data": [item("SUCCESS", "2"), lock("3")]}
        rows = [{"id": str(n)} for n in range(1, 5)]
        canned((207, mixed), (207, again), diagnose=False, attempts=2).put(URL, json={"data": rows})
        assert [(event.kind.value, event.record_ids) for event in events] == [
            ("locked", ("2", "3")),
            ("waiting", ("2", "3")),
            ("resending", ("2", "3")),
            ("unlocked", ("2",)),
            ("blocked", ("4",)),
            ("gave_up", ("3",)),
        ]

    @pytest.mark.parametrize("answer", [DONE, (400, {"data": [item("INVALID_DATA")]}), (500, b"<html>")])
    def test_of_a_call_without_a_refusal_is_silence(self, canned, events, caplog, answer):
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            canned(answer).put(f"{URL}/1", json={})
        assert not events
        assert not caplog.records

    def test_comes_with_the_waits_in_seconds(self, canned, events, clock):
        canned(LOCKED, LOCKED, DONE, wait_jitter=0, wait_initial=2, wait_exp_base=2).put(f"{URL}/1", json={})
        assert [event.delay for event in events if event.kind is EventKind.WAITING] == clock.waits
        assert all(event.delay == 0 for event in events if event.kind is not EventKind.WAITING)
        assert [event.waited for event in events] == sorted(event.waited for event in events)
        assert events[-1].waited == sum(clock.waits)


EVENT = GuardEvent(
    kind=EventKind.WAITING,
    method="PUT",
    path="/crm/v8/Leads",
    record_ids=("1", "2"),
    records=2,
    delay=1.25,
    code="RECORD_LOCKED",
    action="zia_vision_processing",
)


class TestAHook:
    @pytest.mark.parametrize("error", [ValueError("jane@example.com"), AssertionError(), RecordLockedError()])
    def test_that_fails_is_logged_and_dropped(self, canned, events, caplog, error):
        def fail(event):
            raise error

        with caplog.at_level(logging.DEBUG, "crm_guard"):
            response = canned(LOCKED, DONE, hooks=[fail]).put(f"{URL}/1", json={})
        assert response.ok
        assert len(events) == 4
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == [
            f"a hook failed on a {event.kind.value} event: {type(error).__name__}" for event in events
        ]
        assert "jane" not in caplog.text

    def test_that_fails_does_not_keep_the_event_from_the_others(self):
        seen = []
        emit([seen.append, lambda event: event.kind / 0, seen.append], EVENT)
        assert seen == [EVENT, EVENT]

    def test_that_is_interrupted_interrupts(self):
        def interrupt(event):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            emit([interrupt], EVENT)

    def test_cannot_change_the_event(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            EVENT.delay = 0


class TestTheLog:
    @pytest.mark.parametrize(
        ("kind", "level"),
        [
            (EventKind.LOCKED, "DEBUG"),
            (EventKind.WAITING, "INFO"),
            (EventKind.RESENDING, "DEBUG"),
            (EventKind.UNLOCKED, "DEBUG"),
            (EventKind.BLOCKED, "WARNING"),
            (EventKind.GAVE_UP, "WARNING"),
        ],
    )
    def test_has_a_level_for_each_kind(self, caplog, kind, level):
        event = dataclasses.replace(EVENT, kind=kind)
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            log_event(event)
        (record,) = caplog.records
        assert (record.levelname, record.name, record.guard_event) == (level, "crm_guard", event)

    def lines(self, caplog, *events):
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            for event in events:
                log_event(event)
        return [record.getMessage() for record in caplog.records]

    def test_reads_well(self, caplog):
        gave_up = dataclasses.replace(EVENT, kind=EventKind.GAVE_UP, reason=GiveUpReason.TIMEOUT, waited=3.04)
        about = "2 records (1, 2) RECORD_LOCKED zia_vision_processing, attempt 1"
        assert self.lines(caplog, EVENT, gave_up) == [
            f"PUT /crm/v8/Leads: waiting, {about}, waited 0.0 s, next wait 1.2 s",
            f"PUT /crm/v8/Leads: gave_up, {about}, waited 3.0 s, reason timeout",
        ]

    def test_names_what_followed_and_at_most_five_records(self, caplog):
        error = CallError(status=429, code="TOO_MANY_REQUESTS", message="Jane's", retry_after=60.0)
        many = {"record_ids": tuple("1234567"), "records": 100}
        gave_up = {"kind": EventKind.GAVE_UP, "reason": GiveUpReason.FOLLOW_UP, "error": error}
        about = "100 records (1, 2, 3, 4, 5, ...) RECORD_LOCKED zia_vision_processing, attempt 1, waited 0.0 s"
        assert self.lines(caplog, dataclasses.replace(EVENT, **gave_up, **many)) == [
            f"PUT /crm/v8/Leads: gave_up, {about}, reason follow_up (429 TOO_MANY_REQUESTS, Retry-After 60 s)"
        ]

    def test_names_the_case(self, caplog):
        about = {"code": "NOT_APPROVED", "action": None, "records": 1, "record_ids": ()}
        event = dataclasses.replace(EVENT, kind=EventKind.BLOCKED, case=ApprovalCase.ZIA_REJECTED, **about)
        assert self.lines(caplog, event) == [
            "PUT /crm/v8/Leads: blocked, 1 record NOT_APPROVED zia_rejected, attempt 1, waited 0.0 s"
        ]

    def test_costs_nothing_where_nobody_listens(self, caplog):
        with caplog.at_level(logging.ERROR, "crm_guard"):
            log_event(EVENT)
        assert not caplog.records

    def test_is_the_users_to_set_up(self):
        logger = logging.getLogger("crm_guard")
        assert logger.level == logging.NOTSET
        assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
        assert logger.propagate
