"""The lock registry over Redis: what one process learns about a lock, every process and host knows.

Each process keeps its own :class:`~crm_guard.locks.LockTable`, and its calls share through that alone. Only who
holds a record's probe is settled in Redis: a call that would become its prober first *claims* the record for its
process. If another process has it, the record's holder is :attr:`RedisLockRegistry.remote`, and the local rules do
the rest. So Redis sees a few commands per process and probe, never one per waiting thread, and when it is away
every claim is simply granted: each process goes on alone.

In Redis, all under `prefix`:

* `lock:<origin|id>`, a string: who probes, and when it is due (milliseconds on the server's clock). It lives for
  `lease` seconds, and the owner's heartbeat prolongs it: after a `kill -9` it is soon gone, and a process that
  follows takes over `poll` seconds after the due instant.
* `pace:<origin>`, a sorted set: the calls that an unlock set off, each with its own end of lease.
* channel `news`: `locked`, `free`, `release` (of a probe), `slot` (given back). Pub/sub is a shortcut only; whoever
  follows a remote prober asks again `poll` seconds after its due instant, and a call without a slot every `poll`.

Every command that reads and writes is one Lua script, hence atomic. Durations are relative, and instants come from
the server's `TIME`: clocks of hosts do not matter. One Redis server or a failover pair, not a cluster.

The truth test of the registry stays a look at a local dictionary. The price: a lock found by another host is known
here once its news has arrived, milliseconds later; a call in between asks CRM itself, as any first call would.

A failing, slow (`socket_timeout`) or full Redis costs one caller one timeout. From then on only the listener thread
tries Redis, every `retry_after` seconds, and says so once: one WARNING on the logger `crm_guard.locks` per outage
(failures less than a minute apart are one outage). Neither URL nor password is logged.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from crm_guard._clock import Clock, SystemClock
from crm_guard.locks import Call, Holder, MemoryLockRegistry, SharedWaiter, Waiter, unannounced

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from crm_guard._clock import Wake

_log = logging.getLogger("crm_guard.locks")
_OUTAGE = 60.0

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

# KEYS: records. ARGV: process, due in (ms), lease (ms), "all" or "some", channel, then the records' names.
# Returns index and ms until due, pairwise, of the records that another process holds.
_CLAIM = (
    _NOW
    + """
local held, got, names = {}, {}, {}
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local gap = value and string.find(value, ' ')
  if value and string.sub(value, 1, gap - 1) ~= ARGV[1] then
    held[#held + 1] = i
    held[#held + 1] = tonumber(string.sub(value, gap + 1)) - now
  else
    got[#got + 1] = key
    names[#names + 1] = ARGV[5 + i]
  end
end
if #got == 0 or (#held > 0 and ARGV[4] == 'all') then return held end
local due = tonumber(ARGV[2])
for _, key in ipairs(got) do
  redis.call('SET', key, ARGV[1] .. ' ' .. string.format('%.0f', now + due), 'PX', ARGV[3])
end
redis.call('PUBLISH', ARGV[5], cjson.encode({by = ARGV[1], kind = 'locked', due = due, keys = names}))
return held
"""
)

# KEYS: records. ARGV: process, lease (ms).
_RENEW = """
for _, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value and string.sub(value, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return 1
"""

# KEYS: records. ARGV: process, "free" or "release", channel, then the records' names.
_DROP = """
local names = {}
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local own = value and string.sub(value, 1, #ARGV[1] + 1) == ARGV[1] .. ' '
  if ARGV[2] == 'free' or own then
    redis.call('DEL', key)
    names[#names + 1] = ARGV[3 + i]
  end
end
if #names > 0 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[1], kind = ARGV[2], keys = names}))
end
return #names
"""

# KEYS: the pace of an origin. ARGV: call, limit, lease (ms).
_TAKE_SLOT = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3] * 2)
return 1
"""
)

# KEYS: the pace of an origin. ARGV: call, process, channel, origin.
_GIVE_SLOT = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[2], kind = 'slot', keys = {ARGV[4]}}))
end
return 1
"""


class RedisLink:
    """Commands to Redis that never raise: when it is away they say what a process alone would hear. Thread-safe.

    Args:
        client: A `redis.Redis` with short socket timeouts.
        prefix: Put before every key and channel.
        lease: Seconds that a claim or a slot outlives the last heartbeat.
        clock: Tells how long ago the last failure was.
    """

    def __init__(self, client: Any, prefix: str, lease: float, clock: Clock) -> None:
        self.client, self.prefix, self.clock = client, prefix, clock
        self.channel = prefix + "news"
        self.process = uuid.uuid4().hex
        self.up = False
        self._lease = round(lease * 1000)
        self._failed: float | None = None
        self._mutex = threading.Lock()
        names = {"claim": _CLAIM, "renew": _RENEW, "drop": _DROP, "take": _TAKE_SLOT, "give": _GIVE_SLOT}
        self._scripts = {name: client.register_script(text) for name, text in names.items()}

    def claim(self, keys: Collection[str], due_in: float, *, every: bool) -> dict[str, float]:
        """Claim the probes of `keys`, all or (unless `every`) those to be had.

        Returns:
            The keys that another process holds, with the seconds until they are due.
        """
        names, mode = list(keys), "all" if every else "some"
        held = self._run(
            "claim", names, self.process, round(due_in * 1000), self._lease, mode, self.channel, *names
        )
        pairs = iter(held or ())
        return {names[index - 1]: millis / 1000 for index, millis in zip(pairs, pairs, strict=True)}

    def renew(self, keys: Collection[str]) -> None:
        """Prolong the claims on `keys`."""
        if keys:
            self._run("renew", keys, self.process, self._lease)

    def drop(self, kind: str, keys: Collection[str]) -> None:
        """Drop claims, and tell the others: the records are `"free"`, or our claims are (`"release"`)."""
        if keys:
            self._run("drop", keys, self.process, kind, self.channel, *keys)

    def take_slot(self, origin: str, call: str, limit: int) -> bool:
        """Take, or keep, one of `limit` slots of `origin` for `call`; tell whether there was one."""
        return bool(self._run("take", [origin], call, limit, self._lease, where="pace:") != 0)

    def give_slot(self, origin: str, call: str) -> None:
        """Give a slot back, and tell the others."""
        self._run("give", [origin], call, self.process, self.channel, origin, where="pace:")

    def nudge(self) -> None:
        """Wake our own listener, which is asleep on the news."""
        self._try(lambda: self.client.publish(self.channel, "{}"))

    def failed(self, error: Exception) -> None:
        """Do without Redis from now on; warn, if that is news."""
        with self._mutex:
            self.up = False
            before, self._failed = self._failed, self.clock.now()
            if before is not None and self._failed - before < _OUTAGE:
                return
        _log.warning(
            "Redis fails (%s): locks are shared within this process only until it is back", type(error).__name__
        )

    def works(self) -> bool:
        """Try Redis, writing included."""
        self.up = True
        self.claim(["trial|" + self.process], 0.0, every=True)
        self.drop("release", ["trial|" + self.process])
        return self.up

    def _run(self, script: str, keys: Iterable[str], *args: Any, where: str = "lock:") -> Any:
        places = [self.prefix + where + key for key in keys]
        return self._try(lambda: self._scripts[script](keys=places, args=args))

    def _try(self, command: Callable[[], Any]) -> Any:
        if not self.up:
            return None
        try:
            return command()
        except Exception as error:  # noqa: BLE001 - whatever ails Redis is no reason to fail a CRM call
            self.failed(error)
            return None


class RedisLockRegistry(MemoryLockRegistry):
    """Shares locks among processes and hosts. Thread-safe; a fork, copy or pickle starts anew.

    Args:
        url_or_client: A `redis://`, `rediss://` or `unix://` URL, or a `redis.Redis` of your own: give it short
            socket timeouts, and close it yourself.
        wake_at_once: How many calls of one origin, of all processes, an unlock sets off together, at least 1.
        prefix: Put before every key and channel in Redis.
        lease: Seconds after which what a process held is free, should it die.
        poll: Seconds after which a follower asks Redis itself, should no news arrive.
        retry_after: Seconds between attempts to reach a Redis that failed.
        socket_timeout: Seconds that any command may take; for a client made from a URL.
        clock: The clock of the callers.
        options: `max_records` and `patience`, see :class:`~crm_guard.locks.MemoryLockRegistry`.

    Raises:
        ImportError: `redis` is not installed.
        ValueError: The URL, or `wake_at_once`, is of no use.
    """

    def __init__(
        self,
        url_or_client: Any,
        *,
        prefix: str = "crm_guard:",
        lease: float = 5.0,
        poll: float = 1.0,
        retry_after: float = 5.0,
        socket_timeout: float = 0.25,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self._own = isinstance(url_or_client, str)
        self._client = _connect(url_or_client, socket_timeout) if self._own else url_or_client
        self._times = {"lease": lease, "poll": poll, "retry_after": retry_after, "socket_timeout": socket_timeout}
        self._prefix = prefix
        super().__init__(**options)
        self.limit: int = self._options["wake_at_once"]
        self._source = url_or_client
        self._listen()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'up' if self.link.up else 'away'}, {len(self.table.locks)} locks>"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {**self._options, **self._times, "prefix": self._prefix, "clock": self.clock}
        return partial(type(self), **options), (self._source,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        make, source = self.__reduce__()
        fresh: Self = make(*(source if self._own else (self._client,)))
        return fresh

    def reset(self) -> None:
        """Forget everything, and the listener thread with it; the next waiter starts a new one."""
        super().reset()
        self.link = RedisLink(self._client, self._prefix, self._times["lease"], self.clock)
        self.remote = Holder(self._times["poll"])
        self.claims: dict[str, float | None] = {}  # records whose probe is ours, with the due instant Redis knows
        self.slots: dict[str, str] = {}  # our calls that have a slot in Redis, with its origin
        self.slotless: set[Wake] = set()  # wakes whoever waits for one
        self._stop = threading.Event()
        self._listener: threading.Thread | None = None

    def waiter(
        self,
        *,
        clock: Clock,
        wake: Wake,
        interrupted: Callable[[], bool],
        announce: Callable[[float], object] = unannounced,
    ) -> Waiter:
        """Return one call's waiter; see :meth:`LockRegistry.waiter`."""
        if self._listener is None and not self._stop.is_set():
            self._listen()
        return RedisWaiter(self, clock, wake, interrupted, announce)

    def close(self) -> None:
        """End the listener thread, and let go of Redis; calls under way go on with local knowledge."""
        self._stop.set()
        self.link.nudge()
        if self._listener is not None:
            self._listener.join(self._times["socket_timeout"] + 1.0)
        self.link.up = False
        if self._own:
            self._client.close()

    def hear(self, news: str | bytes) -> None:
        """Take in what another process published."""
        try:
            told = json.loads(news)
            by, kind, keys, due = told["by"], told["kind"], told["keys"], float(told.get("due", 0)) / 1000
        except (ValueError, TypeError, KeyError, AttributeError):
            _log.debug("news that is none of ours")
            return
        if by != self.link.process:
            self._note(kind, keys, due)

    def cede(self, key: str, due_in: float, now: float) -> dict[Call, None]:
        """Note that another process probes a record in `due_in` seconds; return the calls to settle."""
        touched = self.table.grant(key, self.remote, now + due_in, now)
        if key in self.table.locks:
            self.table.locks[key].refused = now
        return touched

    def orphans(self, keys: Iterable[str]) -> list[str]:
        """Return, and forget, the claims on `keys` that no call of this process needs any more."""
        lost = [key for key in keys if key in self.claims and not self._probed_here(key)]
        for key in lost:
            del self.claims[key]
        return lost

    def beat(self) -> None:
        """Prolong what is ours in Redis, and forget what nobody follows up."""
        now, table = self.clock.now(), self.table
        with self.mutex:
            stale = [key for key, lock in table.locks.items() if not lock.queue and now > lock.lapse()]
            for key in stale:
                table.release(key, self.remote)
            lost = self.orphans(list(self.claims))
            alive = [key for key in self.claims if now < table.locks[key].lapse()]
            slots = list(self.slots.items())
        self.link.drop("release", lost)
        self.link.renew(alive)
        for call, origin in slots:
            self.link.take_slot(origin, call, 0)  # keeps a slot, takes no new one

    def _probed_here(self, key: str) -> bool:
        lock = self.table.locks.get(key)
        return lock is not None and isinstance(lock.holder, Call)

    def _note(self, kind: str, keys: Collection[str], due_in: float) -> None:
        now = self.clock.now()
        touched: dict[Call, None] = {}
        with self.mutex:
            for key in keys:
                touched.update(self._note_one(kind, key, due_in, now))
            self.table.resettle(touched, now)
            for wake in self.slotless if kind == "slot" else ():
                wake.set()

    def _note_one(self, kind: str, key: str, due_in: float, now: float) -> Mapping[Call, None]:
        if kind == "free":
            self.claims.pop(key, None)
            return self.table.unlock(key)
        if kind == "release":
            return self.table.release(key, self.remote)
        if kind == "locked" and not (key in self.claims and self._probed_here(key)):
            return self.cede(key, due_in, now)
        return {}

    def _listen(self) -> None:
        tried = threading.Event()
        me = weakref.ref(self)
        listener = partial(_listen, me, self.link, self._stop, tried, self._times)
        self._listener = threading.Thread(target=listener, name="crm_guard-locks", daemon=True)
        self._listener.start()
        tried.wait(2 * self._times["socket_timeout"])


class RedisWaiter(SharedWaiter):
    """One call's part in a :class:`RedisLockRegistry`. Used by one thread. Talks to Redis outside the mutex."""

    def __init__(self, registry: RedisLockRegistry, *args: Any) -> None:
        super().__init__(registry, *args)
        self._registry, self._link = registry, registry.link
        self._name = f"{self._link.process}:{self._call.seq}"

    def verdict(self, *, locked: Collection[str], free: Collection[str]) -> None:
        """Tell what CRM's last answer said of keys that this call sent: the others hear it, too."""
        with self._mutex:
            known = [key for key in free if key in self._table.locks]
            self._table.verdict(self._call, locked, free, self._clock.now())
            for key in known:
                self._registry.claims.pop(key, None)
        self._give_slot()
        self._link.drop("free", known)

    def leave(self) -> None:
        """End the call: hand on its probes, here or elsewhere, and give back its slot."""
        with self._mutex:
            needs = set(self._call.needs)
            self._table.leave(self._call, self._clock.now())
            lost = self._registry.orphans(needs)
        self._give_slot()
        self._link.drop("release", lost)

    def _enter(self, keys: Collection[str], delay: float) -> None:
        with self._mutex:
            needs = set(self._call.needs)
            self._table.enrol(self._call, keys, delay, self._clock.now())
            lost = self._registry.orphans(chain(needs.difference(keys), keys))
        self._link.drop("release", lost)

    def _look(self) -> tuple[frozenset[str], float]:
        with self._mutex:
            now = self._clock.now()
            pending = self._table.settle(self._call, now)
            ready = self._table.may_go(self._call, now)
            wanted = self._unclaimed(chain(pending.mine, pending.idle if ready else ()))
            if ready and not wanted and self._has_slot(now):
                return self._table.depart(self._call, now), now
            lost = self._registry.orphans(self._call.keys)
        self._link.drop("release", lost)
        if wanted:
            return self._claim(wanted, self._call.when - now, some=ready)
        if ready:
            return self._take_slot(now)
        return frozenset(), self._table.look_again(self._call, now)

    def _unclaimed(self, keys: Iterable[str]) -> list[str]:
        claims, locks = self._registry.claims, self._table.locks
        return [key for key in keys if key in locks and (key not in claims or claims[key] != locks[key].due)]

    def _claim(self, keys: list[str], due_in: float, *, some: bool) -> tuple[frozenset[str], float]:
        """Claim `keys`; whatever comes of it, look again at once."""
        held = self._link.claim(keys, due_in, every=not some)
        with self._mutex:
            now = self._clock.now()
            touched: dict[Call, None] = {}
            for key in keys:
                if key in held:
                    touched.update(self._registry.cede(key, held[key], now))
                elif (some or not held) and key in self._table.locks:
                    self._registry.claims[key] = self._table.locks[key].due
            self._table.resettle(touched, now)
        return frozenset(), now

    def _has_slot(self, now: float) -> bool:
        call = self._call
        overdue = now >= call.ready + call.patience
        return not call.paced or overdue or self._name in self._registry.slots

    def _take_slot(self, now: float) -> tuple[frozenset[str], float]:
        registry, origin = self._registry, self._call.origin
        with self._mutex:
            registry.slotless.add(self._wake)
        if not self._link.take_slot(origin, self._name, registry.limit):
            return frozenset(), now + registry.remote.patience
        with self._mutex:
            registry.slotless.discard(self._wake)
            registry.slots[self._name] = origin
        return frozenset(), now

    def _give_slot(self) -> None:
        with self._mutex:
            self._registry.slotless.discard(self._wake)
            origin = self._registry.slots.pop(self._name, None)
        if origin is not None:
            self._link.give_slot(origin, self._name)


_sharing = threading.Lock()
_shared: weakref.WeakValueDictionary[tuple[str, int], RedisLockRegistry] = weakref.WeakValueDictionary()


def shared_registry(url: str, *, wake_at_once: int) -> RedisLockRegistry:
    """Return the registry that all of the process share for a URL; it ends with the last who holds it. Thread-safe.

    Raises:
        ImportError: `redis` is not installed.
        ValueError: The URL, or `wake_at_once`, is of no use.
    """
    with _sharing:
        found = _shared.get((url, wake_at_once))
        if found is None:
            _shared[url, wake_at_once] = found = RedisLockRegistry(url, wake_at_once=wake_at_once)
        return found


def _forked() -> None:
    global _sharing  # noqa: PLW0603 (another thread of the parent may have held it)
    _sharing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _connect(url: str, timeout: float) -> Any:
    try:
        from redis import Redis  # noqa: PLC0415 - an extra, needed by this registry only
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        message = 'sharing locks through Redis needs redis-py: pip install "crm-guard[redis]"'
        raise ImportError(message) from error
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)


def _listen(
    registry: weakref.ref[RedisLockRegistry],
    link: RedisLink,
    stop: threading.Event,
    tried: threading.Event,
    times: Mapping[str, float],
) -> None:
    """Keep in touch with Redis until `stop` is set, or the registry is gone."""
    while not stop.is_set():
        news = link.client.pubsub(ignore_subscribe_messages=True)
        try:
            news.subscribe(link.channel)
            if link.works():
                tried.set()
                _attend(registry, link, stop, news, times["lease"] / 3)
        except Exception as error:  # noqa: BLE001 - see RedisLink._run
            link.failed(error)
        finally:
            news.close()
            tried.set()
        stop.wait(times["retry_after"])


def _attend(
    registry: weakref.ref[RedisLockRegistry], link: RedisLink, stop: threading.Event, news: Any, every: float
) -> None:
    beat = link.clock.now()
    while link.up and not stop.is_set():
        message = news.get_message(timeout=min(every, 0.2))
        if (here := registry()) is None:
            stop.set()
            return
        if message is not None:
            here.hear(message["data"])
        if link.clock.now() >= beat:
            beat = link.clock.now() + every
            here.beat()
        del here
