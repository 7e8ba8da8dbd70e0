"""What callers share about locked records, so that many callers cost few calls."""

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
