"""The schedule of `write_records` alone, in virtual time: `python tests/benchmarks/bulk.py --virtual`.

The pure scheduler, driven as `crm_guard/_bulk/crew.py` and `intake.py` drive it, over the lock registry of a
process with a clock of its own. A call takes 0.2 s; CRM decides in its middle. No thread, no network, no noise.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from dataclasses import dataclass

from bulk_rows import LOCKS, URL, locked, record_id

from crm_guard import GuardSettings
from crm_guard._bulk.gate import SharedGate
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.record_outcomes import Judge
from crm_guard._protocol.scheduling.parking import OpenGate
from crm_guard._protocol.scheduling.reading import Kind, Reading, Told, Written
from crm_guard._protocol.scheduling.row import Row
from crm_guard._protocol.scheduling.scheduler import Scheduler
from crm_guard._protocol.scheduling.target import Target
from crm_guard.locks import MemoryLockRegistry
from crm_guard.outcomes import RecordOutcome
from crm_guard.testing import ManualClock

LATENCY, BATCH, CHUNK, MAX_PENDING = 0.2, 100, 25, 10_000
MOST_ROWS = 1_000_000
"""Rows in all runs of a scene: large scenes get fewer seeds."""
ORIGIN = "https://www.zohoapis.com"
TAIL = len("/crm/v8/")


@dataclass(frozen=True)
class Scene:
    rows: int = 20_000
    share: float = 0.01
    locks: str = "5..60 s"
    workers: int = 4

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.share:.0%} locked {self.locks}, {self.workers} workers"


SCENES = (
    Scene(),
    Scene(share=0.05),
    Scene(locks="30 s"),
    Scene(share=0.05, locks="30 s"),
    Scene(locks="80 % 5..10, 20 % 50..60 s"),
    Scene(share=0.05, locks="80 % 5..10, 20 % 50..60 s"),
    Scene(workers=1),
    Scene(workers=10),
    Scene(share=0.05, workers=10),
    Scene(rows=200_000),
    Scene(rows=200_000, share=0.05),
    Scene(rows=2_000),
    Scene(rows=200, share=0.05),
)


@dataclass
class Played:
    """What a run took; seconds of virtual time.

    Attributes:
        seconds: From the start to the last result.
        calls: Requests.
        late: By how much each locked row was written after its lock ended, or after its first refusal if that is
            later.
        sent: When each call began, with how many rows.
    """

    seconds: float
    calls: int
    late: list[float]
    sent: list[tuple[float, int]]


class Run:
    """One writer in virtual time: events are answers that come back."""

    def __init__(self, scene: Scene, ends: dict[str, float], seed: int, *, shared: bool = True, **settings) -> None:
        self.scene, self.ends = scene, ends
        self.clock = ManualClock()
        address = CrmUrl(ORIGIN + URL, len(ORIGIN) + TAIL)
        target = Target("PUT", address)
        policy = GuardSettings(**settings)
        judge = Judge(target.template, policy.retry_actions, address.version)
        gate = SharedGate(MemoryLockRegistry(), self.clock, ORIGIN) if shared else OpenGate()
        self.scheduler = Scheduler(
            target, judge, policy, random.Random(seed).random, batch_size=BATCH, workers=scene.workers, gate=gate
        )
        gate.woken = lambda row: self.scheduler.look_early(row, self.clock.now())
        self.flying: list[tuple[float, int, object, Reading]] = []
        self.seq = itertools.count()
        self.read = self.taken = 0
        self.sent: list[tuple[float, int]] = []
        self.written: dict[str, float] = {}

    def play(self) -> Played:
        scheduler, clock = self.scheduler, self.clock
        while True:
            now = clock.now()
            self.take_and_read(now)
            while len(self.flying) < self.scene.workers and (batch := scheduler.next(now)) is not None:
                self.send(batch, now)
                self.take_and_read(now)
            if scheduler.over:
                break
            until = scheduler.wakes_at(now) if len(self.flying) < self.scene.workers else float("inf")
            if self.flying and self.flying[0][0] <= until:
                instant, _, batch, reading = heapq.heappop(self.flying)
                clock.advance(max(instant - now, 0.0))
                scheduler.absorb(batch, reading, clock.now())
            else:
                assert now < until < float("inf"), f"woken at {until} at {now}: a thread would spin, or sleep on"
                clock.advance(max(until - now, 1e-9))  # never by nothing, as floats round
        assert self.read == self.taken == self.scene.rows, "a row was lost"
        assert len(self.written) == self.scene.rows
        late = [self.written[record] - end for record, end in self.ends.items() if self.written[record] > end]
        return Played(clock.now(), len(self.sent), late, self.sent)

    def take_and_read(self, now: float) -> None:
        """Take results, and read rows as `Intake` does."""
        scheduler, results = self.scheduler, self.scheduler.results
        while results:
            assert results.popleft().succeeded
            self.taken += 1
        ahead = BATCH * (self.scene.workers + 1)
        while self.read < self.scene.rows:
            full = self.read - self.taken >= MAX_PENDING
            scheduler.set_full(full)
            if full or scheduler.backlog >= ahead:
                return
            numbers = range(self.read, min(self.read + CHUNK, self.scene.rows))
            names = [record_id(number) for number in numbers]
            scheduler.add(
                [Row(number, None, b"", name, (name,)) for number, name in zip(numbers, names, strict=True)], now
            )
            self.read = numbers.stop
        scheduler.no_more()

    def send(self, batch, now: float) -> None:
        self.sent.append((now, len(batch.rows)))
        decided, answers = now + LATENCY / 2, []
        for row in batch.rows:
            name = row.record_id
            if self.ends.get(name, 0.0) > decided:
                refusal = RecordOutcome(position=row.index, record_id=name, code="RECORD_LOCKED", retryable=True)
                answers.append(Told(refusal, None, locked=True))
            else:
                assert name not in self.written, "written twice"
                self.written[name] = decided
                answers.append(Written(name, "SUCCESS", "record updated"))
        heapq.heappush(self.flying, (now + LATENCY, next(self.seq), batch, Reading(Kind.ROWS, answers)))


def play(scene: Scene, seed: int, **options) -> tuple[Played, float, float]:
    """Return what a run took, and its ratios: of time and of calls."""
    ends = locked(scene.rows, scene.share, LOCKS[scene.locks], seed)
    played = Run(scene, ends, seed, **options).play()
    unlocked = -(-scene.rows // BATCH)
    rounds = -(-unlocked // scene.workers)
    bound = max(rounds * LATENCY, *ends.values())
    return played, played.seconds / bound, played.calls / unlocked


def spread(values: list[float]) -> str:
    p90 = statistics.quantiles(values, n=10, method="inclusive")[8] if len(values) > 1 else values[0]
    return f"{statistics.mean(values):.3f} {p90:.3f} {max(values):.3f}"


def show(seeds: int, scenes=SCENES, **options) -> None:
    title = f"mean, p90 and most of {seeds} seeds"
    print(f"{title:62} {'time':>17} {'calls':>17} {'over, s':>8} {'late':>6}")
    for scene in scenes:
        few = min(seeds, MOST_ROWS // scene.rows)
        runs = [play(scene, seed, **options) for seed in range(few)]
        over = statistics.mean(run.seconds - run.seconds / time for run, time, _ in runs)
        late = statistics.mean(seconds for run, *_ in runs for seconds in run.late)
        times, calls = [time for _, time, _ in runs], [calls for *_, calls in runs]
        print(f"{scene!s:62} {spread(times):>17} {spread(calls):>17} {over:8.2f} {late:6.2f}", flush=True)
