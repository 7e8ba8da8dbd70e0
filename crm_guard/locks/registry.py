"""The interface of a lock registry: the protocols, and the registry that shares nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from crm_guard.clock import Clock, Wake


def unannounced(seconds: float) -> None:
    """No-op: for a wait that is announced to nobody."""


@dataclass(frozen=True, slots=True)
class WaitContext:
    """What a waiter needs of its call.

    Attributes:
        clock: Sleeps, and gives the instants: one scale for all waiters of a registry.
        wake: The event that the waiter sleeps on. Any thread may set it; the waiter clears it.
        interrupted: Returns whether the wait must end. Whoever makes it true sets `wake` afterwards.
        announce: Called at the start of each wait with its expected length in seconds, and again each time that the
            wait takes much longer. No mutex is held meanwhile.
    """

    clock: Clock
    wake: Wake
    interrupted: Callable[[], bool]
    announce: Callable[[float], object] = unannounced


class Waiter(Protocol):
    """One call's handle on a registry. Used by one thread."""

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

    def verdict(self, *, locked: Collection[str], free: Collection[str], retry_after: float = 0.0) -> None:
        """Report CRM's answer to keys that this call sent.

        Args:
            locked: Those that are still locked.
            free: Those that are not.
            retry_after: Seconds for which CRM asked not to send the locked ones again.
        """
        ...

    def leave(self) -> None:
        """End the call: release every duty and slot that it holds. Idempotent."""
        ...


class SteppedWaiter(Waiter, Protocol):
    """A waiter that can also be asked without blocking, by a call that waits for many things at once.

    `WaitContext.wake` is set when it should be asked again before the instant that it gave.
    """

    def begin(self, keys: Collection[str], delay: float) -> float:
        """Begin a wait, as :meth:`Waiter.wait` does; return the instant at which to look."""
        ...

    def look(self) -> tuple[frozenset[str], float]:
        """Return the keys to send now, which ends the wait; if none, the instant at which to look again."""
        ...

    def may_ask(self) -> bool:
        """Return whether this call may ask before it is due, where that costs no call: nobody else is to ask."""
        ...


class LockRegistry(Protocol):
    """What is known about locked records. Implementations are thread-safe and raise no errors of their own."""

    def __bool__(self) -> bool:
        """Return whether any record may be locked: a cheap test for the hot path, no network, no mutex."""
        ...

    def knows(self, keys: Collection[str]) -> bool:
        """Return whether all of `keys` are believed to be locked; False for an empty collection."""
        ...

    def waiter(self, context: WaitContext) -> Waiter:
        """Return the waiter of one call."""
        ...

    def close(self) -> None:
        """Release threads and connections, if any. Calls in progress continue with local knowledge."""
        ...


def known_among(registry: LockRegistry, keys: Collection[str]) -> Collection[str]:
    """Return those of `keys` that are believed to be locked, by one question where the registry can answer that."""
    known = getattr(registry, "known", None)
    return known(keys) if known is not None else [key for key in keys if registry.knows((key,))]


class Unshared:
    """Shares nothing: each call waits out its own delays. Thread-safe, stateless."""

    def __bool__(self) -> bool:
        """Return False: nothing is ever known."""
        return False

    def knows(self, keys: Collection[str]) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False."""
        return False

    def waiter(self, context: WaitContext) -> Waiter:
        """Return a waiter that sleeps its delay, then returns every key."""
        return _LoneWaiter(context)

    def close(self) -> None:
        """No-op."""


class _LoneWaiter:
    """Sleeps its delay, unless interrupted."""

    def __init__(self, context: WaitContext) -> None:
        self._context = context

    def wait(self, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        """Sleep `delay` seconds, then return all of `keys`; none if an interrupt or the deadline comes first."""
        clock, wake, interrupted = self._context.clock, self._context.wake, self._context.interrupted
        self._context.announce(delay)
        due = clock.now() + delay
        while True:
            wake.clear()
            left = min(due, deadline) - clock.now()
            if left <= 0 or interrupted():
                break
            clock.wait(wake, left)
        return frozenset() if interrupted() or due > deadline else frozenset(keys)

    def verdict(self, *, locked: Collection[str], free: Collection[str], retry_after: float = 0.0) -> None:
        """No-op."""

    def leave(self) -> None:
        """No-op."""
