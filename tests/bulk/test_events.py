"""What hooks and the log hear of a writer: the same events as of single calls, in order, and each row truly."""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import threading
from collections import Counter

import pytest
import requests
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard import ApprovalCase, EventKind, GiveUpReason, GuardSettings, instrument
from tests.bulk.world import QUICK, Held, add, check, rows_of, session_for, take, until

KINDS = [kind.value for kind in EventKind]


class Before(HTTPAdapter):
    """Calls a function before each send."""

    def __init__(self, function):
        super().__init__(pool_maxsize=10)
        self.function = function

    def send(self, request, **options):
        self.function(request)
        return super().send(request, **options)


class Told:
    """A hook that keeps events, and says which waits are under way.

    Attributes:
        events: All so far.
        waiting: How many waits are entered and not left.
    """

    def __init__(self):
        self.events, self.waiting, self.most = [], 0, 0
        self.threads, self.inside = set(), 0
        self.mutex = threading.Lock()

    def __call__(self, event):
        assert self.mutex.acquire(blocking=False), "two threads at once"
        try:
            self.events.append(event)
            self.threads.add(threading.current_thread().name)
        finally:
            self.mutex.release()
        return self.around(event) if event.kind is EventKind.WAITING else None

    @contextlib.contextmanager
    def around(self, event):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            yield
        finally:
            self.waiting -= 1

    def of(self, kind):
        return [event for event in self.events if event.kind == kind]

    def ids(self, kind):
        return [record_id for event in self.of(kind) for record_id in event.record_ids]


@pytest.fixture
def told():
    return Told()


def run(crm, leads, told, rows, settings=QUICK, **options):
    with session_for(crm, settings, hooks=[told]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows, **options)
        results, error = take(writer)
    return writer, results, error


def test_a_lock_that_ends_is_told_from_the_refusal_to_the_unlock(crm, leads, told):
    (locked,), free = add(crm, 1, refusals=2), add(crm, 3)
    _, results, _ = run(crm, leads, told, rows_of([*free, locked]))
    assert len(results) == 4
    assert [event.kind.value for event in told.events] == [
        *("locked", "waiting", "resending"),
        *("locked", "waiting", "resending"),
        "unlocked",
    ]
    assert [event.attempt for event in told.events] == [1, 1, 2, 2, 2, 3, 3]
    assert [event.pending for event in told.events] == [1, 1, 1, 1, 1, 1, 0]
    assert {event.record_ids for event in told.events} == {(locked,)}
    assert {(event.method, event.path, event.module) for event in told.events} == {
        ("PUT", "/crm/v8/Leads", "Leads")
    }
    assert {(event.code, event.action) for event in told.of("locked") + told.of("waiting")} == {
        ("RECORD_LOCKED", "zia_vision_processing")
    }
    assert all(0 < event.delay <= 0.02 for event in told.of("waiting"))
    assert told.events[-1].waited > 0
    assert (told.waiting, told.most) == (0, 1)
    assert all(name.startswith("crm_guard-writer") for name in told.threads)


def test_every_row_that_met_a_lock_is_told_of_exactly_once_when_that_is_over(crm, leads, told):
    free, locked = add(crm, 60), add(crm, 12, refusals=1) + add(crm, 12, refusals=3)
    rejected = add(crm, 5, state="zia_vision_rejected")
    forever = add(crm, 4, locked_for=1e6)
    policy = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=0.5, attempts=10_000)
    ids = [*free, *locked, *rejected, *forever]
    rows = rows_of(ids)
    writer, results, error = run(crm, leads, told, rows, policy, batch_size=7)
    assert error is None
    check(crm, rows, results, writer)
    assert Counter(told.ids("unlocked")) == Counter(locked)
    assert sorted(told.ids("gave_up")) == sorted(forever)
    assert sorted(told.ids("blocked")) == sorted(rejected)
    assert {event.reason for event in told.of("gave_up")} == {GiveUpReason.TIMEOUT}
    assert {(event.code, event.case) for event in told.of("blocked")} == {
        ("NOT_APPROVED", ApprovalCase.ZIA_REJECTED)
    }
    assert all(event.hint for event in told.of("blocked") + told.of("gave_up"))
    refused = Counter(told.ids("locked"))
    assert {record_id: crm.refusals(record_id) for record_id in [*locked, *forever]} == refused
    again = Counter(told.ids("resending"))
    assert all(again[record_id] == refused[record_id] for record_id in locked)
    assert told.events[-1].pending == 0
    assert told.waiting == 0


def test_a_lock_that_ends_in_a_missing_approval_is_told_as_both(crm, leads, told):
    lead = add(crm, 1, refusals=1, then="zia_vision_rejected")
    run(crm, leads, told, rows_of(lead))
    assert [event.kind.value for event in told.events][-2:] == ["unlocked", "blocked"]
    assert told.events[-1].case is ApprovalCase.ZIA_REJECTED


def test_a_row_whose_record_is_known_to_be_locked_tells_of_its_wait_before_anything_is_sent(crm, leads, told):
    (lead,) = add(crm, 1, refusals=3)
    registry = crm_guard.locks.MemoryLockRegistry()
    heard = []
    slow = GuardSettings(wait_initial=0.2, wait_max=0.2, wait_jitter=0.0)
    with (
        session_for(crm, slow, hooks=[heard.append], lock_registry=registry) as single,
        session_for(crm, QUICK, hooks=[told], lock_registry=registry) as many,
    ):
        thread = threading.Thread(
            target=single.put, args=(f"{leads}/{lead}",), kwargs={"json": {"data": [{"Company": "9"}]}}
        )
        thread.start()
        until(lambda: bool(registry))
        take(crm_guard.write_records(many, "PUT", leads, rows_of([lead])))
        thread.join(10)
    assert [(event.kind.value, event.attempt) for event in told.events][:2] == [("locked", 0), ("waiting", 0)]
    assert told.events[-1].kind == "unlocked"
    assert crm.writes(lead) == 2


@pytest.mark.parametrize("end", ["close", "stop", "401", "input"])
def test_rows_that_still_wait_when_the_writer_ends_are_given_up_and_their_waits_left(crm, leads, told, end):
    locked = add(crm, 3, locked_for=1e6)
    free = add(crm, 6)

    def rows():
        yield from rows_of(locked + free[:3])
        until(lambda: told.waiting > 0)
        if end == "stop":
            crm_guard.stop_waiting()
        elif end == "401":
            crm.expire_token("other")
        elif end == "input":
            raise LookupError
        yield from rows_of(free[3:])

    with session_for(crm, GuardSettings(wait_initial=30, wait_max=30), hooks=[told]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows(), batch_size=3)
        if end == "close":
            next(writer)
            until(lambda: told.waiting > 0)
            writer.close()
        take(writer)
    reason = {"stop": GiveUpReason.STOPPED, "401": GiveUpReason.FOLLOW_UP}.get(end, GiveUpReason.INTERRUPTED)
    (gave_up,) = told.of("gave_up")
    assert (gave_up.reason, sorted(gave_up.record_ids), gave_up.pending) == (reason, sorted(locked), 0)
    assert str(gave_up.error or "") == ("401 INVALID_TOKEN" if end == "401" else "")
    assert (told.waiting, told.most) == (0, 1)


def test_a_resend_whose_answer_is_lost_is_given_up_as_uncertain(crm, leads, told):
    (lead,) = add(crm, 1, refusals=1)
    crm.fault("reset", applied=True, method="PUT", after=1, times=1)
    _, results, _ = run(crm, leads, told, rows_of([lead]))
    assert (results[0].outcome.uncertain, results[0].reason) == (True, GiveUpReason.FOLLOW_UP)
    (gave_up,) = told.of("gave_up")
    assert (gave_up.reason, str(gave_up.error)) == (GiveUpReason.FOLLOW_UP, "ConnectionError")
    assert "may have been written" in gave_up.hint
    assert told.waiting == 0


def test_a_resend_that_crm_refuses_as_a_whole_is_given_up_and_not_told_as_unlocked(crm, leads, told):
    (lead,) = add(crm, 1, refusals=1)
    crm.fault("401", method="PUT", after=1)
    writer, results, error = run(crm, leads, told, rows_of([lead]))
    assert isinstance(error, crm_guard.GuardError)
    assert [row.may_be_sent for row in writer.unfinished()] == [True]
    assert not results
    assert [event.kind.value for event in told.events] == ["locked", "waiting", "resending", "gave_up"]
    assert (told.events[-1].reason, str(told.events[-1].error)) == (GiveUpReason.FOLLOW_UP, "401 INVALID_TOKEN")
    assert crm.writes(lead) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [LookupError("jane@example.com"), AssertionError()])
def test_a_hook_that_fails_costs_no_result(crm, leads, told, caplog, kind, error):
    def fail(event):
        if event.kind == kind:
            raise error

    ids = add(crm, 5) + add(crm, 2, refusals=1) + add(crm, 1, state="zia_vision_rejected")
    ids += add(crm, 1, locked_for=1e6)
    rows = rows_of(ids)
    policy = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=0.5)
    with session_for(crm, policy, hooks=[fail, told]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows)
        results, ended = take(writer)
    assert ended is None
    check(crm, rows, results, writer)
    assert {event.kind.value for event in told.events} == set(KINDS)
    assert f"failed on a {kind} event: {type(error).__name__}" in caplog.text
    assert "jane" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_hook_that_ends_the_program_ends_the_writer_and_costs_no_result(crm, leads, told, kind, error):
    def leave(event):
        if event.kind == kind:
            raise error

    ids = add(crm, 5) + add(crm, 2, refusals=2) + add(crm, 1, state="zia_vision_rejected")
    ids += add(crm, 1, locked_for=1e6)
    rows = rows_of(ids)
    policy = GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=2.0)  # as a busy machine needs
    results = []
    with session_for(crm, policy, hooks=[leave, told]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows)
        with pytest.raises(type(error)) as caught:
            results.extend(writer)
    assert caught.value is error
    check(crm, rows, results, writer)
    assert told.waiting == 0


def test_waits_that_overlap_are_left_in_the_context_in_which_they_were_entered(crm, leads):
    """As a tracing span needs it, whatever thread sends the rows again."""
    span = contextvars.ContextVar("span", default="none")
    ends = []

    class Span:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            self.before = span.get()
            self.token = span.set(self.name)

        def __exit__(self, *exc_info):
            ends.append((self.before, span.get() == self.name))
            span.reset(self.token)

    def hook(event):
        return Span(event.record_ids) if event.kind is EventKind.WAITING else None

    ids = [record_id for count in range(1, 9) for record_id in add(crm, 3, refusals=count)]
    span.set("the caller's")
    with session_for(crm, hooks=[hook]) as session:
        results, _ = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=3))
    assert len(results) == 24
    assert len(ends) >= 8
    assert set(ends) == {("the caller's", True)}
    assert span.get() == "the caller's"


def test_hooks_of_the_process_hear_of_a_session_without_a_guard(crm, leads, told):
    before = instrument([told])
    try:
        with requests.Session() as session:
            rows = rows_of(add(crm, 1, refusals=1))
            take(crm_guard.write_records(session, "PUT", leads, rows, settings=QUICK))
    finally:
        instrument(before)
    assert [event.kind.value for event in told.events] == ["locked", "waiting", "resending", "unlocked"]


def test_a_slow_hook_delays_its_own_thread_and_loses_no_order(crm, leads):
    """Events come one after the other, and those of one record in their order."""
    heard, gate = [], threading.Event()

    def slow(event):
        heard.append(event)
        gate.wait(0.005)

    ids = [record_id for count in range(4) for record_id in add(crm, 10, refusals=count)]
    with session_for(crm, hooks=[slow]) as session:
        results, _ = take(crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=5))
    assert len(results) == 40
    for record_id in ids[10:]:
        mine = [event.kind.value for event in heard if record_id in event.record_ids]
        assert mine == ["locked", "waiting", "resending"] * crm.refusals(record_id) + ["unlocked"]


def test_a_wait_is_left_and_the_resend_told_before_anything_is_sent_again(crm, leads):
    """However many threads there are."""
    open_for, told, wrong = Counter(), Counter(), []
    sends = Counter()

    @contextlib.contextmanager
    def around(event):
        open_for.update(event.record_ids)
        yield
        open_for.subtract(event.record_ids)

    def hook(event):
        if event.kind is EventKind.RESENDING:
            told.update(event.record_ids)
        return around(event) if event.kind is EventKind.WAITING else None

    ids = add(crm, 60, refusals=2)

    def send(request, **_):
        record_id = json.loads(request.body)["data"][0]["id"]
        sends[record_id] += 1
        if open_for[record_id] or told[record_id] != sends[record_id] - 1:
            wrong.append(record_id)
        return False

    with session_for(crm, inner=Before(send), hooks=[hook]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=1, workers=6)
        results, _ = take(writer)
        session.get_adapter(leads).inner.close()
    assert len(results) == 60
    assert sum(sends.values()) == 180
    assert not wrong


@pytest.mark.parametrize("kind", ["locked", "waiting", "resending", "unlocked"])
def test_a_hook_that_closes_the_writer_ends_it_and_waits_for_nobody(crm, leads, kind):
    def close(event):
        if event.kind == kind:
            writer.close()

    rows = rows_of(add(crm, 5) + add(crm, 1, refusals=1))
    with session_for(crm, hooks=[close]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows)
        results, error = take(writer)
    assert error is None
    check(crm, rows, results, writer)


def test_a_hook_that_takes_its_time_holds_back_one_thread_alone(crm, leads):
    """Results of others come meanwhile, and other batches are sent."""
    locked, free = add(crm, 1, locked_for=1e6), add(crm, 100)
    go, inside = threading.Event(), threading.Event()

    def slow(event):
        inside.set()
        assert go.wait(20)

    policy = GuardSettings(wait_initial=30, wait_max=30)
    with session_for(crm, policy, hooks=[slow]) as session:
        rows = rows_of([*locked, *free])
        writer = crm_guard.write_records(session, "PUT", leads, rows, batch_size=5, workers=2)
        results = [next(writer) for _ in range(len(free))]
        assert inside.is_set()
        go.set()
        writer.close()
    check(crm, rows, results, writer)
    assert [row.row["id"] for row in writer.unfinished()] == locked


class TestTheLog:
    def lines(self, caplog, level=logging.INFO):
        return [record.getMessage() for record in caplog.records if record.levelno >= level]

    def test_has_one_line_when_rows_begin_to_wait_and_one_when_none_does_any_more(self, crm, leads, told, caplog):
        ids = add(crm, 20) + [one for count in range(1, 6) for one in add(crm, 4, refusals=count)]
        with caplog.at_level(logging.INFO, "crm_guard"):
            run(crm, leads, told, rows_of(ids), batch_size=8, workers=1)
        begin, *_, end = self.lines(caplog)
        assert begin.startswith("PUT /crm/v8/Leads: waiting, ")
        assert end.startswith("PUT /crm/v8/Leads: unlocked, ")
        lines = self.lines(caplog)
        assert len(lines) % 2 == 0
        assert len(lines) < 8, lines

    def test_warns_of_what_is_blocked_with_what_to_do(self, crm, leads, told, caplog):
        add(crm, 3)
        ids = add(crm, 3, state="zia_vision_rejected")
        with caplog.at_level(logging.INFO, "crm_guard"):
            run(crm, leads, told, rows_of(ids))
        (line,) = self.lines(caplog)
        assert f"blocked, 3 records ({', '.join(ids)}) NOT_APPROVED zia_rejected, attempt 1" in line
        assert "Zia rejected" in line

    def test_is_silent_where_nothing_is_refused(self, crm, leads, told, caplog):
        with caplog.at_level(logging.DEBUG, "crm_guard"):
            run(crm, leads, told, rows_of(add(crm, 30)))
        assert not self.lines(caplog, logging.DEBUG)
        assert not told.events


def test_an_answer_that_is_held_back_does_not_hold_back_what_is_told_of_the_others(crm, leads, told):
    locked, free = add(crm, 2, refusals=1), add(crm, 2)
    held = Held(lambda request: free[0].encode() in (request.body or b""))
    with session_for(crm, inner=held, hooks=[told]) as session:
        writer = crm_guard.write_records(session, "PUT", leads, rows_of([*free, *locked]), batch_size=2, workers=3)
        results = [next(writer), next(writer)]
        until(lambda: bool(told.of("unlocked")))
        held.go.set()
        results += take(writer)[0]
    assert len(results) == 4
    assert sorted(told.ids("unlocked")) == sorted(locked)
