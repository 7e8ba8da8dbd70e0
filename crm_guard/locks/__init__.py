"""What callers share about locked records, so that many callers cost few calls.

Threads share what they know of a lock: one asks CRM, the others wait for its result and are then
sent ten at a time (`wake_at_once`), so that the unlock does not trip CRM's concurrency limit. The
more calls wait, the sooner one of them asks: with `n` calls after `1 / sqrt(n)` of a lone one's
wait, but no sooner than a fifth of it or half a second. They take turns, so nobody's `attempts` are
spent for the others. A lock never delays another record.

With a Redis (extra `redis`) processes and hosts share it, too::

    import requests
    import crm_guard

    crm_guard.mount_guard(requests.Session(), settings={"lock_registry": "redis://127.0.0.1:6379/0"})

A call never depends on Redis: after a command that takes more than a quarter of a second in all,
each process goes on alone until Redis is back, which is logged once; and what a process that died
has left there holds back no record for more than a few seconds. `share_locks=False` has each call
ask by itself.

`python tests/benchmarks/sharing.py`, for a lock of 5 s. "Above" counts calls beyond the
unavoidable: one per caller, and two per batch, since ninety records must be written at once and ten
later. "After" is the median time from the unlock to the end of a call. The writers arrive over a
second; if all ask at the same instant, when nobody knows of the lock yet, the guard makes 70 to 100
calls.

                                            50 writers of one record   20 updates of 100 records   written
                                            calls (above), after       calls (above), after        twice
    guard                                    61  (11), 0.5 s            51 (11), 0.1 s              0
    guard, share_locks=False                150 (100), 1.4 s            60 (20), 1.3 s              0
    tenacity loop, refused records only     239 (189), 1.8 s            94 (54), 1.8 s              0
    tenacity loop, everything again         243 (193), 1.7 s           102 (62), 2.2 s              7291

A registry of your own implements `LockRegistry`, and is passed as `lock_registry=` of
`GuardAdapter`.
"""

from typing import TYPE_CHECKING, Any

from crm_guard.locks.memory import MemoryLockRegistry
from crm_guard.locks.registry import LockRegistry, Unshared, WaitContext, Waiter

if TYPE_CHECKING:
    from crm_guard.locks.redis import RedisLockRegistry

__all__ = ["LockRegistry", "MemoryLockRegistry", "RedisLockRegistry", "Unshared", "WaitContext", "Waiter"]


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name != "RedisLockRegistry":
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from crm_guard._base.imports import first_import  # noqa: PLC0415

        with first_import:  # an optional dependency
            from crm_guard.locks.redis import RedisLockRegistry  # noqa: PLC0415
        globals()[name] = RedisLockRegistry
        return RedisLockRegistry
