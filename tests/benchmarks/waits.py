"""Waiting and sharing, simulated without sleeping: `python tests/benchmarks/waits.py` (about ten seconds).

First table: one caller alone, schedules of waits against lock lengths. Second: many callers over the rules of
`crm_guard.locks.table.LockTable`, in virtual time, against the same callers without sharing.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics

from crm_guard import GuardSettings
from crm_guard._protocol.waits_and_budgets import waits
from crm_guard.locks.table import LockTable

ROUNDS = 4000
LENGTHS = {
    "constant 5": lambda r: 5.0,  # noqa: ARG005 (all of these take one)
    "lognormal 5": lambda r: 5 * r.lognormvariate(0, 0.6),
    "bimodal 2/30": lambda r: r.choice((2.0, 30.0)),
    "uniform 0..5": lambda r: r.uniform(0, 5),
}


def guard(**settings):
    """Return the schedule of the guard with these settings. A schedule makes the waits of one call."""
    policy = GuardSettings(**settings)
    return lambda r: waits(policy, r.random)


def full_jitter(multiplier, top):
    """Return the schedule of tenacity's `wait_random_exponential`."""
    return lambda r: (r.uniform(0, min(top, multiplier * 2.0**n)) for n in range(1000))


def urllib3(backoff_factor):
    """Return the schedule of urllib3's `Retry`, which sends the second time at once."""
    return lambda r: itertools.chain(  # noqa: ARG005
        [0.0], (min(120.0, backoff_factor * 2.0**n) for n in range(1, 1000))
    )


DEFAULTS = guard()
SCHEDULES = {
    "fixed 1 s": guard(wait_initial=1, wait_max=1),
    "fixed 2.5 s": guard(wait_initial=2.5, wait_max=2.5),
    "exponential 1..8 x1.5": guard(wait_initial=1, wait_max=8, wait_exp_base=1.5),
    "exponential 2..8 x1.5": guard(wait_initial=2, wait_max=8, wait_exp_base=1.5),
    "exponential 3..8 x1.2": guard(wait_max=8),
    "exponential 3..5 x1.2 (defaults)": DEFAULTS,
    "tenacity full jitter, max 10": full_jitter(1, 10),
    "tenacity full jitter x2, max 10": full_jitter(2, 10),
    "urllib3 backoff_factor=1": urllib3(1),
    "urllib3 backoff_factor=0.5": urllib3(0.5),
}


def lone(schedule, draw):
    """Return calls per job, and the median and 95th percentile of the delay after the unlock."""
    r, calls, added = random.Random(1), 0, []
    for _ in range(ROUNDS):
        length, elapsed, delays = draw(r), 0.0, schedule(r)
        calls += 1
        while elapsed < length:
            elapsed += next(delays)
            calls += 1
        added.append(elapsed - length)
    cuts = statistics.quantiles(added, n=20)
    return calls / ROUNDS, cuts[9], cuts[18]


class Crowd:
    """Callers over one `LockTable`, or over none, on a heap of events."""

    def __init__(self, seed, *, shared, schedule=DEFAULTS, latency=0.05):
        self.random, self.shared, self.schedule, self.latency = random.Random(seed), shared, schedule, latency
        self.now, self.calls, self.flying, self.most_flying = 0.0, 0, 0, 0
        self.events, self.order = [], itertools.count()
        self.table = LockTable(10, 10_000, 30.0)
        self.unlocks, self.writes, self.ends = {}, {}, {}

    def at(self, instant, action):
        heapq.heappush(self.events, (max(instant, self.now), next(self.order), action))

    def run(self):
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        assert not self.table.locks, "a lock outlived its calls"
        assert not self.table.paces, "a slot outlived its call"


class Caller:
    """One caller; `set` is what the table wakes it with."""

    def __init__(self, crowd, name, keys):
        self.crowd, self.name, self.pending = crowd, name, frozenset(keys)
        self.delays, self.alarm, self.waiting = crowd.schedule(crowd.random), 0, False
        self.call = crowd.table.join(self)
        known = [crowd.table.locks.get(key) for key in keys]
        if crowd.shared and all(lock is not None and not lock.free for lock in known):
            self.wait()
        else:
            self.send(self.pending)

    def set(self):
        if self.waiting:
            self.look_at(self.crowd.now)

    def look_at(self, instant):
        self.alarm += 1
        alarm = self.alarm
        self.crowd.at(instant, lambda: self.look() if alarm == self.alarm and self.waiting else None)

    def wait(self):
        crowd, self.waiting = self.crowd, True
        delay = next(self.delays)
        if crowd.shared:
            crowd.table.enrol(self.call, sorted(self.pending), delay, crowd.now)
            self.look()
        else:
            self.look_at(crowd.now + delay)

    def look(self):
        crowd = self.crowd
        if not crowd.shared:
            self.send(self.pending)
            return
        keys, instant = crowd.table.step(self.call, crowd.now)
        if keys:
            self.send(keys)
        else:
            self.look_at(instant)

    def send(self, keys):
        crowd, self.waiting = self.crowd, False
        crowd.calls += 1
        crowd.flying += 1
        crowd.most_flying = max(crowd.most_flying, crowd.flying)
        half = crowd.random.uniform(0.5, 1.5) * crowd.latency / 2
        crowd.at(crowd.now + half, lambda: self.serve(keys, half))

    def serve(self, keys, half):
        crowd = self.crowd
        locked = frozenset(key for key in keys if crowd.unlocks.get(key, 0.0) > crowd.now)
        for key in keys - locked:
            assert (self.name, key) not in crowd.writes, "written twice"
            crowd.writes[self.name, key] = crowd.now
        crowd.at(crowd.now + half, lambda: self.answer(keys, locked))

    def answer(self, keys, locked):
        crowd = self.crowd
        crowd.flying -= 1
        self.pending -= keys - locked
        if crowd.shared:
            crowd.table.verdict(self.call, locked, keys - locked, crowd.now)
        if self.pending:
            self.wait()
        else:
            crowd.table.leave(self.call, crowd.now)
            crowd.ends[self.name] = crowd.now


def one_record(seed, *, shared, length, callers=50, spread=1.0, **options):
    crowd = Crowd(seed, shared=shared, **options)
    crowd.unlocks["o|1"] = length
    for name in range(callers):
        crowd.at(crowd.random.uniform(0, spread), lambda name=name: Caller(crowd, name, ["o|1"]))
    crowd.run()
    return crowd, [end - length for end in crowd.ends.values()]


def batches(seed, *, shared, draw, callers=20, size=100, pool=500, locked=50, **options):
    crowd = Crowd(seed, shared=shared, **options)
    crowd.unlocks = {f"o|{number}": draw(crowd.random) for number in range(locked)}
    keys = {name: [f"o|{n}" for n in crowd.random.sample(range(pool), size)] for name in range(callers)}
    for name, its in keys.items():
        crowd.at(crowd.random.uniform(0, 0.2), lambda name=name, its=its: Caller(crowd, name, its))
    crowd.run()
    assert len(crowd.writes) == callers * size, "a write was lost"
    unlocked = {name: max(crowd.unlocks.get(key, 0.0) for key in keys[name]) for name in keys}
    return crowd, [crowd.ends[name] - unlocked[name] for name in keys]


def summary(make, seeds=12, **options):
    """Return mean and most calls, mean and 95th percentile of the delay, most calls at once."""
    runs = [make(seed, **options) for seed in range(seeds)]
    calls = [crowd.calls for crowd, _ in runs]
    added = [seconds for _, delays in runs for seconds in delays]
    most = max(crowd.most_flying for crowd, _ in runs)
    return statistics.mean(calls), max(calls), statistics.mean(added), statistics.quantiles(added, n=20)[18], most


def main():
    print(f"{'one caller alone: calls, p50 / p95 delay':34}", *(f"{name:>18}" for name in LENGTHS))
    for name, schedule in SCHEDULES.items():
        cells = (lone(schedule, draw) for draw in LENGTHS.values())
        print(f"{name:34}", *(f"{calls:6.2f} {mid:5.2f}/{high:5.2f}" for calls, mid, high in cells))
    print(f"\n{'many callers':40}    calls  (most)  delay mean    p95  at once")
    crowds = [(f"50 x 1 record, locked {n} s", one_record, {"length": float(n)}) for n in (5, 30)]
    crowds.append(("50 over 25 s x 1 record, locked 30 s", one_record, {"length": 30.0, "spread": 25.0}))
    lengths = list(LENGTHS.items())[:3]
    crowds += [(f"20 x 100 records, {name}", batches, {"draw": draw}) for name, draw in lengths]
    for title, make, options in crowds:
        for shared in (False, True):
            row = summary(make, shared=shared, **options)
            label = f"{title} {'shared' if shared else 'alone'}"
            print(f"{label:44} {row[0]:6.1f} {row[1]:6}   {row[2]:8.2f} {row[3]:8.2f} {row[4]:6}")


if __name__ == "__main__":
    main()
