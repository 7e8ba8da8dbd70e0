"""The rules by which callers share what they know about locked records. Pure: no threads, no clock.

Fifty callers that meet one locked record need not ask CRM fifty times whether it is still locked: as in
single-flight, one caller *leads* a record, and probes it by sending its own write again; the others *follow*.

The rules, as :class:`LockTable` applies them:

1. **One leader per record.** A caller whose records nobody else leads becomes their leader, and probes when its own
   delay is over. A refusal restarts the one schedule that all share; a caller with a shorter delay pulls it
   forward.
2. **Followers** sleep until the verdict on their records or their own deadline. A leader that leaves hands the
   probe and its due instant to the caller that has waited longest. One without a verdict for `verdict_timeout`
   seconds loses the probe.
3. **A batch follows as soon as another caller leads one of its records.** It cannot finish before that verdict
   anyway, and its resend is one request for everything it may send. Once all of those records are free, it sends
   all that is pending.
4. **A lock does not delay another record.** From the batch's own tick on, records known to be free are sent
   without the rest; a probe in progress is awaited first, for at most one delay. Leaderless records, whose callers
   all follow for the sake of other records, are probed after 3 delays, times (pending / leaderless), at most 9: the
   batch that would learn most goes first. Over 20 batches of 100 (`tests/benchmarks/waits.py`) a shorter time costs
   half as many calls again; without the rule a record would wait for its neighbour's longer lock.
5. **A free record wakes its followers in turn**: per origin, at most `wake_at_once` callers are between wake-up and
   verdict. CRM limits concurrency per organisation and app, not per record, so the limit is per origin.
6. **No caller, no lock.** A lock is dropped with the last caller that needs it: there is no clean-up thread and no
   expiry to tune. Beyond `max_records` a new lock is not shared, and its caller waits alone.

Instants and delays are in seconds. An operation touches the caller's own keys, and the callers that its verdict
concerns.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from crm_guard.clock import Wake

_LEADERLESS_DELAYS = 3.0
_MAX_LEADERLESS_FACTOR = 3.0


class Leader:
    """Whoever probes a record: a caller of this process, or another process.

    Attributes:
        verdict_timeout: Seconds from the due instant after which it loses the probe, unless it reported a verdict.
        waiting: Whether it can still be made to go sooner.
    """

    __slots__ = ("verdict_timeout", "waiting")

    def __init__(self, verdict_timeout: float) -> None:
        self.verdict_timeout = verdict_timeout
        self.waiting = False


class Caller(Leader):
    """One call of this process, as the table sees it."""

    __slots__ = (
        "delay",
        "due",
        "has_slot",
        "keys",
        "needs",
        "needs_slot",
        "origin",
        "queued_at",
        "seq",
        "start",
        "unshared",
        "wake",
    )

    def __init__(self, wake: Wake, seq: int, verdict_timeout: float) -> None:
        super().__init__(verdict_timeout)
        self.wake = wake
        self.seq = seq  # the lower, the longer it has been waiting
        self.origin = ""
        self.keys: tuple[str, ...] = ()  # what it waits for
        self.needs: set[str] = set()  # the locks in whose queue it is
        self.unshared: set[str] = set()  # refused, but the table was full
        self.start = self.delay = 0.0  # of the current wait
        self.due = 0.0  # the instant at which it may go, as far as is known
        self.needs_slot = False  # whether it may go only with a slot
        self.queued_at = 0.0  # the instant at which it began to wait for a slot
        self.has_slot = False

    @property
    def overdue(self) -> float:
        """The instant at which it stops waiting for a slot, and goes without one."""
        return self.queued_at + self.verdict_timeout


class Lock:
    """What is known about one record."""

    __slots__ = ("due", "free", "leader", "queue", "refused_at")

    def __init__(self, refused_at: float) -> None:
        self.refused_at = refused_at  # instant of the most recent refusal
        self.due: float | None = None  # instant of the next probe, or of the one in progress
        self.leader: Leader | None = None
        self.queue: dict[Caller, None] = {}  # the callers that need the record
        self.free = False  # CRM accepts it; the callers in `queue` are being woken

    def expires_at(self) -> float:
        """Return the instant at which the leader loses the probe; without a leader, minus infinity."""
        if self.leader is None:
            return float("-inf")
        return max(self.refused_at, self.refused_at if self.due is None else self.due) + self.leader.verdict_timeout

    def schedule(self, delay: float) -> float:
        """Return the due instant: `delay` seconds after the refusal, unless another caller has set it already."""
        if self.due is None:
            self.due = self.refused_at + delay
        return self.due

    def pull_forward(self, due: float) -> None:
        """Have the leader probe at `due` if that is sooner, and if it can still be made to."""
        leader = self.leader
        if isinstance(leader, Caller) and leader.waiting and due < (self.due or due):
            self.due = due
            leader.due = min(leader.due, due)
            leader.wake.set()

    def refuse(self, caller: Caller, now: float) -> None:
        """Record that CRM refused the record to `caller`, who leads it if it was believed free."""
        if self.free:
            self.free, self.leader = False, caller
        if self.leader in {None, caller}:
            self.refused_at, self.due = now, None

    def unlock(self) -> None:
        """Record that CRM accepts the record."""
        self.free, self.leader, self.due = True, None, None


class Pending(NamedTuple):
    """The keys that a caller waits for, by what it may do with them."""

    leading: list[str]  # it is their leader
    free: list[str]
    leaderless: list[str]  # locked, and nobody probes
    following: list[str]  # another caller or process leads


class Locks(dict[str, Lock]):
    """The locks by key, and the queues in which callers wait for them. Holds at most `max_records`.

    An interrupt may come between any two lines. `Caller.needs` names all that must be undone: first in, last out.
    """

    __slots__ = ("_max_records",)

    def __init__(self, max_records: int) -> None:
        super().__init__()
        self._max_records = max_records

    def enqueue(self, caller: Caller, key: str) -> None:
        """Put `caller` in the queue of a lock that exists."""
        caller.needs.add(key)
        self[key].queue[caller] = None

    def dequeue(self, caller: Caller, key: str) -> None:
        """Take `caller` out of the queue of a record, and drop its lock if nobody else needs it."""
        if key in self:
            self[key].queue.pop(caller, None)
            self._drop_unneeded(key)
        caller.unshared.discard(key)
        caller.needs.discard(key)

    def refuse(self, caller: Caller, key: str, now: float) -> dict[Caller, None]:
        """Record that CRM refused a record to `caller`; return the callers to settle."""
        caller.needs.add(key)
        lock = self.get(key) or self._add(key, now)
        if lock is None:
            caller.needs.discard(key)
            caller.unshared.add(key)
            return {}
        self.enqueue(caller, key)
        was_free = lock.free
        lock.refuse(caller, now)
        return lock.queue if was_free else {}

    def unlock(self, key: str) -> dict[Caller, None]:
        """Record that CRM accepts a record; return the callers to settle."""
        lock = self.get(key)
        if lock is None:
            return {}
        lock.unlock()
        self._drop_unneeded(key)
        return lock.queue

    def release(self, key: str, leader: Leader) -> dict[Caller, None]:
        """Make a record leaderless if `leader` leads it; return the callers to settle."""
        lock = self.get(key)
        if lock is None or lock.leader is not leader:
            return {}
        lock.leader = None
        self._drop_unneeded(key)
        return lock.queue

    def grant(self, key: str, leader: Leader, due: float, now: float) -> dict[Caller, None]:
        """Make another process the leader of a record, its probe due at `due`; return the callers to settle."""
        lock = self.get(key) or self._add(key, now)
        if lock is None:
            return {}
        was_free, lock.free = lock.free, False
        lock.leader, lock.due = leader, due
        return lock.queue if was_free else {}

    def classify(self, caller: Caller, now: float) -> Pending:
        """Sort the keys that `caller` waits for. One without a lock is free, unless there was no room for it."""
        pending = Pending([], [], [], [])
        for key in caller.keys:
            lock = self.get(key)
            if lock is None:
                (pending.leading if key in caller.unshared else pending.free).append(key)
            elif lock.free:
                pending.free.append(key)
            elif lock.leader is caller:
                pending.leading.append(key)
            else:
                (pending.following if now < lock.expires_at() else pending.leaderless).append(key)
        return pending

    def _add(self, key: str, now: float) -> Lock | None:
        if len(self) >= self._max_records:
            return None
        return self.setdefault(key, Lock(now))

    def _drop_unneeded(self, key: str) -> None:
        lock = self[key]
        if not lock.queue and lock.leader is None:
            del self[key]


class WakeLimiter:
    """Limits how many callers of one origin are between wake-up and verdict."""

    __slots__ = ("_limit", "awake", "line")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.awake: set[Caller] = set()  # those with a slot
        self.line: dict[Caller, None] = {}  # those that wait for one, first come, first served

    def line_up(self, caller: Caller, now: float) -> None:
        """Put `caller` in line, unless it is there or has a slot."""
        if not caller.has_slot and caller not in self.line:
            caller.queued_at = now
            self.line[caller] = None
        self._wake_next()

    def release(self, caller: Caller) -> None:
        """Take `caller` out of the line, and give its slot, if any, to the next one."""
        self.line.pop(caller, None)
        self.awake.discard(caller)
        caller.has_slot = False
        self._wake_next()

    def _wake_next(self) -> None:
        while self.line and len(self.awake) < self._limit:
            caller = next(iter(self.line))
            del self.line[caller]
            self.awake.add(caller)
            caller.has_slot = True
            caller.wake.set()


class LockTable:
    """Applies the rules of this module to callers and locks. Not thread-safe: a registry guards it with a mutex.

    Args:
        wake_at_once: How many callers of one origin may be between wake-up and verdict.
        max_records: How many locked records are kept; further ones are not shared.
        verdict_timeout: Seconds after which a probe or a wake-up without a verdict is considered lost.
    """

    def __init__(self, wake_at_once: int, max_records: int, verdict_timeout: float) -> None:
        self.locks = Locks(max_records)
        self.paces: dict[str, WakeLimiter] = {}  # by origin
        self._wake_at_once = wake_at_once
        self._verdict_timeout = verdict_timeout
        self._seq = 0

    def join(self, wake: Wake) -> Caller:
        """Return a new caller, younger than all others; `wake` is set whenever it should look again."""
        self._seq += 1
        return Caller(wake, self._seq, self._verdict_timeout)

    def enrol(self, caller: Caller, keys: Collection[str], delay: float, now: float) -> None:
        """Begin a wait of `caller` for `keys`: as their leader for `delay` seconds, or as a follower."""
        self._withdraw(caller, caller.needs.difference(keys), now)
        self._release_slot(caller)
        caller.keys, caller.origin = tuple(keys), origin_of(keys)
        caller.start, caller.delay, caller.waiting = now, delay, True
        for key in keys:
            if key in self.locks:
                self.locks.enqueue(caller, key)
        for key in self.settle(caller, now).following:
            self.locks[key].pull_forward(now + delay)

    def settle(self, caller: Caller, now: float) -> Pending:
        """Recompute when `caller` may go; let it lead leaderless records, and line up for a slot when due."""
        pending = self.locks.classify(caller, now)
        caller.needs_slot = False
        if pending.following and pending.leading:
            self._hand_over(caller, pending.leading, now)
            pending = self.locks.classify(caller, now)
        if pending.following:
            self._follow(caller, pending, now)
        elif pending.leading or not pending.free:
            self._lead(caller, pending)
        else:
            caller.due, caller.needs_slot = now, True
        self._line_up(caller, now)
        return pending

    def may_go(self, caller: Caller, now: float) -> bool:
        """Return whether a caller, just settled, may go; without a slot only after it waited too long for one."""
        return caller.due <= now and (not caller.needs_slot or caller.has_slot or now >= caller.overdue)

    def look_again(self, caller: Caller, now: float) -> float:
        """Return the instant at which a caller that may not go should look again, unless woken before."""
        return caller.due if caller.due > now else caller.overdue

    def expected(self, caller: Caller, now: float) -> float:
        """Return the instant at which a waiting caller will probably go, or learn the result of the probe."""
        locks = (self.locks.get(key) for key in caller.keys)
        dues = [lock.due for lock in locks if lock is not None and not lock.free and lock.due is not None]
        one_more_round = now + caller.delay  # if the probe is in progress
        next_due = min((due for due in dues if due > now), default=one_more_round)
        return caller.due if now < caller.due < next_due else next_due

    def depart(self, caller: Caller, now: float) -> frozenset[str]:
        """End the wait of `caller`; return the keys to send: those that are free, or that it may probe."""
        pending = self.locks.classify(caller, now)
        for key in chain(pending.leading, pending.leaderless):
            if key in self.locks:
                self.locks.enqueue(caller, key)
                self.locks[key].leader, self.locks[key].due = caller, now
        caller.waiting = False
        if not caller.has_slot:
            self._release_slot(caller)
        return frozenset(chain(pending.leading, pending.free, pending.leaderless))

    def step(self, caller: Caller, now: float) -> tuple[frozenset[str], float]:
        """Settle `caller`; return the keys to send now, if any, and the instant at which to look again."""
        self.settle(caller, now)
        if self.may_go(caller, now):
            return self.depart(caller, now), now
        return frozenset(), self.look_again(caller, now)

    def stop(self, caller: Caller) -> None:
        """End the wait of `caller` without a result; it stays the leader of its records until it leaves."""
        caller.waiting = False
        self._release_slot(caller)

    def verdict(self, caller: Caller, locked: Collection[str], free: Collection[str], now: float) -> None:
        """Apply CRM's answer to what `caller` sent."""
        touched: dict[Caller, None] = {}
        for key in locked:
            touched.update(self.locks.refuse(caller, key, now))
        for key in free:
            touched.update(self.locks.unlock(key))
            self.locks.dequeue(caller, key)
        self.resettle(touched, now)
        self._release_slot(caller)  # last: a caller that must stop for a refusal must not be woken by this

    def leave(self, caller: Caller, now: float) -> None:
        """Remove `caller`, and hand its probes to others. Idempotent, also after an interrupt half way."""
        self.stop(caller)
        self._withdraw(caller, set(caller.needs), now)

    def resettle(self, callers: Iterable[Caller], now: float) -> None:
        """Settle those of `callers` that wait, longest waiting first; wake those that may go sooner than before."""
        for caller in sorted((one for one in callers if one.waiting), key=lambda one: one.seq):
            before = caller.due
            self.settle(caller, now)
            if caller.due < before and (caller.due > now or not caller.needs_slot):
                caller.wake.set()

    # -- what a caller does next

    def _lead(self, caller: Caller, pending: Pending) -> None:
        for key in pending.leaderless:
            self.locks.enqueue(caller, key)
            self.locks[key].leader = caller
        caller.due = min(self._due(caller, key) for key in chain(pending.leading, pending.leaderless))

    def _due(self, caller: Caller, key: str) -> float:
        lock = self.locks.get(key)
        return caller.start + caller.delay if lock is None else lock.schedule(caller.delay)

    def _follow(self, caller: Caller, pending: Pending, now: float) -> None:
        followed = [self.locks[key] for key in pending.following]
        caller.due = min(lock.expires_at() for lock in followed)
        if pending.leaderless:
            factor = min(_MAX_LEADERLESS_FACTOR, len(caller.keys) / len(pending.leaderless))
            caller.due = min(caller.due, caller.start + caller.delay * _LEADERLESS_DELAYS * factor)
        if pending.free or pending.leading:  # the latter: unshared ones
            in_progress = (lock.due for lock in followed if lock.due is not None and lock.due <= now)
            tick = max(chain([caller.start], in_progress)) + caller.delay
            if tick <= caller.due:
                caller.due, caller.needs_slot = tick, True

    # -- who waits for what

    def _withdraw(self, caller: Caller, keys: Collection[str], now: float) -> None:
        """Take `caller` out of the queues of `keys`, and hand its probes to others."""
        for key in keys:
            if key in self.locks:
                self.locks[key].queue.pop(caller, None)
        self._hand_over(caller, keys, now)
        for key in keys:
            self.locks.dequeue(caller, key)

    def _hand_over(self, caller: Caller, keys: Iterable[str], now: float) -> None:
        touched: dict[Caller, None] = {}
        for key in keys:
            touched.update(self.locks.release(key, caller))
        touched.pop(caller, None)
        self.resettle(touched, now)

    def _line_up(self, caller: Caller, now: float) -> None:
        if not caller.needs_slot or caller.due > now:
            self._release_slot(caller)
            return
        limiter = self.paces.setdefault(caller.origin, WakeLimiter(self._wake_at_once))
        limiter.line_up(caller, now)
        self._drop_unused(limiter, caller.origin)

    def _release_slot(self, caller: Caller) -> None:
        limiter = self.paces.get(caller.origin)
        if limiter is not None:
            limiter.release(caller)
            self._drop_unused(limiter, caller.origin)

    def _drop_unused(self, limiter: WakeLimiter, origin: str) -> None:
        if not limiter.awake:
            del self.paces[origin]


def origin_of(keys: Iterable[str]) -> str:
    """Return the origin that all of `keys` share."""
    return next(iter(keys)).partition("|")[0]
