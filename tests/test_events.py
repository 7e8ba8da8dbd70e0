"""Events: what a hook is told, in which order, and that it cannot do any harm."""

import dataclasses
import logging
from functools import partial

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
from crm_guard._transport.event_log import CallLog
from crm_guard._transport.peers import peer_groups
from crm_guard._transport.telling import Telling

ORIGIN = "https://www.zohoapis.com"
URL = f"{ORIGIN}/crm/v8/Leads"


def item(code, record_id="1", **details):
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "details": {"id": record_id, **details}, "message": "", "status": status}


def lock(record_id="1"):
    return item("RECORD_LOCKED", record_id, action="zia_vision_processing")


LOCKED = (400, {"data": [lock()]})
DONE = (200, {"data": [item("SUCCESS")]})
REFUSED = (400, {"data": [item("NOT_APPROVED")]})


@pytest.fixture(autouse=True)
def _no_peers():
    """What others left without an end would silence these."""
    peer_groups.reset()
    yield
    peer_groups.reset()


class TestTheOrder:
    def test_of_a_lock_that_ends(self, canned, events):
        canned(LOCKED, LOCKED, DONE).put(f"{URL}/1", json={})
        kinds = ["locked", "waiting", "resending", "locked", "waiting", "resending", "unlocked"]
        assert events.kinds() == kinds
        assert [event.attempt for event in events] == [1, 1, 2, 2, 2, 3, 3]
        assert [event.pending for event in events] == [1, 1, 1, 1, 1, 1, 0]
        assert {event.record_ids for event in events} == {("1",)}
        assert {(event.method, event.path, event.module) for event in events} == {
            ("PUT", "/crm/v8/Leads/1", "Leads")
        }
        assert not any(event.again or event.hint for event in events)

    def test_of_a_lock_that_ends_in_a_refusal(self, canned, events):
        with pytest.raises(NotApprovedError):
            canned(LOCKED, REFUSED, diagnose=False).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "waiting", "resending", "unlocked", "blocked"]
        assert [event.pending for event in events] == [1, 1, 1, 0, 0]

    def test_of_giving_up(self, canned, events):
        with pytest.raises(RecordLockedError):
            canned(LOCKED, attempts=2).put(f"{URL}/1", json={})
        assert events.kinds() == ["locked", "waiting", "resending", "locked", "gave_up"]
        assert [event.reason for event in events] == [None, None, None, None, GiveUpReason.ATTEMPTS]
        assert [event.pending for event in events] == [1, 1, 1, 1, 0]

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
        assert [(event.kind.value, event.record_ids, event.pending) for event in events] == [
            ("locked", ("2", "3"), 2),
            ("waiting", ("2", "3"), 2),
            ("resending", ("2", "3"), 2),
            ("locked", ("3",), 1),
            ("unlocked", ("2",), 1),
            ("blocked", ("4",), 0),
            ("gave_up", ("3",), 0),
        ]

    @pytest.mark.parametrize("path", ["Leads/1", "Deals/1", "Leads", "Custom_9/1"])
    def test_names_the_module_of_the_records(self, canned, events, path):
        canned(LOCKED, DONE).put(f"{ORIGIN}/crm/v8/{path}", json={"data": [{"id": "1"}]})
        assert {event.module for event in events} == {path.partition("/")[0]}

    def test_has_no_module_where_the_path_names_none(self, canned, events):
        with pytest.raises(NotApprovedError):
            canned(REFUSED).post(f"{ORIGIN}/crm/v8/__x/1", json={})
        assert [(event.kind.value, event.module) for event in events] == [("blocked", "")]

    def test_says_what_to_do_where_the_guard_can_do_no_more(self, canned, events):
        mixed = {"data": [lock("1"), item("NOT_APPROVED", "2"), item("NOT_APPROVED", "3")]}
        rows = [{"id": str(n)} for n in range(1, 4)]
        with pytest.raises(NotApprovedError) as caught:
            canned((400, mixed), diagnose=False, attempts=1).put(URL, json={"data": rows})
        hints = [outcome.hint for outcome in caught.value.report.outcomes]
        assert all(hints)
        assert [(event.kind.value, event.record_ids, event.hint) for event in events] == [
            ("locked", ("1",), ""),
            ("blocked", ("2", "3"), hints[1]),
            ("gave_up", ("1",), hints[0]),
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


def tell(event, *hooks):
    Telling(hooks, ORIGIN).tell(event)


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
            f"the hook {fail.__qualname__} failed on a {event.kind.value} event: {type(error).__name__}"
            for event in events
        ]
        assert "jane" not in caplog.text

    def test_that_fails_is_named_by_its_class_where_it_has_no_name(self, caplog):
        class Metrics:
            def __call__(self, event):
                raise LookupError

        tell(EVENT, Metrics(), partial(Metrics()))
        assert [record.getMessage() for record in caplog.records] == [
            f"the hook {Metrics.__qualname__} failed on a waiting event: LookupError",
            "the hook partial failed on a waiting event: LookupError",
        ]

    def test_that_fails_does_not_keep_the_event_from_the_others(self):
        seen = []
        tell(EVENT, seen.append, lambda event: event.kind / 0, seen.append)
        assert seen == [EVENT, EVENT]

    def test_that_is_interrupted_interrupts(self):
        def interrupt(event):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tell(EVENT, interrupt)

    def test_cannot_change_the_event(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            EVENT.delay = 0


class TestTheLog:
    def records(self, caplog, *events):
        log = CallLog(ORIGIN)
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            for event in events:
                log.write(event)
        log.close()
        return caplog.records

    def lines(self, caplog, *events):
        return [record.getMessage() for record in self.records(caplog, *events)]

    @pytest.mark.parametrize(
        ("kind", "level"),
        [
            (EventKind.LOCKED, "DEBUG"),
            (EventKind.WAITING, "INFO"),
            (EventKind.RESENDING, "DEBUG"),
            (EventKind.UNLOCKED, "DEBUG"),  # without a wait before
            (EventKind.BLOCKED, "WARNING"),
            (EventKind.GAVE_UP, "WARNING"),
        ],
    )
    def test_has_a_level_for_each_kind(self, caplog, kind, level):
        (record,) = self.records(caplog, dataclasses.replace(EVENT, kind=kind))
        assert (record.levelname, record.name, record.guard_kind) == (level, "crm_guard", kind)

    def test_speaks_at_the_first_wait_and_when_the_last_record_is_unlocked(self, caplog):
        waiting = dataclasses.replace(EVENT, pending=2)
        some = dataclasses.replace(
            EVENT, kind=EventKind.UNLOCKED, record_ids=("1",), records=1, pending=1, waited=2
        )
        last = dataclasses.replace(some, record_ids=("2",), pending=0, waited=5)
        later = dataclasses.replace(EVENT, record_ids=("2",), records=1, pending=1, attempt=2)
        told = self.records(caplog, waiting, some, later, last, last, waiting)
        assert [(record.guard_kind, record.levelname) for record in told] == [
            ("waiting", "INFO"),
            ("unlocked", "DEBUG"),
            ("waiting", "DEBUG"),
            ("unlocked", "INFO"),
            ("unlocked", "DEBUG"),
            ("waiting", "INFO"),  # a wait of its own
        ]

    def test_sums_up_in_its_last_line(self, caplog):
        some = dataclasses.replace(EVENT, kind=EventKind.UNLOCKED, code="", action=None, delay=0.0)
        first = dataclasses.replace(some, record_ids=("1",), records=1, pending=3, waited=2.0, attempt=2)
        nameless = dataclasses.replace(some, record_ids=(), records=2, pending=1, waited=4.0, attempt=3)
        last = dataclasses.replace(some, record_ids=("2",), records=1, pending=0, waited=3.0, attempt=4)
        *_, record = self.records(caplog, dataclasses.replace(EVENT, pending=4), first, nameless, last)
        assert record.getMessage() == "PUT /crm/v8/Leads: unlocked, 4 records (1, 2), attempt 4, waited 4.0 s"
        assert (record.guard_records, record.guard_record_ids, record.guard_waited) == (4, ("1", "2"), 4.0)

    def test_reads_well(self, caplog):
        gave_up = dataclasses.replace(EVENT, kind=EventKind.GAVE_UP, reason=GiveUpReason.TIMEOUT, waited=3.04)
        told = dataclasses.replace(gave_up, hint="Wait longer.")
        about = "2 records (1, 2) RECORD_LOCKED zia_vision_processing, attempt 1"
        assert self.lines(caplog, EVENT, gave_up) == [
            f"PUT /crm/v8/Leads: waiting, {about}, waited 0.0 s, next wait 1.2 s",
            f"PUT /crm/v8/Leads: gave_up, {about}, waited 3.0 s, reason timeout",
        ]
        caplog.clear()
        assert self.lines(caplog, told) == [
            f"PUT /crm/v8/Leads: gave_up, {about}, waited 3.0 s, reason timeout: Wait longer."
        ]

    def test_names_what_followed_and_at_most_five_records(self, caplog):
        error = CallError(status=429, code="TOO_MANY_REQUESTS", message="Jane's", retry_after=60.0)
        many = {"record_ids": tuple("1234567"), "records": 100}
        gave_up = {
            "kind": EventKind.GAVE_UP,
            "reason": GiveUpReason.FOLLOW_UP,
            "error": error,
            "hint": "Slow down.",
        }
        about = "100 records (1, 2, 3, 4, 5, ...) RECORD_LOCKED zia_vision_processing, attempt 1, waited 0.0 s"
        what = "reason follow_up (429 TOO_MANY_REQUESTS, Retry-After 60 s): Slow down."
        assert self.lines(caplog, dataclasses.replace(EVENT, **gave_up, **many)) == [
            f"PUT /crm/v8/Leads: gave_up, {about}, {what}"
        ]

    def test_names_the_case(self, caplog):
        about = {"code": "NOT_APPROVED", "action": None, "records": 1, "record_ids": (), "hint": "Ask a person."}
        event = dataclasses.replace(EVENT, kind=EventKind.BLOCKED, case=ApprovalCase.ZIA_REJECTED, **about)
        assert self.lines(caplog, event) == [
            "PUT /crm/v8/Leads: blocked, 1 record NOT_APPROVED zia_rejected, attempt 1, waited 0.0 s: Ask a person."
        ]

    def test_has_a_plain_field_for_each_one_of_the_event(self, caplog):
        error = CallError(status=429, code="TOO_MANY_REQUESTS")
        about = {"kind": EventKind.GAVE_UP, "reason": GiveUpReason.FOLLOW_UP, "error": error, "module": "Leads"}
        case = ApprovalCase.ZIA_REJECTED
        event = dataclasses.replace(EVENT, **about, case=case, hint="Slow down.", pending=1, again=True)
        (record,) = self.records(caplog, event)
        found = {name: value for name, value in vars(record).items() if name.startswith("guard_")}
        assert found == {
            "guard_calls": 1,
            "guard_kind": "gave_up",
            "guard_method": "PUT",
            "guard_path": "/crm/v8/Leads",
            "guard_module": "Leads",
            "guard_record_ids": ("1", "2"),
            "guard_attempt": 1,
            "guard_delay": 1.25,
            "guard_waited": 0.0,
            "guard_again": True,
            "guard_pending": 1,
            "guard_reason": "follow_up",
            "guard_records": 2,
            "guard_code": "RECORD_LOCKED",
            "guard_action": "zia_vision_processing",
            "guard_case": "zia_rejected",
            "guard_hint": "Slow down.",
            "guard_error": "429 TOO_MANY_REQUESTS",
        }
        assert {type(found[f"guard_{name}"]) for name in ("kind", "reason", "case", "error")} == {str}

    def test_costs_nothing_where_nobody_listens(self, caplog):
        log = CallLog(ORIGIN)
        with caplog.at_level(logging.ERROR, "crm_guard"):
            log.write(EVENT)
        log.close()
        assert not caplog.records

    def test_is_the_users_to_set_up(self):
        logger = logging.getLogger("crm_guard")
        assert logger.level == logging.NOTSET
        assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
        assert logger.propagate
