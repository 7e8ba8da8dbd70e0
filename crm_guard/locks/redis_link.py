"""Commands to Redis that never raise and always end in time."""

from __future__ import annotations

import logging
import threading
import uuid
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from crm_guard.locks.redis_messages import make_message
from crm_guard.locks.redis_scripts import CLAIM, DROP, GIVE_SLOT, RENEW, TAKE_SLOTS
from crm_guard.locks.workers import PoolBusy, WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from crm_guard.clock import Clock

_log = logging.getLogger("crm_guard.locks")

_SAME_OUTAGE: Final = 60.0
"""Seconds: failures less than this apart belong to one outage."""
_THREADS: Final = 8
"""How many commands of a process run at most; each thread has a connection of its own."""

_MOST_KEYS: Final = 500
"""Records of a message, and calls of a command, at most."""

_Result = TypeVar("_Result")


class RedisLink:
    """Commands that never raise: while Redis is down, each returns what a process alone would get. Thread-safe.

    Args:
        client: A `redis.Redis`.
        prefix: Put before every key and channel.
        lease: Seconds for which a claim or a slot outlives the most recent heartbeat.
        timeout: Seconds that any command may take in all.
        clock: Measures the time between failures.
        owned: Whether the client is ours alone, so that its connections may be closed.
    """

    def __init__(
        self, client: Any, prefix: str, *, lease: float, timeout: float, clock: Clock, owned: bool
    ) -> None:
        self.client, self.prefix, self.clock, self.timeout = client, prefix, clock, timeout
        self.process = uuid.uuid4().hex
        self.channel = prefix + "news"
        self.channels = (self.channel, f"{self.channel}:{self.process}")
        self.up = False
        self.owned = owned
        self._closing = False
        self._lease = round(lease * 1000)
        self._failed: float | None = None
        self._mutex = threading.Lock()
        self._workers = WorkerPool(_THREADS)
        texts = {"claim": CLAIM, "renew": RENEW, "drop": DROP, "take": TAKE_SLOTS, "give": GIVE_SLOT}
        self._scripts = {name: client.register_script(text) for name, text in texts.items()}

    def claim(self, keys: Collection[str]) -> list[str]:
        """Claim the right to ask about `keys`; return those that another process has claimed."""
        return self._attempt(partial(self._claim, list(keys))) or []

    def renew(self, keys: Collection[str]) -> None:
        """Prolong the claims on `keys`."""
        if keys:
            self._attempt(partial(self._on_locks, "renew", keys, self._lease))

    def drop(self, kind: str, keys: Collection[str], calls: Collection[float] = (), after: float = 0.0) -> None:
        """Delete our claims on records, and publish why: `"free"`, `"locked"`, or `"release"` without an answer.

        Args:
            kind: Why. The claim on a free record is deleted whoever has it.
            keys: The records.
            calls: How many calls here need each of them, where that is told.
            after: Seconds for which CRM asked not to ask again.
        """
        if keys:
            message = make_message(self.process, kind, keys, calls, after)
            self._attempt(partial(self._on_locks, "drop", keys, kind, self.channel, message))

    def tell(self, needs: Mapping[str, float]) -> None:
        """Publish how many calls here need some records."""
        for some in batched(needs.items(), _MOST_KEYS):
            message = make_message(self.process, "need", [key for key, _ in some], [calls for _, calls in some])
            self._attempt(partial(self.client.publish, self.channel, message))

    def take_slots(self, origin: str, calls: Sequence[str], limit: int) -> set[str]:
        """Keep or take one of `limit` slots of `origin` for each of `calls`, or line up.

        Returns:
            The calls of this process that have a slot now: of `calls`, and any other whose turn it is.
        """
        granted: set[str] = set()
        for some in batched(calls, _MOST_KEYS):
            found = self._attempt(partial(self._on_slots, "take", origin, limit, some))
            granted.update(some if found is None else found)
        return granted

    def release_slot(self, origin: str, call: str, limit: int) -> set[str]:
        """Release a slot, or leave the line; return the calls of this process that got one by that."""
        return self._attempt(partial(self._on_slots, "give", origin, limit, [call])) or set()

    def expect_failures(self) -> None:
        """Do not report failures from now on: the connections are about to be closed."""
        self._closing = True

    def wake_listener(self) -> None:
        """Publish an empty message, so that our own listener stops waiting for one."""
        self._attempt(lambda: self.client.publish(self.channel, "{}"))

    def on_failure(self, error: Exception) -> None:
        """Stop using Redis; warn once per outage."""
        with self._mutex:
            self.up = False
            if self._closing:  # we closed the connection ourselves
                return
            before, self._failed = self._failed, self.clock.now()
            if before is not None and self._failed - before < _SAME_OUTAGE:
                return
        _log.warning(
            "Redis fails (%s): locks are shared within this process only until it is back", type(error).__name__
        )

    def check(self) -> bool:
        """Try to read and write; use Redis from now on if that works. Return whether it does."""
        try:
            self._workers.run(self._write_and_delete, self.timeout)
        except Exception as error:  # noqa: BLE001 - see `_attempt`
            self.on_failure(error)
        else:
            self.up = True
        return self.up

    @property
    def idle(self) -> bool:
        """Whether no command is running, not even one that nobody waits for any more."""
        return self._workers.idle

    def disconnect(self) -> None:
        """Close our connections, so that a command that hangs on one ends. Those of a client not ours stay open.

        It may miss a command that is about to connect, or one about to read whose file descriptor has been reused.
        So it is repeated, and every single read has a timeout.
        """
        if self.owned:
            with suppress(Exception):
                self.client.connection_pool.disconnect()

    def close(self) -> None:
        """Stop using Redis for good, and end the threads."""
        self.expect_failures()
        self.up = False
        self._workers.close()

    def _write_and_delete(self) -> None:
        trial = ["trial|" + self.process]
        self._claim(trial)
        self._on_locks(
            "drop", trial, "release", self.channel, make_message(self.process, "release", trial, [0.0], 0.0)
        )

    def _claim(self, names: list[str]) -> list[str]:
        return _chosen(names, self._on_locks("claim", names, self._lease, self.channel, *names))

    def _on_locks(self, script: str, names: Iterable[str], *args: Any) -> Any:
        return self._eval(script, [f"{self.prefix}lock:{name}" for name in names], self.process, *args)

    def _on_slots(self, script: str, origin: str, limit: int, calls: Sequence[str]) -> set[str]:
        terms = (limit, self._lease, f"{self.prefix}alive:", self.channel, self.process)
        found = self._eval(script, [f"{self.prefix}{kind}:{origin}" for kind in ("pace", "line")], *terms, *calls)
        return {name if isinstance(name, str) else name.decode() for name in found}

    def _eval(self, script: str, keys: list[str], *args: Any) -> Any:
        return self._scripts[script](keys=[_encoded(key) for key in keys], args=[_encoded(arg) for arg in args])

    def _attempt(self, command: Callable[[], _Result]) -> _Result | None:
        if not self.up:
            return None
        try:
            return self._workers.run(command, self.timeout)
        except PoolBusy:  # too many commands at once, Redis may be fine: this call does without
            return None
        except Exception as error:  # noqa: BLE001 - no failure of Redis may fail a CRM call
            self.on_failure(error)
            return None


def _encoded(value: Any) -> Any:
    """Return a text as bytes, whatever it is: a record id may be no proper Unicode."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def batched(items: Iterable[_Result], size: int) -> Iterator[list[_Result]]:
    """Return the items in lists of at most `size`."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _chosen(names: Sequence[str], indices: Any) -> list[str]:
    """Return the names at `indices`, counted from 1; raise if a script returned anything else."""
    if not all(1 <= index <= len(names) for index in indices):
        raise ValueError(indices)
    return [names[index - 1] for index in indices]
