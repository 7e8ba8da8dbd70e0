"""The lock registry over Redis: what one process learns about a lock, every process and host knows.

Each process keeps its own :class:`LockTable`, and its calls share through that alone. Only who
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

Redis is a helper, never a master. Its clock may have gone back (a failover to a server that is behind), and other
programs may use our names:

* News and keys that do not look like ours are left alone. A record whose key another program uses is granted to
  whoever asks.
* A claim counts only if the process that meets it could have made it: due within its `wait_max`, or within the
  longer delay that CRM asked of the very call (`Retry-After`). A later one is taken over, just as within a process
  a call that would ask sooner pulls the probe forward: nobody waits for a host whose waits are longer. A follower
  asks Redis again `poll` seconds after the due instant, and after `wait_max + poll` at the latest.
* A claim that would outlive its lease, by its time to live or for the lack of one, is cut down to it. A living
  owner prolongs its claims; one that died holds a record for a `lease` more. So `lease` is the same everywhere.
* No call talks to Redis itself. A few threads do (:class:`Crew`), and the call waits `socket_timeout` seconds in
  all, connecting included, however slowly bytes drip in. The timeouts of redis-py limit single reads.

A failing, slow or full Redis costs a call one such timeout. From then on only the listener tries Redis, every
`retry_after` seconds and not before all that hangs has ended, and says so once: one WARNING on the logger
`crm_guard.locks` per outage (failures less than a minute apart are one outage). Neither URL nor password is logged.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import uuid
import weakref
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from crm_guard._base.imports import first_import
from crm_guard.clock import Clock, SystemClock
from crm_guard.locks.crew import Crew, NoTurn
from crm_guard.locks.memory import Call, Holder, MemoryLockRegistry, SharedWaiter, Waiter, unannounced
from crm_guard.settings import GuardSettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from crm_guard.clock import Wake

_log = logging.getLogger("crm_guard.locks")
_OUTAGE = 60.0
_THREADS = 8
"""How many commands of a process are under way at most; each thread has a connection of its own."""
_PARTING, _PAUSE = 2.0, 0.005
_LONGEST_NEWS = 100_000
"""Bytes. Our own news of a batch of 500 records have about 30,000."""
_FAR = 1e9
"""Seconds: no instant farther away is ever handed to Redis, or taken from it."""
_UNPICKLABLE = (
    "a RedisLockRegistry made from a client cannot be pickled: the client's connections and password stay in this "
    "process. Make it from a redis:// URL, or make one in each process"
)

_Result = TypeVar("_Result")

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

# Returns who holds the claim under a key, and when it is due: nothing where there is no key, false where another
# program uses it. Ours have less than 64 characters.
_CLAIM_OF = """
local function claim_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return nil end
  local value = kind == 'string' and redis.call('GETRANGE', key, 0, 63) or ''
  local owner, due = string.match(value, '^(%x+) (%d+)$')
  return owner or false, tonumber(due)
end
"""

# KEYS: records. ARGV: process, due in (ms), lease (ms), how far ahead (ms) a claim of others may be due to count,
# "all" or "some", channel, then the records' names.
# Returns index and ms until due, pairwise, of the records that another process holds.
_CLAIM = (
    _NOW
    + _CLAIM_OF
    + """
local lease, latest = tonumber(ARGV[3]), tonumber(ARGV[4])
local held, got, names = {}, {}, {}
for i, key in ipairs(KEYS) do
  local owner, due = claim_of(key)
  if owner and owner ~= ARGV[1] and due - now <= latest then
    held[#held + 1] = i
    held[#held + 1] = math.max(due - now, 0)
    local left = redis.call('PTTL', key)
    if left < 0 or left > lease then redis.call('PEXPIRE', key, lease) end
  else
    if owner ~= false then got[#got + 1] = key end
    names[#names + 1] = ARGV[6 + i]
  end
end
if #names == 0 or (#held > 0 and ARGV[5] == 'all') then return held end
local due = tonumber(ARGV[2])
for _, key in ipairs(got) do
  redis.call('SET', key, ARGV[1] .. ' ' .. string.format('%.0f', now + due), 'PX', lease)
end
redis.call('PUBLISH', ARGV[6], cjson.encode({by = ARGV[1], kind = 'locked', due = due, keys = names}))
return held
"""
)

# KEYS: records. ARGV: process, lease (ms).
_RENEW = (
    _CLAIM_OF
    + """
for _, key in ipairs(KEYS) do
  if claim_of(key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
end
return 1
"""
)

# KEYS: records. ARGV: process, "free" or "release", channel, then the records' names.
_DROP = (
    _CLAIM_OF
    + """
local names = {}
for i, key in ipairs(KEYS) do
  local owner = claim_of(key)
  if ARGV[2] == 'free' or owner == ARGV[1] then
    if owner then redis.call('DEL', key) end
    names[#names + 1] = ARGV[3 + i]
  end
end
if #names > 0 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[1], kind = ARGV[2], keys = names}))
end
return #names
"""
)

# KEYS: the pace of an origin. ARGV: call, limit, lease (ms).
# A slot that ends later than a lease from now is not counted: a failover to a clock that is behind makes such.
_TAKE_SLOT = (
    _NOW
    + """
local kind, lease = redis.call('TYPE', KEYS[1]).ok, tonumber(ARGV[3])
if kind ~= 'zset' and kind ~= 'none' then return 1 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCOUNT', KEYS[1], now, now + lease) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
redis.call('PEXPIRE', KEYS[1], lease * 2)
return 1
"""
)

# KEYS: the pace of an origin. ARGV: call, process, channel, origin.
_GIVE_SLOT = """
if redis.call('TYPE', KEYS[1]).ok == 'zset' and redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[2], kind = 'slot', keys = {ARGV[4]}}))
end
return 1
"""


class RedisLink:
    """Commands to Redis that never raise: when it is away they say what a process alone would hear. Thread-safe.

    Args:
        client: A `redis.Redis`.
        prefix: Put before every key and channel.
        lease: Seconds that a claim or a slot outlives the last heartbeat.
        limit: Seconds that any command may take, from its beginning to its end.
        clock: Tells how long ago the last failure was.
        own: Whether the client is ours alone, so that its connections may be cut.
    """

    def __init__(self, client: Any, prefix: str, *, lease: float, limit: float, clock: Clock, own: bool) -> None:
        self.client, self.prefix, self.clock, self.limit = client, prefix, clock, limit
        self.channel = prefix + "news"
        self.process = uuid.uuid4().hex
        self.up = False
        self._parting = False
        self.own = own
        self._lease = round(lease * 1000)
        self._failed: float | None = None
        self._mutex = threading.Lock()
        self._crew = Crew(_THREADS)
        names = {"claim": _CLAIM, "renew": _RENEW, "drop": _DROP, "take": _TAKE_SLOT, "give": _GIVE_SLOT}
        self._scripts = {name: client.register_script(text) for name, text in names.items()}

    def claim(self, keys: Collection[str], due_in: float, latest: float, *, every: bool) -> dict[str, float]:
        """Claim the probes of `keys`, all or (unless `every`) those to be had.

        Args:
            keys: Records.
            due_in: Seconds until we probe them.
            latest: Seconds: a claim of another process that is due later is taken over.
            every: Whether to claim none where one is held.

        Returns:
            The keys that another process holds, with the seconds until they are due, from 0 to `latest`.
        """
        return self._try(partial(self._claim, list(keys), due_in, latest, "all" if every else "some")) or {}

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

    def part(self) -> None:
        """Take what fails from here on for the end that it is."""
        self._parting = True

    def nudge(self) -> None:
        """Wake our own listener, which is asleep on the news."""
        self._try(lambda: self.client.publish(self.channel, "{}"))

    def failed(self, error: Exception) -> None:
        """Do without Redis from now on; warn, if that is news."""
        with self._mutex:
            self.up = False
            if self._parting:  # it was us who cut the connection
                return
            before, self._failed = self._failed, self.clock.now()
            if before is not None and self._failed - before < _OUTAGE:
                return
        _log.warning(
            "Redis fails (%s): locks are shared within this process only until it is back", type(error).__name__
        )

    def works(self) -> bool:
        """Try Redis, writing included, and use it from now on if it works. No call waits for this."""
        try:
            self._crew.do(self._trial, self.limit)
        except Exception as error:  # noqa: BLE001 - see `_try`
            self.failed(error)
        else:
            self.up = True
        return self.up

    @property
    def idle(self) -> bool:
        """Whether no command is under way, not even one that nobody waits for any more."""
        return self._crew.idle

    def cut(self) -> None:
        """Cut our connections, so that what hangs on one ends. Those of a client that is not ours stay.

        It may miss: a command that is about to connect, or one about to read, where another socket has got the file
        descriptor meanwhile. So it is repeated, and every single read has a timeout.
        """
        if self.own:
            with suppress(Exception):
                self.client.connection_pool.disconnect()

    def close(self) -> None:
        """Do without Redis for good, and let the threads go."""
        self.part()
        self.up = False
        self._crew.close()

    def _trial(self) -> None:
        trial = ["trial|" + self.process]
        self._claim(trial, 0.0, 0.0, "all")
        self._eval("drop", trial, self.process, "release", self.channel, *trial)

    def _claim(self, names: list[str], due_in: float, latest: float, mode: str) -> dict[str, float]:
        terms = (_millis(due_in), self._lease, _millis(latest), mode, self.channel)
        return _held(names, self._eval("claim", names, self.process, *terms, *names))

    def _eval(self, script: str, keys: Iterable[str], *args: Any, where: str = "lock:") -> Any:
        return self._scripts[script](keys=[self.prefix + where + key for key in keys], args=args)

    def _run(self, script: str, keys: Iterable[str], *args: Any, where: str = "lock:") -> Any:
        return self._try(partial(self._eval, script, keys, *args, where=where))

    def _try(self, command: Callable[[], _Result]) -> _Result | None:
        if not self.up:
            return None
        try:
            return self._crew.do(command, self.limit)
        except NoTurn:  # Redis answers, if too many at once: this call does without
            return None
        except Exception as error:  # noqa: BLE001 - whatever ails Redis is no reason to fail a CRM call
            self.failed(error)
            return None


def _millis(seconds: float) -> int:
    return round(min(max(seconds, 0.0), _FAR) * 1000)


def _held(names: Sequence[str], reply: Any) -> dict[str, float]:
    """Read what the script for claims returned. Anything else raises: that is no Redis."""
    pairs = iter(reply)
    return {names[index - 1]: int(millis) / 1000 for index, millis in zip(pairs, pairs, strict=True)}


def _told(news: str | bytes) -> tuple[str, str, list[str], float] | None:
    """Return who says what of which records, and in how many seconds they are due; None if it is not ours."""
    if len(news) > _LONGEST_NEWS:
        return None
    try:
        told = json.loads(news, parse_constant=_refuse)
        by, kind, keys, due = told["by"], told["kind"], told["keys"], told.get("due", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = [by, kind, *keys] if isinstance(keys, list) else [None]
    if type(due) not in (int, float) or not all(isinstance(text, str) for text in texts):
        return None
    return by, kind, keys, min(max(due, 0), _FAR * 1000) / 1000


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN, Infinity: no JSON


class RedisLockRegistry(MemoryLockRegistry):
    """Shares locks among processes and hosts. Thread-safe; a fork, copy or pickle starts anew.

    A pickle holds the URL, and with it the password; a registry that was made from a client cannot be pickled.

    Args:
        url_or_client: A `redis://`, `rediss://` or `unix://` URL, or a `redis.Redis` of your own: give it short
            socket timeouts, without which a command that hangs keeps its thread, and close it yourself.
        wake_at_once: How many calls of one origin, of all processes, an unlock sets off together, at least 1.
        wait_max: Seconds for which a claim of another process counts at most, unless CRM asked the call for a
            longer delay. The same as in the settings of the guards that use the registry.
        prefix: Put before every key and channel in Redis.
        lease: Seconds after which what a process held is free, should it die. The same in all processes.
        poll: Seconds after which a follower asks Redis itself, should no news arrive.
        retry_after: Seconds between attempts to reach a Redis that failed.
        socket_timeout: Seconds that any command may take in all, connecting included (up to ten round trips).
        clock: The clock of the callers.
        options: `max_records` and `patience`, see :class:`~crm_guard.locks.memory.MemoryLockRegistry`.

    Raises:
        ImportError: `redis` is not installed.
        SettingsError: The URL is of no use (a `ValueError`).
        ValueError: `wake_at_once` is of no use.
    """

    def __init__(
        self,
        url_or_client: Any,
        *,
        prefix: str = "crm_guard:",
        wait_max: float = 5.0,
        lease: float = 5.0,
        poll: float = 1.0,
        retry_after: float = 5.0,
        socket_timeout: float = 0.25,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self._own = isinstance(url_or_client, str)
        self._client = url_or_client
        if self._own:
            self._client = _connect(url_or_client, socket_timeout)
            _cap_timeouts(self._client, socket_timeout)
        self._times = {
            "lease": lease,
            "poll": poll,
            "retry_after": retry_after,
            "socket_timeout": socket_timeout,
        }
        self._prefix, self.wait_max = prefix, wait_max
        super().__init__(**options)
        self.limit: int = self._options["wake_at_once"]
        self._source = url_or_client
        self._listen()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'up' if self.link.up else 'away'}, {len(self.table.locks)} locks>"

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._own:
            raise TypeError(_UNPICKLABLE)
        return self._maker(), (self._source,)

    def __copy__(self) -> Self:
        return self._maker()(self._source)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def _maker(self) -> partial[Self]:
        options = {**self._options, **self._times, "wait_max": self.wait_max}
        return partial(type(self), prefix=self._prefix, clock=self.clock, **options)

    def reset(self) -> None:
        """Forget everything, and the listener thread with it; the next waiter starts a new one."""
        super().reset()
        self.link = RedisLink(
            self._client,
            self._prefix,
            lease=self._times["lease"],
            limit=self._times["socket_timeout"],
            clock=self.clock,
            own=self._own,
        )
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
        if self._listener is None:
            self._listen()
        return RedisWaiter(self, clock, wake, interrupted, announce)

    def close(self) -> None:
        """End the listener thread, and close our connections; calls under way go on with local knowledge.

        Takes a second at most, whatever Redis does.
        """
        self.link.part()
        self._stop.set()
        self.link.nudge()
        if self._listener is not None:
            self._listener.join(self._times["socket_timeout"] + 0.5)
        self.link.up = False

    def hear(self, news: str | bytes) -> None:
        """Take in what another process published. Whatever it is: no error."""
        told = _told(news)
        if told is None:
            _log.debug("news that is none of ours")
            return
        by, kind, keys, due_in = told
        if by != self.link.process:
            self._note(kind, keys, due_in)

    def cede(self, key: str, due_in: float, now: float) -> dict[Call, None]:
        """Note that another process probes a record in `due_in` seconds; return the calls to settle.

        At the latest after `wait_max` its followers ask Redis again, whatever the other process says.
        """
        due = now + min(due_in, self.wait_max)
        touched = self.table.grant(key, self.remote, due, now)
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
        """Start the listener, unless there was one; wait for its first try, twice `socket_timeout` at most."""
        with self.mutex:
            if self._listener is not None or self._stop.is_set():
                return
            listener = _Listener(self, self._stop, self._times)
            self._listener = threading.Thread(target=listener.run, name="crm_guard-locks", daemon=True)
            self._listener.start()
        listener.tried.wait(2 * self._times["socket_timeout"])


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
        latest = max(self._registry.wait_max, self._call.delay)
        try:
            held = self._link.claim(keys, due_in, latest, every=not some)
        except BaseException:  # Ctrl-C: they may be ours, so let `leave` give them back
            with self._mutex:
                for key in keys:
                    self._registry.claims.setdefault(key, None)
            raise
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
            registry.slots[self._name] = origin  # beforehand: after Ctrl-C `leave` gives it back
        taken = self._link.take_slot(origin, self._name, registry.limit)
        with self._mutex:
            if taken:
                registry.slotless.discard(self._wake)
            else:
                registry.slots.pop(self._name, None)
        return frozenset(), now if taken else now + registry.remote.patience

    def _give_slot(self) -> None:
        with self._mutex:
            self._registry.slotless.discard(self._wake)
            origin = self._registry.slots.pop(self._name, None)
        if origin is not None:
            self._link.give_slot(origin, self._name)


_Key = tuple[str, int, float]
_shared: weakref.WeakValueDictionary[_Key, RedisLockRegistry] = weakref.WeakValueDictionary()
_making: dict[_Key, threading.Lock] = {}


def shared_registry(url: str, *, wake_at_once: int, wait_max: float = 5.0) -> RedisLockRegistry:
    """Return the registry that all of the process share for a URL; it ends with the last who holds it. Thread-safe.

    Raises:
        ImportError: `redis` is not installed.
        SettingsError: The URL is of no use (a `ValueError`).
        ValueError: `wake_at_once` is of no use.
    """
    key = (url, wake_at_once, wait_max)
    with _making.setdefault(key, threading.Lock()):  # one for each: a Redis that hangs keeps nobody from another
        found = _shared.get(key)
        if found is None:
            _shared[key] = found = RedisLockRegistry(url, wake_at_once=wake_at_once, wait_max=wait_max)
        return found


if hasattr(os, "register_at_fork"):  # a lock that was held at the fork stays held in the child
    os.register_at_fork(after_in_child=_making.clear)


def _connect(url: str, timeout: float) -> Any:
    try:
        with first_import:  # an extra, needed by this registry only
            from redis import Redis  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        message = 'sharing locks through Redis needs redis-py: pip install "crm-guard[redis]"'
        raise ImportError(message) from error
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    GuardSettings(lock_registry=url)  # refuses what redis-py would take, or quote
    try:
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)
    except Exception as error:  # noqa: BLE001 - its text may quote a piece of the password: not to be chained
        reason = type(error).__name__
    message = f"the URL of the lock registry is of no use to redis-py ({reason})"
    raise SettingsError(message)


def _cap_timeouts(client: Any, seconds: float) -> None:
    """Have no single read take longer than a command may in all, whatever the URL says: see `RedisLink.cut`."""
    options = client.connection_pool.connection_kwargs
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options[name] or seconds, seconds)


class _News:
    """The subscription to what others publish. Blocks; used by one thread at a time."""

    def __init__(self, client: Any, channel: str) -> None:
        self._client, self._channel = client, channel
        self._pubsub: Any = None

    def open(self) -> None:
        """Subscribe."""
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(self._channel)
        connection = self._pubsub.connection
        # As bytes, whatever the client is set to: redis-py's own parser never gets past what it cannot decode.
        connection.read_response = partial(connection.read_response, disable_decoding=True)

    def next(self, seconds: float) -> bytes | None:
        """Return the next news, if there is any within about `seconds`."""
        try:
            message = self._pubsub.get_message(timeout=seconds)
        except UnicodeDecodeError:  # redis-py 6 with hiredis decodes all the same, and does get past it
            return None
        return message["data"] if message is not None and message["type"] == "message" else None

    def close(self) -> None:
        """Give the connection back as it was. Idempotent."""
        if self._pubsub is None:
            return
        if self._pubsub.connection is not None:
            vars(self._pubsub.connection).pop("read_response", None)
        self._pubsub.close()


class _Listener:
    """Keeps a registry in touch with Redis. Its thread waits for Redis no longer than a call does."""

    def __init__(self, registry: RedisLockRegistry, stop: threading.Event, times: Mapping[str, float]) -> None:
        self.tried = threading.Event()
        self._registry, self._link, self._stop = weakref.ref(registry), registry.link, stop
        self._retry_after, self._every = times["retry_after"], times["lease"] / 3
        self._ears = Crew(1)

    def run(self) -> None:
        """Stay in touch until `stop` is set, or the registry is gone."""
        try:
            while not self._stop.is_set():
                try:
                    self._meet()
                except Exception as error:  # noqa: BLE001 - see RedisLink._try
                    self._link.failed(error)
                self.tried.set()
                self._recover()
        finally:
            self._link.close()
            self._ears.close()
            self._part()

    def _meet(self) -> None:
        """Subscribe, try Redis, and attend to it for as long as it works."""
        news = _News(self._link.client, self._link.channel)
        try:
            self._ears.do(news.open, self._link.limit)
            if self._link.works():
                self.tried.set()
                self._attend(news)
        finally:
            self._ears.post(news.close)

    def _attend(self, news: _News) -> None:
        nap, beat = min(self._every, 0.2), self._link.clock.now()
        while self._link.up and not self._stop.is_set():
            said = self._ears.do(partial(news.next, nap), nap + self._link.limit)
            if (here := self._registry()) is None:
                self._stop.set()
                return
            if said is not None:
                here.hear(said)
            if self._link.clock.now() >= beat:
                beat = self._link.clock.now() + self._every
                here.beat()
            del here

    def _recover(self) -> None:
        """Wait for the next try, and until nothing hangs any more: else threads would pile up."""
        naps = math.ceil(self._retry_after / self._every)
        nap = max(self._retry_after / max(naps, 1), _PAUSE)
        while naps > 0 or not self._idle():
            if not self._idle():
                self._link.cut()
            if self._stop.wait(nap):
                return
            naps -= 1
            if (here := self._registry()) is None:
                self._stop.set()
                return
            here.beat()  # what nobody follows up is forgotten all the same
            del here

    def _part(self) -> None:
        """Cut our connections until nothing hangs on one, for two seconds at most."""
        for _ in range(round(_PARTING / _PAUSE)):
            self._link.cut()
            if self._idle() or not self._link.own:
                return
            time.sleep(_PAUSE)

    def _idle(self) -> bool:
        return self._ears.idle and self._link.idle
