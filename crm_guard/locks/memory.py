"""What callers share about locked records, so that many callers cost few calls.

Fifty calls that meet one locked record need not ask fifty times whether it is still locked. A registry keeps, for
each record that CRM refused, who asks next and when: one call *holds the probe*, the others follow.

The rules, all of them in :class:`LockTable`:

1. **One prober.** A call whose records nobody else probes becomes their prober and goes when its own delay is over.
   "Still locked" renews the one schedule that all share; a call that would have asked sooner pulls it forward.
2. **Followers** sleep until their records' verdict or their own deadline. A prober that leaves hands the probe, and
   its due instant, to the call that has waited longest; one without a verdict for `patience` seconds loses it.
3. **A batch follows as soon as one of its records is probed by another call.** It cannot finish before that verdict
   anyway, and its resend is one request for everything it may send. Once all of those records are free it goes with
   all that is pending.
4. **A lock does not delay another record.** From the batch's own tick on, what is known to be free is sent without
   the rest; a verdict under way is awaited first, for at most one delay. Records that nobody probes, as their calls
   follow for the sake of others, are probed after 3 delays, times (pending / unprobed), at most 9: the batch that
   would learn most goes first. Over 20 batches of 100 (`tests/benchmarks/waits.py`) a shorter patience costs half
   as many calls again; none at all would leave a record waiting for its neighbour's longer lock.
5. **A free record sets its followers off in turn**: per origin, at most `wake_at_once` calls are between waking and
   verdict. CRM limits concurrency per organisation and app, not per record, so the count is per origin.
6. **Nobody interested, nothing kept.** A lock is forgotten with the last call that needs it: there is no clean-up
   thread and no expiry to tune. Beyond `max_records` a new lock is not shared, and its call waits alone.

Decisions are taken under one mutex, and every wait happens outside it. An operation touches the call's own keys,
and the calls that its verdict concerns. Instants and delays are in seconds.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from crm_guard.clock import Clock, Wake

_STRAY_DELAYS = 3.0
_STRAY_SHARE = 3.0
_LEAST_SLACK = 1.0
"""Seconds, at the least, by which a wait outlasts what was announced before it is announced anew."""


def unannounced(seconds: float) -> None:
    """No-op: for a wait that nobody is told of."""


class Waiter(Protocol):
    """One call's part in the sharing. Used by one thread."""

    def wait(self, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        """Block until some of `keys` should be sent (again).

        Args:
            keys: Records that this call has yet to write, each `"origin|record id"`, all of one origin.
            delay: Seconds that this call would wait if it were alone.
            deadline: Instant, on the waiter's clock, at which the wait ends in any case.

        Returns:
            The keys to send now; empty if the deadline passed or the wait was interrupted.
        """
        ...

    def verdict(self, *, locked: Collection[str], free: Collection[str]) -> None:
        """Tell what CRM's last answer said of keys that this call sent: still locked, or not (any more)."""
        ...

    def leave(self) -> None:
        """End the call, whatever the cause: frees every probe and pacing slot at once. Idempotent."""
        ...


class LockRegistry(Protocol):
    """What is known about locked records. Implementations are thread-safe and raise nothing of their own."""

    def __bool__(self) -> bool:
        """Tell whether any record may be locked: one cheap test for the hot path, no network, no mutex."""
        ...

    def knows(self, keys: Collection[str]) -> bool:
        """Tell whether all of `keys` are believed locked right now; for an empty collection False."""
        ...

    def waiter(
        self,
        *,
        clock: Clock,
        wake: Wake,
        interrupted: Callable[[], bool],
        announce: Callable[[float], object] = unannounced,
    ) -> Waiter:
        """Return one call's waiter.

        Args:
            clock: Sleeps, and gives the instants: one scale for all waiters of a registry.
            wake: The event that this waiter sleeps on. Anyone may set it; the waiter clears it.
            interrupted: Whether the wait must end; whoever makes it true sets `wake` afterwards.
            announce: Called at the beginning of each wait with the seconds that it will probably last, and again
                each time that it outlasts them by much. Outside any mutex.
        """
        ...

    def close(self) -> None:
        """Let go of threads and connections, if any. Calls under way go on with local knowledge."""
        ...


class Unshared:
    """Shares nothing: each call waits out its own delays. Thread-safe, without state."""

    def __bool__(self) -> bool:
        """Return False: nothing is ever known."""
        return False

    def knows(self, keys: Collection[str]) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False."""
        return False

    def waiter(
        self,
        *,
        clock: Clock,
        wake: Wake,
        interrupted: Callable[[], bool],
        announce: Callable[[float], object] = unannounced,
    ) -> Waiter:
        """Return a waiter that sleeps its delay, and then returns every key."""
        return _LoneWaiter(clock, wake, interrupted, announce)

    def close(self) -> None:
        """Do nothing."""


class _LoneWaiter:
    """Sleeps its delay, unless interrupted."""

    def __init__(
        self, clock: Clock, wake: Wake, interrupted: Callable[[], bool], announce: Callable[[float], object]
    ) -> None:
        self._clock, self._wake, self._interrupted, self._announce = clock, wake, interrupted, announce

    def wait(self, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        """Sleep `delay` seconds, then return all of `keys`; nothing if an interrupt or the deadline comes first."""
        self._announce(delay)
        due = self._clock.now() + delay
        while True:
            self._wake.clear()
            left = min(due, deadline) - self._clock.now()
            if left <= 0 or self._interrupted():
                break
            self._clock.wait(self._wake, left)
        return frozenset() if self._interrupted() or due > deadline else frozenset(keys)

    def verdict(self, *, locked: Collection[str], free: Collection[str]) -> None:
        """Keep it to oneself."""

    def leave(self) -> None:
        """Do nothing."""


class Holder:
    """Whoever probes a record: a call of this process, or one far away.

    Attributes:
        patience: Seconds from its due instant after which it loses the probe, unless it gave a verdict.
        waiting: Whether it can still be told to go sooner.
    """

    __slots__ = ("patience", "waiting")

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.waiting = False


class Call(Holder):
    """One call of this process, as the table sees it."""

    __slots__ = (
        "delay",
        "keys",
        "needs",
        "origin",
        "paced",
        "ready",
        "seq",
        "slot",
        "start",
        "unshared",
        "wake",
        "when",
    )

    def __init__(self, wake: Wake, seq: int, patience: float) -> None:
        super().__init__(patience)
        self.wake = wake
        self.seq = seq  # the lower, the longer it has been waiting
        self.origin = ""
        self.keys: tuple[str, ...] = ()  # what it waits for
        self.needs: set[str] = set()  # the locks in whose queue it stands
        self.unshared: set[str] = set()  # refused, but the table was full
        self.start = self.delay = 0.0  # its present wait
        self.when = 0.0  # the instant at which it may go, as far as is known
        self.paced = False  # whether it needs a slot to go
        self.ready = 0.0  # since when it stands in line for a slot
        self.slot = False


class Lock:
    """What is known of one record."""

    __slots__ = ("due", "free", "holder", "queue", "refused")

    def __init__(self, refused: float) -> None:
        self.refused = refused  # instant of the last refusal
        self.due: float | None = None  # instant of the next probe, or of the one under way
        self.holder: Holder | None = None
        self.queue: dict[Call, None] = {}  # the calls that need the record
        self.free = False  # CRM accepts it; `queue` is being set off

    def lapse(self) -> float:
        """Return the instant at which the holder loses the probe; without a holder the distant past."""
        if self.holder is None:
            return float("-inf")
        return max(self.refused, self.refused if self.due is None else self.due) + self.holder.patience


class Pending(NamedTuple):
    """A call's keys, by what it may do with them."""

    mine: list[str]  # it holds the probe
    free: list[str]
    idle: list[str]  # locked, and nobody probes
    held: list[str]  # another call probes


class Pace:
    """The calls of one origin that were set off by an unlock, and those that are next."""

    __slots__ = ("awake", "line")

    def __init__(self) -> None:
        self.awake: set[Call] = set()
        self.line: dict[Call, None] = {}


class LockTable:
    """The rules, with neither threads nor a clock. Not thread-safe: a registry guards it with its mutex."""

    def __init__(self, wake_at_once: int, max_records: int, patience: float) -> None:
        self.locks: dict[str, Lock] = {}
        self.paces: dict[str, Pace] = {}
        self._wake_at_once = wake_at_once
        self._max_records = max_records
        self._patience = patience
        self._seq = 0

    def join(self, wake: Wake) -> Call:
        """Return a new call, younger than all before; `wake` is set whenever it should look again."""
        self._seq += 1
        return Call(wake, self._seq, self._patience)

    def enrol(self, call: Call, keys: Collection[str], delay: float, now: float) -> None:
        """Have `call` wait for `keys`: as their prober, after `delay` seconds, or as a follower."""
        self._forget(call, call.needs.difference(keys), now)
        self._give_slot_back(call)
        call.keys, call.origin = tuple(keys), origin_of(keys)
        call.start, call.delay, call.waiting = now, delay, True
        for key in keys:
            if key in self.locks:
                self._queue(call, key)
        self._pull_forward(self.settle(call, now).held, now + delay)

    def settle(self, call: Call, now: float) -> Pending:
        """Decide anew when `call` may go, take the probes that fall to it, and put it in line if it is ready."""
        pending = self.sort(call, now)
        call.paced = False
        if pending.held and pending.mine:
            self._let_go(pending.mine, now, call)
            pending = self.sort(call, now)
        if pending.held:
            self._follow(call, pending, now)
        elif pending.mine or not pending.free:
            self._probe(call, pending)
        else:
            call.when, call.paced = now, True
        self._line_up(call, now)
        return pending

    def may_go(self, call: Call, now: float) -> bool:
        """Tell whether a call, just settled, may go; without a slot only if its turn has not come for too long."""
        return call.when <= now and (not call.paced or call.slot or now >= call.ready + call.patience)

    def look_again(self, call: Call, now: float) -> float:
        """Return the instant at which a call that may not go should look again, unless woken before."""
        return call.when if call.when > now else call.ready + call.patience

    def expected(self, call: Call, now: float) -> float:
        """Return the instant at which a waiting call will probably go, or learn what became of the probe."""
        locks = (self.locks.get(key) for key in call.keys)
        dues = [lock.due for lock in locks if lock is not None and not lock.free and lock.due is not None]
        a_round_more = now + call.delay  # where the verdict is under way
        coming = min((due for due in dues if due > now), default=a_round_more)
        return call.when if now < call.when < coming else coming

    def depart(self, call: Call, now: float) -> frozenset[str]:
        """Let `call` go, with every key that is free or that it may probe."""
        pending = self.sort(call, now)
        for key in chain(pending.mine, pending.idle):
            if key in self.locks:
                self._queue(call, key)
                self.locks[key].holder, self.locks[key].due = call, now
        call.waiting = False
        if not call.slot:
            self._give_slot_back(call)
        return frozenset(chain(pending.mine, pending.free, pending.idle))

    def stop(self, call: Call) -> None:
        """End the wait of `call` without a result; what it holds stays with it until it leaves."""
        call.waiting = False
        self._give_slot_back(call)

    def verdict(self, call: Call, locked: Collection[str], free: Collection[str], now: float) -> None:
        """Take in what `call` was told."""
        touched: dict[Call, None] = {}
        for key in locked:
            touched.update(self._lock(call, key, now))
        for key in free:
            touched.update(self.unlock(key))
            self._unqueue(call, key)
        self.resettle(touched, now)
        self._give_slot_back(call)  # last: whom a refusal stops must not be set off by it

    def leave(self, call: Call, now: float) -> None:
        """Forget `call`, and hand on what it holds. Safe to repeat, also where an interrupt cut it short."""
        self.stop(call)
        self._forget(call, set(call.needs), now)

    def resettle(self, calls: Iterable[Call], now: float) -> None:
        """Settle those of `calls` that wait, the longest waiting first; wake whoever may go sooner than it knew."""
        for call in sorted((one for one in calls if one.waiting), key=lambda one: one.seq):
            before = call.when
            self.settle(call, now)
            if call.when < before and (call.when > now or not call.paced):
                call.wake.set()

    def unlock(self, key: str) -> dict[Call, None]:
        """Note that CRM accepts a record; return the calls to settle."""
        lock = self.locks.get(key)
        if lock is None:
            return {}
        lock.free, lock.holder, lock.due = True, None, None
        self._tidy(key)
        return lock.queue

    def release(self, key: str, holder: Holder) -> dict[Call, None]:
        """Take the probe of a record from `holder`; return the calls to settle."""
        lock = self.locks.get(key)
        if lock is None or lock.holder is not holder:
            return {}
        lock.holder = None
        self._tidy(key)
        return lock.queue

    def grant(self, key: str, holder: Holder, due: float, now: float) -> dict[Call, None]:
        """Give the probe of a record, due at `due`, to a holder far away; return the calls to settle."""
        lock = self.locks.get(key) or self._add(key, now)
        if lock is None:
            return {}
        was_free, lock.free = lock.free, False
        lock.holder, lock.due = holder, due
        return lock.queue if was_free else {}

    def sort(self, call: Call, now: float) -> Pending:
        """Sort the keys that `call` waits for. One without a lock is free, unless the table had no room for it."""
        pending = Pending([], [], [], [])
        for key in call.keys:
            lock = self.locks.get(key)
            if lock is None:
                (pending.mine if key in call.unshared else pending.free).append(key)
            elif lock.free:
                pending.free.append(key)
            elif lock.holder is call:
                pending.mine.append(key)
            else:
                (pending.held if now < lock.lapse() else pending.idle).append(key)
        return pending

    # -- what a call does next

    def _probe(self, call: Call, pending: Pending) -> None:
        for key in pending.idle:
            self._queue(call, key)
            self.locks[key].holder = call
        call.when = min(self._due(call, key) for key in chain(pending.mine, pending.idle))

    def _due(self, call: Call, key: str) -> float:
        """Return when `key` is to be probed: a schedule begun by another call is kept."""
        lock = self.locks.get(key)
        if lock is None:
            return call.start + call.delay
        if lock.due is None:
            lock.due = lock.refused + call.delay
        return lock.due

    def _follow(self, call: Call, pending: Pending, now: float) -> None:
        call.when = min(self.locks[key].lapse() for key in pending.held)
        if pending.idle:
            share = min(_STRAY_SHARE, len(call.keys) / len(pending.idle))
            call.when = min(call.when, call.start + call.delay * _STRAY_DELAYS * share)
        if pending.free or pending.mine:  # the latter: unshared ones
            tick = max(chain([call.start], self._under_way(pending.held, now))) + call.delay
            if tick <= call.when:
                call.when, call.paced = tick, True

    def _under_way(self, keys: Iterable[str], now: float) -> Iterable[float]:
        dues = (self.locks[key].due for key in keys)
        return (due for due in dues if due is not None and due <= now)

    def _pull_forward(self, keys: Iterable[str], due: float) -> None:
        for lock in map(self.locks.__getitem__, keys):
            holder = lock.holder
            if isinstance(holder, Call) and holder.waiting and due < (lock.due or due):
                lock.due = due
                holder.when = min(holder.when, due)
                holder.wake.set()

    # -- who knows what of one record

    def _lock(self, call: Call, key: str, now: float) -> dict[Call, None]:
        call.needs.add(key)
        lock = self.locks.get(key) or self._add(key, now)
        if lock is None:
            call.needs.discard(key)
            call.unshared.add(key)
            return {}
        self._queue(call, key)
        was_free = lock.free
        if was_free:
            lock.free, lock.holder = False, call
        if lock.holder in {None, call}:
            lock.refused, lock.due = now, None
        return lock.queue if was_free else {}

    def _add(self, key: str, now: float) -> Lock | None:
        if len(self.locks) >= self._max_records:
            return None
        return self.locks.setdefault(key, Lock(now))

    # An interrupt may come between any two lines. `needs` names all that has to be undone: first in, last out.

    def _queue(self, call: Call, key: str) -> None:
        call.needs.add(key)
        self.locks[key].queue[call] = None

    def _unqueue(self, call: Call, key: str) -> None:
        if key in self.locks:
            self.locks[key].queue.pop(call, None)
            self._tidy(key)
        call.unshared.discard(key)
        call.needs.discard(key)

    def _tidy(self, key: str) -> None:
        lock = self.locks[key]
        if not lock.queue and lock.holder is None:
            del self.locks[key]

    def _forget(self, call: Call, keys: Collection[str], now: float) -> None:
        for key in keys:
            if key in self.locks:
                self.locks[key].queue.pop(call, None)
        self._let_go(keys, now, call)
        for key in keys:
            self._unqueue(call, key)

    def _let_go(self, keys: Iterable[str], now: float, call: Call) -> None:
        touched: dict[Call, None] = {}
        for key in keys:
            touched.update(self.release(key, call))
        touched.pop(call, None)
        self.resettle(touched, now)

    # -- pacing

    def _line_up(self, call: Call, now: float) -> None:
        if not call.paced or call.when > now:
            self._give_slot_back(call)
            return
        pace = self.paces.setdefault(call.origin, Pace())
        if not call.slot and call not in pace.line:
            call.ready = now
            pace.line[call] = None
        self._set_off(call.origin)

    def _give_slot_back(self, call: Call) -> None:
        pace = self.paces.get(call.origin)
        if pace is not None:
            pace.line.pop(call, None)
            pace.awake.discard(call)
            call.slot = False
            self._set_off(call.origin)

    def _set_off(self, origin: str) -> None:
        pace = self.paces[origin]
        while pace.line and len(pace.awake) < self._wake_at_once:
            call = next(iter(pace.line))
            del pace.line[call]
            pace.awake.add(call)
            call.slot = True
            call.wake.set()
        if not pace.awake:
            del self.paces[origin]


def origin_of(keys: Iterable[str]) -> str:
    """Return the origin of keys, which all have the same."""
    return next(iter(keys)).partition("|")[0]


_registries: weakref.WeakSet[MemoryLockRegistry] = weakref.WeakSet()


class MemoryLockRegistry:
    """Shares locks among the threads of one process. Thread-safe; empty again in a forked child, a copy, a pickle.

    Args:
        wake_at_once: How many calls of one origin an unlock sets off together, at least 1.
        max_records: How many locked records are kept; further ones are not shared.
        patience: Seconds after which a probe or a wake-up without a verdict is taken to be lost.

    Raises:
        ValueError: `wake_at_once` is below 1.
    """

    def __init__(self, *, wake_at_once: int = 10, max_records: int = 10_000, patience: float = 30.0) -> None:
        if wake_at_once < 1:
            message = f"wake_at_once={wake_at_once!r} is out of range: at least 1"
            raise ValueError(message)
        self._options: dict[str, Any] = {
            "wake_at_once": wake_at_once,
            "max_records": max_records,
            "patience": patience,
        }
        self.reset()
        _registries.add(self)

    def reset(self) -> None:
        """Forget everything, with a new mutex: a child process has none of the calls that its parent knew."""
        self.mutex = threading.Lock()
        self.table = LockTable(**self._options)

    def __bool__(self) -> bool:
        """Tell whether any record may be locked."""
        return bool(self.table.locks)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._options), ()

    def knows(self, keys: Collection[str]) -> bool:
        """Tell whether all of `keys` are believed locked right now; for an empty collection False."""
        with self.mutex:
            locks = [self.table.locks.get(key) for key in keys]
        return bool(locks) and all(lock is not None and not lock.free for lock in locks)

    def waiter(
        self,
        *,
        clock: Clock,
        wake: Wake,
        interrupted: Callable[[], bool],
        announce: Callable[[float], object] = unannounced,
    ) -> Waiter:
        """Return one call's waiter; see :meth:`LockRegistry.waiter`."""
        return SharedWaiter(self, clock, wake, interrupted, announce)

    def close(self) -> None:
        """Do nothing: there is no thread and no connection."""


class SharedWaiter:
    """One call's part in a :class:`MemoryLockRegistry`. Used by one thread."""

    def __init__(
        self,
        registry: MemoryLockRegistry,
        clock: Clock,
        wake: Wake,
        interrupted: Callable[[], bool],
        announce: Callable[[float], object],
    ) -> None:
        self._clock, self._wake, self._interrupted, self._announce = clock, wake, interrupted, announce
        self._began = self._quiet_until = 0.0
        self._mutex, self._table = registry.mutex, registry.table
        with self._mutex:
            self._call = self._table.join(wake)

    def wait(self, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        """Block until some of `keys` should be sent; see :meth:`Waiter.wait`."""
        if not keys:
            return frozenset()
        self._enter(keys, delay)
        self._began = self._quiet_until = self._clock.now()
        while True:
            self._wake.clear()
            going, again = self._look()
            now = self._clock.now()
            if going or now >= deadline or self._interrupted():
                break
            self._sleep(min(again, deadline))
        if going and not self._interrupted():
            return going
        with self._mutex:
            self._table.stop(self._call)
        return frozenset()

    def verdict(self, *, locked: Collection[str], free: Collection[str]) -> None:
        """Tell what CRM's last answer said of keys that this call sent."""
        with self._mutex:
            self._table.verdict(self._call, locked, free, self._clock.now())

    def leave(self) -> None:
        """End the call: hand on its probes, give back its slot."""
        with self._mutex:
            self._table.leave(self._call, self._clock.now())

    def _sleep(self, until: float) -> None:
        """Sleep until the instant `until`, or less if woken; announce how long, and again what outlasts that."""
        while not self._wake.is_set() and (now := self._clock.now()) < until:
            if now >= self._quiet_until:
                with self._mutex:
                    end = min(self._table.expected(self._call, now), until)
                self._quiet_until = end + max(_LEAST_SLACK, end - self._began)
                self._announce(end - now)
            self._clock.wait(self._wake, min(until, self._quiet_until) - now)

    def _enter(self, keys: Collection[str], delay: float) -> None:
        with self._mutex:
            self._table.enrol(self._call, keys, delay, self._clock.now())

    def _look(self) -> tuple[frozenset[str], float]:
        """Return the keys to send now, if any, and the instant to look again."""
        with self._mutex:
            now = self._clock.now()
            self._table.settle(self._call, now)
            if self._table.may_go(self._call, now):
                return self._table.depart(self._call, now), now
            return frozenset(), self._table.look_again(self._call, now)


def _forked() -> None:
    for registry in list(_registries):
        registry.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
