"""The adapter: the only file that sends and waits. What to do is decided by the pure modules around it."""

from __future__ import annotations

import functools
import os
import re
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, Self, cast

from requests.adapters import HTTPAdapter
from urllib3 import Retry

from crm_guard import _wire
from crm_guard._clock import Clock, Interrupts, SystemClock
from crm_guard._glance import READ_METHODS, marked
from crm_guard._scopes import ScopeMemory
from crm_guard._waiting import LockLengths
from crm_guard.locks import LockRegistry, MemoryLockRegistry, Unshared
from crm_guard.settings import GuardSettings, Source, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter

    from crm_guard._conversation import GuardedCall
    from crm_guard.events import GuardHook

_CLIENT_ERROR: Final = 400
_NESTED: Final = "a guard sends through another guard: waits and sends would multiply, so the inner one only sends"
_POOL: Final = ("_pool_connections", "_pool_maxsize", "_pool_block")


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
        warn_of_multiplied_sends(self, inner)
        if isinstance(inner, GuardAdapter):
            warn(_NESTED)
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
        self.lengths = LockLengths() if self._clock else _process_lengths()
        self._crm = re.compile(self.settings.path_pattern)
        self._warned = False

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
        start = self._behind_version(request.url or "")
        guarded = start >= 0 and not (_nesting.guarded and self._tell_of_nesting())
        if guarded and self.locks:
            call = self._call(
                request, start, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
            if call.known_locked():
                return call.run_after_verdict()
        response = self.transmit(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        body = self.readable(request, response, stream=stream) if guarded else None
        if body is None or not marked(body):
            return response
        call = self._call(request, start, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        return call.run(response, body)

    def close(self) -> None:
        """Close the connections, and end every wait under way (`GiveUpReason.CLOSED`). The adapter stays usable."""
        self.interrupts.close()
        super().close()
        if self._owns_inner and self.inner is not None:
            self.inner.close()
        self._close_registry()

    def retire(self) -> None:
        """Let go of idle connections and of the lock registry. Calls under way go on, also those that wait."""
        # A new pool, and not a cleared one: a call that is about to take a connection would fail with the old one.
        self.proxy_manager = {}
        self.init_poolmanager(*(getattr(self, name) for name in _POOL))
        self._close_registry()

    def renew(self) -> None:
        """Begin anew in a forked process: its parent's connections and threads are not its own."""
        self.__setstate__({name: getattr(self, name, None) for name in self.__attrs__})

    def around(self, inner: BaseAdapter, *, owned: bool = False) -> Self:
        """Return a guard that sends through `inner`, and shares everything else with this one.

        Args:
            inner: The adapter to send through.
            owned: Whether closing that guard closes `inner`, too.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, inner=inner, _owns_inner=owned)
        return twin

    @property
    def repeats(self) -> bool:
        """Whether `max_retries` may send a request more than once: its error tells only of the last try."""
        if isinstance(self.inner, GuardAdapter):
            return self.inner.repeats
        retries = getattr(self.inner or self, "max_retries", None)
        return isinstance(retries, Retry) and (retries.total is None or retries.total > 0)

    def transmit(
        self,
        request: PreparedRequest,
        *,
        stream: bool,
        timeout: Any,
        verify: bool | str,
        cert: Any,
        proxies: Mapping[str, str] | None,
    ) -> Response:
        """Send once, without looking at the answer."""
        send = super().send if self.inner is None else self._send_through
        return send(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)

    def _send_through(self, request: PreparedRequest, **options: Any) -> Response:
        """Send through the inner adapter."""
        inner = cast("BaseAdapter", self.inner)
        if isinstance(inner, GuardAdapter):
            return inner.transmit(request, **options)
        outermost = not _nesting.guarded
        try:
            _nesting.guarded = True
            response = inner.send(request, **options)
        finally:
            _nesting.guarded = not outermost
        response.connection = self  # digest auth sends its second try through this
        return response

    def _call(self, request: PreparedRequest, start: int, **options: Any) -> GuardedCall:
        from crm_guard._conversation import GuardedCall  # noqa: PLC0415 (programs that meet no lock do without)

        return GuardedCall(self, request, options, start)

    def readable(self, request: PreparedRequest, response: Response, *, stream: bool) -> bytes | None:
        """Return the body if items may be in it; read nothing that is no JSON, or belongs to a successful read."""
        if response.status_code < _CLIENT_ERROR and request.method in READ_METHODS:
            return None
        kind = response.headers.get("Content-Type")
        if kind and "json" not in kind.lower():
            return None
        return _wire.bounded_body(response, self.settings.max_inspect_bytes, stream=stream)

    def _close_registry(self) -> None:
        if self._given_registry is None:
            self.locks.close()

    def _tell_of_nesting(self) -> bool:
        """Warn, once, that another guard is sending through this one, unknown to it. Return True."""
        if not self._warned:
            self._warned = True
            warn(_NESTED)
        return True

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
def _process_lengths() -> LockLengths:
    """Return what all adapters of the process have seen of lock lengths."""
    return LockLengths()


@functools.cache
def _process_registry(wake_at_once: int) -> MemoryLockRegistry:
    """Return the registry that all adapters of the process share: many programs use one session per thread."""
    return MemoryLockRegistry(wake_at_once=wake_at_once)


if hasattr(os, "register_at_fork"):  # a mutex that was held at the fork stays held in the child
    os.register_at_fork(after_in_child=_process_registry.cache_clear)
    os.register_at_fork(after_in_child=_process_lengths.cache_clear)


class _Nesting(threading.local):
    """Whether this thread is inside a guard's inner adapter."""

    guarded = False


_nesting: Final = _Nesting()


def warn_of_multiplied_sends(*layers: BaseAdapter | None) -> bool:
    """Warn, once, if a layer below the guard would repeat what the guard repeats; tell whether it would."""
    multiplied = any(_repeats_by_status(layer) for layer in layers)
    if multiplied:
        warn(
            "max_retries repeats requests by status (status_forcelist) under the guard: sends multiply, and a "
            "write that CRM applied may be sent again. For CRM, use "
            "Retry(connect=3, read=False, other=0, respect_retry_after_header=False)."
        )
    return multiplied


def warn(message: str) -> None:
    """Warn, at the line of the program that called us, be it through `requests`."""
    import inspect  # noqa: PLC0415 (costs more than the guard does, and is rarely needed)

    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("crm_guard", "requests"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _repeats_by_status(layer: BaseAdapter | None) -> bool:
    retries = getattr(layer, "max_retries", None)
    return (
        isinstance(retries, Retry)
        and bool(retries.status_forcelist)
        and all(limit is None or limit > 0 for limit in (retries.total, retries.status))
    )
