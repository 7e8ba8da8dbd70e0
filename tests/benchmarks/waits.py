"""Waiting and sharing, simulated without sleeping: `python tests/benchmarks/waits.py` (about ten seconds).

First table: one caller alone, schedules of waits against lock lengths. Second: many callers over the rules of
`crm_guard.locks.table.LockTable`, in virtual time, against the same callers without sharing. They come over one
second, and each call takes 0.2 s. Columns: calls to CRM, mean and most of all seeds; delay of a call, from the
instant at which its last record was free (or at which it came, if that is later) to its end, mean and 95th
percentile; the longest delay of a record, mean of all seeds; the longest delay of a call that came when its records
were free already, and was held back because they were believed locked; most calls in flight.
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
LOCKS = {
    "constant 5": LENGTHS["constant 5"],
    "lognormal 4": lambda r: 4 * r.lognormvariate(0, 1),
    "bimodal 1/30": lambda r: r.choice((1.0, 30.0)),
}
"""Lengths for many callers, in seconds."""


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

    def __init__(self, seed, *, shared, schedule=DEFAULTS, latency=0.2):
        self.random, self.shared, self.schedule, self.latency = random.Random(seed), shared, schedule, latency
        self.now, self.calls, self.flying, self.most_flying = 0.0, 0, 0, 0
        self.events, self.order = [], itertools.count()
        self.table = LockTable(10, 10_000, 30.0)
        self.unlocks, self.needs, self.came, self.writes, self.ends = {}, {}, {}, {}, {}
        self.sends = []

    def at(self, instant, action):
        heapq.heappush(self.events, (max(instant, self.now), next(self.order), action))

    def run(self):
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        assert not self.table.locks, "a lock outlived its calls"
        assert not self.table.turns.limiters, "a slot outlived its call"
        assert len(self.writes) == sum(map(len, self.needs.values())), "a write was lost"
        return self

    def wanted(self, name, keys):
        """Return the instant from which on a caller could have written `keys`."""
        return max(self.came[name], *(self.unlocks.get(key, 0.0) for key in keys))

    def delays(self):
        """Return the delay of each call."""
        return {name: end - self.wanted(name, self.needs[name]) for name, end in self.ends.items()}

    def longest(self):
        """Return the longest delay of a record."""
        return max(instant - self.wanted(name, [key]) for (name, key), instant in self.writes.items())

    def held_back(self):
        """Return the longest delay of a call that came when its records were free already."""
        late = self.delays()
        return max(
            (late[name] for name in late if self.came[name] == self.wanted(name, self.needs[name])), default=0
        )


class Caller:
    """One caller; `set` is what the table wakes it with."""

    def __init__(self, crowd, name, keys):
        self.crowd, self.name, self.pending = crowd, name, frozenset(keys)
        crowd.came[name], crowd.needs[name] = crowd.now, keys
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
        crowd.sends.append((crowd.now, self.name))
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


def one_record(seed, *, shared, draw, callers=50, spread=1.0, **options):
    crowd = Crowd(seed, shared=shared, **options)
    crowd.unlocks["o|1"] = draw(random.Random(seed))
    for name in range(callers):
        crowd.at(crowd.random.uniform(0, spread), lambda name=name: Caller(crowd, name, ["o|1"]))
    return crowd.run()


def batches(seed, *, shared, draw, callers=20, size=100, pool=500, locked=50, spread=1.0, **options):
    crowd = Crowd(seed, shared=shared, **options)
    crowd.unlocks = {f"o|{number}": draw(crowd.random) for number in range(locked)}
    for name in range(callers):
        keys = [f"o|{n}" for n in crowd.random.sample(range(pool), size)]
        crowd.at(crowd.random.uniform(0, spread), lambda name=name, keys=keys: Caller(crowd, name, keys))
    return crowd.run()


def summary(make, seeds=40, **options):
    """Return the columns of a row; see the top of this file."""
    runs = [make(seed, **options) for seed in range(seeds)]
    delays = [seconds for run in runs for seconds in run.delays().values()]
    return {
        "calls": statistics.mean(run.calls for run in runs),
        "(most)": max(run.calls for run in runs),
        "delay": statistics.mean(delays),
        "p95": statistics.quantiles(delays, n=20)[18],
        "record": statistics.mean(run.longest() for run in runs),
        "late": max(run.held_back() for run in runs),
        "at once": max(run.most_flying for run in runs),
    }


def main():
    print(f"{'one caller alone: calls, p50 / p95 delay':34}", *(f"{name:>18}" for name in LENGTHS))
    for name, schedule in SCHEDULES.items():
        cells = (lone(schedule, draw) for draw in LENGTHS.values())
        print(f"{name:34}", *(f"{calls:6.2f} {mid:5.2f}/{high:5.2f}" for calls, mid, high in cells))
    crowds = [(f"50 x 1 record, {name}", one_record, {"draw": draw}) for name, draw in LOCKS.items()]
    over = {"draw": LOCKS["lognormal 4"], "spread": 25.0}
    crowds.append(("50 over 25 s x 1 record, lognormal 4", one_record, over))
    crowds += [(f"20 x 100 records, {name}", batches, {"draw": draw}) for name, draw in LOCKS.items()]
    rows = [
        (f"{title}{'' if shared else ', alone'}", summary(make, shared=shared, **options))
        for title, make, options in crowds
        for shared in (False, True)
    ]
    print(f"\n{'many callers':46}", *(f"{name:>8}" for name in rows[0][1]))
    for title, row in rows:
        print(
            f"{title:46}", *(f"{value:8}" if isinstance(value, int) else f"{value:8.2f}" for value in row.values())
        )


if __name__ == "__main__":
    main()
