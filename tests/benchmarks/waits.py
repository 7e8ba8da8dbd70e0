# ruff: noqa: ARG005 - the lambdas of a table share one signature
"""Waiting and sharing, simulated without sleeping: `python tests/benchmarks/waits.py` (about ten seconds).

First table: one caller alone, policies against lock lengths. Second: many callers over the rules of
`crm_guard.locks.memory.LockTable`, in virtual time, against the same callers without sharing.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics

from crm_guard._transport.lock_lengths import LockLengths
from crm_guard.locks.memory import LockTable

ROUNDS = 4000
LENGTHS = {
    "constant 5": lambda r: 5.0,
    "lognormal 5": lambda r: 5 * r.lognormvariate(0, 0.6),
    "bimodal 2/30": lambda r: r.choice((2.0, 30.0)),
    "uniform 0..5": lambda r: r.uniform(0, 5),
}


def growing(initial, top, base, jitter):
    return lambda refusals, elapsed, r: min(top, initial * base ** (refusals - 1)) * (1 - jitter * r.random())


def full_jitter(multiplier, top):
    return lambda refusals, elapsed, r: r.uniform(0, min(top, multiplier * 2 ** (refusals - 1)))


PLAIN = growing(3.0, 5.0, 1.2, 0.2)


class Learning:
    """The guard's policy, on a plain schedule."""

    def __init__(self, plain, top):
        self.plain, self.top, self.lengths = plain, top, LockLengths()

    def __call__(self, refusals, elapsed, r):
        plain = self.plain(refusals, elapsed, r)
        learnt = self.lengths.next_wait("o", elapsed=elapsed, plain=plain, u=r.random())
        return min(learnt, self.top)


class Greedy(Learning):
    """Learning that always trusts a quantile: what the test of certainty saves us from."""

    def __init__(self, plain, quantile):
        super().__init__(plain, top=5.0)
        self.quantile = quantile

    def __call__(self, refusals, elapsed, r):
        left = sorted(x - elapsed for x in self.lengths._seen.get("o", ()) if x > elapsed + 0.5)
        if len(left) < 5:
            return self.plain(refusals, elapsed, r)
        return min(self.top, left[int(self.quantile * (len(left) - 1))] * (1 - 0.1 * r.random()))


POLICIES = {
    "fixed 1 s": lambda: growing(1, 1, 1, 0.2),
    "fixed 2.5 s": lambda: growing(2.5, 2.5, 1, 0.2),
    "exponential 1..8 x1.5": lambda: growing(1, 8, 1.5, 0.2),
    "exponential 2..8 x1.5": lambda: growing(2, 8, 1.5, 0.2),
    "exponential 3..8 x1.2": lambda: growing(3, 8, 1.2, 0.2),
    "exponential 3..5 x1.2": lambda: PLAIN,
    "tenacity full jitter, max 10": lambda: full_jitter(1, 10),
    "tenacity full jitter x2, max 10": lambda: full_jitter(2, 10),
    "urllib3 backoff_factor=1": lambda: growing(1, 120, 2, 0),
    "urllib3 backoff_factor=0.5": lambda: growing(0.5, 120, 2, 0),
    "greedy learning, median": lambda: Greedy(PLAIN, 0.5),
    "learning on 1..8 x1.5": lambda: Learning(growing(1, 8, 1.5, 0.2), 8.0),
    "learning on 3..5 x1.2": lambda: Learning(PLAIN, 5.0),
}


def lone(make, draw):
    """Return calls per job, and the median and 95th percentile of the delay after the unlock."""
    r, calls, added = random.Random(1), 0, []
    for number in range(ROUNDS):
        if number % 200 == 0:  # a process lives for 200 locks
            policy = make()
        length, elapsed, refusals = draw(r), 0.0, 1
        while elapsed < length:
            elapsed += policy(refusals, elapsed, r)
            refusals += 1
        calls += refusals
        added.append(elapsed - length)
        if isinstance(policy, Learning):
            policy.lengths.observe("o", elapsed)
    cuts = statistics.quantiles(added, n=20)
    return calls / ROUNDS, cuts[9], cuts[18]


class Crowd:
    """Callers over one `LockTable`, or over none, on a heap of events."""

    def __init__(self, seed, *, shared, policy=PLAIN, latency=0.05):
        self.random, self.shared, self.policy, self.latency = random.Random(seed), shared, policy, latency
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
        self.refusals, self.alarm, self.waiting = 0, 0, False
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
        self.refusals += 1
        delay = crowd.policy(self.refusals, crowd.now, crowd.random)
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
        crowd.table.settle(self.call, crowd.now)
        if crowd.table.may_go(self.call, crowd.now):
            self.send(crowd.table.depart(self.call, crowd.now))
        else:
            self.look_at(crowd.table.look_again(self.call, crowd.now))

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
    for name, make in POLICIES.items():
        cells = (lone(make, draw) for draw in LENGTHS.values())
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
