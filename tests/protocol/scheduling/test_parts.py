"""The parts of the scheduler, each alone: order, pace, parking, queues, questions, endings."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from crm_guard import GuardSettings
from crm_guard._protocol.envelope import Item
from crm_guard._protocol.scheduling.diagnoses import Diagnoses
from crm_guard._protocol.scheduling.endings import Endings
from crm_guard._protocol.scheduling.order import Order
from crm_guard._protocol.scheduling.parking import OpenGate, Parking
from crm_guard._protocol.scheduling.queues import Queues
from crm_guard._protocol.scheduling.reading import Written
from crm_guard._protocol.scheduling.row import Row, Stage
from crm_guard._protocol.scheduling.tally import Tally
from crm_guard._protocol.scheduling.throttle import Throttle
from crm_guard.outcomes import GiveUpReason, RecordOutcome

INF = float("inf")
PLAIN = GuardSettings(wait_jitter=0.0, wait_initial=3.0, wait_max=5.0, timeout=20.0)
LOCKED = RecordOutcome(position=0, code="RECORD_LOCKED", retryable=True)


def half() -> float:
    return 0.5


def row(index: int, *keys: Any) -> Row:
    return Row(index, {"n": index}, b"{}", str(index), keys)


def rows(count: int, first: int = 0) -> list[Row]:
    return [row(first + index) for index in range(count)]


def numbers(some: Any) -> list[int]:
    return [one.index for one in some]


# -- order


def test_the_later_waits_for_the_earlier() -> None:
    order = Order()
    first, second, third = row(0, "a"), row(1, "a"), row(2, "a")
    assert [order.enter(one) for one in (first, second, third)] == [True, False, False]
    assert list(order.leave(first)) == [second]
    assert list(order.leave(second)) == [third]
    assert list(order.leave(third)) == []
    assert order.enter(row(3, "a"))


def test_a_row_with_several_keys_waits_for_all() -> None:
    order = Order()
    a, b, both, later = row(0, "a"), row(1, "b"), row(2, "a", "b"), row(3, "b")
    assert [order.enter(one) for one in (a, b, both, later)] == [True, True, False, False]
    assert list(order.leave(b)) == []
    assert list(order.leave(a)) == [both]
    assert list(order.leave(both)) == [later]
    assert list(order.leave(later)) == []
    assert not order._behind


def test_rows_without_keys_wait_for_none() -> None:
    order = Order()
    assert all(order.enter(one) for one in rows(3))
    assert list(order.leave(row(0))) == []


# -- pace


def test_each_crowd_that_is_turned_away_halves_the_calls() -> None:
    throttle = Throttle(PLAIN, 8, half)
    assert throttle.turned_away(0.0, 1.0, None)
    assert (throttle.allowed, throttle.resumes) == (4, 4.0)
    assert throttle.turned_away(0.5, 1.5, None)  # of the same crowd
    assert (throttle.allowed, throttle.resumes) == (4, 4.0)
    assert throttle.turned_away(0.5, 1.6, 10.0)
    assert (throttle.allowed, throttle.resumes) == (4, 11.6)
    for instant in range(12, 16):
        throttle.turned_away(instant, instant, None)
    assert throttle.allowed == 1


def test_each_quiet_while_allows_one_more() -> None:
    throttle = Throttle(PLAIN, 4, half)
    throttle.turned_away(0.0, 0.0, None)
    allowed = []
    for instant in (3.0, 7.9, 8.0, 12.9, 13.0, 18.0, 40.0):
        throttle.got_through(instant, instant)
        allowed.append(throttle.allowed)
    assert allowed == [2, 2, 3, 3, 4, 4, 4]


def test_a_pause_of_just_the_budget_is_within_it() -> None:
    assert Throttle(PLAIN, 4, half).turned_away(0.0, 7.0, 20.0)
    assert not Throttle(PLAIN, 4, half).turned_away(0.0, 7.0, 20.001)
    assert not Throttle(GuardSettings(timeout=0.0), 4, half).turned_away(0.0, 7.0, None)


def test_the_budget_begins_with_the_first_and_anew_once_one_got_through() -> None:
    throttle = Throttle(PLAIN, 1, half)
    assert throttle.turned_away(0.0, 0.0, None)
    assert throttle.turned_away(3.0, 15.0, None)
    throttle.got_through(2.0, 15.5)  # it left before the crowd was cut down: that proves nothing
    assert not throttle.turned_away(18.0, 19.0, None)
    throttle.got_through(30.0, 31.0)
    assert throttle.turned_away(31.0, 32.0, None)
    assert throttle.resumes == 35.0  # and its waits begin anew


def test_when_a_call_may_begin() -> None:
    throttle = Throttle(PLAIN, 2, half)
    assert throttle.admits(1, 0.0)
    assert not throttle.admits(2, 0.0)
    assert throttle.opens_at(2) == INF
    throttle.turned_away(0.0, 0.0, None)
    assert [throttle.admits(0, instant) for instant in (2.9, 3.0)] == [False, True]
    assert (throttle.opens_at(0), throttle.opens_at(1)) == (3.0, INF)


# -- parking


def refused(parking: Parking, one: Row, now: float, retry_after: float | None = None) -> GiveUpReason | None:
    if one.stage is Stage.PARKED:
        assert [found for found, _ in parking.release(now) if found is one]
    return parking.refuse(one, LOCKED, now, retry_after)


def test_a_row_waits_as_a_single_call_does() -> None:
    parking, one = Parking(PLAIN, half, OpenGate()), row(0)
    dues = []
    now = 0.0
    while refused(parking, one, now) is None:
        now = parking.next_due()
        dues.append(now)
    assert dues == pytest.approx([3.0, 6.6, 10.92, 15.92])  # 3, 3.6, 4.32 and 5 seconds
    assert one.lock is not None
    assert one.lock.asked == 5


def test_going_along_spends_no_attempts() -> None:
    parking, one = Parking(GuardSettings(wait_jitter=0.0, attempts=2), half, OpenGate()), row(0)
    assert parking.refuse(one, LOCKED, 0.0, None) is None
    assert parking.riders(5, 0.8) == []
    for instant in (0.9, 1.8):
        assert parking.riders(5, instant) == [one]
        assert parking.refuse(one, LOCKED, instant, None) is None
        assert parking.next_due() == pytest.approx(instant + 3.0), "it waits anew, with those it went along with"
    assert [found for found, _ in parking.release(4.8)] == [one]
    assert parking.refuse(one, LOCKED, 4.8, None) is GiveUpReason.ATTEMPTS


def test_going_along_all_the_time_ends_as_well() -> None:
    parking, one = Parking(GuardSettings(attempts=5, timeout=1000.0), half, OpenGate()), row(0)
    instants = itertools.count(0.0, 0.9)
    limit = parking.refuse(one, LOCKED, next(instants), None)
    while limit is None:
        now = next(instants)
        assert now < 30.0
        assert parking.riders(5, now + 1e-9) == [one]
        limit = parking.refuse(one, LOCKED, now + 1e-9, None)
    assert limit is GiveUpReason.ATTEMPTS


def test_going_along_shortly_before_the_end_does_not_cost_the_last_question() -> None:
    parking, one = Parking(GuardSettings(wait_jitter=0.0, timeout=4.0), half, OpenGate()), row(0)
    assert parking.refuse(one, LOCKED, 0.0, None) is None
    assert parking.riders(5, 1.5) == [one]
    assert parking.refuse(one, LOCKED, 1.5, None) is None
    assert parking.next_due() == 3.0, "its own turn: a whole wait would end after the budget"


def test_a_wait_that_is_almost_over_counts_as_over() -> None:
    parking, one = Parking(PLAIN, half, OpenGate()), row(0)
    parking.refuse(one, LOCKED, 0.0, None)
    assert parking.riders(5, 2.5) == [one]
    assert parking.refuse(one, LOCKED, 2.5, None) is None
    assert one.lock is not None
    assert one.lock.asked == 2
    assert one.lock.turn == pytest.approx(6.6)  # its schedule does not go faster for that


def test_only_one_attempt_is_one_also_for_a_row_that_waited_first() -> None:
    parking, one = Parking(GuardSettings(attempts=1), half, OpenGate()), row(0)
    parking.expect(one, 0.0)
    assert one.stage is Stage.PARKED
    assert [found for found, _ in parking.release(parking.next_due())] == [one]
    assert parking.refuse(one, LOCKED, 0.1, None) is GiveUpReason.ATTEMPTS


def test_the_budget_of_a_row_that_waited_first_begins_with_that() -> None:
    parking, one = Parking(PLAIN, half, OpenGate()), row(0)
    parking.expect(one, 0.0)
    list(parking.release(3.0))
    assert parking.refuse(one, LOCKED, 18.0, None) is GiveUpReason.TIMEOUT


def test_what_crm_asks_to_wait_is_waited_and_not_shortened_by_others() -> None:
    parking, one, other = Parking(PLAIN, half, OpenGate()), row(0), row(1)
    assert parking.refuse(one, LOCKED, 0.0, 12.0) is None
    assert parking.refuse(other, LOCKED, 0.0, None) is None
    assert parking.riders(5, 2.0) == [other]
    assert parking.ripe_at(5) == INF
    assert parking.next_due() == 12.0
    assert Parking(PLAIN, half, OpenGate()).refuse(row(2), LOCKED, 0.0, 20.0) is None
    assert Parking(PLAIN, half, OpenGate()).refuse(row(2), LOCKED, 0.0, 20.1) is GiveUpReason.TIMEOUT


def test_those_that_wait_longest_ride_first() -> None:
    parking, some = Parking(PLAIN, half, OpenGate()), rows(4)
    for one in some:
        parking.refuse(one, LOCKED, one.index * 0.1, None)
    assert numbers(parking.riders(2, 0.95)) == [0]
    assert numbers(parking.riders(2, 9.0)) == [1, 2]
    assert all(one.stage is Stage.QUEUED for one in some[:3])
    assert list(parking.rows) == [3]


@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.999])
def test_what_is_ripe_may_ride(jitter: float, drawn: float) -> None:
    parking = Parking(GuardSettings(wait_jitter=jitter, timeout=1e4), lambda: drawn, OpenGate())
    for now in (0.1, 1 / 3, 1e3 / 7):
        for one in rows(3):
            parking.refuse(one, LOCKED, now, None)
        assert parking.ripe_at(2) == INF
        assert numbers(parking.riders(3, parking.ripe_at(3))) == [0, 1, 2]
    assert parking.ripe_at(3) == INF


class Holding(OpenGate):
    def __init__(self, until: float) -> None:
        self.until = until

    def look(self, row: Row, now: float) -> float | None:
        return self.until if now < self.until else None


def test_a_row_that_others_hold_back_is_looked_at_until_its_budget_ends() -> None:
    parking, one = Parking(PLAIN, half, Holding(1e9)), row(0)
    parking.refuse(one, LOCKED, 0.0, None)
    assert list(parking.release(3.0)) == []
    assert parking.next_due() == 20.0
    assert list(parking.release(20.0)) == [(one, GiveUpReason.TIMEOUT)]
    assert not parking.rows


def test_a_row_that_was_never_sent_is_sent_once_at_the_end_of_its_budget() -> None:
    parking, one = Parking(PLAIN, half, Holding(1e9)), row(0)
    parking.expect(one, 0.0)
    assert list(parking.release(3.0)) == []
    assert list(parking.release(20.0)) == [(one, None)]


def test_a_gate_cannot_have_a_row_looked_at_without_end() -> None:
    parking, one = Parking(PLAIN, half, Holding(3.0000001)), row(0)
    parking.refuse(one, LOCKED, 0.0, None)
    assert list(parking.release(3.0)) == []
    assert parking.next_due() == 3.01


def test_a_row_may_be_looked_at_early() -> None:
    parking, one = Parking(PLAIN, half, OpenGate()), row(0)
    parking.refuse(one, LOCKED, 0.0, None)
    parking.look_early(one, 1.0)
    assert parking.next_due() == 1.0
    assert list(parking.release(1.0)) == [(one, None)]
    parking.look_early(one, 1.0)  # it is on its way already
    assert parking.next_due() == INF
    assert list(parking.release(99.0)) == []


def test_appointments_of_rows_that_went_along_are_forgotten() -> None:
    policy = GuardSettings(wait_initial=1000.0, wait_max=1000.0, timeout=1e6)
    parking = Parking(policy, half, OpenGate())
    for one in rows(5000):
        parking.refuse(one, LOCKED, float(one.index * 300), None)
        parking.riders(1, one.index * 300 + 300.0)
    assert len(parking.rows) == 0
    assert len(parking._due) < 200


# -- queues


def test_a_batch_leaves_when_it_is_full_or_nothing_more_is_in_sight() -> None:
    queues = Queues(PLAIN, 3)
    assert not queues.is_time(0.0)
    for one in rows(2):
        queues.add([one], -INF)
    assert not queues.is_time(99.0)
    queues.full = True
    assert queues.is_time(0.0)
    queues.full, queues.ended = False, True
    assert queues.is_time(0.0)
    queues.ended = False
    queues.add([row(2)], -INF)
    queues.add([row(3)], -INF)
    assert queues.is_time(0.0)
    assert numbers(queues.take(0.0)) == [0, 1, 2]
    assert not queues.is_time(0.0)


def test_a_row_that_is_due_lingers_only_while_rows_come() -> None:
    queues = Queues(PLAIN, 3)
    queues.add([row(0)], 10.0)
    queues.hurry(row(1), 10.2)
    assert queues.leaves_at() == pytest.approx(10.3)
    assert not queues.is_time(10.25)
    assert queues.is_time(queues.leaves_at())
    assert numbers(queues.take(10.3)) == [1, 0]
    assert queues.leaves_at() == INF


def test_the_first_row_that_is_due_lingers_for_all() -> None:
    queues = Queues(PLAIN, 9)
    queues.add([], 50.0)
    queues.hurry(row(0), 10.0)
    queues.hurry(row(1), 10.2)
    assert queues.leaves_at() == pytest.approx(10.3)


def test_rows_that_are_due_and_left_over_linger_once_more() -> None:
    queues = Queues(PLAIN, 2)
    queues.add([], 50.0)
    for one in rows(3):
        queues.hurry(one, 10.0)
    assert numbers(queues.take(10.5)) == [0, 1]
    assert queues.leaves_at() == pytest.approx(10.8)


def test_what_goes_again_goes_first_and_in_order() -> None:
    queues = Queues(PLAIN, 9)
    queues.add([row(9)], 0.0)
    queues.hurry(row(5), 0.0)
    queues.inherit(row(8))
    queues.again([])
    assert not queues.is_time(0.0)
    queues.again(rows(2))
    assert queues.is_time(0.0)
    assert numbers(queues.take(0.0)) == [0, 1, 5, 8, 9]


def test_what_was_turned_away_goes_as_it_was() -> None:
    queues = Queues(PLAIN, 5)
    queues.add([row(9)], -INF)
    queues.put_back(rows(3))
    queues.halve(rows(5, 10))
    assert (len(queues), queues.backlog, queues.has_some) == (1, 9, True)
    assert [numbers(queues.next_whole() or ()) for _ in range(4)] == [[0, 1, 2], [10, 11], [12, 13, 14], []]


# -- questions


def refusal() -> Item:
    raw = {"code": "NOT_APPROVED", "status": "error", "details": {}}
    return Item(json.dumps(raw).encode(), raw)


def test_questions_wait_for_others_but_not_for_long() -> None:
    diagnoses = Diagnoses(3.0)
    assert diagnoses.take(0.0, idle=True) is None
    diagnoses.add(row(0), refusal(), 1.0)
    diagnoses.add(row(1), refusal(), 2.0)
    assert diagnoses.due_at == 4.0
    assert diagnoses.take(3.9, idle=False) is None
    question = diagnoses.take(4.0, idle=False)
    assert question is not None
    assert question.ids == ("0", "1")
    assert (len(diagnoses), diagnoses.due_at) == (0, INF)


def test_a_question_is_full_with_a_hundred_and_leaves_at_once_if_nothing_else_is_to_do() -> None:
    diagnoses = Diagnoses(3.0)
    for one in rows(101):
        diagnoses.add(one, refusal(), 0.0)
    first = diagnoses.take(1.0, idle=False)
    assert first is not None
    assert len(first.rows) == 100
    assert diagnoses.due_at == 4.0
    assert diagnoses.take(1.0, idle=False) is None
    last = diagnoses.take(1.0, idle=True)
    assert last is not None
    assert last.ids == ("100",)
    diagnoses.add(row(7), refusal(), 5.0)
    assert len(diagnoses.drain().rows) == 1
    assert (len(diagnoses), diagnoses.due_at) == (0, INF)


# -- endings and counts


class Noting(OpenGate):
    def __init__(self) -> None:
        self.said: list[Any] = []

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        self.said.append(locked)

    def leave(self, row: Row) -> None:
        self.said.append("left")


@pytest.mark.parametrize(
    ("told", "reason", "said"),
    [
        (Written("1", "SUCCESS", ""), None, [False, "left"]),
        (RecordOutcome(position=0, code="NOT_APPROVED"), None, [False, "left"]),
        (RecordOutcome(position=0, uncertain=True), None, ["left"]),
        (LOCKED, GiveUpReason.TIMEOUT, ["left"]),
        (LOCKED, GiveUpReason.UNMATCHED, ["left"]),
    ],
)
def test_others_hear_of_a_row_only_what_crm_said(told: Any, reason: Any, said: list[Any]) -> None:
    gate = Noting()
    endings, one = Endings(gate), row(0, "a")
    parking = Parking(PLAIN, half, gate)
    endings.enter([one])
    parking.refuse(one, LOCKED, 1.0, None)
    list(parking.release(4.0))
    assert list(endings.finish(one, told, 5.5, reason)) == []
    assert gate.said == said
    result = endings.results.popleft()
    assert (result.waited, result.reason, one.stage, endings.open) == (4.5, reason, Stage.DONE, 0)
    assert one.encoded == b""


def test_a_row_without_a_lock_tells_others_nothing() -> None:
    gate = Noting()
    endings, one = Endings(gate), row(0)
    endings.enter([one])
    list(endings.finish(one, Written("1", "SUCCESS", "fine"), 5.0))
    assert gate.said == []
    assert endings.results[0].outcome == RecordOutcome(
        position=0, record_id="1", code="SUCCESS", message="fine", succeeded=True
    )


def test_each_result_is_in_one_count_and_only_some_outcomes_are_kept() -> None:
    tally = Tally(kept=2)
    for outcome in (
        RecordOutcome(position=0, succeeded=True),
        RecordOutcome(position=1, uncertain=True, code="RECORD_LOCKED"),
        RecordOutcome(position=2, code="INVALID_DATA"),
        *[RecordOutcome(position=3 + n, code="NOT_APPROVED") for n in range(5)],
    ):
        tally.add(outcome)
    tally.spend(2, 7)
    sums = tally.sums(9)
    assert sums.to_dict() == {
        "written": 1,
        "blocked": 5,
        "failed": 1,
        "uncertain": 1,
        "waiting": 9,
        "in_flight": 0,
        "calls": 2,
        "credits": 7,
        "read": 0,
        "elapsed": 0.0,
        "final_below": 0,
    }
    assert [outcome.position for outcome in tally.blocked] == [3, 4]
