"""The registry over Redis: what one process learns about a lock, every process and host knows.

Each process keeps its own :class:`LockTable`, and its calls share through that alone. Redis settles two things, and
carries the news. A call that is about to ask about a record *claims* it first: if another process asks just now,
`RedisLockRegistry.remote` is the asker in the local table, and the local rules do the rest. And the slots of an
unlock are counted there, over all processes. So Redis sees a few commands per question and per slot, never one per
waiting thread. While Redis is down, every claim is granted: each process goes on alone.

In Redis, all under `prefix`:

* `lock:<origin|id>`, a string: the process that asks CRM about the record. It lives for `lease` seconds, and the
  owner's heartbeat renews it: after a `kill -9` it soon expires.
* `pace:<origin>`, a sorted set: the calls that an unlock woke, each with the end of its lease. `line:<origin>`,
  another: those that wait for a slot, first come, first served. Whoever releases a slot gives it to the first whose
  process lives, as `alive:<process>` tells, a string that expires with the `lease`.
* channel `news`: `asked`, `locked`, `free`, `release` (of a claim), `need` (how many calls need a record here: told
  when that has doubled or halved, and by each heartbeat, so that all waiters count without a command for each; a
  process that is silent for two leases does not count). Channel `news:<process>`: `slot` (a call got one).
  Messages only speed things up: a question of another process is awaited for `poll` seconds, then Redis is asked
  again; and each heartbeat asks for slots.

Every command that reads and writes is one Lua script, hence atomic. Durations are relative, and the instants of
slots come from the server's `TIME`: the clocks of hosts do not matter. One Redis server or a failover pair, not a
cluster.

The truth test of the registry reads a local dictionary. The price: a lock found by another host is known here once
its message has arrived, milliseconds later; a call in between asks CRM itself, as any first call would.

No answer of Redis is trusted. Its clock may have gone back (a failover to a server that is behind), and other
programs may use our names:

* Messages and keys that do not look like ours are ignored. A record whose key another program uses is granted to
  every process that claims it.
* A claim that would outlive its lease, because its time to live is longer or missing, is cut down to it. A living
  owner renews its claims; one that died holds a record for one more `lease`. So `lease` is the same everywhere.
* No message holds a record back for longer than `wait_max + poll`.
* No call uses a connection itself. A few threads do (:class:`WorkerPool`), and the call waits `socket_timeout`
  seconds in all, connecting included, however slowly bytes arrive. The timeouts of redis-py limit single reads.

A failing, slow or full Redis costs a call one such timeout (and while all threads are busy, one for each of the few
commands of a step). From then on only the listener tries Redis, every `retry_after` seconds and not before all
commands that hang have ended. Each outage is logged once: one WARNING on the logger `crm_guard.locks` (failures
less than a minute apart are one outage). Neither URL nor password is logged.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Self

from crm_guard._base.imports import first_import
from crm_guard.clock import Clock, SystemClock
from crm_guard.locks.lock import Asker
from crm_guard.locks.memory import MemoryLockRegistry, SharedWaiter
from crm_guard.locks.redis_link import RedisLink
from crm_guard.locks.redis_listener import Listener
from crm_guard.locks.redis_messages import read_message
from crm_guard.settings import GuardSettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from crm_guard.clock import Wake
    from crm_guard.locks.lock import Caller, Lock
    from crm_guard.locks.redis_messages import Message
    from crm_guard.locks.registry import WaitContext, Waiter

_log = logging.getLogger("crm_guard.locks")

_UNPICKLABLE = (
    "a RedisLockRegistry made from a client cannot be pickled: the client's connections and password stay in this "
    "process. Make it from a redis:// URL, or make one in each process"
)


class RedisLockRegistry(MemoryLockRegistry):
    """Shares locks among processes and hosts. Thread-safe. A fork, copy or pickle starts empty.

    A pickle contains the URL, and with it the password. A registry made from a client cannot be pickled.

    Args:
        url_or_client: A `redis://`, `rediss://` or `unix://` URL, or a `redis.Redis` of your own: give it short
            socket timeouts, or a command that hangs occupies its thread, and close it yourself.
        wake_at_once: How many calls of one origin, over all processes, an unlock wakes together, at least 1.
        wait_max: Maximum seconds for which other processes may hold back a record (`Retry-After`), and after which
            a record is forgotten that nobody here needs and nobody elsewhere asks about.
        prefix: Put before every key and channel in Redis.
        lease: Seconds after which the claims and slots of a process that died expire. The same in all processes.
        poll: Seconds after which a question of another process is no longer awaited if no message arrives.
        retry_after: Seconds between attempts to use a Redis that failed.
        socket_timeout: Seconds that any command may take in all, connecting included (up to ten round trips).
        clock: The clock of the callers.
        options: `max_records` and `verdict_timeout`, see :class:`~crm_guard.locks.memory.MemoryLockRegistry`.

    Raises:
        ImportError: `redis` is not installed.
        SettingsError: The URL cannot be used (a `ValueError`).
        ValueError: `wake_at_once` is below 1.
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
        self._owned = isinstance(url_or_client, str)
        self._client = url_or_client
        if self._owned:
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
        if not self._owned:
            raise TypeError(_UNPICKLABLE)
        return self._factory(), (self._source,)

    def __copy__(self) -> Self:
        return self._factory()(self._source)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def _factory(self) -> partial[Self]:
        options = {**self._options, **self._times, "wait_max": self.wait_max}
        return partial(type(self), prefix=self._prefix, clock=self.clock, **options)

    def reset(self) -> None:
        """Start empty, and without a listener thread; the next waiter starts one."""
        super().reset()
        self.link = RedisLink(
            self._client,
            self._prefix,
            lease=self._times["lease"],
            timeout=self._times["socket_timeout"],
            clock=self.clock,
            owned=self._owned,
        )
        self.remote = Asker(self._times["poll"])  # stands for every other process
        self.claims: dict[str, Caller] = {}  # the records that callers of ours ask about
        self.slots: dict[str, str] = {}  # our callers with a slot in Redis or in line for one, and its origin
        self.awaiting_slot: dict[str, Wake] = {}  # those in line
        self._stop = threading.Event()
        self._listener: threading.Thread | None = None

    def waiter(self, context: WaitContext) -> Waiter:
        """Return the waiter of one call."""
        if self._listener is None:
            self._listen()
        return RedisWaiter(self, context)

    def close(self) -> None:
        """End the listener thread, and close our connections. Calls in progress continue with local knowledge.

        Takes a second at most, whatever Redis does.
        """
        self.link.expect_failures()
        self._stop.set()
        self.link.wake_listener()
        if self._listener is not None:
            self._listener.join(self._times["socket_timeout"] + 0.5)
        self.link.up = False

    def on_message(self, data: str | bytes) -> None:
        """Apply what another process published. Never raises, whatever it is."""
        message = read_message(data)
        if message is None:
            _log.debug("ignored a message that is not ours")
        elif message.process != self.link.process:
            self._apply(message)

    def on_slots(self, calls: Iterable[str]) -> None:
        """Wake those of `calls` that are ours: they got a slot."""
        with self.mutex:
            wakes = [self.awaiting_slot.pop(call, None) for call in calls]
        for wake in wakes:
            if wake is not None:
                wake.set()

    def heartbeat(self) -> None:
        """Renew what we hold in Redis and what we told, and forget what is stale."""
        now, locks = self.clock.now(), self.table.locks
        with self.mutex:
            for key, lock in list(locks.items()):
                lock.forget(now - 2 * self._times["lease"])
                if not lock.queue and now > self._forgotten_at(lock):
                    del locks[key]
            claimed = [key for key, caller in self.claims.items() if key in locks and locks[key].asker is caller]
            asked = [key for key in claimed if locks[key].is_asked(now, but=self.remote)]
            needs = {key: lock.calls for key, lock in locks.items() if lock.told > 0}
            slots: dict[str, list[str]] = {}
            for call, origin in self.slots.items():
                slots.setdefault(origin, []).append(call)
        self.link.renew(asked)
        self.link.tell(needs)
        for origin, calls in slots.items():
            self._renew_slots(origin, calls)

    def _renew_slots(self, origin: str, calls: list[str]) -> None:
        self.on_slots(self.link.take_slots(origin, calls, self.limit))
        with self.mutex:
            left = [call for call in calls if call not in self.slots]
        for call in left:  # meanwhile: it must not have a slot again, or be in line
            self.on_slots(self.link.release_slot(origin, call, self.limit))

    def _forgotten_at(self, lock: Lock) -> float:
        return lock.asked_at + self.wait_max + self.remote.verdict_timeout

    def _apply(self, message: Message) -> None:
        if message.kind == "slot":
            self.on_slots(message.keys)
            return
        now = self.clock.now()
        touched: dict[Caller, None] = {}
        with self.mutex:
            for key, calls in zip_longest(message.keys, message.calls):
                touched.update(self._apply_to(key, calls, message, now))
            self.table.resettle(touched, now)

    def _apply_to(self, key: str, calls: float | None, message: Message, now: float) -> dict[Caller, None]:
        """Apply what another process published about a record; return the callers to settle."""
        table = self.table
        if message.kind == "free":
            self.claims.pop(key, None)
            return table.unlock(key)
        lock = table.locks.add(key, now) if message.kind in {"asked", "locked"} else table.locks.get(key)
        if lock is None:
            return {}
        was_free = lock.free
        if message.kind == "asked":
            lock.ask_elsewhere(self.remote, now)
        elif message.kind == "locked":
            lock.refuse(self.remote, now, min(message.after, self.wait_max))
        elif message.kind == "release" and lock.asker is self.remote:
            lock.asker = None
        if calls is not None and not lock.free:
            lock.hear(message.process, calls, now)
        if message.kind in {"release", "need"}:
            table.locks.drop_unneeded(key)
        if was_free and not lock.free:
            return dict.fromkeys(lock.queue)
        return table.pass_on(lock) if lock.leader is None else {lock.leader: None}

    def _listen(self) -> None:
        """Start the listener, unless there is one; wait for its first attempt, twice `socket_timeout` at most."""
        with self.mutex:
            if self._listener is not None or self._stop.is_set():
                return
            listener = Listener(self, self.link, self._stop, self._times)
            self._listener = threading.Thread(target=listener.run, name="crm_guard-locks", daemon=True)
            self._listener.start()
        listener.tried.wait(2 * self._times["socket_timeout"])


def _untold(locks: Iterable[tuple[str, Lock]]) -> dict[str, float]:
    """Return the records that twice or half as many calls need here as others know, with how many that are.

    Args:
        locks: Records with what is known of them. The caller holds the mutex, and publishes the result.
    """
    changes = {}
    for key, lock in locks:
        calls = lock.calls if lock.queue else 0.0
        is_near = lock.told / 2 < calls < lock.told * 2 or calls == lock.told  # the latter: both are 0
        if not lock.free and not is_near:
            changes[key] = lock.told = calls
    return changes


class RedisWaiter(SharedWaiter):
    """One call's handle on a :class:`RedisLockRegistry`. Used by one thread. Uses Redis outside the mutex."""

    def __init__(self, registry: RedisLockRegistry, context: WaitContext) -> None:
        super().__init__(registry, context)
        self._registry, self._link = registry, registry.link
        self._name = f"{self._link.process}:{self._caller.seq}"

    def verdict(self, *, locked: Collection[str], free: Collection[str], retry_after: float = 0.0) -> None:
        """Report CRM's answer to keys that this call sent, to other processes too; see :meth:`Waiter.verdict`."""
        registry, locks = self._registry, self._table.locks
        with self._mutex:
            known = [key for key in free if key in locks and not locks[key].free]
            claimed = self._pop_claims()
            news = [key for key in locked if key not in locks or locks[key].free or key in claimed]
            self._table.verdict(self._caller, locked, free, self._clock.now(), retry_after)
            for key in known:
                registry.claims.pop(key, None)
            needs = [locks[key].calls if key in locks else 0.0 for key in news]
            for key in news:
                if key in locks:
                    locks[key].told = locks[key].calls
        self._link.drop("release", claimed.difference(known, news))
        self._link.drop("free", known)
        self._link.drop("locked", news, needs, retry_after)
        self._release_slot()  # last: who gets it must know by then what is locked

    def leave(self) -> None:
        """End the call: hand its duties to others, here or in other processes, and release its slot. Idempotent."""
        with self._mutex:
            locks = [(key, self._table.locks[key]) for key in self._caller.needs if key in self._table.locks]
            self._table.leave(self._caller, self._clock.now())
            unused = self._pop_claims()
            changes = _untold(locks)
        self._release_slot()
        self._link.drop("release", unused)
        self._link.tell(changes)

    def _enter(self, keys: Collection[str], delay: float) -> None:
        locks = self._table.locks
        with self._mutex:
            self._table.enrol(self._caller, keys, delay, self._clock.now())
            unused = self._pop_claims()
            changes = _untold((key, locks[key]) for key in keys if key in locks)
        self._link.drop("release", unused)
        self._link.tell(changes)

    def look(self) -> tuple[frozenset[str], float]:
        """Return the keys to send now, if any, and the instant to look again; see :meth:`SteppedWaiter.look`."""
        table, caller, claims = self._table, self._caller, self._registry.claims
        with self._mutex:
            now = self._clock.now()
            standing = table.settle(caller, now)
            is_idle = not caller.has_slot and self._name in self._registry.slots
            if not is_idle and not table.may_go(caller, now):
                return frozenset(), table.look_again(caller, now)
            needs_slot = caller.needs_slot and not self._has_slot()
            wanted = [key for key in standing.open if key in table.locks and claims.get(key) is not caller]
            if not is_idle and not needs_slot and not wanted:
                return table.depart(caller, now), now
        if is_idle:  # what it was woken for is locked again: others need the slot
            self._release_slot()
            return frozenset(), now
        return self._take_slot(now) if needs_slot else self._claim(wanted)

    def _claim(self, wanted: list[str]) -> tuple[frozenset[str], float]:
        """Claim `wanted`, and go with what is granted; look again at once if that is nothing."""
        claims, table, caller = self._registry.claims, self._table, self._caller
        with self._mutex:  # beforehand: after Ctrl-C they may be ours, and `leave` releases them
            for key in wanted:
                claims.setdefault(key, caller)
        held = self._link.claim(wanted)
        with self._mutex:
            now = self._clock.now()
            for key in held:
                if claims.get(key) is caller:
                    del claims[key]
                if key in table.locks:
                    table.locks[key].ask_elsewhere(self._registry.remote, now)
            for key in table.locks.standing(caller, now).open:
                if key in wanted:
                    claims[key] = caller
            going = table.depart(caller, now, may_ask=wanted)
            unused = self._pop_claims(going)
            unused.update(key for key in wanted if key not in held and key not in claims)  # heard to be free
        self._link.drop("release", unused)
        return going, now

    def _pop_claims(self, used: Collection[str] = ()) -> set[str]:
        """Remove and return the claims of this call, but for those `used`."""
        claims = self._registry.claims
        unused = {key for key, caller in claims.items() if caller is self._caller and key not in used}
        for key in unused:
            del claims[key]
        return unused

    def _has_slot(self) -> bool:
        return self._name in self._registry.slots and self._name not in self._registry.awaiting_slot

    def _take_slot(self, now: float) -> tuple[frozenset[str], float]:
        registry, origin = self._registry, self._caller.origin
        with self._mutex:
            registry.slots[self._name] = origin  # beforehand: after Ctrl-C `leave` releases it
            registry.awaiting_slot[self._name] = self._wake
        granted = self._link.take_slots(origin, [self._name], registry.limit)
        registry.on_slots(granted)  # this one, or others of ours
        return frozenset(), now if self._name in granted else now + self._caller.verdict_timeout

    def _release_slot(self) -> None:
        registry = self._registry
        with self._mutex:
            registry.awaiting_slot.pop(self._name, None)
            origin = registry.slots.pop(self._name, None)
        if origin is not None:
            registry.on_slots(self._link.release_slot(origin, self._name, registry.limit))


_Key = tuple[str, int, float]
_shared: weakref.WeakValueDictionary[_Key, RedisLockRegistry] = weakref.WeakValueDictionary()
_creating: dict[_Key, threading.Lock] = {}


def shared_registry(url: str, *, wake_at_once: int, wait_max: float = 5.0) -> RedisLockRegistry:
    """Return the registry that the process shares for a URL; it lives as long as somebody uses it. Thread-safe.

    Raises:
        ImportError: `redis` is not installed.
        SettingsError: The URL cannot be used (a `ValueError`).
        ValueError: `wake_at_once` is below 1.
    """
    key = (url, wake_at_once, wait_max)
    # One lock per registry: a Redis that hangs does not block the others.
    with _creating.setdefault(key, threading.Lock()):
        found = _shared.get(key)
        if found is None:
            _shared[key] = found = RedisLockRegistry(url, wake_at_once=wake_at_once, wait_max=wait_max)
        return found


if hasattr(os, "register_at_fork"):  # a lock held at the fork would stay held in the child
    os.register_at_fork(after_in_child=_creating.clear)


def _connect(url: str, timeout: float) -> Any:
    try:
        with first_import:  # an optional dependency
            from redis import Redis  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        message = 'sharing locks through Redis needs redis-py: pip install "crm-guard[redis]"'
        raise ImportError(message) from error
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    GuardSettings(lock_registry=url)  # refuses what redis-py would accept, or quote in an error
    try:
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts)
    except Exception as error:  # noqa: BLE001 - its text may quote a part of the password: must not be chained
        reason = type(error).__name__
    message = f"redis-py cannot use the URL of the lock registry ({reason})"
    raise SettingsError(message)


def _cap_timeouts(client: Any, seconds: float) -> None:
    """Limit each read to what a command may take in all, whatever the URL says: see `RedisLink.disconnect`."""
    options = client.connection_pool.connection_kwargs
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options[name] or seconds, seconds)
