"""The laws of many rows, in virtual time, against a small CRM: thousands of random runs."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard import GuardSettings
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.record_outcomes import Judge
from crm_guard._protocol.scheduling.end import End
from crm_guard._protocol.scheduling.reading import Delivery, lost, read_batch
from crm_guard._protocol.scheduling.row import Batch, Question, Row, Stage
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard._protocol.scheduling.target import Target
from crm_guard.outcomes import CallError, GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

BASE = "https://www.zohoapis.com/crm/v8/"
ZIA = "zia_vision_processing"
INF = float("inf")
RUNS = int(os.environ.get("CRM_GUARD_TEST_RUNS", "100"))
"""Seeds of each kind of run; set it to thousands after a change."""

KINDS = {
    "update": ("PUT", "Leads"),
    "delete": ("DELETE", "Leads"),
    "insert": ("POST", "Leads"),
    "upsert": ("POST", "Leads/upsert"),
}
APPLIED, REFUSED, UNHEARD, DOUBT, FINAL = "applied", "refused", "unheard", "doubt", "final"
MAY_GO_AGAIN = {REFUSED, UNHEARD}


@dataclass
class Record:
    """A record of the model."""

    name: str
    until: float = 0.0  # a lock that ends by itself,
    refusals: int = 0  # or after so many refusals
    then: str = "ok"  # ok, unapproved, invalid, poison (refuses whole calls unnamed), named (refuses them by name)
    applied: list[int] = field(default_factory=list)

    def state(self, now: float) -> str:
        if now < self.until:
            return "locked"
        if self.refusals > 0:
            self.refusals -= 1
            return "locked"
        return self.then


@dataclass
class Plan:
    """What one run is like."""

    kind: str = "update"
    rows: int = 60
    size: int = 10
    workers: int = 3
    duplicates: float = 0.1
    locked: float = 0.2
    forever: float = 0.1
    odd: float = 0.1  # rows that are refused for good, each in its way
    faults: float = 0.0
    latency: float = 1.0
    credits: int | None = None
    token_until: float = INF
    renews: bool = True
    broken: bool = False  # the token cannot be renewed
    stop_at: float = INF
    most: int = 10_000
    at_once: bool = False
    gate: str = ""
    settings: GuardSettings = field(default_factory=GuardSettings)


class Gate:
    """Knows some locks, wakes rows early, and keeps rows waiting. Checks that it is used as agreed."""

    def __init__(self, run: Run, rng: random.Random, kind: str) -> None:
        self.run, self.rng, self.kind = run, rng, kind
        self.waiting: set[int] = set()
        self.closed = False

    def __bool__(self) -> bool:
        return self.kind == "knows"

    def known(self, rows: Sequence[Row]) -> Collection[int]:
        return [row.index for row in rows if self._knows(row)]

    def _knows(self, row: Row) -> bool:
        record = self.run.record_of(row)
        return self.run.now < record.until or record.refusals > 0 or self.rng.random() < 0.05

    def may_ride(self, row: Row) -> bool:
        assert row.index in self.waiting
        return self.rng.random() < 0.5

    def park(self, row: Row, delay: float, now: float) -> float:
        self.waiting.add(row.index)
        assert delay > 0
        if self.rng.random() < 0.3:  # others learn something meanwhile
            self.run.at(now + self.rng.random() * 4, lambda: self.run.scheduler.look_early(row, self.run.now))
        return now + delay * (self.rng.choice([0.3, 1, 3]) if self.kind == "knows" else 1)

    def look(self, row: Row, now: float) -> float | None:
        assert row.index in self.waiting
        return now + self.rng.choice([0.0, 0.5, 3.0, 500.0]) if self.rng.random() < 0.4 else None

    def verdict(self, row: Row, *, locked: bool, retry_after: float = 0.0) -> None:
        assert self.run.absorbing or not locked, "no answer says so"
        assert retry_after >= 0
        if locked:
            assert self.run.fate[row.index] == REFUSED
        elif self.run.scheduler.end is None:
            assert self.run.fate[row.index] in {APPLIED, FINAL}
        self.waiting.add(row.index)

    def leave(self, row: Row) -> None:
        self.waiting.discard(row.index)

    def close(self) -> None:
        self.waiting.clear()


class Run:
    """One writer in virtual time."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.rng, self.now = plan, random.Random(seed), 0.0
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.seq = itertools.count()
        method, path = KINDS[plan.kind]
        self.target = Target(method, CrmUrl.of(BASE + path))
        self.judge = Judge(self.target.template, plan.settings.retry_actions, "v8")
        self.gate = Gate(self, self.rng, plan.gate) if plan.gate else None
        self.scheduler = Scheduler(
            self.target,
            self.judge,
            plan.settings,
            self.rng.random,
            batch_size=plan.size,
            workers=plan.workers,
            gate=self.gate,
            renews=plan.renews,
        )
        self.records: list[Record] = []
        self.rows = [self.make_row(index) for index in range(plan.rows)]
        holders: dict[Any, list[int]] = {}
        self.before: list[list[int]] = []
        for row in self.rows:
            self.before.append([other for key in row.keys for other in holders.get(key, ())])
            for key in row.keys:
                holders.setdefault(key, []).append(row.index)
        self.fed = 0
        self.in_flight: list[Batch] = []
        self.asking = 0
        self.fate: dict[int, str] = {}
        self.sends: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.done_at: dict[int, float] = {}
        self.calls = 0
        self.absorbing = False
        self.last_spin = 0
        self.told: Counter[str] = Counter()
        self.waits: set[Any] = set()

    # -- the rows and their records

    def make_row(self, index: int) -> Row:
        plan, rng = self.plan, self.rng
        if self.records and plan.kind != "insert" and rng.random() < plan.duplicates:
            record = rng.choice(self.records[-15:])
        else:
            record = Record(str(555000000000000001 + index))
            if rng.random() < plan.locked:
                record.until = rng.random() * 40 if rng.random() < 0.6 else 0.0
                record.refusals = 0 if record.until else rng.randint(1, 4)
                record.then = rng.choice(["ok", "ok", "ok", "unapproved"])
                if rng.random() < plan.forever:
                    record.until = INF
            elif rng.random() < plan.odd:
                record.then = rng.choice(["unapproved", "unapproved", "invalid", "poison", "named", "action"])
        self.records.append(record)
        value: Any = record.name
        if plan.kind == "update":
            value = {"id": record.name if rng.random() < 0.8 else int(record.name)}
        elif plan.kind != "delete":
            value = {"Email": rng.choice([f"a{record.name}@x.com", f" A{record.name}@X.com"])}
        target = self.target
        return Row(index, value, target.encode(value), target.record_id(value), target.keys(value))

    def record_of(self, row: Row) -> Record:
        return self.records[row.index]

    # -- virtual time

    def at(self, instant: float, action: Callable[[], object]) -> None:
        heapq.heappush(self.events, (max(instant, self.now), next(self.seq), action))

    def run(self) -> Run:
        self.at(0.0, self.feed)
        if self.plan.stop_at < INF:
            self.at(self.plan.stop_at, lambda: self.scheduler.stop(End(GiveUpReason.STOPPED), self.now))
        for _ in range(200_000):
            self.work()
            wakes = self.scheduler.wakes_at(self.now)
            if self.scheduler.over:
                break
            assert wakes > self.now, "a busy loop"
            nearest = self.events[0][0] if self.events else INF
            self.poll(min(wakes, nearest))
            if nearest <= wakes:
                assert self.events, "nothing will ever happen"
                self.now, _, action = heapq.heappop(self.events)
                action()
            else:
                self.now = wakes
        else:
            pytest.fail("no end")
        self.check_end()
        return self

    def poll(self, until: float) -> None:
        """There is nothing to do before the instant at which the scheduler says so."""
        instant = self.now + (until - self.now) * 0.99 * self.rng.random() if until < INF else until
        if instant < until and self.rng.random() < 0.2:
            assert self.scheduler.next(instant) is None

    def feed(self) -> None:
        plan, rng = self.plan, self.rng
        pending = self.fed - len(self.results)
        full = pending >= plan.most
        self.scheduler.set_full(full)
        if self.scheduler.end is not None:
            return
        if not full:
            count = min(rng.randint(1, plan.size), plan.most - pending, plan.rows - self.fed)
            count = plan.rows if plan.at_once else count
            self.scheduler.add(self.rows[self.fed : self.fed + count], self.now)
            self.fed += count
        if self.fed == plan.rows:
            self.scheduler.no_more()
        else:
            self.at(self.now + rng.choice([0.0, 0.01, 0.3, 2.0]) + (0.5 if full else 0), self.feed)

    def work(self) -> None:
        while (job := self.scheduler.next(self.now)) is not None:
            assert self.scheduler.end is None
            if isinstance(job, Batch):
                self.send(job)
            else:
                self.ask(job)
            assert len(self.in_flight) + self.asking <= self.plan.workers
        self.check_counts()

    def ask(self, question: Question) -> None:
        self.asking += 1
        assert 1 <= len(question.rows) <= 100
        assert all(row.stage is Stage.UNDIAGNOSED for row, _ in question.rows)
        states = {name: "zia_rejected" for name in question.ids if self.rng.random() < 0.5}

        def told() -> None:
            self.asking -= 1
            self.scheduler.diagnosed(question, states, 1, self.now)

        self.at(self.now + self.plan.latency * self.rng.random(), told)

    # -- CRM

    def send(self, batch: Batch) -> None:
        rows = batch.rows
        assert 1 <= len(rows) <= self.plan.size
        keys = [key for row in rows for key in row.keys]
        keys += [key for other in self.in_flight for row in other.rows for key in row.keys]
        assert len(set(keys)) == len(keys), "rows with one key in flight together"
        for row in rows:
            assert self.fate.get(row.index, UNHEARD) in MAY_GO_AGAIN, (row.index, self.fate[row.index])
            assert row.result is None
            assert all(self.rows[other].result is not None for other in self.before[row.index])
        self.in_flight.append(batch)
        kind, reply = self.reply(batch)
        for row in rows:
            self.sends[row.index] += kind != "never left"
            if kind in {"lost", "unheard"} and self.fate.get(row.index) != APPLIED:
                self.fate[row.index] = DOUBT if kind == "lost" else REFUSED

        def back() -> None:
            self.in_flight.remove(batch)
            self.absorbing = True
            if reply is None:
                self.scheduler.never_left(batch, CallError(code="ConnectionError"), self.now)
            else:
                self.scheduler.absorb(batch, reply, self.now)
            self.absorbing = False

        self.at(self.now + self.plan.latency * (0.2 + 0.8 * self.rng.random()), back)

    def reply(self, batch: Batch) -> tuple[str, Any]:
        rng, plan, rows = self.rng, self.plan, batch.rows
        self.calls += 1
        ids, positions = [row.record_id for row in rows], [row.index for row in rows]

        def read(status: int, body: object, retry_after: float | None = None) -> Any:
            left = None if plan.credits is None else str(max(plan.credits - self.calls, 0))
            delivery = Delivery(status, json.dumps(body).encode(), left, retry_after)
            return read_batch(delivery, self.judge, ids, positions)

        if (self.now >= plan.token_until or plan.broken) and (plan.broken or not batch.renewed):
            return "unheard", read(401, {"code": "INVALID_TOKEN", "status": "error", "details": {}})
        if rng.random() < plan.faults:
            fault = rng.choice(["429", "429 after", "never left", "lost", "lost applied", "500", "few", "foreign"])
            if fault == "never left":
                for row in rows:
                    self.fate.setdefault(row.index, UNHEARD)
                return fault, None
            if fault.startswith("429"):
                return "unheard", read(429, {}, 5.0 if fault == "429 after" else None)
            if fault == "500":
                return "lost", read(500, {})
            if fault == "lost":
                return "lost", lost(self.judge, ids, positions, CallError(code="ReadTimeout"))
            status, body = self.spoil(rows, fault)
            if status:
                return "answered", read(status, body)
            return "lost", lost(self.judge, ids, positions, CallError(code="ReadTimeout"))
        body, status = self.process(rows)
        return "answered", read(status, body, rng.choice([None] * 9 + [2.5]))

    def spoil(self, rows: Any, fault: str) -> tuple[int, Any]:
        """Process rows, and return an answer in doubt; status 0 for none."""
        body, status = self.process(rows)
        if status >= 400:
            return status, body
        for row in rows:
            if self.fate[row.index] == REFUSED:
                self.fate[row.index] = DOUBT
        if fault == "few" and len(rows) > 1:
            del body["data"][self.rng.randrange(len(rows))]
            return 207, body
        if fault == "foreign" and self.plan.kind in {"update", "delete"}:
            body["data"][0] = self.item(rows[0], "SUCCESS", 0) | {"details": {"id": "999"}}
            return 207, body
        return 0, None

    def process(self, rows: Any) -> tuple[dict[str, Any], int]:
        states = [self.record_of(row).then for row in rows]
        if "poison" in states:  # one of them, which is not told, keeps the call from being taken
            for row in rows:
                self.fate[row.index] = REFUSED if len(rows) > 1 else FINAL
            return {"code": "NOT_APPROVED", "status": "error", "details": {"resource_path_index": 1}}, 400
        if "named" in states and len(rows) > 1:
            items = []
            for number, row in enumerate(rows):
                self.fate[row.index] = REFUSED
                if states[number] == "named":
                    self.fate[row.index] = FINAL
                    items.append(self.item(row, "INVALID_DATA", number, named=True))
            return {"data": items}, 400
        items = [self.one(row, number) for number, row in enumerate(rows)]
        applied = sum(item["status"] == "success" for item in items)
        if self.plan.kind == "delete":
            self.rng.shuffle(items)
        return {"data": items}, 400 if not applied else 200 if applied == len(items) else 207

    def one(self, row: Row, number: int) -> dict[str, Any]:
        record = self.record_of(row)
        state = record.state(self.now)
        self.fate[row.index] = {"ok": APPLIED, "locked": REFUSED}.get(state, FINAL)
        if state == "ok":
            record.applied.append(row.index)
            assert record.applied == sorted(set(record.applied)), "twice, or out of order"
            return self.item(row, "SUCCESS", number, id=record.name)
        if state == "locked":
            return self.item(row, "RECORD_LOCKED", number, action=ZIA)
        if state == "action":
            return self.item(row, "RECORD_LOCKED", number, action="record_locking")
        return self.item(row, "NOT_APPROVED" if state == "unapproved" else "INVALID_DATA", number)

    def item(self, row: Row, code: str, number: int, *, named: bool = False, **details: Any) -> dict[str, Any]:
        if self.plan.kind == "delete" or (row.record_id and self.rng.random() < 0.5):
            details["id"] = self.record_of(row).name
        elif code != "SUCCESS" and (named or self.rng.random() < 0.5):
            details["json_path"] = f"$.data[{number}].id"
        status = "success" if code == "SUCCESS" else "error"
        return {"code": code, "status": status, "message": "m", "details": details}

    # -- the laws

    def hear(self) -> None:
        """Take what is told of the rows: each wait ends once, and after it began."""
        while self.scheduler.newsroom.outbox:
            event, group = self.scheduler.newsroom.outbox.popleft()
            if event is None:
                self.waits.remove(group)
                continue
            assert event.records == len(event.record_ids) or self.plan.kind in {"insert", "upsert"}
            assert (event.kind == "waiting") is (group is not None)
            assert event.pending >= 0
            assert event.waited >= 0
            assert event.delay >= 0
            self.told[event.kind] += event.records
            if group is not None:
                assert group not in self.waits
                self.waits.add(group)

    def check_told(self) -> None:
        """Each row that met a lock is told of once when that is over, and each that is blocked."""
        self.hear()
        assert not self.waits, "a wait has no end"
        fed, results = self.rows[: self.fed], self.results.values()
        doubtful = sum(self.rows[one.index].lock is None for one in results if one.reason == "unmatched")
        met = sum(row.lock is not None for row in fed) + doubtful
        assert self.told["unlocked"] + self.told["gave_up"] == met
        outcomes = [one.outcome for one in results if not one.succeeded]
        blocked = [told for told in outcomes if told.blocked and not told.retryable and not told.uncertain]
        assert self.told["blocked"] == len(blocked)
        assert self.told["locked"] >= met
        assert self.told["waiting"] <= self.told["locked"]

    def check_counts(self) -> None:
        self.hear()
        results = self.scheduler.results
        while results:
            result = results.popleft()
            assert result.index not in self.results, "two results"
            self.results[result.index] = result
            self.done_at[result.index] = self.now
        sums = self.scheduler.sums()
        assert sums.in_flight == sum(len(batch.rows) for batch in self.in_flight)
        given = self.rows[: self.fed]
        stages = Counter(row.stage for row in given)
        assert sums.waiting == stages[Stage.PARKED]
        assert sums.in_flight == stages[Stage.IN_FLIGHT]
        assert sums.written == sum(result.succeeded for result in self.results.values())
        uncertain = sum(result.outcome.uncertain for result in self.results.values())
        assert sums.uncertain == uncertain
        assert sums.written + sums.blocked + sums.failed + sums.uncertain == len(self.results)
        assert stages[Stage.DONE] == len(self.results)
        assert self.scheduler.backlog <= stages[Stage.QUEUED]

    def check_end(self) -> None:
        self.check_counts()
        self.check_told()
        assert not self.in_flight
        assert not self.asking
        for row in self.rows[: self.fed]:
            fate, result = self.fate.get(row.index, UNHEARD), self.results.get(row.index)
            assert row.attempts == self.sends[row.index]
            if result is None:
                assert self.scheduler.end is not None
                assert row.stage in {Stage.QUEUED, Stage.PARKED}
                assert fate in ({UNHEARD} if row.attempts == 0 else {REFUSED, UNHEARD})
            elif result.succeeded:
                assert fate == APPLIED
            elif not result.outcome.uncertain:
                assert row.index not in self.record_of(row).applied
                assert fate in {REFUSED, FINAL, DOUBT}
                assert fate == FINAL or result.reason is not None
            if result is not None and result.succeeded:
                assert result.reason is None
            elif result is not None and result.outcome.uncertain:
                assert result.reason in {None, GiveUpReason.FOLLOW_UP}
        if self.scheduler.end is None:
            assert self.results.keys() == set(range(self.plan.rows))
        assert self.scheduler.next(self.now + 1000) is None
        if self.gate is not None:
            assert not self.gate.waiting
        self.check_nothing_is_kept()

    def check_nothing_is_kept(self) -> None:
        desk = self.scheduler._desk
        if self.scheduler.end is None:
            assert not desk.parking.rows
            assert not desk.endings._order._behind
            assert not desk.queues.has_some
            assert len(desk.diagnoses) == desk.endings.open == 0


def settings(rng: random.Random) -> GuardSettings:
    first = rng.choice([0.5, 3.0])
    return GuardSettings(
        attempts=rng.choice([1, 2, 5, 30, 30]),
        timeout=rng.choice([0.0, 5.0, 20.0, 120.0]),
        wait_initial=first,
        wait_max=first * rng.choice([1, 2]),
        wait_jitter=rng.choice([0.0, 0.2, 1.0]),
        diagnose=rng.random() < 0.7,
        min_credits=rng.choice([0, 3]),
    )


def random_plan(seed: int) -> Plan:
    rng = random.Random(seed)
    return Plan(
        kind=rng.choice(["update", "update", "delete", "insert", "upsert"]),
        rows=rng.choice([1, 7, 40, 60]),
        size=rng.choice([1, 2, 7, 10, 100]),
        workers=rng.choice([1, 2, 4]),
        duplicates=rng.choice([0, 0.1, 0.6]),
        locked=rng.choice([0, 0.2, 1.0]),
        odd=rng.choice([0, 0.1, 0.3]),
        faults=rng.choice([0, 0.05, 0.3]),
        latency=rng.choice([0.01, 1.0, 10.0]),
        credits=rng.choice([None, None, None, 12]),
        token_until=rng.choice([INF, INF, 3.0]),
        renews=rng.random() < 0.8,
        broken=rng.random() < 0.03,
        stop_at=rng.choice([INF, INF, rng.random() * 60]),
        most=rng.choice([10_000, 5, 30]),
        gate=rng.choice(["", "", "quiet", "knows"]),
        settings=settings(rng),
    )


@pytest.mark.parametrize("part", range(4))
def test_whatever_comes_each_row_is_written_once_or_its_state_is_true(part: int) -> None:
    for number in range(RUNS):
        seed = 4 * number + part
        plan = random_plan(seed)
        try:
            Run(plan, seed).run()
        except AssertionError as exc:
            message = f"seed {seed}: {plan}"
            raise AssertionError(message) from exc


def test_a_locked_row_gets_its_result_within_its_budget() -> None:
    """From its first refusal: its budget, one send, and the wait for a worker that is free."""
    seen: Counter[Any] = Counter()
    for seed in range(RUNS // 2):
        plan = random_plan(seed)
        plan.faults, plan.odd, plan.token_until, plan.broken, plan.stop_at = 0.0, 0.0, INF, False, INF
        plan.credits, plan.latency, plan.duplicates, plan.locked = None, 0.1, 0.0, 0.5
        run = Run(plan, seed).run()
        policy = plan.settings
        for row in run.rows:
            result = run.results[row.index]
            assert result.waited <= policy.timeout + 1.0, seed
            assert result.attempts <= 2 * policy.attempts or plan.rows > 1 or plan.gate
            if result.reason is GiveUpReason.TIMEOUT:
                longest = 2 * policy.wait_max + 2.5 + 1  # or what CRM asked for
                assert policy.timeout == 0 or result.waited + longest >= policy.timeout or plan.gate
            if result.reason is GiveUpReason.ATTEMPTS:
                assert row.lock is not None
                assert row.lock.asked == policy.attempts
            seen[result.reason] += 1
    assert seen[GiveUpReason.TIMEOUT] > 20
    assert seen[GiveUpReason.ATTEMPTS] > 20


@pytest.mark.parametrize("kind", ["update", "delete", "insert"])
def test_locks_delay_no_other_row(kind: str) -> None:
    for seed in range(RUNS // 50):
        times = []
        for locked in (0.0, 0.4):
            plan = Plan(kind=kind, rows=200, duplicates=0, locked=locked, forever=1.0, odd=0, at_once=True)
            plan.settings = GuardSettings(timeout=20.0)
            run = Run(plan, seed).run()
            times.append(max(run.done_at[n] for n, record in enumerate(run.records) if record.until == 0))
            if locked:
                assert all(run.results[n].succeeded == (one.until == 0) for n, one in enumerate(run.records))
        plain, among_locked = times
        assert among_locked <= plain * 2 + 1.0, seed  # questions about locked rows take places in batches


def test_a_lone_locked_row_is_asked_about_no_more_often_than_its_attempts_allow() -> None:
    """What rides along is free, but a writer with nothing else to do must not ask for ever."""
    policy = GuardSettings(attempts=5, timeout=1e6, wait_initial=3.0, wait_max=3.0, wait_jitter=0.0)
    run = Run(Plan(rows=1, locked=1.0, forever=1.0, settings=policy, latency=0.01), 1)
    run.records[0].until = INF
    run.run()
    assert run.results[0].reason is GiveUpReason.ATTEMPTS
    assert run.sends[0] <= 6
