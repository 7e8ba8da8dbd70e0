"""Commands to Redis that never raise and always end in time."""

from __future__ import annotations

import logging
import threading
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from crm_guard.locks.redis_messages import MAX_SECONDS
from crm_guard.locks.redis_scripts import CLAIM, DROP, GIVE_SLOT, RENEW, TAKE_SLOT
from crm_guard.locks.workers import PoolBusy, WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from crm_guard.clock import Clock

_log = logging.getLogger("crm_guard.locks")

_SAME_OUTAGE: Final = 60.0
"""Seconds: failures less than this apart belong to one outage."""
_THREADS: Final = 8
"""How many commands of a process run at most; each thread has a connection of its own."""

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
        self.channel = prefix + "news"
        self.process = uuid.uuid4().hex
        self.up = False
        self.owned = owned
        self._closing = False
        self._lease = round(lease * 1000)
        self._failed: float | None = None
        self._mutex = threading.Lock()
        self._workers = WorkerPool(_THREADS)
        texts = {"claim": CLAIM, "renew": RENEW, "drop": DROP, "take": TAKE_SLOT, "give": GIVE_SLOT}
        self._scripts = {name: client.register_script(text) for name, text in texts.items()}

    def claim(self, keys: Collection[str], due_in: float, latest: float, *, every: bool) -> dict[str, float]:
        """Claim the probes of `keys`: all of them or none, or (unless `every`) those that are available.

        Args:
            keys: Records.
            due_in: Seconds until we probe them.
            latest: Seconds: a claim of another process that is due later is taken over.
            every: Whether to claim none if another process has claimed one.

        Returns:
            The keys that another process has claimed, with the seconds until they are due, from 0 to `latest`.
        """
        return self._attempt(partial(self._claim, list(keys), due_in, latest, "all" if every else "some")) or {}

    def renew(self, keys: Collection[str]) -> None:
        """Prolong the claims on `keys`."""
        if keys:
            self._run("renew", keys, self.process, self._lease)

    def drop(self, kind: str, keys: Collection[str]) -> None:
        """Delete claims, and publish why: the records are `"free"`, or we gave up our claims (`"release"`)."""
        if keys:
            self._run("drop", keys, self.process, kind, self.channel, *keys)

    def take_slot(self, origin: str, caller: str, limit: int) -> bool:
        """Take, or keep, one of `limit` slots of `origin` for `caller`; return whether there was one."""
        return bool(self._run("take", [origin], caller, limit, self._lease, where="pace:") != 0)

    def release_slot(self, origin: str, caller: str) -> None:
        """Release a slot, and publish that."""
        self._run("give", [origin], caller, self.process, self.channel, origin, where="pace:")

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
        self._claim(trial, 0.0, 0.0, "all")
        self._eval("drop", trial, self.process, "release", self.channel, *trial)

    def _claim(self, names: list[str], due_in: float, latest: float, mode: str) -> dict[str, float]:
        terms = (_millis(due_in), self._lease, _millis(latest), mode, self.channel)
        return _read_claims(names, self._eval("claim", names, self.process, *terms, *names))

    def _eval(self, script: str, keys: Iterable[str], *args: Any, where: str = "lock:") -> Any:
        return self._scripts[script](keys=[self.prefix + where + key for key in keys], args=args)

    def _run(self, script: str, keys: Iterable[str], *args: Any, where: str = "lock:") -> Any:
        return self._attempt(partial(self._eval, script, keys, *args, where=where))

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


def _millis(seconds: float) -> int:
    return round(min(max(seconds, 0.0), MAX_SECONDS) * 1000)


def _read_claims(names: Sequence[str], reply: Any) -> dict[str, float]:
    """Parse the reply of the claim script; raise if it is anything else."""
    pairs = iter(reply)
    return {names[index - 1]: int(millis) / 1000 for index, millis in zip(pairs, pairs, strict=True)}
