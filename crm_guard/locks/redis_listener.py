"""The thread that keeps a registry in touch with Redis: it receives messages, sends heartbeats, and reconnects."""

from __future__ import annotations

import math
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from crm_guard.locks.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crm_guard.locks.redis_link import RedisLink

_CLOSE_TIMEOUT, _CLOSE_INTERVAL = 2.0, 0.005
"""Seconds for which connections are closed again and again, and between two tries."""
_LONGEST_RECEIVE: Final = 0.2
"""Seconds to wait for one message."""


class Target(Protocol):
    """What a listener works for."""

    def on_message(self, data: str | bytes) -> None:
        """Apply what another process published."""
        ...

    def heartbeat(self) -> None:
        """Renew what this process holds."""
        ...


class Subscription:
    """The subscription to some channels. Blocks; used by one thread at a time."""

    def __init__(self, client: Any, channels: Collection[str]) -> None:
        self._client, self._channels = client, channels
        self._pubsub: Any = None

    def open(self) -> None:
        """Subscribe."""
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(*self._channels)
        connection = self._pubsub.connection
        # As bytes, whatever the client is set to: redis-py's own parser never gets past what it cannot decode.
        connection.read_response = partial(connection.read_response, disable_decoding=True)

    def receive(self, timeout: float) -> bytes | None:
        """Return the next message, if there is one within about `timeout` seconds."""
        try:
            message = self._pubsub.get_message(timeout=timeout)
        except UnicodeDecodeError:  # redis-py 6 with hiredis decodes all the same, and does get past it
            return None
        return message["data"] if message is not None and message["type"] == "message" else None

    def close(self) -> None:
        """Return the connection to its pool, as it was. Idempotent."""
        if self._pubsub is None:
            return
        if self._pubsub.connection is not None:
            vars(self._pubsub.connection).pop("read_response", None)
        self._pubsub.close()


class Listener:
    """Keeps a registry in touch with Redis. Its thread waits for Redis no longer than a call does.

    Args:
        target: The registry; it is referenced weakly, and the thread ends once it is gone.
        link: Its commands.
        stop: Ends the thread.
        times: `retry_after` and `lease`, in seconds.

    Attributes:
        tried: Set after the first attempt to use Redis.
    """

    def __init__(self, target: Target, link: RedisLink, stop: threading.Event, times: Mapping[str, float]) -> None:
        self.tried = threading.Event()
        self._target, self._link, self._stop = weakref.ref(target), link, stop
        self._clock, self._timeout = link.clock, link.timeout
        self._subscription = partial(Subscription, link.client, link.channels)
        self._retry_after, self._heartbeat_interval = times["retry_after"], times["lease"] / 3
        self._reader = WorkerPool(1)

    def run(self) -> None:
        """Stay in touch until `stop` is set, or the registry is gone."""
        try:
            while not self._stop.is_set():
                try:
                    self._connect()
                except Exception as error:  # noqa: BLE001 - see RedisLink._attempt
                    self._link.on_failure(error)
                self.tried.set()
                self._wait_for_retry()
        finally:
            self._link.close()
            self._reader.close()
            self._disconnect()

    def _connect(self) -> None:
        """Subscribe, check Redis, and listen for as long as it works."""
        subscription = self._subscription()
        try:
            self._reader.run(subscription.open, self._timeout)
            if self._link.check():
                self.tried.set()
                self._listen(subscription)
        finally:
            self._reader.submit(subscription.close)

    def _listen(self, subscription: Subscription) -> None:
        timeout, next_heartbeat = min(self._heartbeat_interval, _LONGEST_RECEIVE), self._clock.now()
        while self._link.up and not self._stop.is_set():
            data = self._reader.run(partial(subscription.receive, timeout), timeout + self._timeout)
            if (target := self._target()) is None:
                self._stop.set()
                return
            if data is not None:
                target.on_message(data)
            if self._clock.now() >= next_heartbeat:
                next_heartbeat = self._clock.now() + self._heartbeat_interval
                target.heartbeat()
            del target

    def _wait_for_retry(self) -> None:
        """Wait for the next attempt, and until no command hangs any more: otherwise threads would pile up."""
        if (target := self._target()) is not None:
            target.heartbeat()  # those in line for a slot need none now
            del target
        naps = math.ceil(self._retry_after / self._heartbeat_interval)
        nap = max(self._retry_after / max(naps, 1), _CLOSE_INTERVAL)
        while naps > 0 or not self._idle():
            if not self._idle():
                self._link.disconnect()
            if self._stop.wait(nap):
                return
            naps -= 1
            if (target := self._target()) is None:
                self._stop.set()
                return
            target.heartbeat()  # drops what nobody needs, also while Redis is down
            del target

    def _disconnect(self) -> None:
        """Close our connections until no command hangs on one, for two seconds at most."""
        for _ in range(round(_CLOSE_TIMEOUT / _CLOSE_INTERVAL)):
            self._link.disconnect()
            if self._idle() or not self._link.owned:
                return
            time.sleep(_CLOSE_INTERVAL)

    def _idle(self) -> bool:
        return self._reader.idle and self._link.idle
