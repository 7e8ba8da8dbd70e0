"""A writer that ends before time: nothing hangs, no row is lost, and each is told as it is."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import threading
import weakref
from contextlib import contextmanager

import pytest
import requests
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard import GiveUpReason, GuardError
from crm_guard._bulk.crew import Crew
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard.row_results import RowState
from tests.bulk.world import QUICK, Held, add, check, nothing_lives, rows_of, session_for, take, threads, until


class EndedError(Exception):
    """Raised by the input, or in the loop."""


def writer_of(session, leads, rows, **options):
    return crm_guard.write_records(session, "PUT", leads, rows, **{"batch_size": 2, "workers": 2, **options})


def fail():
    raise EndedError


def states_of(writer):
    return [row.state for row in writer.unfinished()]


@contextmanager
def interrupting(*, before):
    """Send real SIGINTs to this thread from another one, each once an event or condition is there."""

    def send():
        for condition in before:
            condition()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


# -- ends by the caller


@pytest.mark.parametrize("how", ["break", "close", "raise"])
def test_an_end_in_the_loop_awaits_what_is_under_way_and_sends_no_more(crm, session, leads, how):
    rows, results = rows_of(add(crm, 40)), []
    crm.fault("slow", seconds=0.05, times=None)
    try:
        with writer_of(session, leads, iter(rows)) as writer:
            for result in writer:
                results.append(result)
                if how == "break":
                    break
                if how == "raise":
                    fail()
                writer.close()
    except EndedError:
        assert how == "raise"
    calls = len(crm.calls)
    assert nothing_lives()
    assert len(results) == 1
    assert len(crm.calls) == calls <= 6
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.ANSWERED, RowState.NEVER_SENT}
    with pytest.raises(StopIteration):
        next(writer)
    writer.close()
    check(crm, rows, results, writer)


def test_a_close_ends_waits_at_once_and_tells_what_waited(crm, session, leads):
    free, locked = add(crm, 2), add(crm, 2, locked_for=60)
    rows = rows_of([free[0], locked[0], free[1], locked[1]])
    with writer_of(session, leads, rows, settings=crm_guard.GuardSettings(wait_initial=50, wait_max=50)) as writer:
        results = [next(writer), next(writer)]
    check(crm, rows, results, writer)
    assert states_of(writer) == [RowState.PARKED] * 2
    assert [row.outcome.code for row in writer.unfinished()] == ["RECORD_LOCKED"] * 2
    assert writer.counts.elapsed < 10


def test_a_writer_that_is_never_iterated_reads_and_sends_nothing(crm, session, leads):
    def rows():
        pytest.fail("read")
        yield

    with writer_of(session, leads, rows()) as writer:
        pass
    assert (list(writer), writer.unfinished(), writer.counts.read, crm.calls) == ([], [], 0, ())


def test_a_writer_without_rows_ends_well(crm, session, leads):
    writer = writer_of(session, leads, [])
    assert (list(writer), writer.unfinished(), len(crm.calls), threads()) == ([], [], 0, [])


def test_close_in_another_thread_ends_the_loop(session, crm, leads):
    rows = rows_of(add(crm, 1, locked_for=60))
    writer = writer_of(session, leads, rows)
    closer = threading.Timer(0.05, writer.close)
    closer.start()
    assert list(writer) == []
    closer.join(10)
    assert not closer.is_alive()
    check(crm, rows, [], writer)
    assert states_of(writer) == [RowState.PARKED]


def test_a_writer_that_nobody_holds_any_more_ends_its_threads(crm, session, leads):
    rows = rows_of(add(crm, 6) + add(crm, 2, locked_for=60))
    writer = writer_of(session, leads, rows)
    next(writer)
    gone = weakref.ref(writer)
    stops = session.get_adapter(leads).context.stops
    assert stops._wakes
    del writer
    gc.collect()
    assert gone() is None
    assert nothing_lives()
    assert not stops._wakes


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_threads_that_it_has_not(crm, session, leads):
    rows = rows_of(add(crm, 1, locked_for=60) + add(crm, 1))
    with writer_of(session, leads, rows, batch_size=1) as writer:
        next(writer)
        child = os.fork()
        if not child:  # no assertion may leave it
            status = 1
            try:
                with pytest.raises(RuntimeError, match="forked"):
                    next(writer)
                writer.close()
                status = 0 if len(writer.unfinished()) == 1 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- Ctrl-C


def test_ctrl_c_awaits_what_is_under_way(crm, leads):
    held = Held()
    session, rows, results = session_for(crm, inner=held), rows_of(add(crm, 8)), []
    writer = writer_of(session, leads, rows)
    release = threading.Timer(0, lambda: (until(lambda: writer._crew._is_last), held.go.set()))
    release.start()
    with interrupting(before=[held.came.wait]), pytest.raises(KeyboardInterrupt), writer:
        results += writer
    assert nothing_lives()
    check(crm, rows, results, writer)
    assert set(states_of(writer)) == {RowState.ANSWERED, RowState.NEVER_SENT}
    assert not session.get_adapter(leads).locks


def test_a_second_ctrl_c_abandons_what_is_under_way(crm, leads):
    held = Held()
    session, rows, results = session_for(crm, inner=held), rows_of(add(crm, 8)), []
    writer = writer_of(session, leads, rows)
    with (
        interrupting(before=[held.came.wait, lambda: until(lambda: writer._crew._is_last)]),
        pytest.raises(KeyboardInterrupt),
        writer,
    ):
        results += writer
    check(crm, rows, results, writer)
    states = states_of(writer)
    assert RowState.UNCERTAIN in states
    assert set(states) <= {RowState.UNCERTAIN, RowState.NEVER_SENT}
    held.go.set()
    assert nothing_lives(), "a thread waits for an answer that nobody takes"
    assert states_of(writer) == states
    assert not session.get_adapter(leads).locks


def test_a_thread_that_sees_the_end_before_its_message_leaves_no_lock_behind(crm, session, leads, monkeypatch):
    rows = rows_of(add(crm, 1, locked_for=60) + add(crm, 1))
    writer = writer_of(session, leads, rows, workers=1, batch_size=1)
    original = Scheduler.next

    def abandoned(self, now):
        if session.get_adapter(leads).locks:
            writer._crew._abandoned = True
        return original(self, now)

    monkeypatch.setattr(Scheduler, "next", abandoned)
    assert list(writer) == []
    check(crm, rows, [], writer)


def test_a_batch_that_is_taken_while_the_writer_is_abandoned_is_not_sent(crm, session, leads, monkeypatch):
    """A worker between its messages and its next batch must see the end before it sends."""
    rows = rows_of(add(crm, 2))
    writer = writer_of(session, leads, rows, workers=1)
    original = Scheduler.next

    def abandoned(self, now):
        job = original(self, now)
        if job is not None:
            writer._crew.abandon()
        return job

    monkeypatch.setattr(Scheduler, "next", abandoned)
    assert list(writer) == []
    assert nothing_lives()
    assert not crm.calls
    check(crm, rows, [], writer)


@pytest.mark.parametrize("at", [1, 5, 12])
def test_a_ctrl_c_in_the_loop_ends_it(crm, session, leads, at):
    rows, results = rows_of(add(crm, 40) + add(crm, 2, locked_for=60)), []
    writer = writer_of(session, leads, rows)

    def loop():
        with writer:
            for result in writer:
                results.append(result)
                if len(results) == at:
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop()
    check(crm, rows, results, writer)


# -- stop_waiting


@pytest.mark.parametrize("how", ["function", "adapter", "signal"])
def test_stop_waiting_hands_out_what_is_final_and_says_why_it_ended(crm, session, leads, how):
    rows, results = rows_of(add(crm, 3) + add(crm, 3, locked_for=60)), []
    writer = writer_of(session, leads, rows)
    stop = {
        "function": crm_guard.stop_waiting,
        "adapter": session.get_adapter(leads).stop_waiting,
        "signal": lambda: signal.raise_signal(signal.SIGTERM),
    }[how]
    before = signal.signal(signal.SIGTERM, lambda *_: crm_guard.stop_waiting())
    try:
        results += (next(writer), next(writer), next(writer))
        stop()
        results, error = take(writer, results)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error.report.reason is GiveUpReason.STOPPED
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.PARKED, RowState.NEVER_SENT}


def test_stop_waiting_while_the_writer_sleeps_wakes_it(crm, session, leads):
    rows = rows_of(add(crm, 1, locked_for=60))
    settings = crm_guard.GuardSettings(wait_initial=50, wait_max=50)
    writer = writer_of(session, leads, rows, settings=settings)
    timer = threading.Timer(0.05, crm_guard.stop_waiting)
    timer.start()
    _, error = take(writer)
    timer.join()
    assert error.report.reason is GiveUpReason.STOPPED
    check(crm, rows, [], writer)


def test_stop_waiting_before_the_first_row_is_not_a_silent_end(crm, session, leads):
    rows = rows_of(add(crm, 50))
    writer = writer_of(session, leads, rows)
    crm_guard.stop_waiting()
    results, error = take(writer)
    assert error.report.reason is GiveUpReason.STOPPED
    check(crm, rows, results, writer)
    assert not crm.calls


def test_an_input_that_raises_after_stop_waiting_is_no_good_end(crm, session, leads):
    rows = rows_of(add(crm, 2))

    def source():
        yield rows[0]
        until(lambda: crm.write_counts)
        crm_guard.stop_waiting()
        until(lambda: writer._scheduler.end)
        raise EndedError

    writer = writer_of(session, leads, source(), batch_size=1)
    results, error = take(writer)
    assert error.report.reason is GiveUpReason.STOPPED
    check(crm, rows, results, writer)


def test_the_first_of_two_ends_counts_also_before_a_thread_was_started(crm, session, leads):
    def source():
        crm_guard.stop_waiting()
        raise EndedError
        yield

    _, error = take(writer_of(session, leads, source()))
    assert error.report.reason is GiveUpReason.STOPPED


def test_stop_waiting_after_the_last_row_is_no_error(crm, session, leads):
    rows, results = rows_of(add(crm, 2)), []
    for result in writer_of(session, leads, rows):
        results.append(result)
        crm_guard.stop_waiting()
    assert len(results) == 2


# -- what the input does


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("at", [0, 1, 10, 30])
def test_an_input_that_raises_ends_the_writer_with_its_exception(crm, session, leads, at, size):
    rows = rows_of(add(crm, 30))

    def source():
        yield from rows[:at]
        raise EndedError

    writer = writer_of(session, leads, source(), batch_size=size)
    results, error = take(writer)
    assert type(error) is EndedError
    assert writer.counts.read == at
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.NEVER_SENT}
    with pytest.raises(StopIteration):
        next(writer)


def test_an_input_whose_iterator_cannot_be_made_does_so_too(crm, session, leads):
    class Broken:
        def __iter__(self):
            raise EndedError

    writer = writer_of(session, leads, Broken())
    assert type(take(writer)[1]) is EndedError


@pytest.mark.parametrize("at", [0, 12, 29])
@pytest.mark.parametrize(
    ("bad", "kind"),
    [("no mapping", TypeError), ({"id": "1", "Company": {1j}}, TypeError), ({"Company": "\ud800"}, ValueError)],
)
def test_a_bad_row_is_named_and_the_rows_before_it_have_results(crm, session, leads, at, bad, kind):
    rows = rows_of(add(crm, 30))
    rows[at] = bad
    writer = writer_of(session, leads, iter(rows))
    results, error = take(writer)
    assert type(error) is kind
    assert f"row {at} " in str(error)
    assert writer.counts.read == at + 1
    check(crm, rows, results, writer)
    assert writer.unfinished()[-1].row is bad
    assert states_of(writer)[-1] is RowState.NEVER_SENT


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (lambda row: row["missing"], KeyError),
        (lambda _: [], TypeError),
        (lambda _: json.loads("{"), ValueError),
        (lambda _: next(iter(())), RuntimeError),
    ],
)
def test_a_key_function_that_fails_ends_the_writer(crm, session, leads, key, kind):
    rows = rows_of(add(crm, 3))
    writer = writer_of(session, leads, rows, key=key)
    results, error = take(writer)
    assert type(error) is kind
    assert "row 0 " in str(error) or kind is not TypeError
    check(crm, rows, results, writer)
    assert states_of(writer) == [RowState.NEVER_SENT]


# -- what every batch would meet


def test_a_token_that_expired_is_renewed_and_nothing_is_written_twice(leads, crm):
    crm.expire_token("new")

    def refresh(request):
        request.headers["Authorization"] = "Zoho-oauthtoken new"

    rows = rows_of(add(crm, 20))
    with session_for(crm, refresh=refresh) as session:
        session.headers["Authorization"] = "Zoho-oauthtoken old"
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
        assert session.headers["Authorization"] == "Zoho-oauthtoken old"
    assert error is None
    assert len(results) == 20
    check(crm, rows, results, writer)
    assert sum(call.status == 401 for call in crm.calls) <= 2


@pytest.mark.parametrize("refresh", [None, lambda _: None])
def test_a_token_that_cannot_be_renewed_ends_the_writer(leads, crm, refresh):
    crm.expire_token("new")
    rows = rows_of(add(crm, 20))
    with session_for(crm, refresh=refresh) as session:
        writer = writer_of(session, leads, rows, batch_size=1)
        results, error = take(writer)
    assert isinstance(error, GuardError)
    assert (error.response.status_code, error.report.error.status) == (401, 401)
    assert len(crm.calls) <= 8
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.PARKED, RowState.NEVER_SENT}


def test_a_refresh_that_raises_ends_the_writer(leads, crm):
    def refresh(request):
        raise EndedError

    crm.expire_token("new")
    rows = rows_of(add(crm, 4))
    with session_for(crm, refresh=refresh) as session:
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert type(error) is EndedError
    check(crm, rows, results, writer)


BARE = {"code": "NO_PERMISSION", "details": {}, "message": "permission denied", "status": "error"}


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_of_the_call_itself_ends_the_writer(crm, session, leads, status, after):
    crm.fault("answer", status=status, body=BARE, times=None, after=after)
    rows = rows_of(add(crm, 30))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert isinstance(error, GuardError)
    assert error.response.status_code == status
    assert "NO_PERMISSION" in str(error)
    assert after * 2 <= len(results) <= after * 2 + 2
    assert len(crm.calls) <= after + 2
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.PARKED, RowState.NEVER_SENT}


def test_credits_that_run_out_end_the_writer(leads):
    with crm_guard.simulator.Simulator(credits=10, credits_header="always") as crm:
        rows = rows_of(add(crm, 40))
        policy = crm_guard.GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=8.0, min_credits=4)
        with session_for(crm, policy) as session:
            writer = writer_of(session, f"{crm.url}/crm/v8/Leads", rows)
            results, error = take(writer)
        assert error.report.reason is GiveUpReason.CREDITS
        assert 12 <= len(results) <= 16
        check(crm, rows, results, writer)


# -- no connection, no answer


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9/", "http://no-such-host.invalid:3128/", "http://127.0.0.1:x/"]
)
@pytest.mark.parametrize("guarded", [True, False])
def test_rows_that_a_dead_proxy_kept_from_leaving_are_told_as_never_sent(crm, leads, proxy, guarded):
    rows = rows_of(add(crm, 30))
    policy = crm_guard.GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=0.05)
    session = session_for(crm, policy) if guarded else requests.Session()
    session.proxies = {"http": proxy}
    writer = crm_guard.write_records(session, "PUT", leads, rows, batch_size=10, settings=policy)
    results, error = take(writer)
    assert isinstance(error, requests.RequestException)
    assert results == []
    assert {row.state for row in writer.unfinished()} == {RowState.NEVER_SENT}
    assert not crm.calls


def test_a_connection_that_is_refused_for_good_ends_the_writer_within_the_budget(crm):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/crm/v8/Leads"
    rows = rows_of(add(crm, 10))
    policy = crm_guard.GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=0.1)
    with requests.Session() as session:
        writer = writer_of(session, url, rows, settings=policy)
        results, error = take(writer)
    assert isinstance(error, requests.ConnectionError)
    assert results == []
    check(crm, rows, results, writer)
    assert set(states_of(writer)) == {RowState.NEVER_SENT}
    assert writer.counts.elapsed < 5


class FailsAtFirst(HTTPAdapter):
    """Connects to nobody at first."""

    def __init__(self, times):
        super().__init__()
        self.left, self.mutex = times, threading.Lock()

    def send(self, request, **options):
        with self.mutex:
            self.left -= 1
            fails = self.left >= 0
        if fails:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
            request = request.copy()
            request.url = f"http://127.0.0.1:{port}/crm/v8/Leads"
            try:
                return super().send(request, **options)
            except requests.ConnectionError as exc:
                exc.request.url = request.url.replace(str(port), str(self.port))
                raise
        return super().send(request, **options)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_connection_that_is_refused_for_a_while_is_tried_again(crm, leads, guarded):
    adapter = FailsAtFirst(5)
    adapter.port = int(crm.url.rpartition(":")[2])
    rows = rows_of(add(crm, 20))
    with session_for(crm, inner=adapter) as session:
        if not guarded:
            session.mount(crm.url, adapter)
        writer = writer_of(session, leads, rows, settings=QUICK)
        results, error = take(writer)
    assert error is None
    assert [result.succeeded for result in results] == [True] * 20
    assert {result.attempts for result in results} == {1}
    check(crm, rows, results, writer)


def test_too_many_calls_for_good_end_the_writer(crm, leads):
    crm.fault("429", times=None)
    rows = rows_of(add(crm, 20))
    policy = crm_guard.GuardSettings(wait_initial=0.01, wait_max=0.02, timeout=0.1)
    with session_for(crm, policy) as session:
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert isinstance(error, GuardError)
    assert (error.response.status_code, error.report.reason) == (429, GiveUpReason.TIMEOUT)
    assert results == []
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.PARKED, RowState.NEVER_SENT}


def test_too_many_calls_for_a_while_cost_nothing_but_time(crm, session, leads):
    crm.fault("429", times=4)
    rows = rows_of(add(crm, 20))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert (error, len(results)) == (None, 20)
    check(crm, rows, results, writer)


@pytest.mark.parametrize(("kind", "applied"), [("502", False), ("500", True), ("reset", True), ("garbage", True)])
def test_a_crm_that_is_out_of_order_stops_the_writer_after_few_batches(crm, session, leads, kind, applied):
    crm.fault(kind, applied=applied, times=None)
    rows = rows_of(add(crm, 100))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert isinstance(error, requests.RequestException)
    assert 5 <= len(crm.calls) <= 8
    assert all(result.outcome.uncertain for result in results)
    check(crm, rows, results, writer)


def test_a_send_that_times_out_is_uncertain_and_the_others_go_on(crm, session, leads):
    crm.fault("slow", seconds=0.6, after=1, times=1)
    rows = rows_of(add(crm, 20))
    writer = writer_of(session, leads, rows, timeout=0.15)
    results, error = take(writer)
    assert error is None
    assert sum(result.outcome.uncertain for result in results) == 2
    check(crm, rows, results, writer)


# -- sessions of all kinds


def test_a_hook_that_raises_for_a_status_costs_no_result(crm, session, leads):
    session.hooks["response"].append(lambda response, **_: response.raise_for_status())
    rows = rows_of(add(crm, 6) + add(crm, 3, refusals=2) + ["555000000000099999"])
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert error is None
    assert sorted(result.index for result in results if not result.succeeded) == [9]
    check(crm, rows, results, writer)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("status", [401, 404, 429])
def test_the_answer_that_a_hook_gets_from_elsewhere_is_not_taken_for_that_of_crm(crm, leads, status, guarded):
    """It posts to a chat, say: its 429 must not have the batch sent again."""
    with crm_guard.simulator.Simulator() as chat, session_for(crm) as session:
        chat.fault("answer", status=status, body=BARE, times=None)
        if not guarded:
            session.mount(crm.url, HTTPAdapter())

        def post(response, **_):
            response.content  # noqa: B018 (so that its connection is free)
            requests.post(f"{chat.url}/crm/v8/Leads", json={"text": "done"}, timeout=5).raise_for_status()

        session.hooks["response"].append(post)
        rows = rows_of(add(crm, 4))
        writer = writer_of(session, leads, rows, batch_size=1, settings=QUICK)
        results, _ = take(writer)
    assert [result.outcome.uncertain for result in results] == [True] * 4
    check(crm, rows, results, writer)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("broken", ["http://127.0.0.1:1/", "no-url"])
def test_a_hook_that_reaches_nobody_does_not_have_the_batch_sent_again(crm, leads, broken, guarded):
    def post(response, **_):
        response.content  # noqa: B018
        requests.post(broken, timeout=5)

    with session_for(crm) as session:
        if not guarded:
            session.mount(crm.url, HTTPAdapter())
        session.hooks["response"].append(post)
        rows = rows_of(add(crm, 4))
        writer = writer_of(session, leads, rows, batch_size=1, settings=QUICK)
        results, _ = take(writer)
    assert [result.outcome.uncertain for result in results] == [True] * 4
    check(crm, rows, results, writer)


class Odd(requests.Session):
    """Does as it is told, after or instead of a request."""

    after = False
    makes = None

    def request(self, *arguments, **options):
        if self.after:
            super().request(*arguments, **options)
        return self.makes()


def raising(exc):
    def make():
        raise exc

    return make


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    ("makes", "kind"),
    [
        (raising(TypeError("unexpected keyword argument")), TypeError),
        (raising(StopIteration()), RuntimeError),
        (raising(MemoryError()), MemoryError),
        (raising(SystemExit(3)), SystemExit),
        (lambda: None, TypeError),
        (lambda: {"data": []}, TypeError),
        (requests.Response, Exception),
    ],
)
def test_a_session_that_is_out_of_order_ends_the_writer(crm, leads, makes, kind, after):
    rows, results = rows_of(add(crm, 20)), []
    with Odd() as session:
        session.after, session.makes = after, makes
        writer = writer_of(session, leads, rows, settings=QUICK)
        with pytest.raises(kind), writer:
            results += writer
    assert len(crm.calls) <= 10
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.NEVER_SENT}
    assert all(result.outcome.uncertain for result in results)


@pytest.mark.parametrize("header", ["a\nb", object()])
def test_a_request_that_cannot_be_made_ends_the_writer_unsent(crm, leads, header):
    rows = rows_of(add(crm, 10))
    with session_for(crm) as session:
        session.headers["X-Odd"] = header
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert isinstance(error, requests.exceptions.InvalidHeader)
    assert results == []
    check(crm, rows, results, writer)
    assert set(states_of(writer)) <= {RowState.PARKED, RowState.NEVER_SENT}
    assert not crm.calls


class Reporting(requests.Session):
    """Reports each answer to a server that is down."""

    def request(self, *arguments, **options):
        super().request(*arguments, **options)
        return requests.post("http://127.0.0.1:1/", timeout=5)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_session_that_reaches_nobody_afterwards_does_not_have_the_batch_sent_again(crm, leads, guarded):
    rows = rows_of(add(crm, 4))
    with Reporting() as session:
        if guarded:
            session.mount(crm.url, crm_guard.GuardAdapter(QUICK))
        writer = writer_of(session, leads, rows, batch_size=1, settings=QUICK)
        results, _ = take(writer)
    assert [result.outcome.uncertain for result in results] == [True] * 4
    check(crm, rows, results, writer)


class Hopping(requests.Session):
    """Sends in another thread, as sessions with a time limit of their own do."""

    def request(self, *arguments, **options):
        found = []
        thread = threading.Thread(target=lambda: found.append(self._try(*arguments, **options)))
        thread.start()
        thread.join()
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def _try(self, *arguments, **options):
        try:
            return super().request(*arguments, **options)
        except Exception as exc:  # noqa: BLE001 (raised in the other thread)
            return exc


def test_a_session_that_sends_in_other_threads_writes_each_row_once(crm, leads):
    """There the guard does not know of the writer, and waits by itself."""
    rows = rows_of(add(crm, 10) + add(crm, 5, refusals=3) + add(crm, 2, state="zia_vision_rejected"))
    with Hopping() as session:
        session.mount(crm.url, crm_guard.GuardAdapter(QUICK))
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert error is None
    assert sum(result.succeeded for result in results) == 15
    check(crm, rows, results, writer)


# -- what must not happen


@pytest.mark.parametrize("last", [3, 1000])
@pytest.mark.parametrize("name", ["absorb", "next", "add", "sums"])
def test_a_defect_in_a_thread_is_raised_and_nobody_waits_for_it(crm, session, leads, monkeypatch, name, last):
    rows = rows_of(add(crm, 40))
    original, calls = getattr(Scheduler, name), []

    def broken(self, *arguments):
        calls.append(None)
        if 3 <= len(calls) <= last:
            raise EndedError
        return original(self, *arguments)

    monkeypatch.setattr(Scheduler, name, broken)
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    monkeypatch.undo()
    assert type(error) is EndedError
    assert {result.index for result in results}.isdisjoint(row.index for row in writer.unfinished())
    assert len(results) + len(writer.unfinished()) == writer.counts.read


def test_a_defect_that_keeps_the_scheduler_from_stopping_is_raised_too(crm, session, leads, monkeypatch):
    def broken(*arguments):
        raise EndedError

    monkeypatch.setattr(Scheduler, "next", broken)
    monkeypatch.setattr(Scheduler, "stop", broken)
    rows = rows_of(add(crm, 4))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert type(error) is EndedError
    check(crm, rows, results, writer)


def test_no_thread_at_all_is_an_error_and_fewer_than_wanted_are_none(crm, session, leads, monkeypatch):
    rows, left = rows_of(add(crm, 20)), [1]
    start = threading.Thread.start

    def few(thread):
        if thread.name.startswith("crm_guard-writer-"):
            left[0] -= 1
            if left[0] < 0:
                message = "can't start new thread"
                raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    results, error = take(writer_of(session, leads, rows))
    assert (error, len(results)) == (None, 20)
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert (type(error), results) == (RuntimeError, [])
    assert set(states_of(writer)) == {RowState.NEVER_SENT}


def test_a_ctrl_c_in_the_start_of_a_thread_awaits_that_thread(crm, leads, monkeypatch):
    held, start = Held(), threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name.startswith("crm_guard-writer-"):
            assert held.came.wait(10)
            raise KeyboardInterrupt

    session, rows = session_for(crm, inner=held), rows_of(add(crm, 30))
    writer = writer_of(session, leads, rows)
    release = threading.Timer(0.2, held.go.set)
    release.start()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(Crew, "_hire", _hire_late)
    with pytest.raises(KeyboardInterrupt), writer:
        next(writer)
    assert held.go.is_set(), "it was over while a batch was under way"
    check(crm, rows, [], writer)
    assert set(states_of(writer)) <= {RowState.ANSWERED, RowState.NEVER_SENT}


_hire = Crew._hire


def _hire_late(crew):
    """Hire once there is a whole batch, so that the thread has something to send."""
    if len(crew.inbox) >= 2:
        _hire(crew)


def test_a_thread_that_is_hired_but_has_not_come_yet_is_awaited(crm, session, leads, monkeypatch):
    rows, come = rows_of(add(crm, 2)), threading.Event()
    run = Crew._run

    def late(crew):
        assert come.wait(10)
        run(crew)

    monkeypatch.setattr(Crew, "_run", late)
    writer = writer_of(session, leads, rows, progress=lambda _: None)  # so the thread here wakes now and then
    timer = threading.Timer(0.3, come.set)
    timer.start()
    stop = threading.Timer(0.02, crm_guard.stop_waiting)
    stop.start()
    results, error = take(writer)
    assert come.is_set(), "the writer was over before its thread had begun"
    assert results or error.report.reason is GiveUpReason.STOPPED
    check(crm, rows, results, writer)
