"""How costs grow with the calls that need one locked record, simulated without sleeping.

    python tests/benchmarks/growth.py [--quick]     # one minute; --quick: up to 1,000 calls, five seconds

The record is locked for 5 s, a call to CRM takes 0.2 s (0.1 to 0.3), and the calls arrive over the first second.
They wait as with the default settings, but never give up: `timeout` is ignored. First table: all calls in one
process, over `MemoryLockRegistry`. Second table: spread over up to 100 processes, over `RedisLockRegistry` with its
own Lua scripts (needs `pip install lupa`). There are no threads and no server: a heap of events drives the parts of
the waiters that do not block (`_enter`, `look`, `verdict`, `leave`), and a stand-in for Redis runs the scripts. A
command takes effect at once; 1 ms later its call goes on, and its messages arrive in every process.

- *calls*: sends to CRM in all. Of these refused: *probes*, sends after a wait, and *firsts*, sends without one, by
  calls that could not know of the lock.
- *p/sqrt*: probes / sqrt(calls needed). It must not grow.
- *added*: seconds from the unlock, or from the call's arrival if that is later, to the end of the call; mean and
  95th percentile.
- *last*: seconds from the unlock to the last write.
- *flying*: the most calls to CRM at once after the unlock.
- *looks*: how often a call asked the rules whether it may go.
- *bytes*: memory of the rules for each waiting call.
- *commands*: those that scripts run, and what is published outside of scripts, per call needed. *scripts*: how many
  of them. *news*: messages that arrive in a process, per call needed and process.
- *us*: microseconds of CPU time per call needed, of all processes and of the simulation itself.

Nobody may be lost, or write twice, and nothing may be left in the tables and in Redis: all of that is asserted.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import statistics
import time
import tracemalloc
from bisect import bisect_left, bisect_right, insort
from functools import partial

from crm_guard import GuardSettings
from crm_guard._protocol.waits_and_budgets import waits
from crm_guard.locks import MemoryLockRegistry, WaitContext
from crm_guard.locks.redis import RedisLockRegistry
from crm_guard.locks.table import LockTable

try:
    from lupa.lua51 import LuaRuntime
except ImportError:
    LuaRuntime = None

SIZES = (1, 10, 100, 1_000, 10_000)
AT_ONCE = (10, 25)
MOST_HOSTS = 100
KEY = "o|1"
LOCKED, CRM_TAKES, SPREAD = 5.0, 0.2, 1.0
REDIS_TAKES = 0.001
LEASE, SETTLED_AFTER = 5.0, 12.0  # heartbeats go on until leases have ended, and locks are forgotten
SETTINGS = GuardSettings()


class VirtualTime:
    """The clock of the registries, and the heap of events."""

    def __init__(self):
        self.instant, self.events, self.order = 0.0, [], itertools.count()

    def now(self):
        return self.instant

    def wait(self, event, timeout):
        message = "nobody sleeps here"
        raise AssertionError(message)

    def at(self, instant, action):
        if instant < math.inf:
            heapq.heappush(self.events, (max(instant, self.instant), next(self.order), action))

    def run(self):
        while self.events:
            self.instant, _, action = heapq.heappop(self.events)
            action()


class SortedSet:
    """Members by score, then by name."""

    def __init__(self):
        self.scores, self.order = {}, []

    def add(self, member, score):
        self.remove(member)
        self.scores[member] = score
        insort(self.order, (score, member))

    def remove(self, member):
        score = self.scores.pop(member, None)
        if score is not None:
            del self.order[bisect_left(self.order, (score, member))]
        return score is not None

    def span(self, least, most):
        return bisect_left(self.order, (least, "")), bisect_right(self.order, (most, "\U0010ffff"))


class StandIn:
    """What the registry uses of `redis.Redis`, with the commands that its scripts use."""

    def __init__(self, clock, deliver):
        self.clock, self.deliver = clock, deliver
        self.values, self.ends = {}, {}
        self.commands = self.scripts = self.messages = self.trips = 0
        self.lua = LuaRuntime()
        self.lua.globals().redis = self.lua.table_from({"call": self.call, "pcall": self.call})
        self.lua.globals().cjson = self.lua.table_from({"encode": lambda table: json.dumps(plain(table))})

    def register_script(self, text):
        function = self.lua.execute(f"return function(KEYS, ARGV)\n{text}\nend")
        return lambda keys, args: self.evalsha(function, keys, args)

    def evalsha(self, function, keys, args):
        self.scripts += 1
        self.trips += 1
        keys, args = (
            [one.decode() if isinstance(one, bytes) else str(one) for one in each] for each in (keys, args)
        )
        return plain(function(self.lua.table_from(keys), self.lua.table_from(args)))

    def publish(self, channel, message):
        self.trips += 1
        return self.call("PUBLISH", channel, message)

    def call(self, command, *args):
        self.commands += 1
        return getattr(self, "on_" + command.lower())(*args)

    def milliseconds(self):
        return round(self.clock.instant * 1000)

    def value(self, key):
        if self.ends.get(key, math.inf) <= self.milliseconds():
            self.on_del(key)
        return self.values.get(key)

    def members(self, key):
        return self.value(key) or SortedSet()

    def on_type(self, key):
        kinds = {type(None): "none", str: "string", SortedSet: "zset"}
        return self.lua.table_from({"ok": kinds[type(self.value(key))]})

    def on_getrange(self, key, first, last):
        return (self.value(key) or "")[int(first) : int(last) + 1]

    def on_set(self, key, value, px, lease):
        assert px == "PX"
        self.values[key] = value
        self.on_pexpire(key, lease)

    def on_pttl(self, key):
        if self.value(key) is None:
            return -2
        return self.ends[key] - self.milliseconds() if key in self.ends else -1

    def on_pexpire(self, key, lease):
        if self.value(key) is not None:
            self.ends[key] = self.milliseconds() + int(lease)

    def on_del(self, key):
        self.values.pop(key, None)
        self.ends.pop(key, None)

    def on_time(self):
        seconds, rest = divmod(self.milliseconds(), 1000)
        return self.lua.table_from([str(seconds), str(rest * 1000)])

    def on_exists(self, key):
        return int(self.value(key) is not None)

    def on_zadd(self, key, *args):
        flags, pairs = args[: len(args) % 2], args[len(args) % 2 :]
        assert flags in ((), ("NX",))
        if self.value(key) is None:
            self.values[key] = SortedSet()
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            if not (flags and member in self.values[key].scores):
                self.values[key].add(member, float(score))

    def on_zrem(self, key, member):
        removed = self.members(key).remove(member)
        if removed and not self.values[key].scores:
            self.on_del(key)
        return int(removed)

    def on_zrange(self, key, first, last):
        found = self.members(key).order[int(first) : None if int(last) == -1 else int(last) + 1]
        return self.lua.table_from([member for _, member in found])

    def on_zcard(self, key):
        return len(self.members(key).scores)

    def on_zscore(self, key, member):
        score = self.members(key).scores.get(member)
        return False if score is None else str(score)

    def on_zcount(self, key, least, most):
        first, end = self.members(key).span(float(least), float(most))
        return end - first

    def on_zremrangebyscore(self, key, least, most):
        found = self.members(key)
        first, end = found.span(float(least), float(most))
        for _, member in found.order[first:end]:
            self.on_zrem(key, member)

    def on_publish(self, channel, message):
        self.clock.at(self.clock.instant + REDIS_TAKES, partial(self.deliver, channel, message))


def plain(found):
    """Return what a Lua table holds; a number or a text as it is."""
    if not hasattr(found, "items"):
        return found
    pairs = dict(found.items())
    if all(isinstance(name, int) for name in pairs):
        return [plain(pairs[number]) for number in sorted(pairs)]
    return {name: plain(value) for name, value in pairs.items()}


class Process(RedisLockRegistry):
    """The registry of one process: its commands run at once, and it has no threads."""

    def __init__(self, number, stand_in, **options):
        self.number = number
        super().__init__(stand_in, lease=LEASE, **options)

    def reset(self):
        super().reset()
        self.link.process = f"{self.number:032x}"
        self.link.channels = (self.link.channel, f"{self.link.channel}:{self.link.process}")
        self.link._attempt = lambda command: command()
        self.link.up = True

    def _listen(self):
        self._listener = self


class Scene:
    """All calls of a run, and what came of them."""

    def __init__(self, seed, size, hosts, at_once, *, over_redis):
        self.random, self.clock, self.size = random.Random(seed), VirtualTime(), size
        self.redis, self.registries = None, [MemoryLockRegistry(wake_at_once=at_once)]
        if over_redis:
            self.redis = StandIn(self.clock, self.deliver)
            options = {"wake_at_once": at_once, "wait_max": SETTINGS.wait_max, "clock": self.clock}
            self.registries = [Process(number, self.redis, **options) for number in range(hosts)]
        self.sent = self.firsts = self.probes = self.looks = self.flying = self.most_flying = 0
        self.writes, self.added, self.last_end = {}, [], 0.0

    def deliver(self, channel, message):
        for registry in self.registries:
            if channel in registry.link.channels:
                self.redis.messages += 1
                registry.on_message(message)

    def beat(self, registry):
        registry.heartbeat()
        if len(self.added) < self.size or self.clock.instant < self.last_end + SETTLED_AFTER:
            self.clock.at(self.clock.instant + LEASE / 3, partial(self.beat, registry))

    def run(self):
        """Run all calls; return the seconds of CPU time that it took."""
        start = time.process_time()
        for number in range(self.size):
            registry = self.registries[number % len(self.registries)]
            self.clock.at(self.random.uniform(0, SPREAD), partial(Call, self, registry))
        self.clock.at(LOCKED, partial(self.fly, 0))
        for registry in self.registries if self.redis else ():
            self.clock.at(self.random.uniform(0, LEASE / 3), partial(self.beat, registry))
        self.clock.run()
        took = time.process_time() - start
        self.check()
        return took

    def check(self):
        assert len(self.writes) == len(self.added) == self.size, "a call was lost"
        for registry in self.registries:
            assert not registry.table.locks, "a lock outlived its calls"
            assert not registry.table.turns.limiters, "a slot outlived its call"
            if self.redis:
                assert not registry.claims, "a claim outlived its call"
                assert not registry.slots, "a slot in Redis outlived its call"
                assert not registry.awaiting_slot, "a call is still in line"
        if self.redis:
            assert not [key for key in list(self.redis.values) if self.redis.value(key)], "a key outlived its lease"

    def fly(self, change):
        self.flying += change
        if self.clock.instant >= LOCKED:
            self.most_flying = max(self.most_flying, self.flying)

    def wrote(self, call):
        assert call not in self.writes, "written twice"
        self.writes[call] = self.clock.instant

    def ended(self, call, instant):
        self.added.append(instant - max(LOCKED, call.arrival))
        self.last_end = max(self.last_end, instant)


class Call:
    """One call, as the adapter makes it; it is also what the rules wake."""

    def __init__(self, scene, registry):
        self.scene, self.clock, self.arrival = scene, scene.clock, scene.clock.instant
        self.waiter = registry.waiter(WaitContext(self.clock, self, lambda: False))
        self.delays = waits(SETTINGS, scene.random.random)
        self.busy_until, self.alarm = self.arrival, 0
        self.waited = self.waiting = self.looking = self.woken = False
        if registry and registry.knows([KEY]):
            self.wait()
        else:
            self.send()

    def set(self):
        self.woken = True
        if self.waiting and not self.looking:
            self.look_at(self.clock.instant)

    def look_at(self, instant):
        self.alarm += 1
        self.clock.at(max(instant, self.busy_until), partial(self.look, self.alarm))

    def do(self, action, *args, **options):
        """Take a step over the rules; the commands that it gives occupy the call for a while."""
        redis = self.scene.redis
        before = redis.trips if redis else 0
        result = action(*args, **options)
        trips = redis.trips - before if redis else 0
        self.busy_until = max(self.busy_until, self.clock.instant) + trips * REDIS_TAKES
        return result

    def wait(self):
        self.waited = self.waiting = True
        self.do(self.waiter._enter, [KEY], next(self.delays))
        self.look_at(self.clock.instant)

    def look(self, alarm):
        if alarm != self.alarm or not self.waiting:
            return
        self.scene.looks += 1
        self.looking, self.woken = True, False
        going, again = self.do(self.waiter.look)
        self.looking = False
        if going:
            self.waiting = False
            self.clock.at(self.busy_until, self.send)
        else:
            self.look_at(self.clock.instant if self.woken else again)

    def send(self):
        self.scene.sent += 1
        self.scene.fly(+1)
        half = self.scene.random.uniform(0.5, 1.5) * CRM_TAKES / 2
        self.clock.at(self.clock.instant + half, partial(self.serve, half))

    def serve(self, half):
        locked = self.clock.instant < LOCKED
        if not locked:
            self.scene.wrote(self)
        self.clock.at(self.clock.instant + half, partial(self.answer, locked=locked))

    def answer(self, *, locked):
        self.scene.fly(-1)
        if locked:
            self.scene.probes += self.waited
            self.scene.firsts += not self.waited
            self.do(self.waiter.verdict, locked=[KEY], free=[])
            self.clock.at(self.busy_until, self.wait)
            return
        if self.waited:  # a first send that CRM accepts is told to nobody
            self.do(self.waiter.verdict, locked=[], free=[KEY])
            self.do(self.waiter.leave)
        self.scene.ended(self, self.busy_until)


class NoWake:
    __slots__ = ()

    def set(self):
        pass


def bytes_per_call(size):
    """Return the bytes that a table takes for each of so many waiting calls."""
    wake, names = NoWake(), [KEY]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    table = LockTable(10, 10_000, 30.0)
    callers = [table.join(wake) for _ in range(size)]
    table.verdict(callers[0], names, [], 0.0)
    for caller in callers:
        table.enrol(caller, names, 4.0, 0.0)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / size


WHO, CRM = ("hosts", "needed", "wake"), ("calls", "probes", "p/sqrt", "firsts", "added", "p95", "last", "flying")
HEADS_ONE = (*WHO, *CRM, "looks", "bytes", "us")
HEADS_REDIS = (*WHO, *CRM, "looks", "commands", "scripts", "news", "us")
WHOLE = {"hosts", "needed", "wake", "calls", "probes", "firsts", "flying", "bytes", "us"}


def row(size, at_once, seeds, *, over_redis):
    """Return the numbers of one line, each the mean over the seeds; `flying` is the most."""
    hosts = min(size, MOST_HOSTS) if over_redis else 1
    scenes = [Scene(seed, size, hosts, at_once, over_redis=over_redis) for seed in range(seeds)]
    took = sum(scene.run() for scene in scenes)
    added = sorted(itertools.chain.from_iterable(scene.added for scene in scenes))
    calls, probes, firsts, looks, last = (
        statistics.mean(values)
        for values in zip(
            *((s.sent, s.probes, s.firsts, s.looks, max(s.writes.values()) - LOCKED) for s in scenes), strict=True
        )
    )
    found = [hosts, size, at_once, calls, probes, probes / math.sqrt(size), firsts, statistics.mean(added)]
    found += [added[math.ceil(0.95 * len(added)) - 1], last, max(s.most_flying for s in scenes), looks / size]
    if over_redis:
        each = [(s.redis.commands, s.redis.scripts, s.redis.messages / hosts) for s in scenes]
        found += [sum(values) / size / seeds for values in zip(*each, strict=True)]
    else:
        found.append(bytes_per_call(size))
    return [*found, took / size / seeds * 1e6]


def show(title, heads, sizes, seeds, *, over_redis):
    print(f"\n{title}\n" + " ".join(f"{head:>8}" for head in heads))
    for size, at_once in itertools.product(sizes, AT_ONCE):
        found = row(size, at_once, seeds if size < SIZES[-1] else 1, over_redis=over_redis)
        decimals = [0 if head in WHOLE else 2 for head in heads]
        print(*(f"{number:8.{places}f}" for number, places in zip(found, decimals, strict=True)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 1,000 calls, one seed")
    quick = parser.parse_args().quick
    sizes, seeds = (SIZES[:-1], 1) if quick else (SIZES, 3)
    show("One process", HEADS_ONE, sizes, seeds, over_redis=False)
    if LuaRuntime is None:
        print("\nOver Redis: left out, as it needs lupa: pip install lupa")
    else:
        show("Over Redis", HEADS_REDIS, sizes, seeds, over_redis=True)


if __name__ == "__main__":
    main()
