"""How `write_records` drives its threads: when it reads, what it holds, what it shows, and what it leaves alone."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests_ratelimiter import LimiterAdapter
from urllib3.exceptions import MaxRetryError, NewConnectionError

import crm_guard
from crm_guard import GuardSettings
from crm_guard._bulk.intake import Intake
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard.row_results import RowResult, RowState
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock
from tests.bulk.world import QUICK, Held, add, check, rows_of, session_for, take, threads, until, url_of


def writer_of(session, leads, rows, **options):
    return crm_guard.write_records(session, "PUT", leads, rows, **{"batch_size": 5, "workers": 2, **options})


# -- reading


def test_rows_are_read_in_the_callers_thread_alone(crm, session, leads):
    rows, readers = rows_of(add(crm, 200)), set()

    class Source:
        def __iter__(self):
            for row in rows:
                readers.add(threading.get_ident())
                yield row

    results, error = take(writer_of(session, leads, Source(), key=lambda _: readers.add(threading.get_ident())))
    assert (error, len(results)) == (None, 200)
    assert readers == {threading.get_ident()}


def test_rows_are_read_lazily(crm, leads):
    """No more than what the threads could send, although none of them has come to look at what it was given."""
    held, read = Held(), []
    rows = rows_of(add(crm, 500))
    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, (read.append(row) or row for row in rows))
        assert read == []
        seen = []

        def look():
            until(lambda: held.held == 2)
            held.go.wait(0.1)  # for whatever else may be read
            seen.append(len(read))
            held.go.set()

        threading.Thread(target=look).start()
        next(writer)
        writer.close()
    assert 10 <= seen[0] <= 10 + 5 * (2 + 1)  # under way, and ready


def test_not_even_the_iterator_is_made_before_the_first_result_is_asked_for(crm, session, leads):
    class Query:
        def __iter__(self):
            pytest.fail("it ran")

    writer = writer_of(session, leads, Query())
    assert writer.counts.read == 0
    writer.close()


@pytest.mark.parametrize("most", [1, 3, 5, 12])
def test_no_more_rows_are_pending_than_max_pending(crm, session, leads, most):
    """Exactly so many where many are locked, and those that are not go on."""
    ids = add(crm, most - 1, locked_for=0.2) + add(crm, 40)
    taken, pending = [0], []

    def source():
        for row in rows_of(ids):
            pending.append(len(pending) + 1 - taken[0])
            yield row

    results = []
    for result in writer_of(session, leads, source(), max_pending=most):
        results.append(result)
        taken[0] = len(results)
    assert len(results) == len(ids)
    assert max(pending) == most
    assert [result.index for result in results if result.waited] == [] or most > 1


def test_one_lock_does_not_hold_back_its_batch(crm, session, leads):
    ids = add(crm, 1, locked_for=0.3) + add(crm, 60)
    results, _ = take(writer_of(session, leads, rows_of(ids)))
    assert results[-1].index == 0
    assert {result.attempts for result in results[:-1]} == {1}
    assert results[-1].attempts > 1
    assert results[-1].waited > 0.1


def test_a_slow_consumer_gets_all_and_keeps_no_worker_from_its_rows(crm, session, leads):
    rows = rows_of(add(crm, 20))
    writer = writer_of(session, leads, rows)
    first = next(writer)
    until(lambda: sum(crm.write_counts.values()) >= 5)
    assert len([first, *writer]) == 20


def test_a_slow_source_does_not_keep_results_waiting(crm, session, leads, monkeypatch):
    """Between two rows each result that came is handed out, though there is room to read more."""
    monkeypatch.setattr("crm_guard._bulk.intake._SLOW", 0.0)  # every source is slow
    rows = rows_of(add(crm, 10))
    results = []

    def source():
        for number, row in enumerate(rows):
            until(lambda number=number: len(results) + len(writer._scheduler.results) >= number)
            assert len(results) >= number - 1
            yield row

    writer = writer_of(session, leads, source(), batch_size=1)
    results += writer
    assert len(results) == 10


def test_a_source_that_gives_one_dict_again_and_again_is_written_row_by_row(crm, session, leads):
    ids = add(crm, 60)

    def source():
        row = {}
        for record_id in ids:
            row.update(id=record_id, Company=f"of {record_id}")
            yield row

    results, error = take(writer_of(session, leads, source(), batch_size=100))
    assert (error, len(results)) == (None, 60)
    assert {key: record.fields["Company"] for key, record in crm.records.items()} == {
        key: f"of {key}" for key in ids
    }


def test_rows_of_a_megabyte_are_written(crm, session, leads):
    rows = [{"id": record_id, "Company": "x" * 1_000_000} for record_id in add(crm, 6)]
    results, error = take(writer_of(session, leads, rows, batch_size=2))
    assert (error, [result.succeeded for result in results]) == (None, [True] * 6)


@pytest.mark.parametrize("count", [1, 4, 5, 6, 26, 101])
def test_counts_at_every_edge_of_batches_and_chunks(crm, session, leads, count):
    rows = rows_of(add(crm, count))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert (error, len(results)) == (None, count)
    check(crm, rows, results, writer)
    assert len(crm.calls) <= -(-count // 5) + 1


# -- threads


def test_as_many_calls_are_under_way_as_there_are_workers_and_no_more(crm, leads):
    held = Held()
    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, rows_of(add(crm, 50)), workers=3)
        release = threading.Timer(0, lambda: (until(lambda: held.held >= 3), held.go.wait(0.1), held.go.set()))
        release.start()
        results, _ = take(writer)
        release.join()
    assert len(results) == 50
    assert held.held == 3


def test_two_batches_go_to_two_threads_though_the_first_was_idle_when_they_came(crm, leads, monkeypatch):
    held, read = Held(), Intake.read

    def while_one_is_idle(intake, most=None):
        crew = intake._crew
        allowed, crew._most = crew._most, crew._hired or 1
        try:
            return read(intake, most)
        finally:
            crew._most = allowed

    monkeypatch.setattr(Intake, "read", while_one_is_idle)
    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, rows_of(add(crm, 10)))
        both = threading.Timer(0.0, lambda: (until(lambda: held.held == 2), held.go.set()))
        both.start()
        results, _ = take(writer)
        both.join()
    assert (len(results), held.held) == (10, 2)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_a_batch_that_is_full_leaves_while_the_input_waits_for_its_next_row(crm, session, leads, size):
    """A row that has come is never kept back for one that has not, whoever reads many of them at once."""
    ids, met = add(crm, 4 * size), []

    def slow():
        for number, row in enumerate(rows_of(ids), start=1):
            yield row
            if number in {size, 2 * size, 4 * size}:  # the first one leaves alone, and two come together
                until(lambda sent=number: len(crm.write_counts) == sent)
                met.append((number, len(crm.write_counts)))

    results, error = take(writer_of(session, leads, slow(), batch_size=size))
    assert (len(results), error) == (4 * size, None)
    assert met == [(number, number) for number in (size, 2 * size, 4 * size)]


def test_rows_that_came_while_all_threads_were_sending_leave_although_the_input_waits(crm, leads):
    ids, held = add(crm, 4), Held(lambda request: first.encode() in request.body)
    first, *_ = ids

    def slow():
        yield from rows_of(ids)[:1]
        assert held.came.wait(10)
        yield from rows_of(ids)[1:2]
        held.go.set()
        until(lambda: len(crm.write_counts) == 2)
        yield from rows_of(ids)[2:]

    with session_for(crm, inner=held) as session:
        results, error = take(writer_of(session, leads, slow(), batch_size=1, workers=1))
    assert (len(results), error) == (4, None)


def test_a_second_batch_gets_a_thread_of_its_own_although_the_input_waits(crm, leads):
    """Its rows come one by one: of the first, a thread knows already when the second comes."""
    ids = add(crm, 4)
    held = Held(lambda request: ids[0].encode() in request.body)

    def slow():
        yield from rows_of(ids)[:1]
        until(lambda: writer._scheduler.backlog == 1)
        yield from rows_of(ids)[1:3]
        assert held.came.wait(10)
        yield from rows_of(ids)[3:]
        until(lambda: len(crm.write_counts) == 4)
        held.go.set()

    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, slow(), batch_size=2, workers=4)
        results, error = take(writer)
    assert (len(results), error) == (4, None)


def test_a_batch_for_which_a_thread_is_free_gets_no_other(crm, session, leads):
    def slow():
        for row in rows_of(ids):
            yield row
            until(lambda: len(writer._crew._idle) == 1 and not writer._crew.inbox)

    ids = add(crm, 6)
    writer = writer_of(session, leads, slow(), batch_size=2, workers=4)
    results, error = take(writer)
    assert (len(results), error) == (6, None)
    assert len(writer._crew.came) == 1


@pytest.mark.parametrize("size", [1, 2, 30])
def test_batches_that_come_together_are_sent_side_by_side_although_the_input_waits(crm, leads, size):
    ids, held = add(crm, 4 * size), Held()

    def slow():
        yield from rows_of(ids)[:1]
        until(lambda: writer._scheduler.backlog == (size > 1))  # a thread has looked, and may sleep again
        yield from rows_of(ids)[1:]

    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, slow(), batch_size=size, workers=4)
        together = threading.Timer(0.0, lambda: (until(lambda: held.held == 4), held.go.set()))
        together.start()
        results, error = take(writer)
        together.join()
    assert (len(results), error, held.held) == (4 * size, None, 4)


def test_the_scheduler_is_used_by_one_thread_at_a_time(crm, session, leads, monkeypatch):
    inside, clashes = [], []

    def exclusive(name):
        original = getattr(Scheduler, name)

        def method(self, *arguments, **options):
            me = threading.get_ident()
            inside.append(me)
            time.sleep(0)  # another thread's turn
            if set(inside) != {me}:
                clashes.append(name)
            try:
                return original(self, *arguments, **options)
            finally:
                inside.remove(me)

        monkeypatch.setattr(Scheduler, name, method)

    for name in ("add", "next", "absorb", "diagnosed", "sums", "wakes_at", "stop", "look_early", "no_more"):
        exclusive(name)
    ids = add(crm, 150) + add(crm, 10, refusals=1) + add(crm, 5, state="zia_vision_rejected")
    results, _ = take(writer_of(session, leads, rows_of(ids), batch_size=2, workers=8))
    assert len(results) == 165
    assert not clashes


def test_too_many_calls_slow_all_down_and_then_pick_up(leads):
    with Simulator(concurrency=2, latency=0.01) as crm:
        rows = rows_of(add(crm, 200))
        with session_for(crm) as session:
            writer = writer_of(session, url_of(crm), rows, workers=8)
            results, error = take(writer)
        assert (error, len(results)) == (None, 200)
        check(crm, rows, results, writer)
        assert crm.max_concurrent > 2
        turned_away = sum(call.status == 429 for call in crm.calls)
        assert 1 <= turned_away < 60
        assert writer.counts.calls == 40 + turned_away


def test_threads_that_wait_for_a_crowd_to_thin_use_no_processor_time(crm, leads):
    held = Held(lambda _: len(crm.calls) > 4)
    crm.fault("429", times=4)
    with session_for(crm, inner=held) as session:
        writer = writer_of(session, leads, rows_of(add(crm, 60)), workers=4)
        release = threading.Timer(0.5, held.go.set)
        release.start()
        began = time.process_time()
        results, _ = take(writer)
        release.join()
    assert len(results) == 60
    assert time.process_time() - began < 0.4


def test_a_thread_that_goes_to_send_leaves_the_clock_to_another(crm, leads):
    """It has just parked a row: whoever slept without an end must know when that row is due."""
    first, locked, free = add(crm, 4), add(crm, 1, refusals=1), add(crm, 2)
    together = threading.Barrier(2)

    def holds(request):
        if first[0].encode() in request.body or first[2].encode() in request.body:
            together.wait(10)  # so there are two threads
        return free[1].encode() in request.body

    held, last = Held(holds), []
    late = threading.Timer(10.0, held.go.set)
    late.start()
    # Long enough that the row is not due already when the thread that parked it makes its next batch.
    with session_for(crm, GuardSettings(wait_initial=0.2, wait_max=0.2), inner=held) as session:
        rows = rows_of([*first, *locked, *free])
        writer = writer_of(session, leads, rows, batch_size=2, key=lambda row: min(int(row["Company"]), 5))
        for result in writer:
            if result.index == 4:
                last.append(held.go.is_set())
                held.go.set()
    late.cancel()
    assert last == [False]


# -- keys


def test_rows_with_one_key_are_written_one_after_the_other(crm, session, leads):
    ids = add(crm, 30)
    rows = rows_of(ids)
    writer = writer_of(session, leads, rows, key=lambda row: int(row["Company"]) % 3, batch_size=3)
    results, _ = take(writer)
    assert len(results) == 30
    order = [int(row["Company"]) for call in crm.calls for row in json.loads(call.body)["data"]]
    for key in range(3):
        assert [number for number in order if number % 3 == key] == list(range(key, 30, 3))


def test_rows_without_a_key_wait_for_none(crm, session, leads):
    (record_id,) = add(crm, 1, refusals=2)
    writer = writer_of(session, leads, rows_of([record_id] * 3), key=lambda _: None, batch_size=1)
    assert len(take(writer)[0]) == 3


# -- arguments


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0 must be a whole number from 1 to 100"),
        ({"batch_size": 101}, ValueError, "batch_size=101 must be a whole number from 1 to 100"),
        ({"batch_size": True}, TypeError, "batch_size=True"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"workers": 2.0}, TypeError, "workers=2.0"),
        ({"max_pending": 0}, ValueError, "max_pending=0 must be a whole number, 1 or more"),
        ({"key": "id"}, TypeError, "key must be a function"),
        ({"progress": 3}, TypeError, "progress must be"),
        ({"timeout": 0}, ValueError, "timeout=0"),
        ({"timeout": (1, 2, 3)}, ValueError, "timeout="),
        ({"timeout": "5"}, TypeError, "timeout='5'"),
        ({"timeout": float("nan")}, ValueError, "timeout=nan"),
        ({"settings": {"attemps": 3}}, crm_guard.SettingsError, "attemps"),
        ({"body": [1]}, TypeError, "body must be a mapping"),
        ({"body": {"data": []}}, ValueError, "body must not have 'data'"),
        ({"method": "PATCH"}, ValueError, "PATCH"),
        ({"method": 7}, TypeError, "method and url"),
        ({"method": "GET"}, ValueError, "GET"),
        ({"url": "https://www.zohoapis.com/other"}, ValueError, "takes no rows"),
        ({"url": "no url"}, Exception, ""),
        ({"rows": "text"}, TypeError, "a single str"),
        ({"rows": {"id": "1"}}, TypeError, "a single dict"),
        ({"rows": 5}, TypeError, "rows must be an iterable"),
        ({"session": requests}, TypeError, "session must be a requests.Session"),
    ],
)
def test_arguments_are_checked_at_the_call(session, leads, options, kind, told):
    arguments = {"session": session, "method": "PUT", "url": leads, "rows": [], **options}
    with pytest.raises(kind) as caught:
        crm_guard.write_records(
            arguments.pop("session"),
            arguments.pop("method"),
            arguments.pop("url"),
            arguments.pop("rows"),
            **arguments,
        )
    assert told in str(caught.value)
    assert not threads()


# -- the session


class Token(AuthBase):
    def __call__(self, request):
        request.headers["Authorization"] = "Zoho-oauthtoken secret"
        return request


class Counting(requests.Session):
    """Overrides what is called, as many do, and keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def request(self, method, url, **options):
        self.seen.append((method, url, sorted(options)))
        return super().request(method, url, **options)


def test_the_session_is_used_as_it_is_and_left_as_it_was(crm, leads):
    crm.expire_token("secret")
    answers, rows = [], rows_of(add(crm, 10) + add(crm, 2, refusals=1))
    with Counting() as session:
        session.mount(crm.url, crm_guard.GuardAdapter(QUICK))
        session.auth = Token()
        session.headers["X-Mine"] = "1"
        session.params = {"include": "x"}
        session.hooks["response"].append(lambda response, **_: answers.append(response.status_code))
        before = copy.deepcopy([dict(session.headers), session.params, session.max_redirects, session.verify])
        mounted = dict(session.adapters)
        writer = writer_of(session, leads, rows, timeout=3)
        results, error = take(writer)
        assert (error, len(results)) == (None, 12)
        assert [dict(session.headers), session.params, session.max_redirects, session.verify] == before
        assert session.adapters == mounted
        assert len(session.seen) == len(answers) == len(crm.calls)
    assert {call.headers["X-Mine"] for call in crm.calls} == {"1"}
    assert {call.headers["Content-Type"] for call in crm.calls} == {"application/json"}
    assert {call.query for call in crm.calls} == {"include=x"}
    check(crm, rows, results, writer)


def test_an_answer_that_tells_to_go_elsewhere_is_not_followed(crm, session, leads):
    crm.fault("answer", status=307, headers={"Location": f"{leads}?again"}, times=None)
    rows = rows_of(add(crm, 10))
    writer = writer_of(session, leads, rows)
    results, error = take(writer)
    assert isinstance(error, crm_guard.GuardError)
    assert not any(call.query for call in crm.calls)
    check(crm, rows, results, writer)


def test_a_rate_limiter_below_the_guard_sees_every_batch(crm, leads):
    rows = rows_of(add(crm, 20))
    with session_for(crm, inner=LimiterAdapter(per_second=1000)) as session:
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert (error, len(results)) == (None, 20)


def test_refresh_is_called_before_batches_with_rows_that_were_sent_before(crm, leads):
    fresh, asked = rows_of(add(crm, 10)), []
    with session_for(crm, refresh=lambda request: asked.append(request.body)) as session:
        take(writer_of(session, leads, fresh))
        assert asked == []
        (locked,) = add(crm, 1, refusals=2)
        take(writer_of(session, leads, rows_of([locked])))
    assert len(asked) == 2
    assert all(locked.encode() in body for body in asked)


def test_settings_given_here_come_before_those_of_the_guard(crm, leads):
    ids = add(crm, 1, locked_for=60)
    with session_for(crm) as session:
        results, _ = take(writer_of(session, leads, rows_of(ids), settings={"timeout": 0}))
    assert [result.attempts for result in results] == [1]


def test_the_guard_of_the_session_neither_waits_nor_sends_a_batch_again(crm, leads):
    events = []
    with session_for(crm, GuardSettings(wait_initial=30, wait_max=30), hooks=[events.append]) as session:
        results, _ = take(writer_of(session, leads, rows_of(add(crm, 4) + add(crm, 1, refusals=2)), settings=QUICK))
    assert len(results) == 5
    assert [len(call.record_ids) for call in crm.calls] == [5, 1, 1]
    assert {event.delay <= 0.02 for event in events} == {True}, "those of the writer, and not of a waiting guard"


class LosesAnswers(HTTPAdapter):
    """Drops the answer, and fails in a way that says something else of the batch."""

    def __init__(self, error, max_retries=0):
        super().__init__(max_retries=max_retries)
        self.error = error

    def send(self, request, **options):
        super().send(request, **options).close()
        self.close()
        raise self.error(request)


def no_connection(request):
    """What urllib3 raises where it had no connection, be it for the last of several tries."""
    pool = requests.packages.urllib3.HTTPConnectionPool("127.0.0.1")
    reason = NewConnectionError(pool, "Connection refused")
    return requests.ConnectionError(MaxRetryError(pool, request.url, reason), request=request)


def test_where_the_adapter_repeats_by_itself_no_error_proves_that_nothing_was_sent(crm, leads):
    """Its last try had no connection; one before may have been applied, and was."""
    retries = requests.packages.urllib3.util.Retry(2, allowed_methods=None, backoff_factor=0)
    rows = rows_of(add(crm, 2))
    with requests.Session() as session:
        session.mount(crm.url, LosesAnswers(no_connection, retries))
        writer = writer_of(session, leads, rows, settings=QUICK)
        results, error = take(writer)
    assert error is None
    assert [result.outcome.uncertain for result in results] == [True, True]
    check(crm, rows, results, writer)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("again", ["429", "401"])
def test_a_refusal_of_a_send_that_urllib3_repeated_says_nothing_of_the_one_before(crm, leads, guarded, again):
    """The first was applied, and its answer lost; CRM refuses the second: the batch must not go a third time."""
    retries = requests.packages.urllib3.util.Retry(3, allowed_methods=None, backoff_factor=0, status=0)
    crm.fault("reset", applied=True, times=1)
    crm.fault(again, times=1)
    rows = rows_of(add(crm, 3))
    options = {"max_retries": retries, **({"refresh": lambda _: None} if guarded else {})}
    with session_for(crm, **options) if guarded else requests.Session() as session:
        if not guarded:
            session.mount(crm.url, HTTPAdapter(max_retries=retries))
        writer = writer_of(session, leads, rows, settings=QUICK)
        results, error = take(writer)
    assert error is None
    assert [result.outcome.uncertain for result in results] == [True] * 3
    check(crm, rows, results, writer)


def test_a_refusal_of_a_connection_that_urllib3_tried_again_is_believed(crm, leads):
    """Nothing had been sent before: the batch that met a 429 goes again."""
    retries = requests.packages.urllib3.util.Retry(3, allowed_methods=None, backoff_factor=0, status=0)
    crm.fault("429", times=1)
    with session_for(crm, max_retries=retries) as session:
        results, _ = take(writer_of(session, leads, rows_of(add(crm, 3))))
    assert [result.succeeded for result in results] == [True] * 3


class Stubborn(requests.Session):
    """Sends again what broke, whatever it was."""

    def send(self, request, **options):
        try:
            return super().send(request, **options)
        except requests.ConnectionError:
            return super().send(request, **options)


@pytest.mark.parametrize("again", ["429", "refused connection"])
def test_a_send_that_the_session_repeated_says_nothing_of_the_one_before(crm, leads, again):
    class Breaks(HTTPAdapter):
        sends = 0

        def send(self, request, **options):
            self.sends += 1
            if again != "429" and self.sends == 2:
                raise no_connection(request)
            return super().send(request, **options)

    crm.fault("reset", applied=True, times=1)
    if again == "429":
        crm.fault("429", times=1)
    rows = rows_of(add(crm, 3))
    with Stubborn() as session:
        session.mount(crm.url, crm_guard.GuardAdapter(QUICK, inner=Breaks()))
        writer = writer_of(session, leads, rows)
        results, _ = take(writer)
        session.get_adapter(crm.url).inner.close()
    assert [result.outcome.uncertain for result in results] == [True] * 3
    check(crm, rows, results, writer)


def test_a_send_that_digest_auth_repeats_after_a_401_is_in_no_doubt(crm, leads):
    """CRM refused the one before, so a lock is waited for as ever."""

    class Again(AuthBase):
        def __call__(self, request):
            request.register_hook("response", self.repeat)
            return request

        def repeat(self, response, **options):
            if response.status_code != 401:
                return response
            response.content  # noqa: B018 (frees the connection)
            return response.connection.send(response.request, **options)

    crm.fault("401", times=1)
    rows = rows_of(add(crm, 2) + add(crm, 1, refusals=1))
    with session_for(crm) as session:
        session.auth = Again()
        writer = writer_of(session, leads, rows)
        results, error = take(writer)
    assert error is None
    assert [result.succeeded for result in results] == [True] * 3
    check(crm, rows, results, writer)


def test_an_error_about_no_request_that_comes_after_a_send_proves_nothing(crm, leads):
    """`InvalidHeader` is raised before anything is sent, unless it comes from an adapter below that has sent."""
    rows = rows_of(add(crm, 2))
    inner = LosesAnswers(lambda _: requests.exceptions.InvalidHeader("of another request"))
    with session_for(crm, inner=inner) as session:
        writer = writer_of(session, leads, rows)
        results, _ = take(writer)
    assert [result.outcome.uncertain for result in results] == [True, True]
    check(crm, rows, results, writer)


def test_a_hook_that_finds_no_connection_says_nothing_of_the_batch_whose_answer_it_was_given(crm, session, leads):
    def ask(response, **_):
        response.close()
        raise no_connection(response.request)

    rows = rows_of(add(crm, 2))
    session.hooks["response"].append(ask)
    writer = writer_of(session, leads, rows)
    results, _ = take(writer)
    assert [result.outcome.uncertain for result in results] == [True, True]
    check(crm, rows, results, writer)


def test_a_manual_clock_does_not_run_away_while_calls_are_under_way():
    """Only a wait for a row takes time; and that none on the wall."""
    clock = ManualClock()
    with Simulator(clock=clock) as crm:
        ids = add(crm, 20) + add(crm, 1, locked_for=60.0)
        with session_for(crm, GuardSettings(), clock=clock) as session:
            results, error = take(writer_of(session, url_of(crm), rows_of(ids), workers=2))
        assert error is None
        assert [result.succeeded for result in results] == [True] * 21
        assert 60 <= clock.now() < 120
        assert max(result.waited for result in results) < 120


# -- counts, results, progress


def test_counts_add_up_all_the_time_and_tell_where_to_resume(crm, session, leads):
    ids = add(crm, 20) + add(crm, 2, refusals=1) + add(crm, 2, state="zia_vision_rejected") + ["555000000000099999"]
    writer, taken = writer_of(session, leads, rows_of(ids), batch_size=3), set()
    for result in writer:
        taken.add(result.index)
        counts = writer.counts
        assert counts.final + counts.waiting + counts.in_flight <= counts.read
        assert set(range(counts.final_below)) <= taken
        assert counts.final_below not in taken
    counts = writer.counts
    assert (counts.written, counts.blocked, counts.failed, counts.uncertain) == (22, 2, 1, 0)
    assert (counts.read, counts.final, counts.final_below, counts.in_flight, counts.waiting) == (25, 25, 25, 0, 0)
    assert counts.calls == len(crm.calls)
    assert counts.elapsed > 0
    assert writer.counts.elapsed == counts.elapsed
    assert counts.to_dict()["written"] == 22
    with pytest.raises(AttributeError):
        counts.read = 3


def test_counts_may_be_looked_at_in_another_thread(crm, session, leads):
    writer = writer_of(session, leads, rows_of(add(crm, 300)), workers=4)
    failures, over = [], threading.Event()

    def watch():
        while not over.is_set():
            try:
                assert writer.counts.final_below <= 300
            except Exception as exc:  # noqa: BLE001 (the test looks at it)
                failures.append(exc)

    watcher = threading.Thread(target=watch)
    watcher.start()
    results, error = take(writer)
    over.set()
    watcher.join(10)
    assert (error, len(results), failures) == (None, 300, [])


def test_results_travel_and_show_no_value(crm, session, leads):
    ids = add(crm, 2) + add(crm, 1, state="zia_vision_rejected") + add(crm, 1, locked_for=60)
    rows = [{"id": record_id, "Company": "SECRET"} for record_id in ids]
    results = []
    with writer_of(session, leads, rows, batch_size=2) as writer:
        for result in writer:
            results.append(result)
            if len(results) == 3:
                break
    for result in results:
        twin = pickle.loads(pickle.dumps(result))  # noqa: S301
        assert twin.to_dict() == result.to_dict() == copy.deepcopy(result).to_dict()
        assert json.dumps(result.to_dict())
        assert result.to_dict()["row"]["Company"] == "SECRET"
        assert "SECRET" not in repr(result) + str(result)
        assert isinstance(result, RowResult)
    (left,) = writer.unfinished()
    assert "SECRET" not in repr(left)
    assert pickle.loads(pickle.dumps(left)) == left  # noqa: S301
    assert left.state is RowState.PARKED
    assert left.may_be_sent
    assert "SECRET" not in repr(writer)


def test_a_result_that_is_about_to_be_given_is_not_told_as_never_sent(crm, session, leads, monkeypatch):
    """`unfinished()` while a thread is between the two lines that end a row."""
    seen = []

    def slow(*arguments):
        if writer._ledger._rows:
            seen.extend(row.state for row in writer.unfinished())
        return RowResult(*arguments)

    monkeypatch.setattr("crm_guard._protocol.scheduling.endings.RowResult", slow)
    writer = writer_of(session, leads, rows_of(add(crm, 1)))
    assert len(list(writer)) == 1
    assert seen == [RowState.IN_FLIGHT]


def test_progress_is_told_in_the_callers_thread_ten_times_a_second_at_most(crm, leads):
    clock, told = ManualClock(), []

    def progress(counts):
        told.append((threading.get_ident(), counts))

    with session_for(crm, clock=clock) as session:
        for _ in writer_of(session, leads, rows_of(add(crm, 40)), progress=progress):
            clock.advance(0.01)
    assert {ident for ident, _ in told} == {threading.get_ident()}
    assert 4 <= len(told) <= 7
    assert told[-1][1].written == 40
    assert told[-1][1].final_below == 40


@pytest.mark.parametrize("at", [1, 2])
def test_a_progress_function_that_fails_costs_no_result(crm, session, leads, at, caplog):
    calls = []

    def progress(counts):
        calls.append(counts)
        if len(calls) >= at:
            raise LookupError

    results, error = take(writer_of(session, leads, rows_of(add(crm, 10)), progress=progress))
    assert (error, len(results)) == (None, 10)
    assert "LookupError" in caplog.text
