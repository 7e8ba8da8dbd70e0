"""The adapter: the only file that sends and waits. What to do is decided by the pure modules around it."""

from __future__ import annotations

import functools
import re
import warnings
from typing import TYPE_CHECKING, Any, Final, Self

from requests.adapters import HTTPAdapter
from urllib3 import Retry

from crm_guard import _wire
from crm_guard._approval import ScopeMemory
from crm_guard._clock import Clock, Interrupts, SystemClock
from crm_guard._conversation import GuardedCall
from crm_guard._endpoints import READ_METHODS
from crm_guard._envelope import MARK
from crm_guard.locks import LockRegistry, Unshared

try:
    from crm_guard.locks import MemoryLockRegistry
except ImportError:
    MemoryLockRegistry = lambda wake_at_once: Unshared()
from crm_guard.settings import GuardSettings, Source, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter

    from crm_guard.events import GuardHook

_CLIENT_ERROR: Final = 400


class GuardAdapter(HTTPAdapter):
    """A `requests` transport adapter that waits out CRM's passing locks, and explains its other refusals.

    Mount it on a session; URLs that are no CRM calls pass as if it were a plain `HTTPAdapter`. A CRM call whose
    records are locked by an image check waits and is sent again, but only for the records that CRM refused. One
    adapter may be used from any number of threads. The caller's request is never changed.

    `Response.elapsed` covers the waits too; `get_report(response).waited` tells them apart.

    Args:
        settings: The policy; a mapping or the path of a TOML file is read as `load_settings` reads it, and None
            means `load_settings()`.
        hooks: Called with each `GuardEvent`, in the thread of the call.
        lock_registry: Where calls share what they know of a lock; None means as the settings say.
        refresh: Called with our copy of the request before every resend, to renew `Authorization` after a wait.
        clock: Source of time; for tests.
        inner: Another adapter to send through instead of our own connection pool. It stays the caller's to close.
        **http_adapter_kwargs: For `HTTPAdapter`: `pool_connections`, `pool_maxsize`, `max_retries`, `pool_block`.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
    """

    __attrs__: Final = [  # type: ignore[misc] # what a pickle carries: HTTPAdapter's own convention
        *HTTPAdapter.__attrs__,
        "settings",
        "hooks",
        "refresh",
        "inner",
        "_clock",
        "_given_registry",
        "_owns_inner",
    ]

    def __init__(
        self,
        settings: GuardSettings | Source = None,
        *,
        hooks: Iterable[GuardHook] = (),
        lock_registry: LockRegistry | None = None,
        refresh: Callable[[PreparedRequest], object] | None = None,
        clock: Clock | None = None,
        inner: BaseAdapter | None = None,
        **http_adapter_kwargs: Any,
    ) -> None:
        self.settings = settings if isinstance(settings, GuardSettings) else load_settings(settings)
        self.hooks = tuple(hooks)
        self.refresh = refresh
        self.inner = inner
        self._clock = clock
        self._given_registry = lock_registry
        self._owns_inner = False
        super().__init__(**http_adapter_kwargs)
        _warn_of_multiplied_sends(self, inner)
        self._assemble()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc] # types-requests leaves it out
        self._assemble()

    def _assemble(self) -> None:
        """Make what cannot be pickled or shared."""
        self.clock: Clock = self._clock or SystemClock()
        self.interrupts = Interrupts()
        self.scopes = ScopeMemory()
        self.locks: LockRegistry = self._registry()
        self._crm = re.compile(self.settings.path_pattern)

    def _registry(self) -> LockRegistry:
        if self._given_registry is not None:  # an empty registry is false
            return self._given_registry
        return _make_registry(self.settings, own=self._clock is not None)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; where CRM refuses records for a passing lock, wait and send these again.

        Raises:
            RecordLockedError: Records are locked, and CRM applied nothing of the call (see `raise_on`).
            NotApprovedError: Records wait for a person, and CRM applied nothing of the call (see `raise_on`).
            GuardError: A resend failed in transport after other records had their results: see `__cause__`.
            requests.RequestException: As from any adapter.
        """
        options = {"stream": stream, "timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        start = self._behind_version(request.url or "")
        if start < 0:
            return self.transmit(request, options)
        if self.locks:
            call = GuardedCall(self, request, options, start)
            if call.known_locked():
                return call.run_after_verdict()
        response = self.transmit(request, options)
        body = self.refusal(request, response, stream=stream)
        return response if body is None else GuardedCall(self, request, options, start).run(response, body)

    def close(self) -> None:
        """Close the connections, and end every wait under way (`GiveUpReason.CLOSED`). The adapter stays usable."""
        self.interrupts.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close the connections, and let calls under way go on."""
        super().close()
        if self._owns_inner and self.inner is not None:
            self.inner.close()
        if self._given_registry is None:
            self.locks.close()

    def adopt(self, inner: BaseAdapter) -> Self:
        """Send through `inner` from now on, and close it when closed. For an adapter not in use yet."""
        self.inner, self._owns_inner = inner, True
        _warn_of_multiplied_sends(self, inner)
        return self

    def transmit(self, request: PreparedRequest, options: Mapping[str, Any]) -> Response:
        """Send once, without looking at the answer."""
        if self.inner is None:
            return super().send(request, **options)
        if isinstance(self.inner, GuardAdapter):  # two guards would multiply waits and sends
            response = self.inner.transmit(request, options)
        else:
            response = self.inner.send(request, **options)
        response.connection = self  # digest auth sends its second try through this
        return response

    def refusal(self, request: PreparedRequest, response: Response, *, stream: bool) -> bytes | None:
        """Return the body if it may hold a guarded item."""
        body = self.readable(request, response, stream=stream)
        return body if body is not None and MARK in body else None

    def readable(self, request: PreparedRequest, response: Response, *, stream: bool) -> bytes | None:
        """Return the body if items may be in it; read nothing that is no JSON, or belongs to a successful read."""
        if response.status_code < _CLIENT_ERROR and request.method in READ_METHODS:
            return None
        kind = response.headers.get("Content-Type")
        if kind and "json" not in kind.lower():
            return None
        return _wire.bounded_body(response, self.settings.max_inspect_bytes, stream=stream)

    def _behind_version(self, url: str) -> int:
        """Return where the part behind `/crm/v8/` begins, -1 where the URL is no CRM call."""
        path = url.find("/", 8)  # behind the scheme's own slashes
        found = self._crm.match(url, path) if path > 0 else None
        return found.end() if found else -1


def _make_registry(settings: GuardSettings, *, own: bool) -> LockRegistry:
    if not settings.share_locks:
        return Unshared()
    if settings.lock_registry != "memory":
        from crm_guard.redis_locks import RedisLockRegistry  # noqa: PLC0415 (an optional dependency)

        return RedisLockRegistry(settings.lock_registry, wake_at_once=settings.wake_at_once)
    # Instants of a clock of its own mean nothing to other adapters.
    return (
        MemoryLockRegistry(wake_at_once=settings.wake_at_once) if own else _process_registry(settings.wake_at_once)
    )


@functools.cache
def _process_registry(wake_at_once: int) -> MemoryLockRegistry:
    """Return the registry that all adapters of the process share: many programs use one session per thread."""
    return MemoryLockRegistry(wake_at_once=wake_at_once)


def _warn_of_multiplied_sends(adapter: HTTPAdapter, inner: BaseAdapter | None) -> None:
    """Warn where a layer below would repeat what this one repeats."""
    for layer in (adapter, inner):
        retries = getattr(layer, "max_retries", None)
        if isinstance(retries, Retry) and retries.status_forcelist and retries.total:
            message = (
                "max_retries repeats requests by status (status_forcelist) under the guard: sends multiply, and "
                "a write that CRM applied may be sent again. Use Retry(..., status_forcelist=()) for CRM."
            )
            warnings.warn(message, stacklevel=4)
    if isinstance(inner, GuardAdapter):
        warnings.warn("a guard inside a guard: the inner one only sends", stacklevel=4)
