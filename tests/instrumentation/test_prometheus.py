"""Metrics: they say what CRM's own log says, in Prometheus's form, whatever ends a wait, and lose no count."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import pickle
import random
import re
import sys
import urllib.request
import weakref
from collections import Counter
from functools import partial

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

import crm_guard
from crm_guard import ApprovalCase, EventKind, GiveUpReason, GuardError, GuardEvent, GuardSettings, instrument
from crm_guard.clock import Wake
from crm_guard.instrumentation import PrometheusHook
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator
from tests.bulk.world import add, nothing_lives, rows_of, session_for, take, until
from tests.instrumentation.lab import ACTION, ROW, Announcing, guarded, program, said, samples

GAUGE = ("waits_in_progress", "Leads")
LOCKED = ("Leads", ACTION)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def hook(registry):
    return PrometheusHook(registry=registry)


@pytest.fixture(autouse=True)
def the_default_registry_is_left_alone():
    before = generate_latest(prometheus_client.REGISTRY).count(b"crm_guard")
    yield
    assert generate_latest(prometheus_client.REGISTRY).count(b"crm_guard") == before


def text_of(registry):
    """Return what Prometheus gets; times of creation left out, and the seconds of waits of no time."""
    lines = generate_latest(registry).decode().splitlines()
    kept = [line for line in lines if "_created" not in line]
    return [
        re.sub(r"(crm_guard_wait_seconds_sum\S+) 0\.\d+|(?<=\S) \d\.\d+e-0\d$", r"\1 ~0", line) for line in kept
    ]


def values_of(registry, label):
    """Return the values that a label has."""
    return {
        sample.labels[label] for metric in registry.collect() for sample in metric.samples if label in sample.labels
    }


def event(kind, **about):
    return GuardEvent(kind=kind, method="PUT", path="/crm/v8/Leads", **{"module": "Leads", **about})


HELP = """\
# HELP crm_guard_refusals_total Answers that refused records for a lock that passes.
# TYPE crm_guard_refusals_total counter
# HELP crm_guard_refused_records_total Records refused for a lock that passes.
# TYPE crm_guard_refused_records_total counter
# HELP crm_guard_resends_total Requests sent again for records that were locked.
# TYPE crm_guard_resends_total counter
# HELP crm_guard_unlocked_records_total Records whose lock ended while waited for.
# TYPE crm_guard_unlocked_records_total counter
# HELP crm_guard_blocked_records_total Records that waiting does not unblock.
# TYPE crm_guard_blocked_records_total counter
# HELP crm_guard_gave_up_total Calls that gave up waiting.
# TYPE crm_guard_gave_up_total counter
# HELP crm_guard_gave_up_records_total Records left by calls that gave up waiting.
# TYPE crm_guard_gave_up_records_total counter
# HELP crm_guard_wait_seconds Waits for a lock.
# TYPE crm_guard_wait_seconds histogram
# HELP crm_guard_waits_in_progress Calls that wait for a lock now.
# TYPE crm_guard_waits_in_progress gauge
""".splitlines()


class TestTheText:
    def test_of_a_hook_that_heard_of_nothing_has_all_names_and_no_value(self, registry, hook):
        assert text_of(registry) == HELP

    def test_of_a_lock_that_ends_and_of_what_is_blocked_and_given_up(self, crm, clock, leads, registry, hook):
        ids = [crm.add_record("Leads", refusals=count) for count in (0, 2, 1, 9)]
        ids.append(crm.add_record("Leads", state="zia_vision_rejected"))
        rows = {"data": [{"id": one, "Company": "Zylker"} for one in ids]}
        with guarded(crm, hook, clock=clock, attempts=3) as session:
            session.put(leads, json=rows)
        lock = f'{{action="{ACTION}",module="Leads"}}'
        cause = '{cause="zia_rejected",code="NOT_APPROVED",module="Leads"}'
        bounds = ("0.5", "1.0", "2.5", "5.0", "10.0", "20.0", "30.0", "60.0", "120.0", "300.0", "+Inf")
        assert [line for line in text_of(registry) if not line.startswith("#")] == [
            f"crm_guard_refusals_total{lock} 3.0",
            f"crm_guard_refused_records_total{lock} 6.0",
            'crm_guard_resends_total{module="Leads"} 2.0',
            'crm_guard_unlocked_records_total{module="Leads"} 2.0',
            f"crm_guard_blocked_records_total{cause} 1.0",
            'crm_guard_gave_up_total{module="Leads",reason="attempts"} 1.0',
            'crm_guard_gave_up_records_total{module="Leads",reason="attempts"} 1.0',
            *(
                f'crm_guard_wait_seconds_bucket{{action="{ACTION}",le="{bound}",module="Leads"}} 2.0'
                for bound in bounds
            ),
            f"crm_guard_wait_seconds_count{lock} 2.0",
            f"crm_guard_wait_seconds_sum{lock} ~0",
            'crm_guard_waits_in_progress{module="Leads"} 0.0',
        ]

    def test_follows_the_conventions(self, crm, clock, leads, registry, hook):
        """https://prometheus.io/docs/practices/naming/ and https://prometheus.io/docs/instrumenting/writing_clientlibs/."""
        for count in (0, 1, 30):
            with guarded(crm, hook, clock=clock, raise_on="never") as session:
                session.put(f"{leads}/{crm.add_record('Leads', refusals=count)}", json=ROW)
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
        ours = [family for family in families if not family.name.endswith("_created")]
        assert Counter(family.type for family in ours) == {"counter": 7, "histogram": 1, "gauge": 1}
        for family in ours:
            assert re.fullmatch(r"crm_guard(_[a-z]+)+", family.name)
            assert re.fullmatch(r"[A-Z][^\n]+[.]", family.documentation), "one sentence"
            assert not re.search(r"_(total|count|sum|bucket|info|created)$", family.name)
            assert family.type != "histogram" or family.name.endswith("_seconds")
            for sample in family.samples:
                assert family.type != "counter" or sample.name == f"{family.name}_total"
                assert set(sample.labels) <= {"module", "action", "code", "cause", "reason", "le"}
        plain = {metric.name: metric for metric in ours}
        opened = {metric.name: metric for metric in parse_openmetrics(generate_openmetrics(registry).decode())}
        assert set(opened) == set(plain)
        assert {name: metric.documentation for name, metric in opened.items()} == {
            name: metric.documentation for name, metric in plain.items()
        }

    def test_has_the_names_that_the_documentation_has(self, registry, hook):
        documented = set(re.findall(r"`(crm_guard_\w+)`", PrometheusHook.__doc__))
        named = {re.sub(r"# TYPE (\S+) .*", r"\1", line) for line in text_of(registry) if "# TYPE" in line}
        assert documented == named


def test_a_server_shows_who_waits_now_and_that_nobody_does_any_more(crm, clock, leads, registry, hook):
    seen = []
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:

        def scrape():
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
                text = answer.read().decode()
            (found,) = re.findall(r'crm_guard_waits_in_progress\{module="Leads"\} (\S+)', text)
            seen.append((float(found), text))

        clock.during_wait = scrape
        with guarded(crm, hook, clock=clock) as session:
            session.put(f"{leads}/{crm.add_record('Leads', refusals=2)}", json=ROW)
            scrape()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert [value for value, _ in seen] == [1.0, 1.0, 0.0]
    final = {family.name: family for family in text_string_to_metric_families(seen[-1][1])}
    assert [sample.value for sample in final["crm_guard_resends"].samples] == [2.0]
    assert not thread.is_alive()


class TestCounts:
    """Each number, against what the simulated CRM noted down itself."""

    def test_are_those_of_the_log_of_crm_for_single_calls_and_batches(self, crm, clock, registry, hook):
        dice, waits, ends = random.Random(11), Counter(), Counter()
        ids, blocked = {}, {}
        modules, states = ("Leads", "Contacts", "Products"), ("zia_vision_rejected", "record_locking")
        with guarded(crm, hook, clock=clock, attempts=4, raise_on="never") as session:
            for _ in range(60):
                module = dice.choice(modules)
                counts = [dice.choice([0, 0, 1, 2, 3, 8]) for _ in range(dice.choice([1, 1, 5, 12]))]
                mine = {crm.add_record(module, refusals=count): module for count in counts}
                others = {
                    crm.add_record(module, state=state): state for state in dice.choices(states, k=len(counts) // 3)
                }
                before = len(clock.waits)
                rows = [{"id": one, "Company": "9"} for one in (*mine, *others)]
                session.put(f"{crm.url}/crm/v8/{module}", json={"data": rows})
                waits[module] += len(clock.waits) - before
                ends[module] += any(count > 3 for count in counts)
                ids, blocked = ids | mine, blocked | others
        found = samples(registry)
        sends = [call for call in crm.calls if call.method == "PUT"]  # the others look for a cause
        for module in modules:
            locked = {one for one, its_module in ids.items() if its_module == module and crm.refusals(one)}
            refused = [call for call in sends if locked.intersection(call.refused_ids)]
            assert found["refusals_total", module, ACTION] == len(refused)
            assert found["refused_records_total", module, ACTION] == sum(map(crm.refusals, locked))
            written = [one for one in locked if crm.writes(one)]
            assert found["unlocked_records_total", module] == len(written)
            assert found["gave_up_total", module, "attempts"] == ends[module]
            assert found["gave_up_records_total", module, "attempts"] == len(locked) - len(written)
            assert found["wait_seconds_count", module, ACTION] == waits[module]
            assert found["waits_in_progress", module] == 0
        sums = Counter()
        for name, value in found.items():
            sums[name[0] if name[0] == "resends_total" else name[2:]] += value
        assert sums["resends_total"] == len(sends) - 60
        count = Counter(blocked.values())
        assert sums["NOT_APPROVED", "zia_rejected"] == count["zia_vision_rejected"]
        assert sums["RECORD_LOCKED", "record_locking"] == count["record_locking"]

    def test_of_a_writer_are_those_of_the_log_of_crm(self, crm, leads, registry, hook):
        free, locked = add(crm, 40), [one for count in range(1, 5) for one in add(crm, 6, refusals=count)]
        forever, rejected = add(crm, 3, locked_for=1e6), add(crm, 4, state="zia_vision_rejected")
        heard = []
        ids = [*free, *locked, *forever, *rejected]
        policy = GuardSettings(wait_initial=0.01, wait_max=0.02, attempts=8)
        with session_for(crm, policy, hooks=[hook, heard.append]) as session:
            take(crm_guard.write_records(session, "PUT", leads, rows_of(ids), batch_size=7, workers=3))
        assert nothing_lives()
        found, ends = samples(registry), Counter(one.kind for one in heard)
        refused = [call for call in crm.calls if {*locked, *forever}.intersection(call.refused_ids)]
        assert found["refused_records_total", *LOCKED] == sum(map(crm.refusals, [*locked, *forever]))
        assert found["refusals_total", *LOCKED] == len(refused)
        assert found["unlocked_records_total", "Leads"] == len(locked)
        assert found["gave_up_records_total", "Leads", "attempts"] == len(forever)
        assert found["blocked_records_total", "Leads", "NOT_APPROVED", "zia_rejected"] == len(rejected)
        assert found["wait_seconds_count", *LOCKED] == ends[EventKind.WAITING]
        assert found[GAUGE] == 0
        of_locked = [call for call in crm.calls if {*locked, *forever}.intersection(call.record_ids)]
        assert found["resends_total", "Leads"] <= len(of_locked)

    def test_of_seconds_are_those_that_passed(self, registry, hook):
        with Simulator() as crm, guarded(crm, hook, wait_initial=0.05, wait_max=0.05) as session:
            lead = crm.add_record("Leads", refusals=4)
            report = crm_guard.get_report(session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW))
        labels = {"module": "Leads", "action": ACTION}
        seconds = registry.get_sample_value("crm_guard_wait_seconds_sum", labels)
        assert seconds == pytest.approx(report.waited, abs=1.0)  # two clocks, and other processes between
        assert seconds >= 0.16
        assert registry.get_sample_value("crm_guard_wait_seconds_count", labels) == 4

    def test_of_refusals_leave_out_a_record_that_is_known_to_be_locked(self, crm, clock, leads, registry, hook):
        lead, locks = crm.add_record("Leads", refusals=2), MemoryLockRegistry()
        other = locks.waiter(WaitContext(clock, Wake(), lambda: False))
        other.verdict(locked=[f"{crm.url}|{lead}"], free=())
        with guarded(crm, hook, clock=clock, lock_registry=locks) as session:
            assert session.put(f"{leads}/{lead}", json=ROW).ok
        other.leave()
        found = samples(registry)
        assert found["refusals_total", *LOCKED] == found["refused_records_total", *LOCKED] == 2
        assert found["resends_total", "Leads"] == len(crm.calls) - 1 == 2
        assert found["wait_seconds_count", *LOCKED] == 3, "it waits before the first send as well"
        assert found["unlocked_records_total", "Leads"] == 1

    def test_of_nothing_are_made_where_nothing_is_refused(self, crm, clock, leads, registry, hook):
        with guarded(crm, hook, clock=clock) as session:
            session.put(f"{leads}/{crm.add_record('Leads')}", json=ROW)
            session.get(leads)
            session.put(f"{leads}/1", json=ROW)
        assert text_of(registry) == HELP

    def test_of_each_hook_are_the_same_where_two_share_a_registry(self, crm, clock, leads, registry, hook):
        twin, stranger = PrometheusHook(registry=registry), PrometheusHook(registry=CollectorRegistry())
        for one in (hook, twin, stranger):
            with guarded(crm, one, clock=clock) as session:
                session.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        assert samples(registry)["refusals_total", *LOCKED] == 2
        assert stranger._metrics is not hook._metrics is twin._metrics


class TestTheGauge:
    ENDS = ("unlocked", "timeout", "attempts", "stop", "stop_all", "interrupt", "exit", "error", "401", "reset")

    @pytest.mark.parametrize("end", [*ENDS, "raising hook", "leaving hook"])
    @pytest.mark.parametrize("first", [False, True])
    def test_is_one_during_a_wait_and_zero_after_every_end(self, crm, clock, leads, registry, hook, end, first):
        lead = crm.add_record("Leads", refusals=3)
        seen = []

        def during():
            seen.append(samples(registry)[GAUGE])
            if len(seen) < 2:
                return
            if end in {"interrupt", "exit", "error"}:
                raise {"interrupt": KeyboardInterrupt, "exit": SystemExit, "error": LookupError}[end]
            if end in {"stop", "stop_all"}:
                (session.get_adapter(leads) if end == "stop" else crm_guard).stop_waiting()
            if end == "401":
                crm.expire_token("other")
            if end == "reset":
                crm.fault("reset", times=1)

        def other(event):
            if event.kind is EventKind.WAITING and end.endswith(" hook") and seen:
                raise {"raising hook": LookupError, "leaving hook": SystemExit}[end]

        clock.during_wait = during
        budgets = {"timeout": {"timeout": 6.0}, "attempts": {"attempts": 3}}.get(end, {})
        hooks = [other, hook] if first else [hook, other]
        with (
            guarded(crm, *hooks, clock=clock, **budgets) as session,
            contextlib.suppress(Exception, KeyboardInterrupt, SystemExit),
        ):
            session.put(f"{leads}/{lead}", json=ROW)
        assert set(seen) == {1.0}
        found = samples(registry)
        assert found[GAUGE] == 0
        heard = end == "leaving hook" and not first  # entered, and left again before it began
        assert found["wait_seconds_count", *LOCKED] == len(clock.waits) + heard
        unlocked = end in {"unlocked", "raising hook"}
        assert found.get(("unlocked_records_total", "Leads"), 0) == unlocked == crm.writes(lead)
        if not unlocked:
            reasons = {"timeout": "timeout", "attempts": "attempts", "stop": "stopped", "stop_all": "stopped"}
            reasons |= dict.fromkeys(["interrupt", "exit", "leaving hook"], "interrupted")
            assert found["gave_up_total", "Leads", reasons.get(end, "follow_up")] == 1

    def test_counts_a_wait_that_takes_longer_than_announced_once(self, crm, clock, leads, registry, hook):
        seen = []
        look = lambda event: seen.append((event.kind.value, samples(registry).get(GAUGE)))  # noqa: E731
        with guarded(crm, hook, look, clock=clock, lock_registry=Announcing()) as session:
            session.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        assert [value for kind, value in seen if kind == "waiting"] == [1.0] * 3
        found = samples(registry)
        assert (found[GAUGE], found["wait_seconds_count", *LOCKED]) == (0, 1)

    def test_counts_calls_and_not_announcements_or_records(self, registry, hook, together):
        with Simulator() as crm:
            lead = crm.add_record("Leads", locked_for=0.4)
            seen = []
            quick = {"wait_initial": 0.02, "wait_max": 0.05, "timeout": 15.0}

            def look(event):
                seen.append(samples(registry).get(GAUGE, 0))

            with guarded(crm, hook, look, pool_maxsize=10, **quick) as session:
                calls = [lambda: session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code] * 10
                assert together(calls) == [200] * 10
        assert 1 < max(seen) <= 10
        assert samples(registry)[GAUGE] == 0

    @pytest.mark.parametrize("end", ["close", "stop", "interrupt", "input"])
    def test_is_zero_after_a_writer_that_ended_early(self, crm, leads, registry, hook, end):
        ids = add(crm, 3, locked_for=1e6) + add(crm, 3)

        def rows():
            yield from rows_of(ids)
            until(lambda: samples(registry).get(GAUGE))
            if end in {"input", "interrupt"}:
                raise LookupError if end == "input" else KeyboardInterrupt
            if end == "stop":
                crm_guard.stop_waiting()
            yield from rows_of(add(crm, 3))

        with session_for(crm, GuardSettings(wait_initial=30, wait_max=30), hooks=[hook]) as session:
            writer = crm_guard.write_records(session, "PUT", leads, rows(), batch_size=3)
            with contextlib.suppress(KeyboardInterrupt):
                if end == "close":
                    next(writer)
                    until(lambda: samples(registry).get(GAUGE))
                    writer.close()
                take(writer)
        assert nothing_lives()
        found = samples(registry)
        assert (found[GAUGE], found["wait_seconds_count", *LOCKED]) == (0, 1)
        reason = "stopped" if end == "stop" else "interrupted"
        assert (found["gave_up_total", "Leads", reason], found["gave_up_records_total", "Leads", reason]) == (1, 3)


class TestLabels:
    def test_are_bounded_and_no_count_is_lost_for_it(self, registry, hook):
        for number in range(1000):
            about = {"module": f"Module{number}", "action": f"action{number}", "records": 2}
            hook(event(EventKind.LOCKED, **about))
            with hook(event(EventKind.WAITING, **about)):
                pass
            hook(event(EventKind.RESENDING, **about))
            hook(event(EventKind.UNLOCKED, **about))
            hook(event(EventKind.BLOCKED, code=f"CODE{number}", **about))
            hook(event(EventKind.GAVE_UP, reason=GiveUpReason.TIMEOUT, **about))
        assert len(values_of(registry, "module")) == 101
        words = values_of(registry, "action") | values_of(registry, "code") | values_of(registry, "cause")
        assert len(words) == 31
        assert {"other"} == values_of(registry, "action") & values_of(registry, "code")
        sums = Counter()
        for (name, *_), value in samples(registry).items():
            sums[name] += value
        once = ("refusals_total", "resends_total", "gave_up_total", "wait_seconds_count")
        twice = ("refused_records_total", "unlocked_records_total", "blocked_records_total")
        assert sums == {
            **dict.fromkeys(once, 1000),
            **dict.fromkeys((*twice, "gave_up_records_total"), 2000),
            "waits_in_progress": 0,
        }

    def test_have_room_for_every_word_of_ours(self, registry, hook):
        for case in ApprovalCase:
            hook(event(EventKind.BLOCKED, code="NOT_APPROVED", case=case, records=1))
        for reason in GiveUpReason:
            hook(event(EventKind.GAVE_UP, reason=reason, records=1))
        for action in ("zia_vision_processing", "record_locking", "approval", "zia_vision_validation"):
            hook(event(EventKind.LOCKED, action=action, records=1))
        for code in ("RECORD_LOCKED", "NOT_APPROVED", "RECORD_IN_BLUEPRINT", "NOT_ALLOWED"):
            hook(event(EventKind.BLOCKED, code=code, records=1))
        everything = {name: values_of(registry, name) for name in ("module", "action", "code", "cause", "reason")}
        assert "other" not in set().union(*everything.values())
        assert everything["reason"] == {reason.value for reason in GiveUpReason}

    def test_of_a_hundred_and_twenty_modules_in_real_calls_end_with_other(self, crm, clock, registry, hook):
        with guarded(crm, hook, clock=clock) as session:
            for number in range(120):
                lead = crm.add_record(f"Custom{number}", refusals=1)
                session.put(f"{crm.url}/crm/v8/Custom{number}/{lead}", json=ROW)
        found = samples(registry)
        assert found["refusals_total", "other", ACTION] == 20
        assert found["refusals_total", "Custom99", ACTION] == 1
        assert sum(value for name, value in found.items() if name[0] == "resends_total") == 120

    def test_hold_nothing_of_a_request(self, crm, clock, leads, registry, hook):
        details = {"id": "jane@example.com", "action": "jane@example.com", "Email": "jane@example.com"}
        for code, action in (("RECORD_LOCKED", ACTION), ("NOT_APPROVED", "jane@example.com"), ("jane@x", "jane@x")):
            item = {"code": code, "details": {**details, "action": action}, "message": "s3cret", "status": "error"}
            crm.fault("answer", path="jane", status=400, body={"data": [item]}, times=1)
        headers = {"X-EXTERNAL": "Leads.Ext", "Authorization": "Zoho-oauthtoken s3cret"}
        lead = crm.add_record("Leads", refusals=1)
        with guarded(crm, hook, clock=clock, raise_on="never") as session:
            for name in ("jane@example.com", "jane@example.com", lead):
                session.put(f"{leads}/{name}?access_token=s3cret", json=ROW, headers=headers)
        text = generate_latest(registry).decode()
        assert not [word for word in ("jane", "s3cret", "Zylker", "Ext", lead) if word in text]
        assert samples(registry)["refusals_total", *LOCKED] >= 1

    def test_are_bounded_however_many_threads_bring_new_ones(self, registry, hook, together):
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:

            def bring(number):
                for turn in range(40):
                    hook(event(EventKind.RESENDING, module=f"M{number}_{turn}"))

            together([partial(bring, number) for number in range(16)])
        finally:
            sys.setswitchinterval(before)
        assert len([1 for name in samples(registry) if name[0] == "resends_total"]) == 101


class TestThreads:
    def test_of_twenty_callers_lose_no_count(self, registry, hook, together):
        heard = []
        with Simulator() as crm:
            ids = [crm.add_record("Leads", refusals=1 + number % 4) for number in range(20)]
            quick = {"wait_initial": 0.002, "wait_max": 0.004, "timeout": 15.0, "pool_maxsize": 20}
            with guarded(crm, hook, heard.append, **quick) as session:

                def call(lead):
                    return session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code

                assert together([lambda lead=lead: call(lead) for lead in ids]) == [200] * 20
            refused = sum(map(crm.refusals, ids))
        found = samples(registry)
        assert refused == 50
        assert found["refusals_total", *LOCKED] == found["refused_records_total", *LOCKED] == refused
        assert found["resends_total", "Leads"] == refused
        waits = [one for one in heard if one.kind is EventKind.WAITING and not one.again]
        assert found["wait_seconds_count", *LOCKED] == len(waits) > 20, "who is late need not wait any more"
        assert found["unlocked_records_total", "Leads"] == 20
        assert found[GAUGE] == 0

    def test_that_take_turns_all_the_time_lose_no_count(self, registry, hook, together):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)

        def work(number):
            for turn in range(150):
                about = {"module": f"M{turn % 7}", "action": f"a{(turn + number) % 5}", "records": 3}
                hook(event(EventKind.LOCKED, **about))
                with hook(event(EventKind.WAITING, **about)):
                    hook(event(EventKind.RESENDING, **about))

        try:
            together([lambda number=number: work(number) for number in range(8)])
        finally:
            sys.setswitchinterval(interval)
        sums = Counter()
        for (name, *_), value in samples(registry).items():
            sums[name] += value
        assert sums == {
            **dict.fromkeys(["refusals_total", "wait_seconds_count", "resends_total"], 1200),
            "refused_records_total": 3600,
            "waits_in_progress": 0,
        }


class TestCopiesAndRegistries:
    def test_a_hook_with_a_registry_of_its_own_says_that_it_cannot_be_pickled(self, crm, hook):
        with guarded(crm, hook) as session:
            for thing in (hook, session):
                with pytest.raises(TypeError, match="a registry of its own cannot be pickled"):
                    pickle.dumps(thing)

    def test_a_deep_copy_of_a_session_counts_in_the_same_place(self, crm, leads, registry, hook):
        with guarded(crm, hook, wait_initial=0.001, wait_max=0.001) as session:
            twin = copy.deepcopy(session)
        assert twin.get_adapter(leads).hooks == (hook,)
        with twin:
            twin.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        assert samples(registry)["refusals_total", *LOCKED] == 1

    def test_a_registry_that_has_such_a_name_already_is_refused(self, registry):
        prometheus_client.Counter("crm_guard_resends", "Another.", registry=registry)
        with pytest.raises(ValueError, match="crm_guard_resends"):
            PrometheusHook(registry=registry)

    def test_a_name_that_is_taken_leaves_no_metric_of_ours_behind(self, registry):
        taken = prometheus_client.Counter("crm_guard_resends", "Another.", registry=registry)
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            PrometheusHook(registry=registry)
        registry.unregister(taken)
        PrometheusHook(registry=registry)

    def test_a_hook_of_the_process_and_one_of_the_guard_count_once_in_one_registry(self, crm, leads, registry):
        before = instrument([PrometheusHook(registry=registry)])
        try:
            with guarded(crm, PrometheusHook(registry=registry), wait_initial=0.001, wait_max=0.001) as session:
                session.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        finally:
            instrument(before)
        assert samples(registry)["refusals_total", "Leads", ACTION] == 1

    def test_a_shallow_copy_counts_in_the_same_place(self, hook):
        assert copy.copy(hook) is hook
        assert hash(hook) == hash(copy.copy(hook))
        assert hook != PrometheusHook(registry=CollectorRegistry())
        assert hook != "a hook"

    def test_a_registry_that_nobody_uses_any_more_is_forgotten(self):
        registry = CollectorRegistry()
        PrometheusHook(registry=registry)(event(EventKind.LOCKED, records=1))
        gone = weakref.ref(registry)
        del registry
        gc.collect()
        assert gone() is None


DEFAULT = """
import copy, json, pickle
import prometheus_client
import requests
import crm_guard
from crm_guard.instrumentation import PrometheusHook
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock

hook, clock = PrometheusHook(), ManualClock()
names = ("crm_guard_refusals_total", "crm_guard_resends_total", "crm_guard_waits_in_progress")

def show():
    print([sum(sample.value for metric in prometheus_client.REGISTRY.collect() for sample in metric.samples
               if sample.name == name) for name in names])

with Simulator() as crm:
    def call(session):
        lead = crm.add_record("Leads", refusals=2)
        assert session.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "9"}]}).ok
        show()

    settings = {"wait_initial": 0.001, "wait_max": 0.001}
    session = requests.Session()
    crm_guard.mount_guard(session, crm.url, hooks=[hook], settings=settings)
    call(session)
    for protocol in (0, 2, 5):
        call(pickle.loads(pickle.dumps(session, protocol)))
    call(copy.deepcopy(session))
    crm_guard.instrument([hook])
    call(session)  # once, though it is the process's and the guard's
    plain = requests.Session()
    crm_guard.mount_guard(plain, crm.url, settings=settings)
    call(plain)
"""


def test_pickles_count_in_the_default_registry_of_where_they_are_loaded():
    assert [json.loads(line) for line in said(DEFAULT)] == [[2.0 * n, 2.0 * n, 0.0] for n in range(1, 8)]


WORKER = """
import sys
import requests
import crm_guard
from crm_guard import EventKind
from crm_guard.instrumentation import PrometheusHook

url, *leads = sys.argv[1:]
session = requests.Session()

class Held:
    def __enter__(self):
        print("waiting", flush=True)
        sys.stdin.readline()

    def __exit__(self, *exc_info):
        pass

def hold(event):
    return Held() if event.kind is EventKind.WAITING else None

crm_guard.mount_guard(
    session, url, hooks=[PrometheusHook(), hold], settings={"wait_initial": 0.05, "wait_max": 0.05}
)
for lead in leads:
    assert session.put(f"{url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "9"}]}).ok
"""


def test_several_processes_are_summed_up_and_a_dead_one_waits_for_nothing(crm, tmp_path):
    """The multi-process mode of `prometheus-client`, as behind gunicorn; one process is killed while it waits."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def collected():
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(tmp_path))
        return samples(registry)

    workers = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            leads = [crm.add_record("Leads", refusals=1) for _ in range(2)]
            workers.append(stack.enter_context(program(WORKER, crm.url, *leads, environment=environment)))
        try:
            for worker in workers:
                assert worker.stdout.readline() == "waiting\n", worker.stderr.read()
            assert collected()[GAUGE] == 2
            first, second = workers
            _, errors = first.communicate("\n\n", timeout=20)
            assert (first.returncode, errors) == (0, "")
            found = collected()
            assert found[GAUGE] == 1
            assert (found["refusals_total", *LOCKED], found["wait_seconds_count", *LOCKED]) == (3, 2)
            second.kill()
            second.wait(10)
            multiprocess.mark_process_dead(second.pid, str(tmp_path))
            found = collected()
        finally:
            for worker in workers:
                worker.kill()
    assert found.get(GAUGE, 0) == 0
    assert (found["refusals_total", *LOCKED], found["unlocked_records_total", "Leads"]) == (3, 2)


def test_a_call_that_raises_is_counted_once(crm, clock, leads, registry, hook):
    lead = crm.add_record("Leads", state="zia_vision_rejected")
    with guarded(crm, hook, clock=clock) as session, pytest.raises(GuardError):
        session.put(f"{leads}/{lead}", json=ROW)
    assert samples(registry) == {("blocked_records_total", "Leads", "NOT_APPROVED", "zia_rejected"): 1}
