"""The rules by which callers share what they know about locked records. Pure: no threads, no clock.

Fifty callers that meet one locked record need not ask CRM fifty times whether it is still locked: as in
single-flight, one of them asks, by sending its own write again, and the others wait for the answer. The rules:

1. **A caller asks when waiting has cost as much as a call** (:mod:`crm_guard.locks.pacing`): the more callers need
   its records, the sooner. It sends all that it has yet to write, but what another asks about at that moment.
2. **Each locked record has a leader**, whose duty it is to ask next; only leaders watch the clock, and callers with
   a free record. After a refusal, or when a leader leaves, the duty moves to who has asked least recently.
3. **A lock does not delay another record.** One that is known to be free counts as a whole call: its caller sends
   it after its own delay, or if an answer is awaited, after three; then it also asks about what nobody asks about.
4. **A free record wakes its callers in turn**: at most `wake_at_once` per origin are between wake-up and verdict,
   as CRM limits concurrency per organisation and app. A slot without a verdict is lost after `verdict_timeout`.
5. **No caller, no lock.** There is no clean-up thread and no expiry to tune. Beyond `max_records` a new lock is not
   shared, and its caller waits alone.

Instants and delays are in seconds. An operation touches the caller's own keys, their leaders, and the callers that
its verdict concerns. `tests/benchmarks/waits.py` shows what the rules cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard.locks import schedule
from crm_guard.locks.lock import Caller, Lock, Locks
from crm_guard.locks.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from crm_guard.clock import Wake
    from crm_guard.locks.lock import Standing


class LockTable:
    """Applies the rules of this module to callers and locks. Not thread-safe: a registry guards it with a mutex.

    Args:
        wake_at_once: How many callers of one origin may be between wake-up and verdict.
        max_records: How many locked records are kept; further ones are not shared.
        verdict_timeout: Seconds after which a question or a wake-up without a verdict is considered lost.
    """

    def __init__(self, wake_at_once: int, max_records: int, verdict_timeout: float) -> None:
        self.locks = Locks(max_records)
        self.turns = Turns(wake_at_once)
        self._verdict_timeout = verdict_timeout
        self._seq = 0

    def join(self, wake: Wake) -> Caller:
        """Return a new caller, younger than all others; `wake` is set whenever it should look again."""
        self._seq += 1
        return Caller(wake, self._seq, self._verdict_timeout)

    def enrol(self, caller: Caller, keys: Collection[str], delay: float, now: float) -> None:
        """Begin a wait of `caller` for `keys`, of `delay` seconds if it were alone."""
        self._withdraw(caller, caller.needs.difference(keys), now)
        self.turns.release(caller, now)
        caller.keys, caller.origin = tuple(keys), origin_of(keys)
        caller.start, caller.delay, caller.waiting = now, delay, True
        for key in keys:
            self.locks.enqueue(caller, key)
        for lock in self._locks_of(caller):
            if lock.asker is caller:  # it had no answer about this one
                lock.asker = None
        self._pull_forward(caller, now)
        self.settle(caller, now)

    def settle(self, caller: Caller, now: float) -> Standing:
        """Recompute when `caller` may go; let it lead what nobody leads, and line up for a slot when due."""
        for key in caller.keys:
            if key in self.locks and caller not in self.locks[key].queue:  # locked since it came
                self.locks.enqueue(caller, key)
        standing = self.locks.standing(caller, now)
        for lock in self._locks_of(caller):
            if not lock.free and now >= lock.leaderless_at(caller):
                lock.leader = caller
        caller.needs_slot = bool(standing.free)
        if not standing.open and not standing.closed:
            caller.due = now
        elif standing.leads or standing.free:
            caller.due = schedule.due(caller, self.locks)
            if caller.due <= now and standing.closed:
                caller.due = schedule.awaiting(caller, self.locks, standing, now)
        else:
            caller.due = schedule.looks_after_leaders(caller, self.locks, now)
        caller.looks_at = caller.due if caller.due > now else float("inf")
        if caller.needs_slot and caller.due <= now:
            self.turns.line_up(caller, now)
        else:
            self.turns.release(caller, now)
        return standing

    def may_go(self, caller: Caller, now: float) -> bool:
        """Return whether a caller, just settled, may go."""
        return caller.due <= now and (caller.has_slot or not caller.needs_slot)

    def look_again(self, caller: Caller, now: float) -> float:
        """Return the instant at which a caller that may not go should look again, unless woken before."""
        return caller.due if caller.due > now else self.turns.next_lost(caller.origin)

    def depart(self, caller: Caller, now: float, may_ask: Collection[str] | None = None) -> frozenset[str]:
        """End the wait of `caller`; return the keys to send: those that are free, or that it asks about.

        It asks about all that are locked and open, or those of `may_ask`. If nothing is left, it goes on waiting.
        """
        standing = self.locks.standing(caller, now)
        asking = [key for key in standing.open if may_ask is None or key in may_ask or key not in self.locks]
        if not asking and not standing.free:
            return frozenset()
        for key in asking:
            self.locks.enqueue(caller, key)
            if key in self.locks:
                self.locks[key].leader = caller
                self.locks[key].ask(caller, now)
        caller.waiting = False
        if not caller.has_slot:
            self.turns.release(caller, now)
        self._pass_on_all(caller, standing.closed, now)
        return frozenset(asking + standing.free)

    def step(self, caller: Caller, now: float) -> tuple[frozenset[str], float]:
        """Settle `caller`; return the keys to send now, if any, and the instant at which to look again."""
        self.settle(caller, now)
        if self.may_go(caller, now):
            return self.depart(caller, now), now
        return frozenset(), self.look_again(caller, now)

    def stop(self, caller: Caller, now: float) -> None:
        """End the wait of `caller` without a result; it keeps its duties until it leaves."""
        caller.waiting = False
        self.turns.release(caller, now)

    def verdict(
        self,
        caller: Caller,
        locked: Collection[str],
        free: Collection[str],
        now: float,
        retry_after: float = 0.0,
    ) -> None:
        """Apply CRM's answer to what `caller` sent; it asked not to ask again for `retry_after` seconds."""
        touched: dict[Caller, None] = {}
        caller.keys = caller.keys or tuple(locked)
        for key in locked:
            touched.update(self._refuse(caller, key, now, retry_after))
        for key in free:
            touched.update(self.unlock(key))
            self.locks.dequeue(caller, key)
        self.resettle(touched, now)
        self.turns.release(caller, now)  # last: a caller that must stop for a refusal must not be woken by this

    def leave(self, caller: Caller, now: float) -> None:
        """Remove `caller`, and hand its duties to others. Idempotent, also after an interrupt half way."""
        self.stop(caller, now)
        self._withdraw(caller, set(caller.needs), now)

    def unlock(self, key: str) -> dict[Caller, None]:
        """Record that CRM accepts a record; return the callers to settle."""
        lock = self.locks.get(key)
        if lock is None or lock.free:
            return {}
        lock.unlock()
        self.locks.drop_unneeded(key)
        return dict.fromkeys(lock.queue)

    def pass_on(self, lock: Lock) -> dict[Caller, None]:
        """Hand the duty to ask about a record to a caller that waits, if any; return the callers to settle."""
        lock.leader = lock.successor()
        return {} if lock.leader is None else {lock.leader: None}

    def resettle(self, callers: Iterable[Caller], now: float) -> None:
        """Settle those of `callers` that wait, longest waiting first; wake those that would look too late."""
        for caller in sorted((one for one in callers if one.waiting), key=lambda one: one.seq):
            before = caller.looks_at
            self.settle(caller, now)
            if caller.looks_at < before or (caller.due <= now and not caller.needs_slot):
                caller.wake.set()

    # -- who asks

    def _pull_forward(self, caller: Caller, now: float) -> None:
        """Have leaders ask sooner, as `caller` needs their records too; it leads what it would ask about sooner."""
        locks = [lock for lock in self._locks_of(caller) if lock.leader is not caller]
        self.resettle({lock.leader for lock in locks if lock.leader is not None}, now)
        alone = schedule.due(caller, self.locks)
        for lock in locks:
            if lock.leader is not None and lock.leader.waiting and alone < lock.leader.due:
                lock.leader = caller

    def _refuse(self, caller: Caller, key: str, now: float, retry_after: float) -> dict[Caller, None]:
        caller.needs.add(key)
        lock = self.locks.add(key, now)
        if lock is None:
            caller.needs.discard(key)
            caller.unshared.add(key)
            return {}
        was_free = lock.free
        lock.enqueue(caller)
        lock.refuse(caller, now, retry_after)
        touched = dict.fromkeys(lock.queue) if was_free else {}
        return {**touched, **self.pass_on(lock)} if lock.leader in {None, caller} else touched

    def _withdraw(self, caller: Caller, keys: Collection[str], now: float) -> None:
        """Take `caller` out of the queues of `keys`, and hand its duties to others."""
        touched: dict[Caller, None] = {}
        for key in keys:
            lock = self.locks.get(key)
            if lock is not None:
                touched.update(self._release(caller, lock))
            self.locks.dequeue(caller, key)
        touched.pop(caller, None)
        self.resettle(touched, now)

    def _release(self, caller: Caller, lock: Lock) -> dict[Caller, None]:
        lock.dequeue(caller)
        if lock.asker is caller:
            lock.asker = None
        return self.pass_on(lock) if lock.leader is caller else {}

    def _pass_on_all(self, caller: Caller, keys: Iterable[str], now: float) -> None:
        """Hand on the duty to ask about some records: `caller` goes, and has an answer about others only."""
        touched: dict[Caller, None] = {}
        for key in keys:
            if self.locks[key].leader is caller:
                touched.update(self.pass_on(self.locks[key]))
        self.resettle(touched, now)

    def _locks_of(self, caller: Caller) -> Iterator[Lock]:
        return (self.locks[key] for key in caller.keys if key in self.locks)


def origin_of(keys: Iterable[str]) -> str:
    """Return the origin that all of `keys` share."""
    return next(iter(keys)).partition("|")[0]
