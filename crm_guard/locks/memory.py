"""The registry of one process: threads share locks through one table in memory.

Decisions are taken under one mutex, and every wait happens outside it.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from crm_guard.locks import schedule
from crm_guard.locks.table import LockTable

if TYPE_CHECKING:
    from collections.abc import Collection

    from crm_guard.locks.registry import WaitContext, Waiter

_MIN_SLACK = 1.0
"""Seconds, at least, by which a wait exceeds its announced length before it is announced again."""

_registries: weakref.WeakSet[MemoryLockRegistry] = weakref.WeakSet()


class MemoryLockRegistry:
    """Shares locks among the threads of one process. Thread-safe.

    A copy, a pickle, and a forked child start empty.

    Args:
        wake_at_once: How many calls of one origin an unlock wakes together, at least 1.
        max_records: How many locked records are kept; further ones are not shared.
        verdict_timeout: Seconds after which a question or a wake-up without a verdict is considered lost.

    Raises:
        ValueError: `wake_at_once` is below 1.
    """

    def __init__(self, *, wake_at_once: int = 10, max_records: int = 10_000, verdict_timeout: float = 30.0) -> None:
        if wake_at_once < 1:
            message = f"wake_at_once={wake_at_once!r} must be at least 1"
            raise ValueError(message)
        self._options: dict[str, Any] = {
            "wake_at_once": wake_at_once,
            "max_records": max_records,
            "verdict_timeout": verdict_timeout,
        }
        self.reset()
        _registries.add(self)

    def reset(self) -> None:
        """Start empty, with a new mutex: in a forked child, the calls that the parent knew do not exist."""
        self.mutex = threading.Lock()
        self.table = LockTable(**self._options)

    def __bool__(self) -> bool:
        """Return whether any record may be locked."""
        return bool(self.table.locks)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._options), ()

    def knows(self, keys: Collection[str]) -> bool:
        """Return whether all of `keys` are believed to be locked; False for an empty collection."""
        with self.mutex:
            locks = [self.table.locks.get(key) for key in keys]
        return bool(locks) and all(lock is not None and not lock.free for lock in locks)

    def known(self, keys: Collection[str]) -> Collection[str]:
        """Return those of `keys` that are believed to be locked."""
        locks = self.table.locks
        with self.mutex:
            return [key for key in keys if key in locks and not locks[key].free]

    def waiter(self, context: WaitContext) -> Waiter:
        """Return the waiter of one call."""
        return SharedWaiter(self, context)

    def close(self) -> None:
        """No-op: there is no thread and no connection."""


class SharedWaiter:
    """One call's handle on a :class:`MemoryLockRegistry`. Used by one thread."""

    def __init__(self, registry: MemoryLockRegistry, context: WaitContext) -> None:
        self._clock, self._wake = context.clock, context.wake
        self._interrupted, self._announce = context.interrupted, context.announce
        self._started = self._announce_next = 0.0
        self._mutex, self._table = registry.mutex, registry.table
        with self._mutex:
            self._caller = self._table.join(context.wake)

    def wait(self, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        """Block until some of `keys` should be sent; see :meth:`Waiter.wait`."""
        if not keys:
            return frozenset()
        self._enter(keys, delay)
        self._started = self._announce_next = self._clock.now()
        while True:
            self._wake.clear()
            going, again = self.look()
            now = self._clock.now()
            if going or now >= deadline or self._interrupted():
                break
            self._sleep(min(again, deadline))
        if going and not self._interrupted():
            return going
        with self._mutex:
            self._table.stop(self._caller, self._clock.now())
        return frozenset()

    def begin(self, keys: Collection[str], delay: float) -> float:
        """Begin a wait without blocking; see :meth:`SteppedWaiter.begin`."""
        self._enter(keys, delay)
        with self._mutex:
            return min(self._caller.looks_at, self._clock.now() + delay)

    def may_ask(self) -> bool:
        """Return whether this call may ask before it is due; see :meth:`SteppedWaiter.may_ask`."""
        caller, locks, now = self._caller, self._table.locks, self._clock.now()
        with self._mutex:
            return all(locks[key].may_be_asked(caller, now) for key in caller.keys if key in locks)

    def verdict(self, *, locked: Collection[str], free: Collection[str], retry_after: float = 0.0) -> None:
        """Report CRM's answer to keys that this call sent; see :meth:`Waiter.verdict`."""
        with self._mutex:
            self._table.verdict(self._caller, locked, free, self._clock.now(), retry_after)

    def leave(self) -> None:
        """End the call: hand its duties to others, and release its slot. Idempotent."""
        with self._mutex:
            self._table.leave(self._caller, self._clock.now())

    def _sleep(self, until: float) -> None:
        """Sleep until the instant `until`, or less if woken; announce the wait, and again if it takes longer."""
        while not self._wake.is_set() and (now := self._clock.now()) < until:
            if now >= self._announce_next:
                with self._mutex:
                    end = min(schedule.expected(self._caller, self._table.locks, now), until)
                self._announce_next = end + max(_MIN_SLACK, end - self._started)
                self._announce(end - now)
            self._clock.wait(self._wake, min(until, self._announce_next) - now)

    def _enter(self, keys: Collection[str], delay: float) -> None:
        with self._mutex:
            self._table.enrol(self._caller, keys, delay, self._clock.now())

    def look(self) -> tuple[frozenset[str], float]:
        """Return the keys to send now, if any, and the instant to look again; see :meth:`SteppedWaiter.look`."""
        with self._mutex:
            return self._table.step(self._caller, self._clock.now())


def forget_locks() -> None:
    """Have the registries of the process that share with no other one start empty. Calls under way keep theirs."""
    for registry in list(_registries):
        if type(registry) is MemoryLockRegistry:
            registry.reset()


def _reset_all() -> None:
    for registry in list(_registries):
        registry.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
