"""Traces: every wait is a span, what CRM refuses are events, nothing tells whose data it was, and nothing leaks."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import pickle
import random
import signal
import time
from collections import Counter
from itertools import pairwise

import pytest
import requests
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import crm_guard
from crm_guard import EventKind, GuardError, GuardSettings, instrument
from crm_guard.clock import Wake
from crm_guard.instrumentation import OpenTelemetryHook
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator
from tests.bulk.world import add, nothing_lives, rows_of, session_for, take, until
from tests.instrumentation.lab import ACTION, RESENDS, ROW, Announcing, Lab, guarded, is_below, names, said

LEFT_OUT = ("http.url", "url.full")  # what the instrumentation of requests says of an address is its own


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture(autouse=True)
def nothing_is_left(lab, caplog):
    """After each test every span has ended, none is current, and OpenTelemetry has complained of nothing."""
    assert trace.get_current_span() is trace.INVALID_SPAN
    yield
    assert lab.open == []
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert trace._TRACER_PROVIDER is None, "the global provider is not a test's to set"
    told = caplog.get_records("call")
    assert not [record.getMessage() for record in told if record.name.startswith("opentelemetry")]
    assert not [record.getMessage() for record in told if "the hook" in record.getMessage()]


@contextlib.contextmanager
def traced_requests(lab, **options):
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=lab.provider, **options)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def put(session, leads, lead, **options):
    return session.put(f"{leads}/{lead}", json=ROW, **options)


class TestAWait:
    def test_is_a_span_below_the_current_one_and_says_what_is_waited_for(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=2)
        settings = {"wait_initial": 2.0, "wait_exp_base": 2.0, "wait_max": 10.0, "wait_jitter": 0.0}
        with (
            guarded(crm, lab.hook, clock=clock, **settings) as session,
            lab.tracer.start_as_current_span("job") as job,
        ):
            assert put(session, leads, lead).ok
            assert trace.get_current_span() is job
        first, second = lab.waits
        about = {"http.request.method": "PUT", "crm_guard.module": "Leads", "crm_guard.records": 1}
        about |= {"crm_guard.code": "RECORD_LOCKED", "crm_guard.action": ACTION}
        waited, more = clock.waits
        numbers = {"crm_guard.attempt": 1, "crm_guard.waited": 0.0, "crm_guard.delay": waited}
        assert dict(first.attributes) == about | numbers
        numbers = {"crm_guard.attempt": 2, "crm_guard.waited": waited, "crm_guard.delay": more}
        assert dict(second.attributes) == about | numbers
        for wait in lab.waits:
            assert is_below(wait, lab.span("job"))
            assert (wait.kind, wait.status.status_code, wait.events) == (SpanKind.INTERNAL, StatusCode.UNSET, ())
            scope = wait.instrumentation_scope
            assert (scope.name, scope.version) == ("crm_guard", crm_guard.__version__)

    def test_lasts_from_the_refusal_to_the_resend(self, lab):
        with Simulator(clock=time.time) as crm:
            (lead,) = add(crm, 1, refusals=3)
            unhurried = GuardSettings(wait_initial=0.1, wait_max=0.1)
            with session_for(crm, unhurried, hooks=[lab.hook]) as session, lab.tracer.start_as_current_span("job"):
                put(session, f"{crm.url}/crm/v8/Leads", lead)
        sent = [call.at for call in crm.calls]
        assert len(lab.waits) == 3
        for number, wait in enumerate(lab.waits):
            begin, end = wait.start_time / 1e9, wait.end_time / 1e9
            assert sent[number] - 0.001 <= begin < end <= sent[number + 1] + 0.001
            assert wait.attributes["crm_guard.delay"] - 0.001 <= end - begin < 5

    def test_is_a_trace_of_its_own_where_no_span_is_current(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=2)
        with guarded(crm, lab.hook, clock=clock) as session:
            put(session, leads, lead)
        assert [wait.parent for wait in lab.waits] == [None, None]
        assert len({wait.context.trace_id for wait in lab.waits}) == 2

    def test_is_current_while_it_lasts_and_not_during_the_resend(self, crm, clock, lab, leads):
        seen = []
        clock.during_wait = lambda: seen.append(trace.get_current_span().name)
        lead = crm.add_record("Leads", refusals=1)

        def refresh(request):
            seen.append(trace.get_current_span().name)

        with (
            guarded(crm, lab.hook, clock=clock, refresh=refresh) as session,
            lab.tracer.start_as_current_span("job"),
        ):
            put(session, leads, lead)
        assert seen == ["crm_guard.wait", "job"]

    def test_that_takes_longer_than_announced_is_one_span(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=2)
        with (
            guarded(crm, lab.hook, clock=clock, lock_registry=Announcing()) as session,
            lab.tracer.start_as_current_span("job"),
        ):
            put(session, leads, lead)
        assert [is_below(wait, lab.span("job")) for wait in lab.waits] == [True, True]
        assert [names(wait) for wait in lab.waits] == [["waiting"] * 2] * 2, (
            "it is told as often as it is announced"
        )
        assert [event.attributes["crm_guard.delay"] for event in lab.waits[0].events] == [1.0, 2.0]

    def test_before_the_first_send_has_no_attempt_and_its_send_is_no_resend(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=4)
        registry = MemoryLockRegistry()
        other = registry.waiter(WaitContext(clock, Wake(), lambda: False))
        other.verdict(locked=[f"{crm.url}|{lead}"], free=())
        with (
            guarded(crm, lab.hook, clock=clock, lock_registry=registry, attempts=9) as session,
            lab.tracer.start_as_current_span("job", kind=SpanKind.CLIENT),
        ):
            put(session, leads, lead)
        other.leave()
        job = lab.span("job")
        assert names(job)[:1] == ["locked"]
        assert job.events[0].attributes["crm_guard.attempt"] == 0
        assert lab.waits[0].attributes["crm_guard.attempt"] == 0
        resends = [event.attributes[RESENDS] for event in job.events if RESENDS in event.attributes]
        assert resends == [1, 2, 3, 4]
        assert job.attributes[RESENDS] == len(crm.calls) - 1 == 4


class TestTheCurrentSpan:
    def test_has_an_event_for_each_refusal_resend_and_unlock(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=2)
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job"):
            put(session, leads, lead)
        job = lab.span("job")
        assert names(job) == ["locked", "resending", "locked", "resending", "unlocked"]
        assert [event.attributes["crm_guard.attempt"] for event in job.events] == [1, 2, 2, 3, 3]
        assert [event.attributes.get(RESENDS) for event in job.events] == [None, 1, None, 2, None]
        waited = [0.0, clock.waits[0], clock.waits[0], sum(clock.waits), sum(clock.waits)]
        assert [event.attributes["crm_guard.waited"] for event in job.events] == pytest.approx(waited)
        for event in job.events:
            assert event.attributes["crm_guard.records"] == 1
            assert event.attributes["crm_guard.module"] == "Leads"
            assert event.attributes["http.request.method"] == "PUT"
            assert event.attributes.get("crm_guard.action") == (
                ACTION if event.name == "crm_guard.locked" else None
            )
        assert not job.attributes
        times = [moment for pair in zip(lab.waits, job.events[1::2], strict=True) for moment in pair]
        assert [getattr(moment, "end_time", None) or moment.timestamp for moment in times] == sorted(
            getattr(moment, "end_time", None) or moment.timestamp for moment in times
        )

    def test_says_how_many_of_a_batch_it_was_about_and_why_the_others_stay_blocked(self, crm, clock, lab, leads):
        ids = [crm.add_record("Leads", refusals=count) for count in (0, 1, 1, 2)]
        ids += [crm.add_record("Leads", state="zia_vision_rejected") for _ in range(2)]
        rows = {"data": [{"id": one, "Company": "Zylker"} for one in ids]}
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job"):
            session.put(leads, json=rows)
        told = [(event.name, event.attributes["crm_guard.records"]) for event in lab.span("job").events]
        assert told == [
            *(("crm_guard.locked", 3), ("crm_guard.resending", 3), ("crm_guard.locked", 1)),
            *(("crm_guard.unlocked", 2), ("crm_guard.resending", 1), ("crm_guard.unlocked", 1)),
            ("crm_guard.blocked", 2),
        ]
        blocked = lab.span("job").events[-1].attributes
        assert (blocked["crm_guard.code"], blocked["crm_guard.case"]) == ("NOT_APPROVED", "zia_rejected")
        assert [wait.attributes["crm_guard.records"] for wait in lab.waits] == [3, 1]

    @pytest.mark.parametrize(("fault", "met"), [("401", "401 INVALID_TOKEN"), ("reset", "ConnectionError")])
    def test_says_why_the_guard_gave_up(self, crm, clock, lab, leads, fault, met):
        ids = [crm.add_record("Leads", refusals=count) for count in (0, 3)]
        rows = {"data": [{"id": one, "Company": "Zylker"} for one in ids]}
        if fault == "401":
            clock.during_wait = lambda: crm.expire_token("another")
        else:
            crm.fault("reset", method="PUT", after=1)
        with (
            guarded(crm, lab.hook, clock=clock) as session,
            lab.tracer.start_as_current_span("job"),
            contextlib.suppress(GuardError),
        ):
            session.put(leads, json=rows)
        assert names(lab.span("job")) == ["locked", "resending", "gave_up"]
        gave_up = lab.span("job").events[-1].attributes
        assert (gave_up["crm_guard.reason"], gave_up["crm_guard.error"]) == ("follow_up", met)
        assert (gave_up["crm_guard.records"], gave_up["crm_guard.code"]) == (1, "RECORD_LOCKED")

    @pytest.mark.parametrize("kind", list(SpanKind))
    def test_counts_resends_in_an_attribute_if_it_is_a_clients(self, crm, clock, lab, leads, kind):
        lead = crm.add_record("Leads", refusals=3)
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job", kind=kind):
            put(session, leads, lead)
        assert dict(lab.span("job").attributes) == ({RESENDS: 3} if kind is SpanKind.CLIENT else {})

    def test_has_neither_events_nor_attributes_where_nothing_is_refused(self, crm, clock, lab, leads):
        with (
            guarded(crm, lab.hook, clock=clock) as session,
            lab.tracer.start_as_current_span("job", kind=SpanKind.CLIENT),
        ):
            put(session, leads, crm.add_record("Leads"))
            session.get(leads)
        assert (dict(lab.span("job").attributes), lab.span("job").events, lab.waits) == ({}, (), [])

    def test_that_ended_or_is_not_sampled_gets_nothing_and_nobody_complains(self, crm, clock, lab, leads):
        unsampled = Lab(sampler=ALWAYS_OFF)
        ids = [crm.add_record("Leads", refusals=2) for _ in range(2)]
        with guarded(crm, lab.hook, clock=clock) as session:
            ended = lab.tracer.start_span("job")
            ended.end()
            with trace.use_span(ended):
                assert put(session, leads, ids[0]).ok
        with guarded(crm, unsampled.hook, clock=clock) as session, unsampled.tracer.start_as_current_span("job"):
            assert put(session, leads, ids[1]).ok
        assert lab.span("job").events == ()
        assert len(lab.waits) == 2
        assert unsampled.exporter.get_finished_spans() == ()

    def test_has_one_event_for_each_of_the_guard_whatever_happens(self, crm, clock, lab, leads, events):
        """A hundred calls of all kinds: spans and events are as many, and as they are told to other hooks."""
        dice = random.Random(5)
        states = ["zia_vision_rejected", "record_locking", "zia_image_pending"]
        with guarded(crm, lab.hook, events, clock=clock, attempts=4, raise_on="never") as session:
            for number in range(100):
                ids = [crm.add_record("Leads", refusals=dice.choice([0, 0, 1, 2, 6])) for _ in range(3)]
                ids.append(crm.add_record("Leads", state=dice.choice(states)))
                if number % 3:
                    ids = ids[:1]
                with lab.tracer.start_as_current_span(f"job {number}"):
                    first = len(events)
                    session.put(leads, json={"data": [{"id": one, "Company": "9"} for one in ids]})
                job = lab.span(f"job {number}")
                told = [event for event in events[first:] if event.kind is not EventKind.WAITING]
                assert names(job) == [event.kind.value for event in told]
                assert [event.attributes["crm_guard.records"] for event in job.events] == [
                    event.records for event in told
                ]
                assert [event.attributes.get("crm_guard.case") for event in job.events] == [
                    event.case and event.case.value for event in told
                ]
                mine = [wait for wait in lab.waits if wait.context.trace_id == job.context.trace_id]
                assert len(mine) == len(events) - first - len(told)
                assert all(is_below(wait, job) for wait in mine)
        assert {event.kind for event in events} == set(EventKind)


class TestWithTheInstrumentationOfRequests:
    """In either order of installation, and of removal."""

    @pytest.mark.parametrize("way", ["mount_guard", "install"])
    @pytest.mark.parametrize("order", ["requests, guard", "guard, requests"])
    @pytest.mark.parametrize("crossed", [False, True])
    def test_the_clients_span_has_the_events_and_the_waits_below_it(
        self, crm, clock, lab, leads, way, order, crossed
    ):
        before = requests.Session.send, requests.Session.get_adapter
        ids = [crm.add_record("Leads", refusals=count) for count in (2, 0, 1)]
        session = requests.Session()

        def guard():
            if way == "install":
                return crm_guard.install(crm.url, clock=clock, hooks=[lab.hook])
            crm_guard.mount_guard(session, crm.url, clock=clock, hooks=[lab.hook])
            return contextlib.nullcontext()

        steps = [lambda: traced_requests(lab), guard]
        first, second = steps if order == "requests, guard" else reversed(steps)
        one, two = contextlib.ExitStack(), contextlib.ExitStack()
        one.enter_context(first())
        two.enter_context(second())
        with session, lab.tracer.start_as_current_span("job") as job:
            for lead in ids:
                assert put(session, leads, lead).ok
                assert trace.get_current_span() is job
        for stack in (one, two) if crossed else (two, one):
            stack.close()
        clients = lab.spans("PUT")
        assert [client.kind for client in clients] == [SpanKind.CLIENT] * 3
        assert all(is_below(client, lab.span("job")) for client in clients)
        assert [client.attributes.get(RESENDS) for client in clients] == [2, None, 1]
        assert [client.attributes["http.status_code"] for client in clients] == [200] * 3
        assert names(clients[0]) == ["locked", "resending", "locked", "resending", "unlocked"]
        assert [event.attributes[RESENDS] for event in clients[0].events if RESENDS in event.attributes] == [1, 2]
        assert [len(client.events) for client in clients] == [5, 0, 3]
        assert [is_below(wait, clients[0]) for wait in lab.waits] == [True, True, False]
        assert is_below(lab.waits[2], clients[2])
        assert lab.span("job").events == ()
        if not crossed:
            assert (requests.Session.send, requests.Session.get_adapter) == before

    def test_a_refusal_that_is_raised_ends_the_clients_span_with_its_events(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=9)
        with (
            traced_requests(lab),
            guarded(crm, lab.hook, clock=clock, attempts=2) as session,
            pytest.raises(GuardError),
        ):
            put(session, leads, lead)
        client = lab.span("PUT")
        assert names(client) == ["locked", "resending", "locked", "gave_up", "exception"]
        assert client.events[3].attributes["crm_guard.reason"] == "attempts"
        assert client.attributes[RESENDS] == 1

    def test_the_requests_of_a_writer_are_beside_its_waits(self, crm, lab, leads):
        ids = [one for count in range(3) for one in add(crm, 4, refusals=count)]
        with traced_requests(lab), session_for(crm, hooks=[lab.hook]) as session:
            with lab.tracer.start_as_current_span("job"):
                results, error = take(
                    crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=3, workers=3)
                )
            assert nothing_lives()
        assert (len(results), error) == (12, None)
        job = lab.span("job")
        assert len(lab.spans("PUT")) == len(crm.calls)
        assert all(is_below(span, job) for span in [*lab.spans("PUT"), *lab.waits])
        assert all(client.events == () for client in lab.spans("PUT"))


class TestNothingIsTold:
    TOKEN, ROWS = "Zoho-oauthtoken 1000.s3cret", {"data": [{"Company": "s3cret", "Email": "jane@example.com"}]}
    WORDS = ("s3cret", "jane", "example.com", "oauthtoken", "Zylker", "Leads.Ext")

    def calls(self, crm, session, leads, ids):
        headers = {"Authorization": self.TOKEN, "X-Custom": "s3cret"}
        for lead in ids:
            session.put(f"{leads}/{lead}?access_token=s3cret", json=self.ROWS, headers=headers)
        rows = [{"id": lead, **self.ROWS["data"][0]} for lead in ids]
        session.put(leads, json={"data": rows}, headers=headers)
        external = {**headers, "X-EXTERNAL": "Leads.Ext"}
        session.put(f"{leads}/jane@example.com", json=self.ROWS, headers=external)

    def refuse(self, crm):
        details = {"id": "jane@example.com", "action": ACTION, "Email": "jane@example.com"}
        body = {"data": [{"code": "RECORD_LOCKED", "details": details, "message": "s3cret", "status": "error"}]}
        crm.fault("answer", path="jane", status=400, body=body, times=2)
        details = {"id": "jane@example.com", "action": "jane@example.com", "approval_state": "s3cret jane"}
        body = {"data": [{"code": "NOT_APPROVED", "details": details, "message": "s3cret", "status": "error"}]}
        crm.fault("answer", path="jane", status=400, body=body, times=2)

    @pytest.mark.parametrize("with_requests", [False, True])
    @pytest.mark.parametrize("record_ids", [False, True])
    def test_of_bodies_tokens_headers_and_external_ids_nor_of_records_unless_asked_for(
        self, crm, clock, lab, leads, record_ids, with_requests
    ):
        hook = OpenTelemetryHook(tracer_provider=lab.provider, record_ids=record_ids)
        ids = [crm.add_record("Leads", refusals=3), crm.add_record("Leads", state="zia_vision_rejected")]
        self.refuse(crm)
        with (
            guarded(crm, hook, clock=clock, raise_on="never") as session,
            traced_requests(lab) if with_requests else contextlib.nullcontext(),
            lab.tracer.start_as_current_span("job"),
        ):
            self.calls(crm, session, leads, ids)
        text = lab.text(*LEFT_OUT)
        assert len(lab.waits) >= 5
        assert text.count("crm_guard.blocked") >= 3
        assert not [word for word in self.WORDS if word in text]
        assert [lead in text for lead in ids] == [record_ids] * 2
        if record_ids:
            assert lab.waits[0].attributes["crm_guard.record_ids"] == (ids[0],)
            assert lab.waits[-1].attributes["crm_guard.record_ids"] == ()
        else:
            assert "record_ids" not in text

    def test_by_a_writer_either(self, crm, lab, leads):
        ids = [*add(crm, 2, refusals=2), *add(crm, 1, state="zia_vision_rejected")]
        rows = [{"id": one, "Company": "s3cret", "Email": "jane@example.com"} for one in ids]
        with session_for(crm, hooks=[lab.hook]) as session, lab.tracer.start_as_current_span("job"):
            session.headers["Authorization"] = self.TOKEN
            take(crm_guard.write_records(session, "PUT", leads, rows))
        assert {"locked", "unlocked", "blocked"} <= set(names(lab.span("job")))
        assert not [word for word in (*self.WORDS, *ids) if word in lab.text()]


class TestThreads:
    def test_twenty_callers_of_one_record_have_a_tree_each(self, lab, together):
        with Simulator() as crm:
            lead = crm.add_record("Leads", locked_for=0.3)
            url = f"{crm.url}/crm/v8/Leads"
            quick = {"wait_initial": 0.05, "wait_max": 0.1, "timeout": 15.0}
            with guarded(crm, lab.hook, pool_maxsize=20, **quick) as session:

                def call(number):
                    with lab.tracer.start_as_current_span(f"job {number}") as job:
                        response = put(session, url, lead)
                        assert trace.get_current_span() is job
                    return response.status_code

                assert together([lambda number=number: call(number) for number in range(20)]) == [200] * 20
            assert crm.writes(lead) == 20
        jobs = [lab.span(f"job {number}") for number in range(20)]
        assert len({job.context.trace_id for job in jobs}) == 20
        of_trace = Counter(wait.context.trace_id for wait in lab.waits)
        assert set(of_trace) <= {job.context.trace_id for job in jobs}
        for job in jobs:
            mine = [wait for wait in lab.waits if wait.context.trace_id == job.context.trace_id]
            assert mine, "each of them met the lock, or knew of it"
            assert all(is_below(wait, job) and wait.end_time <= job.end_time for wait in mine)
            assert all(one.end_time <= next_.start_time for one, next_ in pairwise(mine))
            told = names(job)
            assert told[0] == "locked"
            assert told[-1] == "unlocked"
            sent = [event.attributes[RESENDS] for event in job.events if event.name == "crm_guard.resending"]
            assert sent == list(range(1, len(sent) + 1))
        refused = [e for job in jobs for e in job.events if e.name == "crm_guard.locked"]
        assert sum(bool(event.attributes["crm_guard.attempt"]) for event in refused) == crm.refusals(lead)


class TestAWriter:
    def test_has_its_waits_below_the_callers_span_though_they_overlap(self, crm, lab, leads):
        ids = [one for count in range(1, 9) for one in add(crm, 3, refusals=count)]
        heard = []
        with session_for(crm, hooks=[lab.hook, heard.append]) as session:
            with lab.tracer.start_as_current_span("job") as job:
                writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=3, workers=4)
                results, error = take(writer)
                assert trace.get_current_span() is job
            assert nothing_lives()
        assert (len(results), error) == (24, None)
        waits, kinds = lab.waits, Counter(event.kind.value for event in heard)
        assert len(waits) == kinds.pop("waiting") >= 8
        assert all(is_below(wait, lab.span("job")) for wait in waits)
        overlaps = [one.end_time > other.start_time for one, other in pairwise(waits)]
        assert any(overlaps)
        assert Counter(names(lab.span("job"))) == kinds
        assert sum(wait.attributes["crm_guard.records"] for wait in waits) == sum(map(crm.refusals, ids))

    @pytest.mark.parametrize("end", ["close", "stop", "interrupt", "input"])
    def test_that_ends_early_has_ended_its_waits(self, crm, lab, leads, end):
        ids = add(crm, 3, locked_for=1e6) + add(crm, 3)

        def rows():
            yield from rows_of(ids)
            until(lambda: "crm_guard.wait" in lab.open)
            if end == "input":
                raise LookupError
            if end == "interrupt":
                raise KeyboardInterrupt
            if end == "stop":
                crm_guard.stop_waiting()
            yield from rows_of(add(crm, 3))

        slow = GuardSettings(wait_initial=30, wait_max=30)
        with session_for(crm, slow, hooks=[lab.hook]) as session, lab.tracer.start_as_current_span("job"):
            writer = crm_guard.write_records(session, "PUT", leads, rows(), batch_size=3)
            with contextlib.suppress(KeyboardInterrupt):
                if end == "close":
                    next(writer)
                    until(lambda: "crm_guard.wait" in lab.open)
                    writer.close()
                take(writer)
            assert nothing_lives()
            assert lab.open == ["job"]
        assert lab.waits
        (gave_up,) = [event for event in lab.span("job").events if event.name == "crm_guard.gave_up"]
        assert gave_up.attributes["crm_guard.reason"] == ("stopped" if end == "stop" else "interrupted")

    def test_whose_results_are_taken_after_the_callers_span_has_ended_complains_of_nothing(self, crm, lab, leads):
        """Its threads keep the span that was current when they began."""
        ids = [one for count in (0, 3) for one in add(crm, 3, refusals=count)]
        policy = GuardSettings(wait_initial=0.1, wait_max=0.1)
        with session_for(crm, policy, hooks=[lab.hook]) as session:
            with lab.tracer.start_as_current_span("job"):
                writer = crm_guard.write_records(session, "PUT", leads, rows_of(ids), workers=1)
                results = [next(writer)]
                until(lambda: "crm_guard.wait" in lab.open)
            more, error = take(writer)
        assert (len(results + more), error) == (6, None)
        assert len(lab.waits) == 3
        assert all(is_below(wait, lab.span("job")) for wait in lab.waits)
        assert names(lab.span("job")) == ["locked"]


class TestAnEndDuringAWait:
    @pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, LookupError])
    @pytest.mark.parametrize("with_requests", [False, True])
    def test_ends_its_span_and_restores_the_callers(self, crm, clock, lab, leads, end, with_requests):
        lead = crm.add_record("Leads", refusals=9)

        def interrupt():
            if len(clock.waits) == 2:
                raise end

        clock.during_wait = interrupt
        with (
            guarded(crm, lab.hook, clock=clock) as session,
            traced_requests(lab) if with_requests else contextlib.nullcontext(),
            lab.tracer.start_as_current_span("job") as job,
        ):
            with pytest.raises((end, GuardError)):
                put(session, leads, lead)
            assert trace.get_current_span() is job
        assert len(lab.waits) == 2
        told = lab.span("PUT" if with_requests else "job")
        assert names(told)[:4] == ["locked", "resending", "locked", "gave_up"]
        is_error = issubclass(end, Exception)
        assert told.events[3].attributes["crm_guard.reason"] == ("follow_up" if is_error else "interrupted")
        assert lab.waits[1].status.status_code is StatusCode.UNSET
        assert not lab.waits[1].events, "the text of an exception may name records"

    def test_by_a_signal_is_no_different(self, crm, clock, lab, leads):
        lead = crm.add_record("Leads", refusals=9)
        clock.during_wait = lambda: signal.raise_signal(signal.SIGINT)
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job") as job:
            with pytest.raises(KeyboardInterrupt):
                put(session, leads, lead)
            assert trace.get_current_span() is job
        assert names(lab.span("job")) == ["locked", "gave_up"]
        assert len(lab.waits) == 1

    @pytest.mark.parametrize("stop", ["of the process", "of the guard"])
    def test_by_stop_waiting_is_the_end_of_the_wait(self, crm, clock, lab, leads, stop):
        lead = crm.add_record("Leads", refusals=9)
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job"):
            own = session.get_adapter(leads).stop_waiting
            clock.during_wait = crm_guard.stop_waiting if stop == "of the process" else own
            with pytest.raises(GuardError):
                put(session, leads, lead)
        assert names(lab.span("job")) == ["locked", "gave_up"]
        assert lab.span("job").events[1].attributes["crm_guard.reason"] == "stopped"
        (wait,) = lab.waits
        assert (wait.status.status_code, wait.events) == (StatusCode.UNSET, ())

    def test_by_another_hook_that_ends_the_program_ends_the_span_as_well(self, crm, clock, lab, leads):
        def leave(event):
            if event.kind is EventKind.WAITING:
                raise SystemExit(3)

        lead = crm.add_record("Leads", refusals=9)
        with guarded(crm, lab.hook, leave, clock=clock) as session, lab.tracer.start_as_current_span("job") as job:
            with pytest.raises(SystemExit):
                put(session, leads, lead)
            assert trace.get_current_span() is job
        assert len(lab.waits) == 1


class TestWithoutAnSdk:
    def test_a_call_is_as_without_the_hook(self, crm, clock, leads, lab):
        seen = []
        clock.during_wait = lambda: seen.append(trace.get_current_span().is_recording())
        lead = crm.add_record("Leads", refusals=2)
        with guarded(crm, OpenTelemetryHook(), clock=clock) as session:
            assert put(session, leads, lead).ok
        assert seen == [False, False]
        assert crm.writes(lead) == 1

    def test_the_span_of_another_tracer_gets_the_events_and_is_kept(self, crm, clock, leads, lab):
        """As with a provider that the program hands to its own tracers alone."""
        seen = []
        clock.during_wait = lambda: seen.append(trace.get_current_span().get_span_context())
        lead = crm.add_record("Leads", refusals=1)
        with (
            guarded(crm, OpenTelemetryHook(), clock=clock) as session,
            lab.tracer.start_as_current_span("job") as job,
        ):
            put(session, leads, lead)
            assert trace.get_current_span() is job
        assert names(lab.span("job")) == ["locked", "resending", "unlocked"]
        assert [context.span_id for context in seen] == [lab.span("job").context.span_id], "it is propagated"


class TestCopies:
    def test_a_session_is_pickled_with_the_settings_of_its_hook(self, crm, clock, leads, lab):
        for record_ids in (False, True):
            session = guarded(crm, OpenTelemetryHook(record_ids=record_ids))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                twin = pickle.loads(pickle.dumps(session, protocol))  # noqa: S301
                (hook,) = twin.get_adapter(leads).hooks
                assert type(hook) is OpenTelemetryHook
                with lab.tracer.start_as_current_span(f"{record_ids} {protocol}") as job:
                    hook(crm_guard.GuardEvent(kind=EventKind.LOCKED, method="PUT", path="/", record_ids=("1",)))
                assert job.events[0].attributes.get("crm_guard.record_ids") == (("1",) if record_ids else None)
            assert put(twin, leads, crm.add_record("Leads")).ok

    def test_a_hook_with_a_tracer_provider_of_its_own_says_that_it_cannot_be_pickled(self, crm, lab):
        with guarded(crm, lab.hook) as session:
            for thing in (lab.hook, session):
                with pytest.raises(TypeError, match="a tracer_provider of its own cannot be pickled"):
                    pickle.dumps(thing)

    def test_a_deep_copy_of_a_session_traces_to_the_same_place(self, crm, lab, leads):
        lead = crm.add_record("Leads", refusals=1)
        with guarded(crm, lab.hook, wait_initial=0.05, wait_max=0.05) as session:
            twin = copy.deepcopy(session)
        assert twin.get_adapter(leads).hooks == (lab.hook,)
        assert put(twin, leads, lead).ok
        twin.close()
        assert len(lab.waits) == 1


def test_a_hook_of_the_process_that_is_also_the_guards_traces_once(crm, clock, lab, leads):
    lead = crm.add_record("Leads", refusals=1)
    before = instrument([lab.hook])
    try:
        with guarded(crm, lab.hook, clock=clock) as session, lab.tracer.start_as_current_span("job"):
            put(session, leads, lead)
    finally:
        assert instrument(before) == (lab.hook,)
    assert len(lab.waits) == 1
    assert names(lab.span("job")) == ["locked", "resending", "unlocked"]


GLOBAL = """
import json, os, pickle, sys
import requests
import crm_guard
from crm_guard.instrumentation import OpenTelemetryHook
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock

hook = OpenTelemetryHook()
crm_guard.instrument([hook])
clock = ManualClock()

def call(crm, session):
    lead = crm.add_record("Leads", refusals=2)
    assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "9"}]}).ok

with Simulator(clock=clock) as crm:
    session = requests.Session()
    crm_guard.mount_guard(session, crm.url, clock=clock)
    call(crm, session)  # nobody traces yet

    from opentelemetry import trace
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    RequestsInstrumentor().instrument()
    call(crm, session)
    crm_guard.instrument([pickle.loads(pickle.dumps(hook))])
    call(crm, session)
for span in exporter.get_finished_spans():
    print(span.to_json(indent=None))
"""


def test_a_provider_that_is_set_after_the_hook_was_made_is_used():
    """With the stable names of attributes, too: they are chosen once for a whole process."""
    lines = said(GLOBAL, environment={"OTEL_SEMCONV_STABILITY_OPT_IN": "http"})
    spans = [json.loads(line) for line in lines]
    assert [span["name"] for span in spans] == ["crm_guard.wait", "crm_guard.wait", "PUT"] * 2
    for *waits, client in (spans[:3], spans[3:]):
        assert {wait["parent_id"] for wait in waits} == {client["context"]["span_id"]}
        assert client["attributes"][RESENDS] == 2
        assert client["attributes"]["http.request.method"] == "PUT"
        assert client["attributes"]["http.response.status_code"] == 200
        assert [event["name"].removeprefix("crm_guard.") for event in client["events"]] == [
            *("locked", "resending", "locked", "resending", "unlocked"),
        ]


def test_the_log_of_opentelemetry_is_watched_by_these_tests(caplog):
    """Whoever detaches a context of another thread is told so in the log alone: see `nothing_is_left`."""
    from opentelemetry import context

    with caplog.at_level(logging.ERROR, "opentelemetry"):
        token = context.attach(context.get_current())
        context.detach(token)
        context.detach(token)
    assert "Failed to detach context" in caplog.text
    caplog.clear()
