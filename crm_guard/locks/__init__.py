"""What callers share about locked records."""

from crm_guard.locks.memory import LockRegistry, MemoryLockRegistry, Unshared, Waiter

__all__ = ["LockRegistry", "MemoryLockRegistry", "Unshared", "Waiter"]
