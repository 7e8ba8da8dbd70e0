"""The registry over Redis: what one process learns about a lock, every process and host knows.

Each process keeps its own :class:`LockTable`, and its calls share through that alone. Only who leads a record is
settled in Redis: a caller that would become the leader first *claims* the record for its process. If another
process has claimed it, :attr:`RedisLockRegistry.remote` leads the record in the local table, and the local rules do
the rest. So Redis sees a few commands per process and probe, never one per waiting thread. While Redis is down,
every claim is granted: each process goes on alone.

In Redis, all under `prefix`:

* `lock:<origin|id>`, a string: the process that leads, and when its probe is due (milliseconds on the server's
  clock). It lives for `lease` seconds, and the owner's heartbeat renews it: after a `kill -9` it soon expires, and
  a process that follows takes over `poll` seconds after the due instant.
* `pace:<origin>`, a sorted set: the callers that an unlock woke, each with the end of its lease.
* channel `news`: `locked`, `free`, `release` (of a probe), `slot` (released). Messages only speed things up: a
  follower of another process asks again `poll` seconds after its due instant, a call without a slot every `poll`.

Every command that reads and writes is one Lua script, hence atomic. Durations are relative, and instants come from
the server's `TIME`: the clocks of hosts do not matter. One Redis server or a failover pair, not a cluster.

The truth test of the registry reads a local dictionary. The price: a lock found by another host is known here once
its message has arrived, milliseconds later; a call in between asks CRM itself, as any first call would.

No answer of Redis is trusted. Its clock may have gone back (a failover to a server that is behind), and other
programs may use our names:

* Messages and keys that do not look like ours are ignored. A record whose key another program uses is granted to
  every process that claims it.
* A claim counts only if this process could have made it: due within its `wait_max`, or within the longer delay that
  CRM asked of this very call (`Retry-After`). A later one is taken over, just as within a process a caller with a
  shorter delay pulls the probe forward: nobody waits for a host whose waits are longer. A follower asks Redis again
  `poll` seconds after the due instant, and after `wait_max + poll` at the latest.
* A claim that would outlive its lease, because its time to live is longer or missing, is cut down to it. A living
  owner renews its claims; one that died holds a record for one more `lease`. So `lease` is the same everywhere.
* No call uses a connection itself. A few threads do (:class:`WorkerPool`), and the call waits `socket_timeout`
  seconds in all, connecting included, however slowly bytes arrive. The timeouts of redis-py limit single reads.

A failing, slow or full Redis costs a call one such timeout. From then on only the listener tries Redis, every
`retry_after` seconds and not before all commands that hang have ended. Each outage is logged once: one WARNING on
the logger `crm_guard.locks` (failures less than a minute apart are one outage). Neither URL nor password is logged.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from crm_guard._base.imports import first_import
from crm_guard.clock import Clock, SystemClock
from crm_guard.locks.memory import MemoryLockRegistry, SharedWaiter
from crm_guard.locks.redis_link import RedisLink
from crm_guard.locks.redis_listener import Listener
from crm_guard.locks.redis_messages import read_message
from crm_guard.locks.table import Caller, Leader
from crm_guard.settings import GuardSettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from crm_guard.clock import Wake
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
        wait_max: Maximum seconds for which a claim of another process counts, unless CRM asked the call for a
            longer delay. The same as in the settings of the guards that use the registry.
        prefix: Put before every key and channel in Redis.
        lease: Seconds after which the claims and slots of a process that died expire. The same in all processes.
        poll: Seconds after which a follower asks Redis itself if no message arrives.
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
        self.remote = Leader(self._times["poll"])  # stands for every other process
        self.claims: dict[str, float | None] = {}  # our claims, with the due instant that Redis knows
        self.slots: dict[str, str] = {}  # our callers with a slot in Redis, and its origin
        self.awaiting_slot: set[Wake] = set()  # of our callers that wait for one
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

    def record_claims(self, keys: Collection[str], held: Mapping[str, float], now: float, *, some: bool) -> None:
        """Apply the result of claiming `keys`, of which other processes hold `held`. The caller holds the mutex."""
        touched: dict[Caller, None] = {}
        for key in keys:
            if key in held:
                touched.update(self._grant_to_remote(key, held[key], now))
            elif (some or not held) and key in self.table.locks:
                self.claims[key] = self.table.locks[key].due
        self.table.resettle(touched, now)

    def pop_unneeded_claims(self, keys: Iterable[str]) -> list[str]:
        """Remove and return the claims on `keys` that no caller of this process needs any more."""
        unneeded = [key for key in keys if key in self.claims and not self._led_here(key)]
        for key in unneeded:
            del self.claims[key]
        return unneeded

    def heartbeat(self) -> None:
        """Renew our claims and slots in Redis, and drop the locks and claims that nobody needs."""
        now, table = self.clock.now(), self.table
        with self.mutex:
            stale = [key for key, lock in table.locks.items() if not lock.queue and now > lock.expires_at()]
            for key in stale:
                table.locks.release(key, self.remote)
            unneeded = self.pop_unneeded_claims(list(self.claims))
            alive = [key for key in self.claims if now < table.locks[key].expires_at()]
            slots = list(self.slots.items())
        self.link.drop("release", unneeded)
        self.link.renew(alive)
        for caller, origin in slots:
            self.link.take_slot(origin, caller, 0)  # keeps a slot, takes no new one

    def _led_here(self, key: str) -> bool:
        lock = self.table.locks.get(key)
        return lock is not None and isinstance(lock.leader, Caller)

    def _apply(self, message: Message) -> None:
        now = self.clock.now()
        touched: dict[Caller, None] = {}
        with self.mutex:
            for key in message.keys:
                touched.update(self._apply_to(key, message, now))
            self.table.resettle(touched, now)
            for wake in self.awaiting_slot if message.kind == "slot" else ():
                wake.set()

    def _apply_to(self, key: str, message: Message, now: float) -> dict[Caller, None]:
        if message.kind == "free":
            self.claims.pop(key, None)
            return self.table.locks.unlock(key)
        if message.kind == "release":
            return self.table.locks.release(key, self.remote)
        if message.kind == "locked" and not (key in self.claims and self._led_here(key)):
            return self._grant_to_remote(key, message.due_in, now)
        return {}

    def _grant_to_remote(self, key: str, due_in: float, now: float) -> dict[Caller, None]:
        """Make another process the leader of a record, due in `due_in` seconds; return the callers to settle.

        Followers ask Redis again after `wait_max` at the latest, whatever the other process published.
        """
        due = now + min(due_in, self.wait_max)
        touched = self.table.locks.grant(key, self.remote, due, now)
        if key in self.table.locks:
            self.table.locks[key].refused_at = now
        return touched

    def _listen(self) -> None:
        """Start the listener, unless there is one; wait for its first attempt, twice `socket_timeout` at most."""
        with self.mutex:
            if self._listener is not None or self._stop.is_set():
                return
            listener = Listener(self, self.link, self._stop, self._times)
            self._listener = threading.Thread(target=listener.run, name="crm_guard-locks", daemon=True)
            self._listener.start()
        listener.tried.wait(2 * self._times["socket_timeout"])


class RedisWaiter(SharedWaiter):
    """One call's handle on a :class:`RedisLockRegistry`. Used by one thread. Uses Redis outside the mutex."""

    def __init__(self, registry: RedisLockRegistry, context: WaitContext) -> None:
        super().__init__(registry, context)
        self._registry, self._link = registry, registry.link
        self._name = f"{self._link.process}:{self._caller.seq}"

    def verdict(self, *, locked: Collection[str], free: Collection[str]) -> None:
        """Report CRM's answer to keys that this call sent, to other processes too; see :meth:`Waiter.verdict`."""
        with self._mutex:
            known = [key for key in free if key in self._table.locks]
            self._table.verdict(self._caller, locked, free, self._clock.now())
            for key in known:
                self._registry.claims.pop(key, None)
        self._release_slot()
        self._link.drop("free", known)

    def leave(self) -> None:
        """End the call: hand its probes to others, here or in other processes, and release its slot. Idempotent."""
        with self._mutex:
            needs = set(self._caller.needs)
            self._table.leave(self._caller, self._clock.now())
            unneeded = self._registry.pop_unneeded_claims(needs)
        self._release_slot()
        self._link.drop("release", unneeded)

    def _enter(self, keys: Collection[str], delay: float) -> None:
        with self._mutex:
            needs = set(self._caller.needs)
            self._table.enrol(self._caller, keys, delay, self._clock.now())
            unneeded = self._registry.pop_unneeded_claims(chain(needs.difference(keys), keys))
        self._link.drop("release", unneeded)

    def _look(self) -> tuple[frozenset[str], float]:
        with self._mutex:
            now = self._clock.now()
            pending = self._table.settle(self._caller, now)
            ready = self._table.may_go(self._caller, now)
            wanted = self._unclaimed(chain(pending.leading, pending.leaderless if ready else ()))
            if ready and not wanted and self._has_slot(now):
                return self._table.depart(self._caller, now), now
            unneeded = self._registry.pop_unneeded_claims(self._caller.keys)
        self._link.drop("release", unneeded)
        if wanted:
            return self._claim(wanted, self._caller.due - now, some=ready)
        if ready:
            return self._take_slot(now)
        return frozenset(), self._table.look_again(self._caller, now)

    def _unclaimed(self, keys: Iterable[str]) -> list[str]:
        claims, locks = self._registry.claims, self._table.locks
        return [key for key in keys if key in locks and (key not in claims or claims[key] != locks[key].due)]

    def _claim(self, keys: list[str], due_in: float, *, some: bool) -> tuple[frozenset[str], float]:
        """Claim `keys`; whatever the result, look again at once."""
        latest = max(self._registry.wait_max, self._caller.delay)
        try:
            held = self._link.claim(keys, due_in, latest, every=not some)
        except BaseException:  # Ctrl-C: they may be ours, so `leave` must release them
            with self._mutex:
                for key in keys:
                    self._registry.claims.setdefault(key, None)
            raise
        with self._mutex:
            now = self._clock.now()
            self._registry.record_claims(keys, held, now, some=some)
        return frozenset(), now

    def _has_slot(self, now: float) -> bool:
        caller = self._caller
        return not caller.needs_slot or now >= caller.overdue or self._name in self._registry.slots

    def _take_slot(self, now: float) -> tuple[frozenset[str], float]:
        registry, origin = self._registry, self._caller.origin
        with self._mutex:
            registry.awaiting_slot.add(self._wake)
            registry.slots[self._name] = origin  # beforehand: after Ctrl-C `leave` releases it
        taken = self._link.take_slot(origin, self._name, registry.limit)
        with self._mutex:
            if taken:
                registry.awaiting_slot.discard(self._wake)
            else:
                registry.slots.pop(self._name, None)
        return frozenset(), now if taken else now + registry.remote.verdict_timeout

    def _release_slot(self) -> None:
        with self._mutex:
            self._registry.awaiting_slot.discard(self._wake)
            origin = self._registry.slots.pop(self._name, None)
        if origin is not None:
            self._link.release_slot(origin, self._name)


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
