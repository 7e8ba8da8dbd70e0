"""Which lock registry a guard uses."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Final, TypeGuard

import msgspec

from crm_guard._base.imports import first_import
from crm_guard._transport.advice import warn
from crm_guard.locks import LockRegistry, MemoryLockRegistry, Unshared

if TYPE_CHECKING:
    from crm_guard.clock import Clock
    from crm_guard.settings import GuardSettings

_PATCHED: Final = (
    "gevent patched this process after the guard's lock registry had started its threads, so that from here on "
    "locks are shared within this process only. Call patch_all() before the first guard is made"
)


def make_registry(settings: GuardSettings, clock: Clock | None) -> LockRegistry:
    """Make the registry of a guard, or return the one that it shares with others.

    Args:
        settings: The policy.
        clock: The guard's own clock, whose instants no other guard shares; None for the system's.
    """
    if not settings.share_locks:
        return Unshared()
    at_once = settings.wake_at_once
    if settings.lock_registry == "memory":
        return MemoryLockRegistry(wake_at_once=at_once) if clock else _process_registry(at_once)
    with first_import:  # an optional dependency
        from crm_guard.locks.redis import RedisLockRegistry, shared_registry  # noqa: PLC0415

    url, longest = settings.lock_registry, settings.wait_max
    if clock is None:
        return shared_registry(url, wake_at_once=at_once, wait_max=longest)
    return RedisLockRegistry(url, wake_at_once=at_once, wait_max=longest, clock=clock)


@functools.cache
def _process_registry(wake_at_once: int) -> MemoryLockRegistry:
    """Return the registry that all adapters of the process share: many programs use one session per thread."""
    return MemoryLockRegistry(wake_at_once=wake_at_once)


def blocks_greenlets(locks: LockRegistry) -> TypeGuard[MemoryLockRegistry]:
    """Return whether a registry has a mutex of another kind than `threading` makes now: gevent patched it since."""
    return isinstance(locks, MemoryLockRegistry) and type(locks.mutex) is not type(threading.Lock())


def for_greenlets(locks: MemoryLockRegistry, settings: GuardSettings, clock: Clock | None) -> LockRegistry:
    """Return a registry that greenlets can wait for, in place of one that :func:`blocks_greenlets`."""
    renewed: LockRegistry = locks
    if type(locks) is not MemoryLockRegistry:  # it has threads, which are not greenlets
        renewed = make_registry(msgspec.structs.replace(settings, lock_registry="memory"), clock)
        warn(_PATCHED)
    if blocks_greenlets(renewed):
        renewed.reset()
    return renewed
