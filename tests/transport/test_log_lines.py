"""The lines of the log: few enough to be read at night, and none is missing that somebody would need."""

import gc
import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from functools import partial

import pytest
import requests

from crm_guard import (
    ApprovalCase,
    CallError,
    EventKind,
    GiveUpReason,
    GuardAdapter,
    GuardEvent,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
)
from crm_guard._transport.event_log import CallLog
from crm_guard._transport.peers import PeerGroup, PeerGroups, peer_groups
from crm_guard.clock import Wake
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.simulator import Simulator
from tests.calls.test_waiting_is_told import Steps, Writer
from tests.calls.world import CALLS, add_leads, guarded

ORIGIN = "https://www.zohoapis.com"
ROW = {"data": [{"Company": "Zylker"}]}
LOCK = {"code": "RECORD_LOCKED", "action": "zia_vision_processing"}
REFUSAL = {"code": "NOT_APPROVED", "case": ApprovalCase.ZIA_REJECTED, "hint": "Upload another image."}
HINT = "Repeat the call later."


@pytest.fixture(autouse=True)
def _nobody_waits():
    """Every test begins and ends with no call that waits, whatever those before it have left."""
    peer_groups.reset()
    yield
    assert not peer_groups._of


@pytest.fixture
def lines(caplog):
    """Return the lines at INFO or above so far, each with its level, and forget them."""
    caplog.set_level(logging.DEBUG, "crm_guard")

    def found(level=logging.INFO):
        told = [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.levelno >= level]
        caplog.clear()
        return told

    return found


class Call:
    """One call's log, and its events."""

    def __init__(self, *ids, origin=ORIGIN, path="/crm/v8/Leads"):
        self.log, self.ids, self.path = CallLog(origin), ids, path

    def tell(self, kind, *ids, **about):
        ids = ids or self.ids
        about = {"record_ids": ids, "records": len(ids), **about}
        self.log.write(GuardEvent(kind=kind, method="PUT", path=self.path, **about))

    def waits(self, *ids, **about):
        about = {"pending": len(ids or self.ids), "delay": 3.0, **LOCK, **about}
        self.tell(EventKind.WAITING, *ids, **about)
        return self

    def is_unlocked(self, *ids, waited=3.0, **about):
        self.tell(EventKind.UNLOCKED, *ids, waited=waited, attempt=2, **about)

    def is_blocked(self, *ids, waited=3.0):
        self.tell(EventKind.BLOCKED, *ids, waited=waited, attempt=2, **REFUSAL)

    def gives_up(self, *ids, waited=3.0, reason=GiveUpReason.TIMEOUT, **about):
        self.tell(EventKind.GAVE_UP, *ids, waited=waited, reason=reason, hint=HINT, **LOCK, **about)

    def ends(self):
        self.log.close()


WAITING = "INFO PUT /crm/v8/Leads: waiting, 1 record (1) RECORD_LOCKED zia_vision_processing"
WAITING += ", attempt 1, waited 0.0 s, next wait 3.0 s"
UNLOCKED = "INFO PUT /crm/v8/Leads: unlocked, 1 record (1), attempt 2, waited 3.0 s"
BLOCKED = "WARNING PUT /crm/v8/Leads: blocked, 1 record (1) NOT_APPROVED zia_rejected, attempt 2, waited 3.0 s"
BLOCKED += ": Upload another image."
GAVE_UP = "WARNING PUT /crm/v8/Leads: gave_up, 1 record (1) RECORD_LOCKED zia_vision_processing"
GAVE_UP += ", attempt 1, waited 3.0 s, reason timeout: Repeat the call later."


def more(endings, waited=3.0, level="INFO", records="1 record (1)"):
    """Return the line about the calls whose own lines were left out: `{"unlocked": 2}` for two more."""
    told = ", ".join(f"{count} more call{'s' * (count > 1)} {ending}" for ending, count in endings.items())
    return f"{level} PUT /crm/v8/Leads: {told}, {records}, waited up to {waited} s"


def counts(line):
    """Return how many calls a line is about that sums up, or 0 for another line."""
    return sum(int(number) for number in re.findall(r"(\d+) more call", line))


class TestOneCall:
    def test_has_a_line_for_the_first_wait_and_one_for_the_last_record(self, crm, guard, leads, lines):
        lead = crm.add_record("Leads", locked_for=20.0)
        session = guard(wait_jitter=0, wait_initial=4, wait_max=4)
        assert session.put(f"{leads}/{lead}", json=ROW).ok
        about = f"PUT /crm/v8/Leads/{lead}"
        lock = "RECORD_LOCKED zia_vision_processing"
        assert lines() == [
            f"INFO {about}: waiting, 1 record ({lead}) {lock}, attempt 1, waited 0.0 s, next wait 4.0 s",
            f"INFO {about}: unlocked, 1 record ({lead}), attempt 6, waited 20.0 s",
        ]

    def test_tells_all_else_to_those_who_debug(self, crm, guard, leads, caplog, lines):
        lead = crm.add_record("Leads", refusals=2)
        guard().put(f"{leads}/{lead}", json=ROW)
        told = [(record.levelname, record.guard_kind) for record in caplog.records]
        assert told == [
            ("DEBUG", "locked"),
            ("INFO", "waiting"),
            ("DEBUG", "resending"),
            ("DEBUG", "locked"),
            ("DEBUG", "waiting"),
            ("DEBUG", "resending"),
            ("INFO", "unlocked"),
        ]
        assert {record.name for record in caplog.records} == {"crm_guard"}

    def test_with_many_records_sums_them_up_in_the_last_line(self, crm, guard, leads, clock, lines, caplog):
        ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 1, 2, 3)]
        guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        (record,) = [
            found for found in caplog.records if found.levelname == "INFO" and found.guard_kind != "waiting"
        ]
        assert (record.guard_records, record.guard_record_ids, record.guard_pending) == (3, tuple(ids[1:]), 0)
        assert record.guard_waited == pytest.approx(sum(clock.waits))
        waiting, unlocked = lines()
        assert "waiting, 3 records" in waiting
        waited = f"{sum(clock.waits):.1f}"
        assert (
            unlocked
            == f"INFO PUT /crm/v8/Leads: unlocked, 3 records ({', '.join(ids[1:])}), attempt 4, waited {waited} s"
        )

    def test_that_waited_before_its_first_send_sums_up_all_its_records(self, lines):
        registry, events = MemoryLockRegistry(), []
        world = guarded({"share_locks": True}, adapter={"hooks": [events.append], "lock_registry": registry})
        ids = [*add_leads(world.engine, [0, 1]), "555000000000000099"]
        world.engine.add_record("Leads", ids[2], state="zia_vision_rejected")
        other = registry.waiter(WaitContext(world.clock, Wake(), lambda: False))
        other.verdict(locked=[f"{ORIGIN}|{record_id}" for record_id in ids], free=())
        world.send(CALLS["update"].of(ids))
        other.leave()
        assert [(event.kind.value, event.record_ids, event.pending) for event in events] == [
            ("locked", tuple(ids), 3),
            ("waiting", tuple(ids), 3),
            ("locked", (ids[1],), 1),
            ("unlocked", (ids[0], ids[2]), 1),
            ("waiting", (ids[1],), 1),
            ("resending", (ids[1],), 1),
            ("unlocked", (ids[1],), 0),
            ("blocked", (ids[2],), 0),
        ]
        waiting, unlocked, blocked = lines()
        assert ": waiting, 3 records" in waiting
        assert f": unlocked, 3 records ({ids[0]}, {ids[2]}, {ids[1]}), attempt 2" in unlocked
        assert f": blocked, 1 record ({ids[2]})" in blocked

    def test_that_is_refused_after_the_wait_says_so_with_what_to_do(self, crm, guard, leads, lines):
        lead = crm.add_record("Leads", locked_for=2.0, then="zia_vision_rejected")
        with pytest.raises(NotApprovedError) as caught:
            guard(wait_jitter=0).put(f"{leads}/{lead}", json=ROW)
        waiting, unlocked, blocked = lines()
        assert (": waiting, " in waiting, ": unlocked, " in unlocked) == (True, True)
        assert blocked == (
            f"WARNING PUT /crm/v8/Leads/{lead}: blocked, 1 record ({lead}) NOT_APPROVED zia_rejected, attempt 2, "
            f"waited 3.0 s: {caught.value.report.outcomes[0].hint}"
        )

    def test_that_gives_up_says_so_with_what_to_do(self, crm, guard, leads, lines):
        lead = crm.add_record("Leads", state="zia_vision_validation")
        with pytest.raises(RecordLockedError) as caught:
            guard(wait_jitter=0, attempts=2).put(f"{leads}/{lead}", json=ROW)
        waiting, gave_up = lines()
        assert ": waiting, " in waiting
        assert gave_up == (
            f"WARNING PUT /crm/v8/Leads/{lead}: gave_up, 1 record ({lead}) RECORD_LOCKED zia_vision_processing, "
            f"attempt 2, waited 3.0 s, reason attempts: {caught.value.report.outcomes[0].hint}"
        )

    def test_that_does_not_wait_has_no_line_at_info(self, crm, guard, leads, lines):
        assert guard().put(f"{leads}/{crm.add_record('Leads')}", json=ROW).ok
        lead = crm.add_record("Leads", state="zia_vision_validation")
        with pytest.raises(RecordLockedError):
            guard(timeout=0).put(f"{leads}/{lead}", json=ROW)
        (line,) = lines()
        assert line.startswith(f"WARNING PUT /crm/v8/Leads/{lead}: gave_up, 1 record")

    def test_never_takes_more_than_one_line_of_the_file_for_an_entry(self, crm, guard, leads, lines):
        states = ["zia_vision_rejected", "zia_vision_pending", "record_locking", "zia_vision_validation"]
        ids = [crm.add_record("Leads", state=state) for state in states]
        rows = {"data": [{"id": lead, "Company": "Jane\nDoe"} for lead in ids]}
        guard(attempts=2, raise_on="never").put(f"{leads}?x=a%0Ab", json=rows)
        told = lines(logging.DEBUG)
        assert len(told) == 8
        assert not [line for line in told if "\n" in line or "\r" in line or "Jane" in line]

    def test_keeps_the_count_where_it_does_not_keep_every_name(self, lines):
        call = Call(*(str(number) for number in range(500)))
        call.waits()
        for start in range(0, 500, 50):
            ids = call.ids[start : start + 50]
            call.is_unlocked(*ids, pending=450 - start)
        call.ends()
        _, unlocked = lines()
        assert "unlocked, 500 records (0, 1, 2, 3, 4, ...), attempt 2" in unlocked


class TestCallsThatWaitForTheSameRecord:
    def test_are_told_of_by_the_first_and_summed_up_by_the_last(self, lines):
        first, *others = (Call("1").waits() for _ in range(4))
        assert lines() == [WAITING]
        for seconds, call in enumerate((first, *others)):
            call.is_unlocked(waited=3.0 + seconds)
        first.ends()
        assert lines() == [UNLOCKED]
        for call in others:
            assert lines() == []
            call.ends()
        assert lines() == [more({"unlocked": 3}, 6.0)]

    def test_are_summed_up_with_the_longest_wait_whoever_it_was(self, lines):
        calls = [Call("1").waits() for _ in range(4)]
        lines()
        for call, seconds in zip(calls, (3.0, 4.0, 9.0, 5.0), strict=True):
            call.is_unlocked(waited=seconds)
            call.ends()
        assert lines() == [UNLOCKED, more({"unlocked": 3}, 9.0)]

    def test_are_counted_once_though_each_has_two_endings(self, lines, caplog):
        calls = [Call("1").waits() for _ in range(4)]
        for call in calls:
            call.is_unlocked()
            call.is_blocked()
        for call in calls:
            call.ends()
        last = caplog.records[-1]
        assert (last.levelname, last.guard_calls, last.guard_record_ids) == ("WARNING", 3, ("1",))
        assert counts(last.getMessage()) == 6

    def test_leave_nothing_out_at_debug(self, lines):
        calls = [Call("1").waits() for _ in range(3)]
        for call in calls:
            call.is_unlocked()
            call.ends()
        told = [line.replace("DEBUG", "INFO") for line in lines(logging.DEBUG)]
        assert told == [WAITING] * 3 + [UNLOCKED] * 3 + [more({"unlocked": 2})]

    def test_are_of_one_origin(self, lines):
        calls = [Call("1", origin=origin).waits() for origin in (ORIGIN, "https://www.zohoapis.eu")]
        assert lines() == [WAITING] * 2
        for call in calls:
            call.is_unlocked()
            call.ends()
        assert lines() == [UNLOCKED] * 2

    def test_are_told_anew_once_the_last_has_left(self, lines):
        for _ in range(3):
            call = Call("1").waits()
            call.is_unlocked()
            call.ends()
            call.ends()
            assert lines() == [WAITING, UNLOCKED]

    def test_the_first_may_give_up_while_the_others_go_on(self, lines):
        first, second, third = (Call("1").waits() for _ in range(3))
        lines()
        first.gives_up()
        first.ends()
        assert lines() == [GAVE_UP]
        for call in (second, third):
            call.is_unlocked(waited=60.0)
            call.ends()
        assert lines() == [more({"unlocked": 2}, 60.0)]

    def test_one_that_comes_after_the_first_has_left_speaks_again(self, lines):
        first, second = (Call("1").waits() for _ in range(2))
        first.gives_up()
        first.ends()
        lines()
        third, fourth = (Call("1").waits() for _ in range(2))
        assert lines() == [WAITING]
        for call in (second, third, fourth):
            call.is_unlocked()
            call.ends()
        assert lines() == [more({"unlocked": 1}), UNLOCKED, more({"unlocked": 1})]

    def test_that_overlap_all_day_are_told_of_again_and_again(self, lines):
        before = Call("1").waits()
        lines()
        for _ in range(10):
            call = Call("1").waits()
            before.gives_up()
            before.ends()
            before = Call("1").waits()
            call.gives_up()
            call.ends()
        before.ends()
        told = lines()
        assert 10 <= sum(line == GAVE_UP for line in told) <= 20

    def test_the_records_of_all_are_in_the_line_that_sums_up(self, lines):
        calls = [Call("1", "2").waits(), Call("2", "1").waits(), Call("1").waits()]
        for call in calls:
            call.is_unlocked()
        lines()
        for call in calls:
            call.ends()
        assert lines() == [more({"unlocked": 2}, records="2 records (2, 1)")]

    def test_that_met_another_error_repeat_nothing(self, lines):
        calls = [Call("1").waits() for _ in range(4)]
        lines()
        throttled = CallError(status=429, code="TOO_MANY_REQUESTS")
        errors = [throttled, CallError(status=401, code="INVALID_TOKEN"), throttled, None]
        for call, error in zip(calls, errors, strict=True):
            call.gives_up(reason=GiveUpReason.FOLLOW_UP, error=error)
            call.ends()
        *told, last = lines()
        reasons = [line.partition("reason ")[2].partition(":")[0] for line in told]
        assert reasons == ["follow_up (429 TOO_MANY_REQUESTS)", "follow_up (401 INVALID_TOKEN)", "follow_up"]
        left_out = {"gave_up follow_up (429 TOO_MANY_REQUESTS)": 1}
        assert last == more(left_out, level="WARNING")

    @pytest.mark.parametrize("ids", [("1", "1"), tuple(map(str, range(101)))])
    def test_may_name_a_record_twice_or_hundreds_of_them(self, lines, ids):
        calls = [Call(*ids).waits() for _ in range(3)]
        for call in calls:
            call.is_unlocked()
            call.ends()
        waiting, unlocked, last = lines()
        assert [": waiting, " in waiting, ": unlocked, " in unlocked, counts(last)] == [True, True, 2]

    def test_what_one_says_twice_is_not_what_another_says(self, lines):
        one = Call("1").waits()
        one.is_blocked()
        one.is_blocked()
        one.ends()
        assert lines() == [WAITING, BLOCKED, BLOCKED]

    def test_that_come_and_go_while_the_first_waits_are_told_of_once(self, lines):
        first = Call("1").waits()
        lines()
        for _ in range(20):
            call = Call("1").waits()
            call.gives_up()
            call.ends()
            del call  # the next one may have its address
        assert lines() == [GAVE_UP]
        first.is_unlocked()
        first.ends()
        assert lines() == [UNLOCKED, more({"gave_up timeout": 19}, level="WARNING")]

    def test_that_are_ended_together_give_up_in_one_line(self, lines):
        class Halt(BaseException):
            """Ends a greenlet, as `gevent.GreenletExit` does."""

        class Dying(Steps):
            dead = False

            def wait(self, event, timeout):
                super().wait(event, timeout)
                if self.dead:
                    raise Halt

        class Ended(Writer):
            def write(self):
                with requests.Session() as session:
                    session.mount("http://", self.adapter)
                    with pytest.raises(Halt):
                        session.put(self.url, json=ROW)
                self.result.append("ended")

        steps = Dying()
        with Simulator(clock=steps) as crm:
            lead = crm.add_record("Leads", state="zia_vision_validation")
            calls = [Ended(crm, steps, None, lead, share_locks=False) for _ in range(20)]
            for call in calls:
                call.heard("waiting")
            steps.dead = True
            steps.pass_on(3.0, sleepers=20)
            assert [call.finished() for call in calls] == ["ended"] * 20
        waiting, gave_up, last = lines()
        assert [": waiting, " in waiting, "reason interrupted: " in gave_up] == [True, True]
        assert f"19 more calls gave_up interrupted, 1 record ({lead})" in last

    def test_the_others_may_give_up_while_the_first_goes_on(self, lines):
        first, *others = (Call("1").waits() for _ in range(4))
        lines()
        for seconds, call in enumerate(others):
            call.gives_up(waited=3.0 + seconds)
            call.ends()
        assert lines() == [GAVE_UP], "the first to do so says so, the others would repeat it"
        first.is_unlocked()
        first.ends()
        assert lines() == [UNLOCKED, more({"gave_up timeout": 2}, 5.0, level="WARNING")]

    def test_each_reason_to_give_up_is_told(self, lines):
        calls = [Call("1").waits() for _ in range(5)]
        lines()
        reasons = [GiveUpReason.TIMEOUT, GiveUpReason.ATTEMPTS, GiveUpReason.TIMEOUT, GiveUpReason.CREDITS]
        for call, reason in zip(calls, [*reasons, GiveUpReason.ATTEMPTS], strict=True):
            call.gives_up(reason=reason)
            call.ends()
        *told, last = lines()
        assert [line.partition("reason ")[2].partition(":")[0] for line in told] == [
            "timeout",
            "attempts",
            "credits",
        ]
        assert last == more({"gave_up attempts": 1, "gave_up timeout": 1}, level="WARNING")

    def test_the_others_may_end_blocked(self, lines):
        first, *others = (Call("1").waits() for _ in range(4))
        lines()
        for call in (first, *others):
            call.is_unlocked()
            call.is_blocked()
        assert lines() == [UNLOCKED, BLOCKED]
        for call in (first, *others):
            call.ends()
        assert lines() == [more({"blocked NOT_APPROVED zia_rejected": 3, "unlocked": 3}, level="WARNING")]

    def test_a_blocked_follower_speaks_where_nobody_has_said_so(self, lines):
        first, second, third = (Call("1").waits() for _ in range(3))
        lines()
        first.is_unlocked()
        first.ends()
        assert lines() == [UNLOCKED]
        for call in (second, third):
            call.is_unlocked()
            call.is_blocked()
            call.ends()
        left_out = {"blocked NOT_APPROVED zia_rejected": 1, "unlocked": 2}
        assert lines() == [BLOCKED, more(left_out, level="WARNING")]

    def test_another_record_of_a_follower_is_not_taken_for_the_same_news(self, lines):
        first, second = Call("1").waits(), Call("1", "2")
        second.waits("1")
        lines()
        first.is_unlocked()
        first.is_blocked()
        second.is_unlocked("1")
        assert lines() == [UNLOCKED, BLOCKED]
        second.is_blocked("1", "2")
        assert lines() == [BLOCKED.replace("1 record (1)", "2 records (1, 2)")]
        first.ends()
        second.ends()
        assert lines() == [more({"unlocked": 1})]

    def test_an_ending_is_told_by_whoever_comes_first(self, lines):
        first, second = (Call("1").waits() for _ in range(2))
        lines()
        second.is_unlocked(waited=9.0)
        assert lines() == [], "the first one will say so"
        second.ends()
        first.is_unlocked()
        first.ends()
        assert lines() == [UNLOCKED, more({"unlocked": 1}, 9.0)]

    def test_one_that_waits_again_and_again_is_counted_once(self, lines):
        first, second = (Call("1").waits() for _ in range(2))
        for attempt in range(2, 9):
            first.waits(attempt=attempt)
            second.waits(attempt=attempt)
        second.waits(attempt=8, again=True)
        for call in (first, second):
            call.is_unlocked()
            call.ends()
        assert lines() == [WAITING, UNLOCKED, more({"unlocked": 1})]


class TestABatchThatOverlaps:
    def test_with_the_records_of_another_call_speaks_for_itself(self, lines):
        one, batch = Call("1").waits(), Call("1", "2").waits()
        waiting = WAITING.replace("1 record (1)", "2 records (1, 2)")
        assert lines() == [WAITING, waiting]
        one.is_unlocked()
        batch.is_unlocked()
        one.ends()
        batch.ends()
        assert lines() == [UNLOCKED, UNLOCKED.replace("1 record (1)", "2 records (1, 2)")]

    def test_is_then_what_further_calls_repeat(self, lines):
        one, batch = Call("1").waits(), Call("1", "2").waits()
        lines()
        others = [Call("2").waits(), Call("1", "2").waits(), Call("2", "1").waits(), Call("1").waits()]
        assert lines() == []
        third = Call("2", "3").waits()
        assert lines() == [WAITING.replace("1 record (1)", "2 records (2, 3)")]
        for call in (one, batch, *others, third):
            call.is_unlocked()
        assert lines() == [
            UNLOCKED,
            UNLOCKED.replace("1 record (1)", "2 records (1, 2)"),
            UNLOCKED.replace("1 record (1)", "2 records (2, 3)"),
        ]
        for call in (one, batch, *others, third):
            call.ends()
        told = lines()
        assert sum(map(counts, told)) == 4, "each is summed up once"
        assert all(line.startswith("INFO") and counts(line) for line in told)

    def test_is_not_told_of_as_far_as_it_repeats_but_its_own_trouble_is(self, lines):
        batch, other = Call("1", "2").waits(), Call("1", "2").waits()
        lines()
        batch.is_unlocked("1", pending=1)
        batch.is_blocked("2")
        assert lines() == [BLOCKED.replace("(1)", "(2)")]
        other.is_unlocked("2", pending=1)
        other.is_blocked("1")
        assert lines() == [BLOCKED]
        batch.ends()
        other.ends()
        assert lines() == []


class TestCallsWithoutKnownRecords:
    @pytest.mark.parametrize("about", [{"record_ids": (), "records": 1}, {"record_ids": ("1",), "records": 2}])
    def test_never_silence_each_other(self, lines, about):
        calls = [Call("1") for _ in range(3)]
        for call in calls:
            call.waits(**about)
        for call in calls:
            call.is_unlocked(**about)
            call.ends()
        told = lines()
        assert [line.split(": ")[1].split(",")[0] for line in told] == ["waiting"] * 3 + ["unlocked"] * 3

    def test_such_as_one_by_the_value_of_a_field_name_no_value(self, crm, guard, leads, lines):
        crm.add_record("Leads", fields={"Email": "jane@example.com"}, refusals=1)
        headers = {"X-EXTERNAL": "Leads.Email"}
        guard().put(f"{leads}/jane@example.com", json=ROW, headers=headers)
        told = lines(logging.DEBUG)
        assert told
        assert not [line for line in told if "jane" in line]


class TestAnAnnouncerThatWasInterrupted:
    def test_silences_nobody_once_it_is_gone(self, lines):
        gone = Call("1").waits()
        assert lines() == [WAITING]
        del gone  # without an end
        gc.collect()
        call = Call("1").waits()
        call.is_unlocked()
        call.ends()
        assert lines() == [WAITING, UNLOCKED]

    def test_does_not_keep_the_last_from_summing_up(self, lines):
        gone, second, third = (Call("1").waits() for _ in range(3))
        lines()
        del gone
        gc.collect()
        for call in (second, third):
            call.is_unlocked()
            call.ends()
        assert lines() == [more({"unlocked": 2})]

    def test_does_not_keep_its_group_alive_by_the_record_that_it_shared(self, lines):
        gone, second = Call("1", "2").waits(), Call("2").waits()
        del gone
        gc.collect()
        lines()
        second.is_unlocked()
        second.ends()
        assert lines() == [more({"unlocked": 1}, records="1 record (2)")]

    @pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
    def test_leaves_as_it_is_interrupted(self, crm, guard, leads, clock, lines, end):
        lead = crm.add_record("Leads", refusals=2)
        session = guard()

        def interrupt():
            clock.during_wait = None
            raise end

        clock.during_wait = interrupt
        with pytest.raises(end):
            session.put(f"{leads}/{lead}", json=ROW)
        assert not peer_groups._of
        waiting, gave_up = lines()
        assert (": waiting, " in waiting, "reason interrupted" in gave_up) == (True, True)
        assert session.put(f"{leads}/{lead}", json=ROW).ok
        assert [line.partition(": ")[2].partition(",")[0] for line in lines()] == ["waiting", "unlocked"]

    @pytest.mark.parametrize("method", ["join", "leave"])
    def test_leaves_even_where_that_is_interrupted(self, monkeypatch, method):
        owner = PeerGroups if method == "join" else PeerGroup
        whole, interrupts = getattr(owner, method), [KeyboardInterrupt]

        def interrupted(*arguments):
            if method == "join":
                whole(*arguments)
            if interrupts:
                raise interrupts.pop()
            return whole(*arguments)

        monkeypatch.setattr(owner, method, interrupted)
        call = Call("1")
        with pytest.raises(KeyboardInterrupt):
            call.waits().ends()
        call.ends()
        assert not peer_groups._of


class TestFiftyThreads:
    def write(self, crm, adapter, lead):
        with requests.Session() as session:
            session.mount(crm.url, adapter)
            return session.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code

    @pytest.mark.parametrize("share", [True, False])
    def test_on_one_lock_have_a_handful_of_lines(self, crm, clock, together, lines, share):
        settings = GuardSettings(attempts=1000, timeout=1e6, share_locks=share)
        adapters = [GuardAdapter(settings, clock=clock) for _ in range(5)]
        lead = crm.add_record("Leads", locked_for=60.0)
        calls = [partial(self.write, crm, adapters[number % 5], lead) for number in range(50)]
        assert together(calls) == [200] * 50
        assert crm.writes(lead) == 50
        told = lines()
        print(*told, sep="\n")
        assert 2 <= len(told) <= 10
        assert all(line.startswith("INFO") for line in told)

    def test_that_all_wait_have_three(self, together, lines):
        steps = Steps()
        with Simulator(clock=steps) as crm:
            lead = crm.add_record("Leads", locked_for=60.0)
            policy = {"attempts": 1000, "timeout": 9000.0, "share_locks": False}
            writers = [Writer(crm, steps, None, lead, **policy) for _ in range(50)]
            for writer in writers:
                writer.heard("waiting")
            for _ in range(20):
                steps.pass_on(3.0, sleepers=50)
            assert [writer.finished() for writer in writers] == [200] * 50
            assert crm.writes(lead) == 50
        first, *rest = lines()
        print(first, *rest, sep="\n")
        about = f"INFO PUT /crm/v8/Leads/{lead}"
        lock = "RECORD_LOCKED zia_vision_processing"
        assert first == f"{about}: waiting, 1 record ({lead}) {lock}, attempt 1, waited 0.0 s, next wait 3.0 s"
        summary = f"{about}: 49 more calls unlocked, 1 record ({lead}), waited up to 60.0 s"
        assert summary in rest
        rest.remove(summary)
        assert [line.split(", attempt")[0] for line in rest] == [f"{about}: unlocked, 1 record ({lead})"]

    def test_on_a_lock_that_does_not_end_give_up_in_three_lines(self, lines):
        steps = Steps()
        with Simulator(clock=steps) as crm:
            lead = crm.add_record("Leads", state="zia_vision_validation")
            writers = [Writer(crm, steps, None, lead, timeout=8.0, share_locks=False) for _ in range(50)]
            for writer in writers:
                writer.heard("waiting")
            for _ in range(2):
                steps.pass_on(3.0, sleepers=50)
            assert {writer.finished() for writer in writers} == {GiveUpReason.TIMEOUT}
            assert crm.writes(lead) == 0
        first, second, last = lines()
        assert ": waiting, 1 record" in first
        assert second.startswith("WARNING")
        assert ": gave_up, 1 record" in second
        about = f"PUT /crm/v8/Leads/{lead}"
        assert last == f"WARNING {about}: 49 more calls gave_up timeout, 1 record ({lead}), waited up to 6.0 s"

    def test_that_share_what_they_know_of_a_lock_have_a_handful(self, lines):
        steps, registry = Steps(), MemoryLockRegistry()
        with Simulator(clock=steps) as crm:
            lead = crm.add_record("Leads", locked_for=60.0)
            policy = {"attempts": 1000, "timeout": 9000.0}
            writers = [Writer(crm, steps, registry, lead, **policy) for _ in range(50)]
            for writer in writers:
                writer.heard("waiting")
            while any(writer.thread.is_alive() for writer in writers):
                alive = sum(writer.thread.is_alive() for writer in writers)
                with steps.condition:
                    steps.condition.wait_for(lambda alive=alive: steps.sleepers >= alive, 0.02)
                    steps.seconds += 1.0
            assert [writer.finished() for writer in writers] == [200] * 50
            assert crm.writes(lead) == 50
        told = lines()
        print(*told, sep="\n")
        assert len(told) == 3
        assert f"49 more calls unlocked, 1 record ({lead})" in told[-1]


class TestManyThreads:
    def test_leave_no_group_behind(self, together, lines):
        def calls(seed):
            chance = random.Random(seed)
            for _ in range(200):
                call = Call(*chance.sample("12345", chance.randint(1, 3)))
                call.waits()
                if chance.random() < 0.3:
                    call.gives_up()
                else:
                    call.is_unlocked()
                if chance.random() < 0.2:
                    call.is_blocked()
                call.ends()

        assert together([partial(calls, seed) for seed in range(8)]) == [None] * 8
        assert not peer_groups._of

    def test_are_each_told_of_exactly_once(self, together, lines):
        def calls(seed):
            for _ in range(50):
                call = Call("1").waits()
                call.is_unlocked()
                call.ends()

        assert together([partial(calls, seed) for seed in range(8)]) == [None] * 8
        told = lines()
        spoken = [line for line in told if ": unlocked, " in line]
        assert len(spoken) + sum(map(counts, told)) == 400
        assert told.count(WAITING) == len(spoken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_starts_with_nobody_waiting():
    program = textwrap.dedent("""
        import logging, os, sys
        from crm_guard._transport.event_log import CallLog
        from crm_guard._transport.peers import peer_groups
        from crm_guard import EventKind, GuardEvent

        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(process)d %(message)s")

        def tell(log, kind, **about):
            about = {"record_ids": ("1",), "records": 1, **about}
            log.write(GuardEvent(kind=kind, method="PUT", path="/", **about))
            sys.stdout.flush()

        parent = CallLog("https://www.zohoapis.com")
        tell(parent, EventKind.WAITING, pending=1)
        peer_groups._mutex.acquire()  # as another thread might, at the instant of the fork
        child = os.fork()
        if not child:
            assert not peer_groups._of
            log = CallLog("https://www.zohoapis.com")
            tell(log, EventKind.WAITING, pending=1)
            tell(log, EventKind.UNLOCKED)
            log.close()
            sys.stdout.flush()
            os._exit(0)
        peer_groups._mutex.release()
        assert os.waitpid(child, 0)[1] == 0
        follower = CallLog("https://www.zohoapis.com")
        tell(follower, EventKind.WAITING, pending=1)
        for log in (parent, follower):
            tell(log, EventKind.UNLOCKED)
            log.close()
        print(os.getpid(), child)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    *told, last = done.stdout.splitlines()
    parent, child = last.split()
    by_child = [line.partition(" ")[2] for line in told if line.startswith(f"{child} ")]
    by_parent = [line.partition(" ")[2] for line in told if line.startswith(f"{parent} ")]
    assert [line.split(",")[0] for line in by_child] == ["PUT /: waiting", "PUT /: unlocked"]
    assert [line.split(",")[0] for line in by_parent[:2]] == ["PUT /: waiting", "PUT /: unlocked"]
    assert by_parent[2:] == ["PUT /: 1 more call unlocked, 1 record (1), waited up to 0.0 s"]


class TestWithoutALog:
    @pytest.fixture(params=["disabled", "level", "logger", "handler", "filter"])
    def _silent(self, request):
        logger = logging.getLogger("crm_guard")

        class Failing(logging.Handler):
            def emit(self, record):
                raise OSError

        handler = Failing()

        def fail(record):
            raise OSError

        level = logger.level
        match request.param:
            case "disabled":
                logging.disable(logging.CRITICAL)
            case "level":
                logger.setLevel(logging.CRITICAL)
            case "logger":
                logger.disabled = True
            case "handler":
                logger.addHandler(handler)
            case "filter":
                logger.addFilter(fail)
        yield
        logging.disable(logging.NOTSET)
        logger.setLevel(level)
        logger.disabled = False
        logger.removeHandler(handler)
        logger.removeFilter(fail)

    @pytest.mark.usefixtures("_silent")
    def test_nothing_is_lost(self, crm, guard, leads, events, clock):
        ids = [crm.add_record("Leads", refusals=count or None) for count in (0, 1, 2)]
        ids.append(crm.add_record("Leads", state="zia_vision_rejected"))
        response = guard().put(leads, json={"data": [{"id": lead, "Company": "Z"} for lead in ids]})
        assert response.status_code == 207
        assert [crm.writes(lead) for lead in ids] == [1, 1, 1, 0]
        assert events.kinds()[-1] == "blocked"
        assert len(clock.waits) == 2
        assert not peer_groups._of

    def test_nothing_is_formatted(self, monkeypatch):
        monkeypatch.setattr(logging, "LogRecord", None)
        logger = logging.getLogger("crm_guard")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            calls = [Call("1").waits() for _ in range(3)]
            for call in calls:
                call.is_unlocked()
                call.is_blocked()
                call.gives_up()
                call.ends()
        finally:
            logger.setLevel(level)


class TestARecordForMachines:
    NAMES = tuple(f"guard_{field.name}" for field in fields(GuardEvent))

    @pytest.fixture
    def records(self, canned, crm, leads, clock, caplog):
        """Return records of all that the package logs in a call: events, summaries, hooks that fail."""
        caplog.set_level(logging.DEBUG, "crm_guard")

        class Failing(MemoryLockRegistry):
            def waiter(self, context):
                made = super().waiter(context)
                made.leave = lambda: {}[0]
                return made

        def fail(event):
            raise ValueError

        states = ["zia_vision_rejected", "zia_vision_validation", "record_locking"]
        ids = [*(crm.add_record("Leads", state=state) for state in states), crm.add_record("Leads", refusals=1)]
        rows = {"data": [{"id": lead, "Company": "Z"} for lead in ids]}
        with requests.Session() as session:
            session.mount(crm.url, GuardAdapter(GuardSettings(attempts=3), clock=clock, lock_registry=Failing()))
            assert session.put(leads, json=rows).status_code == 207
        session = canned((400, {"data": [{"code": "NOT_APPROVED", "status": "error"}]}), hooks=[fail])
        with pytest.raises(NotApprovedError):
            session.put(f"{ORIGIN}/crm/v8/Leads/1", json=ROW)
        calls = [Call("1").waits() for _ in range(3)]
        for call in calls:
            call.gives_up()
            call.ends()
        texts = caplog.text
        assert "the lock registry failed" in texts
        assert "failed on a blocked event" in texts
        assert "1 more call gave_up timeout" in texts or "2 more calls gave_up timeout" in texts
        return list(caplog.records)

    def test_has_every_field_of_its_event_in_plain_types(self, records):
        told = [record for record in records if hasattr(record, "guard_kind")]
        assert {record.guard_kind for record in told} == {kind.value for kind in EventKind}
        for record in told:
            for name in self.NAMES:
                assert type(getattr(record, name)) in {str, int, float, bool, tuple, type(None)}, name
            assert record.guard_calls >= 1
        assert {record.guard_calls for record in told} == {1, 2}

    def test_can_be_written_as_json(self, records):
        for record in records:
            plain = {name: getattr(record, name) for name in self.NAMES if hasattr(record, name)}
            read = json.loads(json.dumps(plain))
            assert read == {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}

    def test_can_be_sent_to_another_process(self, records):
        for record in records:
            assert vars(pickle.loads(pickle.dumps(record))).keys() == vars(record).keys()  # noqa: S301 (ours)

    @pytest.mark.parametrize("style", ["%", "{", "$"])
    def test_can_be_formatted_with_defaults_for_what_is_no_event(self, records, style):
        names = {"%": "%({})s", "{": "{{{}}}", "$": "${{{}}}"}[style]
        wanted = ["guard_kind", "guard_module", "guard_calls", *self.NAMES, "message"]
        formatter = logging.Formatter(
            " ".join(names.format(name) for name in wanted), style=style, defaults=dict.fromkeys(wanted[:-1], "-")
        )
        texts = [formatter.format(record) for record in records]
        starts = {text[: len(start)] for text in texts for start in ("- - - ", "waiting Leads 1 ", "gave_up  2 ")}
        assert starts >= {"- - - ", "waiting Leads 1 ", "gave_up  2 "}

    def test_names_none_of_the_fields_that_every_record_has(self):
        usual = vars(logging.LogRecord("", 0, "", 0, "", (), None))
        assert not {*self.NAMES, "guard_calls"} & usual.keys()


def test_a_line_may_be_about_an_event_of_any_kind_with_nothing_in_it(lines):
    event = GuardEvent(kind=EventKind.WAITING, method="", path="")
    log = CallLog(ORIGIN)
    for kind in (*EventKind, *reversed(EventKind)):
        log.write(replace(event, kind=kind))
    log.close()
    assert len(lines(logging.DEBUG)) == 2 * len(EventKind)
