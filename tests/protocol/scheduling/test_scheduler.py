"""What the scheduler does with one answer or another, step by step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crm_guard import GuardSettings
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.record_outcomes import Judge
from crm_guard._protocol.scheduling.end import End
from crm_guard._protocol.scheduling.parking import OpenGate
from crm_guard._protocol.scheduling.reading import Delivery, lost, read_batch
from crm_guard._protocol.scheduling.row import Batch, Question, Row, Stage
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard._protocol.scheduling.target import Target
from crm_guard.outcomes import CallError, GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

INF = float("inf")
ZIA = "zia_vision_processing"
ERROR = CallError(code="ConnectionError")


def item(code: str = "SUCCESS", **details: Any) -> dict[str, Any]:
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "status": status, "message": "m", "details": details}


class Desk:
    """A scheduler, and rows for it; `leads[0]` and `leads[3]` are one record where `twins` says so."""

    def __init__(self, count: int = 4, *, twins: bool = False, gate: Any = None, **policy: Any) -> None:
        self.target = Target("PUT", CrmUrl.of("https://www.zohoapis.com/crm/v8/Leads"))
        options = {"batch_size": 4, "workers": 2, "renews": False, "gate": gate}
        options |= {name: policy.pop(name) for name in [*options] if name in policy}
        settings = GuardSettings(**{"wait_jitter": 0.0, "wait_max": 3.0, "timeout": 20.0, **policy})
        judge = Judge(self.target.template, settings.retry_actions, "v8")
        self.judge = judge
        self.scheduler = Scheduler(self.target, judge, settings, lambda: 0.5, **options)
        names = [str(100 + (0 if twins and n == 3 else n)) for n in range(count)]
        values = [{"id": name} for name in names]
        self.rows = [
            Row(n, value, self.target.encode(value), value["id"], self.target.keys(value))
            for n, value in enumerate(values)
        ]

    def give(self, now: float = 0.0, *, ended: bool = True) -> Desk:
        self.scheduler.add(self.rows, now)
        if ended:
            self.scheduler.no_more()
        return self

    def batch(self, now: float) -> Batch:
        job = self.scheduler.next(now)
        assert isinstance(job, Batch)
        return job

    def answer(self, batch: Batch, now: float, status: int, body: Any, **about: Any) -> None:
        ids, positions = [row.record_id for row in batch.rows], [row.index for row in batch.rows]
        delivery = Delivery(status, json.dumps(body).encode(), **about)
        self.scheduler.absorb(batch, read_batch(delivery, self.judge, ids, positions), now, "source")

    def items(self, batch: Batch, now: float, *codes: str, status: int = 207, **about: Any) -> None:
        found = [
            item(code, id=row.record_id, **({"action": ZIA} if code == "RECORD_LOCKED" else {}))
            for code, row in zip(codes, batch.rows, strict=True)
        ]
        self.answer(batch, now, status, {"data": found}, **about)

    @property
    def results(self) -> list[tuple[int, str, Any]]:
        return [(one.index, one.outcome.code, one.reason) for one in self.scheduler.results]


def numbers(batch: Any) -> list[int]:
    assert isinstance(batch, Batch)
    return [row.index for row in batch.rows]


def test_a_batch_and_its_results() -> None:
    desk = Desk().give()
    batch = desk.batch(0.0)
    assert (numbers(batch), batch.left_at, batch.renewed) == ([0, 1, 2, 3], 0.0, False)
    assert desk.scheduler.next(0.0) is None
    assert desk.scheduler.wakes_at(0.0) == INF
    assert not desk.scheduler.over
    desk.items(batch, 1.0, *["SUCCESS"] * 4, status=200)
    assert [index for index, *_ in desk.results] == [0, 1, 2, 3]
    assert (desk.scheduler.over, desk.scheduler.end) == (True, None)
    assert (
        desk.scheduler.sums().to_dict() | {"calls": 1, "credits": 1, "written": 4}
        == desk.scheduler.sums().to_dict()
    )


def test_the_later_row_of_a_record_leaves_once_the_earlier_has_its_result() -> None:
    desk = Desk(twins=True).give()
    batch = desk.batch(0.0)
    assert numbers(batch) == [0, 1, 2]
    desk.items(batch, 1.0, "RECORD_LOCKED", "SUCCESS", "SUCCESS")
    assert desk.scheduler.next(1.0) is None
    again = desk.batch(desk.scheduler.wakes_at(1.0))
    assert numbers(again) == [0]
    desk.items(again, 5.0, "SUCCESS", status=200)
    assert numbers(desk.batch(5.0)) == [3]


def test_a_row_that_waited_for_an_earlier_one_goes_before_new_ones() -> None:
    desk = Desk(12, twins=True, workers=1).give()
    batch = desk.batch(0.0)
    assert numbers(batch) == [0, 1, 2, 4]
    desk.items(batch, 1.0, *["SUCCESS"] * 4, status=200)
    assert numbers(desk.batch(1.0)) == [3, 5, 6, 7]


def test_a_lock_that_ended_is_told_before_the_approval_state_is_asked_for() -> None:
    class Gate(OpenGate):
        told: ClassVar[list[Any]] = []

        def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
            self.told.append((row.index, locked))

    desk = Desk(gate=Gate()).give()
    desk.items(desk.batch(0.0), 1.0, "RECORD_LOCKED", "SUCCESS", "SUCCESS", "SUCCESS")
    again = desk.batch(desk.scheduler.wakes_at(1.0))
    desk.scheduler.newsroom.outbox.clear()
    desk.items(again, 5.0, "NOT_APPROVED", status=400)
    assert desk.rows[0].stage is Stage.UNDIAGNOSED
    assert [(news.event.kind, news.event.pending) for news in desk.scheduler.newsroom.outbox] == [("unlocked", 0)]
    assert Gate.told == [(0, True), (0, False)], "others that wait for the record hear of it as well"


def test_an_heir_is_not_sent_once_the_writer_has_ended() -> None:
    desk = Desk(twins=True).give()
    batch = desk.batch(0.0)
    desk.scheduler.stop(End(GiveUpReason.STOPPED), 0.5)
    desk.items(batch, 1.0, "SUCCESS", "RECORD_LOCKED", "NOT_APPROVED")
    assert desk.scheduler.next(1.0) is None
    assert [row.stage for row in desk.rows] == [Stage.DONE, Stage.PARKED, Stage.DONE, Stage.QUEUED]
    assert [row.attempts for row in desk.rows] == [1, 1, 1, 0]
    assert desk.scheduler.over
    assert desk.scheduler.wakes_at(1.0) == INF


def test_a_call_that_would_always_be_refused_ends_the_writer() -> None:
    desk = Desk(8).give()
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.answer(one, 1.0, 403, item("NO_PERMISSION"))
    end = desk.scheduler.end
    assert end is not None
    assert (end.reason, end.source, end.error) == (
        GiveUpReason.FOLLOW_UP,
        "source",
        CallError(status=403, code="NO_PERMISSION", message="m"),
    )
    assert not desk.scheduler.over
    desk.items(other, 2.0, *["SUCCESS"] * 4, status=200)
    assert desk.scheduler.over
    assert [index for index, *_ in desk.results] == [4, 5, 6, 7]
    assert {row.stage for row in desk.rows[:4]} == {Stage.QUEUED}


def test_the_first_cause_of_an_end_counts() -> None:
    desk = Desk().give()
    desk.scheduler.stop(End(GiveUpReason.STOPPED), 0.0)
    desk.scheduler.stop(End(GiveUpReason.CREDITS), 0.0)
    assert desk.scheduler.end == End(GiveUpReason.STOPPED)
    assert desk.scheduler.next(0.0) is None


def test_without_renewal_a_bad_token_ends_the_writer() -> None:
    desk = Desk().give()
    desk.answer(desk.batch(0.0), 1.0, 401, {})
    assert desk.scheduler.end is not None
    assert desk.scheduler.end.reason is GiveUpReason.FOLLOW_UP


def test_credentials_are_renewed_before_each_batch_once_crm_asked_for_that() -> None:
    desk = Desk(8, renews=True).give()
    first = desk.batch(0.0)
    assert not first.renewed
    desk.answer(first, 1.0, 401, {})
    again, other = desk.batch(1.0), desk.batch(1.0)
    assert (numbers(again), again.renewed, other.renewed) == ([0, 1, 2, 3], True, True)
    desk.answer(again, 2.0, 401, {})
    assert desk.scheduler.end is not None


def test_credentials_are_renewed_before_rows_go_again() -> None:
    desk = Desk(1, renews=True).give()
    desk.items(desk.batch(0.0), 1.0, "RECORD_LOCKED", status=400)
    assert desk.batch(4.0).renewed


def test_too_many_calls_pause_all_and_go_as_they_were() -> None:
    desk = Desk(8).give()
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.answer(other, 1.0, 429, {}, retry_after=6.0)
    assert desk.scheduler.next(1.0) is None
    assert desk.scheduler.backlog == 4
    desk.items(one, 2.0, *["SUCCESS"] * 4, status=200)
    assert desk.scheduler.wakes_at(2.0) == 7.0
    assert desk.scheduler.next(6.9) is None
    assert numbers(desk.batch(7.0)) == numbers(other)
    assert [row.attempts for row in other.rows] == [2] * 4


def test_a_pause_beyond_the_budget_ends_the_writer() -> None:
    desk = Desk().give()
    desk.answer(desk.batch(0.0), 1.0, 429, {}, retry_after=21.0)
    assert desk.scheduler.end is not None
    assert (desk.scheduler.end.reason, desk.scheduler.end.error) == (
        GiveUpReason.TIMEOUT,
        CallError(status=429, retry_after=21.0),
    )


def test_a_batch_that_never_left_was_not_sent() -> None:
    desk = Desk(timeout=5.0).give()
    desk.scheduler.never_left(desk.batch(0.0), ERROR, 1.0, "source")
    assert [row.attempts for row in desk.rows] == [0] * 4
    assert (desk.scheduler.sums().calls, desk.scheduler.sums().in_flight) == (0, 0)
    assert desk.scheduler.next(3.9) is None
    desk.scheduler.never_left(desk.batch(4.0), ERROR, 5.0, "source")
    assert desk.scheduler.end == End(GiveUpReason.FOLLOW_UP, ERROR, "source")


@pytest.mark.parametrize("answered", [True, False])
def test_an_answer_that_did_not_come_is_no_sign_that_calls_get_through(answered: bool) -> None:
    desk = Desk(12, workers=1).give()
    desk.scheduler.never_left(desk.batch(0.0), ERROR, 1.0)
    batch = desk.batch(4.0)
    if answered:
        desk.items(batch, 20.0, *["SUCCESS"] * 4, status=200)
    else:
        ids = [row.record_id for row in batch.rows]
        desk.scheduler.absorb(batch, lost(desk.judge, ids, range(4), ERROR), 20.0)
    desk.scheduler.never_left(desk.batch(20.0), ERROR, 20.5)
    assert (desk.scheduler.end is None) == answered


def test_no_worker_that_may_not_send_is_woken_in_vain() -> None:
    """A 429 leaves one call at a time: the others must not look at the clock in a loop until it is back."""
    desk = Desk(8).give(ended=False)
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.items(one, 1.0, *["RECORD_LOCKED"] * 4, status=400)
    desk.answer(other, 1.5, 429, {})
    assert numbers(desk.batch(4.5)) == numbers(other)  # at once, as it was
    assert desk.scheduler.next(9.0) is None  # the locked rows are due, and no second call is allowed
    assert desk.scheduler.wakes_at(9.0) > 9.0


def test_one_lost_answer_after_the_other_ends_the_writer() -> None:
    desk = Desk(8, batch_size=1, workers=1).give()
    for count in range(4):
        batch = desk.batch(count)
        ids = [row.record_id for row in batch.rows]
        desk.scheduler.absorb(batch, lost(desk.judge, ids, [count], ERROR), count, "source")
    desk.items(desk.batch(5.0), 5.0, "SUCCESS", status=200)  # this one is answered: it begins anew
    for count in range(3):
        desk.answer(desk.batch(6.0 + count), 6.0 + count, 500, {})
    assert desk.scheduler.end is None
    desk = Desk(14, batch_size=2, workers=1).give()
    for count in range(7):  # as these do, though not for all rows
        batch = desk.batch(count)
        desk.answer(batch, count, 207, {"data": [item(id=batch.rows[0].record_id)]})
    assert desk.scheduler.end is None
    desk = Desk(8, batch_size=1, workers=1).give()
    for count in range(5):
        desk.answer(desk.batch(count), count, 500, {})
    assert desk.scheduler.end is not None
    assert desk.scheduler.end.reason is GiveUpReason.FOLLOW_UP
    assert all(one.outcome.uncertain for one in desk.scheduler.results)


@pytest.mark.parametrize(("left", "ends"), [("3", True), ("2", True), ("4", False), (None, False)])
def test_too_few_credits_end_the_writer_after_the_results(left: str | None, ends: bool) -> None:
    desk = Desk(8, min_credits=3).give()
    desk.items(desk.batch(0.0), 1.0, *["SUCCESS"] * 4, status=200, credits=left)
    assert len(desk.results) == 4
    assert (desk.scheduler.end == End(GiveUpReason.CREDITS, None, "source")) == ends


def test_bystanders_go_again_at_once_and_in_order() -> None:
    desk = Desk().give()
    bad = item("INVALID_DATA", json_path="$.data[2].x")
    desk.answer(desk.batch(0.0), 1.0, 400, {"data": [bad]})
    assert desk.results == [(2, "INVALID_DATA", None)]
    assert numbers(desk.batch(1.0)) == [0, 1, 3]


def test_an_unnamed_refusal_is_found_in_halves() -> None:
    desk = Desk(workers=1, diagnose=False).give()
    bare = item("NOT_APPROVED", resource_path_index=1)
    desk.answer(desk.batch(0.0), 1.0, 400, bare)
    half = desk.batch(1.0)
    assert numbers(half) == [0, 1]
    desk.answer(half, 2.0, 429, {})  # must not be put together again
    other = desk.batch(5.0)
    assert numbers(other) == [2, 3]
    desk.items(other, 6.0, "SUCCESS", "SUCCESS", status=200)
    half = desk.batch(6.0)
    assert numbers(half) == [0, 1]
    desk.answer(half, 7.0, 400, bare)
    desk.answer(desk.batch(7.0), 8.0, 400, bare)
    desk.items(desk.batch(8.0), 9.0, "SUCCESS", status=200)
    assert desk.results[-2:] == [(0, "NOT_APPROVED", None), (1, "SUCCESS", None)]


def test_rows_in_halves_are_refused_when_the_writer_ends() -> None:
    desk = Desk().give()
    desk.answer(desk.batch(0.0), 1.0, 400, item("NOT_APPROVED"))
    desk.scheduler.stop(End(), 1.0)
    assert [(row.stage, row.attempts, row.result) for row in desk.rows] == [(Stage.QUEUED, 1, None)] * 4
    assert desk.scheduler.over


def test_a_lock_in_an_answer_in_doubt_is_final_and_says_why() -> None:
    desk = Desk().give()
    batch = desk.batch(0.0)
    found = [item(id="100"), item("RECORD_LOCKED", id="101", action=ZIA), item(id="102")]
    desk.answer(batch, 1.0, 207, {"data": found})
    assert desk.results == [
        (0, "SUCCESS", None),
        (1, "RECORD_LOCKED", GiveUpReason.UNMATCHED),
        (2, "SUCCESS", None),
        (3, "", None),
    ]
    assert desk.scheduler.results[3].outcome.uncertain


def test_approval_states_are_asked_for_together_and_told() -> None:
    desk = Desk(8).give()
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.items(one, 1.0, "SUCCESS", "NOT_APPROVED", "SUCCESS", "SUCCESS")
    assert desk.scheduler.next(1.0) is None
    assert desk.scheduler.wakes_at(1.0) == 4.0
    desk.items(other, 2.0, "NOT_APPROVED", "SUCCESS", "SUCCESS", "SUCCESS")
    question = desk.scheduler.next(2.0)  # nothing else is left to do
    assert isinstance(question, Question)
    assert question.ids == ("101", "104")
    assert not desk.scheduler.over
    desk.scheduler.stop(End(GiveUpReason.STOPPED), 2.5)
    desk.scheduler.diagnosed(question, {"101": "zia_rejected"}, 1, 3.0)
    assert [one.outcome.approval_state for one in desk.scheduler.results][-2:] == ["zia_rejected", None]
    assert (desk.scheduler.over, desk.scheduler.sums().calls, desk.scheduler.sums().blocked) == (True, 3, 2)
    assert [outcome.position for outcome in desk.scheduler.blocked] == [1, 4]


def test_rows_to_be_asked_about_have_their_result_when_the_writer_ends() -> None:
    desk = Desk(8).give()
    desk.items(desk.batch(0.0), 1.0, "SUCCESS", "NOT_APPROVED", "SUCCESS", "SUCCESS")
    assert desk.rows[1].stage is Stage.UNDIAGNOSED
    desk.scheduler.stop(End(), 1.0)
    assert desk.results[-1] == (1, "NOT_APPROVED", None)


class Knowing(OpenGate):
    def __init__(self) -> None:
        self.parked: list[int] = []
        self.left: list[int] = []
        self.verdicts: list[tuple[int, bool, float]] = []
        self.holds = True
        self.locked = {1, 2}
        self.rides = True

    def __bool__(self) -> bool:
        return True

    def known(self, rows: Sequence[Row]) -> Collection[int]:
        return {row.index for row in rows} & self.locked

    def may_ride(self, row: Row) -> bool:
        return self.rides

    def park(self, row: Row, delay: float, now: float) -> float:
        self.parked.append(row.index)
        return now + delay

    def look(self, row: Row, now: float) -> float | None:
        return now + 1.0 if self.holds else None

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        self.verdicts.append((row.index, locked, retry_after))

    def leave(self, row: Row) -> None:
        self.left.append(row.index)


def test_rows_that_are_known_to_be_locked_wait_first() -> None:
    gate = Knowing()
    desk = Desk(gate=gate).give()
    assert gate.parked == [1, 2]
    batch = desk.batch(0.0)
    assert numbers(batch) == [0, 3]  # and they do not ride
    desk.items(batch, 0.5, "SUCCESS", "SUCCESS", status=200)
    assert desk.scheduler.next(3.0) is None
    gate.holds = False
    desk.scheduler.look_early(desk.rows[2], 3.2)
    assert numbers(desk.batch(3.2)) == [2]
    assert desk.rows[1].stage is Stage.PARKED


def test_a_row_that_is_known_to_be_locked_has_one_budget() -> None:
    gate = Knowing()
    desk = Desk(gate=gate).give()
    desk.items(desk.batch(0.0), 0.5, "SUCCESS", "SUCCESS", status=200)
    now = 0.5
    while (batch := desk.scheduler.next(now)) is None:
        now = desk.scheduler.wakes_at(now)
        assert now <= 20.0
    assert now == 20.0
    assert isinstance(batch, Batch)
    desk.items(batch, 20.5, "RECORD_LOCKED", "SUCCESS", retry_after=2.0)
    assert desk.results[-2:] == [(1, "RECORD_LOCKED", GiveUpReason.TIMEOUT), (2, "SUCCESS", None)]
    assert [one.waited for one in desk.scheduler.results][-2:] == [20.5, 20.5]
    assert gate.verdicts == [(1, True, 2.0), (2, False, 0.0)]
    assert gate.left == [1, 2]


@pytest.mark.parametrize("policy", [{"timeout": 0.0}, {"retry_actions": ()}])
def test_who_never_waits_does_not_wait_first(policy: Any) -> None:
    gate = Knowing()
    desk = Desk(gate=gate, **policy).give()
    assert numbers(desk.batch(0.0)) == [0, 1, 2, 3]
    assert gate.parked == []


def test_rows_that_come_after_the_end_wait_nowhere() -> None:
    gate = Knowing()
    desk = Desk(gate=gate)
    desk.scheduler.stop(End(), 0.0)
    desk.give()
    assert gate.parked == []
    assert desk.scheduler.over
    assert {row.stage for row in desk.rows} == {Stage.QUEUED}


def test_a_lock_that_is_met_after_the_end_is_left_again() -> None:
    gate = Knowing()
    desk = Desk(gate=gate).give()
    batch = desk.batch(0.0)
    desk.scheduler.stop(End(), 0.5)
    desk.items(batch, 1.0, "RECORD_LOCKED", "SUCCESS")
    assert gate.verdicts == [(0, True, 0.0)]
    assert gate.left == [0]
    assert desk.rows[0].stage is Stage.PARKED
    assert desk.rows[0].refusal is not None


def test_a_row_whose_budget_ended_says_so_also_during_a_pause() -> None:
    """A pause for all is no reason to keep a result back."""
    gate = Knowing()
    gate.locked = set()
    desk = Desk(8, gate=gate, timeout=10.0).give()
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.items(one, 0.5, "RECORD_LOCKED", "SUCCESS", "SUCCESS", "SUCCESS")
    desk.answer(other, 2.0, 429, {}, retry_after=9.5)
    now = 2.0
    while desk.scheduler.next(now) is None and len(desk.results) < 4:
        now = desk.scheduler.wakes_at(now)
    assert now == 10.5
    assert desk.results[-1] == (0, "RECORD_LOCKED", GiveUpReason.TIMEOUT)
    assert desk.scheduler.wakes_at(now) == 11.5


def test_locked_rows_go_along_with_new_ones() -> None:
    desk = Desk(7).give(ended=False)
    desk.items(desk.batch(0.0), 1.0, "RECORD_LOCKED", "SUCCESS", "SUCCESS", "SUCCESS")
    desk.scheduler.no_more()
    assert numbers(desk.batch(1.5)) == [4, 5, 6]
    desk = Desk(7).give(ended=False)
    desk.items(desk.batch(0.0), 1.0, "RECORD_LOCKED", "SUCCESS", "SUCCESS", "SUCCESS")
    desk.scheduler.no_more()
    assert numbers(desk.batch(1.9)) == [4, 5, 6, 0]


def test_once_nothing_else_is_left_all_locked_rows_go_together() -> None:
    desk = Desk(8).give()
    one, other = desk.batch(0.0), desk.batch(0.0)
    desk.items(one, 1.0, "RECORD_LOCKED", "SUCCESS", "SUCCESS", "SUCCESS")
    desk.items(other, 2.5, "SUCCESS", "RECORD_LOCKED", "SUCCESS", "SUCCESS")
    assert desk.scheduler.next(2.5) is None
    assert desk.scheduler.wakes_at(2.5) == 4.0
    assert numbers(desk.batch(4.0)) == [0, 5]


def test_a_reader_that_may_not_read_on_holds_no_batch_back() -> None:
    desk = Desk(2).give(ended=False)
    assert desk.scheduler.next(9.0) is None
    desk.scheduler.set_full(True)
    assert numbers(desk.batch(9.0)) == [0, 1]
