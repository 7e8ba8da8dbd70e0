"""The adapter: sends each call, looks at its answer, and leaves what met a refusal to a conversation."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self, TypeGuard, Unpack, cast, overload

import msgspec
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

from crm_guard._base.imports import first_import
from crm_guard._protocol.address import tail_finder
from crm_guard._protocol.inspection import READ_METHODS, marked
from crm_guard._transport import wire as _wire
from crm_guard._transport.fork import remember, remembered, renew_connections
from crm_guard._transport.lock_lengths import LockLengths
from crm_guard._transport.options import check_options, split_positional
from crm_guard._transport.retries import unsafe_repeats, warning_about
from crm_guard._transport.scopes import ScopeMemory
from crm_guard.clock import Clock, Stops, SystemClock
from crm_guard.locks.memory import LockRegistry, MemoryLockRegistry, Unshared
from crm_guard.settings import GuardSettings, Source, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from requests import Response
    from requests.adapters import BaseAdapter
    from urllib3 import Retry

    from crm_guard._transport.guarded_call import GuardedCall
    from crm_guard._transport.options import AdapterOptions, OwnOptions
    from crm_guard._transport.tap import Tap
    from crm_guard.events import GuardHook

_CLIENT_ERROR: Final = 400
_CHALLENGES: Final = frozenset({401, 407})
"""Where a hook authenticates (NTLM), it needs the very connection that such an answer came by."""
_CALL: Final = "GuardAdapter("
_SHARED: Final = ("stops", "scopes", "astray", "lengths")
"""What guards over different inner adapters share, and a forked process makes anew."""
_NESTED: Final = "a guard sends through another guard: waits and sends would multiply, so the inner one only sends"
_PATCHED: Final = (
    "gevent patched this process after the guard's lock registry had begun its threads, so that from here on locks "
    "are shared within this process only. Call patch_all() before the first guard is made"
)
_FOREIGN: Final = (
    "this guard was given a {kind}, and serves sessions of `requests` alone: another library would send the "
    "request, and then fail on the answer. Nothing was sent. Mount the guard on a requests.Session"
)


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
            These may be given by position, too, as `HTTPAdapter` takes them: `GuardAdapter(10, 20)`.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        TypeError: An argument is unknown, or is a setting.
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

    @overload
    def __init__(self, settings: GuardSettings | Source = None, **options: Unpack[AdapterOptions]) -> None: ...

    @overload
    def __init__(
        self,
        pool_connections: int,
        /,
        pool_maxsize: int = ...,
        max_retries: Retry | int | None = ...,
        pool_block: bool = ...,
        *,
        settings: GuardSettings | Source = None,
        **options: Unpack[OwnOptions],
    ) -> None: ...

    def __init__(
        self,
        *positional: Any,
        settings: GuardSettings | Source = None,
        hooks: Iterable[GuardHook] = (),
        lock_registry: LockRegistry | None = None,
        refresh: Callable[[PreparedRequest], object] | None = None,
        clock: Clock | None = None,
        inner: BaseAdapter | None = None,
        **http_adapter_kwargs: Any,
    ) -> None:
        settings, stock = split_positional(positional, settings)
        check_options({"lock_registry": lock_registry}, _CALL)
        self.settings = settings if isinstance(settings, GuardSettings) else load_settings(settings)
        self.hooks = tuple(hooks)
        self.refresh = refresh
        self.inner = inner
        self._clock = clock
        self._given_registry = lock_registry
        self._owns_inner = False
        try:
            super().__init__(*stock, **http_adapter_kwargs)
        except TypeError:  # a class that inherits from more than us may take more
            check_options(http_adapter_kwargs, _CALL)
            raise
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
        self.locks: LockRegistry = self._registry()
        self.tail_of = tail_finder(self.settings.path_pattern)
        self._warned = False
        self._begin()
        remember(self, self.inner)

    def _begin(self) -> None:
        """Make what the threads of one process share: `_SHARED` names it. A lock registry sees to itself."""
        self.stops = Stops()
        self.scopes = ScopeMemory()
        self.astray: dict[str, threading.Thread] = {}  # diagnoses that did not come back, by origin
        self.lengths = LockLengths() if self._clock else _process_lengths()

    def _registry(self) -> LockRegistry:
        if self._given_registry is not None:  # an empty registry is false
            return self._given_registry
        return _make_registry(self.settings, self._clock)

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
        if not isinstance(request, PreparedRequest):
            raise TypeError(_FOREIGN.format(kind=f"{type(request).__module__}.{type(request).__qualname__}"))
        start = self.tail_of(request.url or "")
        if start < 0 or (_passage.get().open and self._tell_of_nesting()):
            return self.transmit(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        options = {"stream": stream, "timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        token = self.stops.token
        call: GuardedCall | None = None
        response: Response | None = None
        try:
            if self.locks:
                call = self._call(request, start, token, options)
                if call.known_locked():
                    return call.run_after_verdict()
                call = None
            response = self.transmit(request, **options)
            body = self.readable(request, response, **options)
            if body is None or not marked(body):
                return response
            call = self._call(request, start, token, options)
            call.take(response, body)
            response = body = None  # what it has taken in, it lets go
            return call.run()
        except Exception:  # complete: what broke off an exchange has its report already
            raise
        except BaseException as exc:  # Ctrl-C, or `sys.exit()` in a hook: at any line above, and inside of it
            sent = call is None or response is not None
            with contextlib.suppress(Exception):
                call = call or self._call(request, start, token, options)
                call.interrupted(exc, response, sent=sent)
            raise

    def guards(self, url: str) -> bool:
        """Return whether `url` is that of a CRM call, by `path_pattern` and an API version in its path."""
        return self.tail_of(url) >= 0

    def close(self) -> None:
        """Drop idle connections, as the stock adapter does. Calls under way go on, waiting ones too."""
        super().close()
        if self._owns_inner and self.inner is not None:
            self.inner.close()

    def stop_waiting(self) -> None:
        """End the waits of this adapter's calls at once (`GiveUpReason.STOPPED`).

        Each call returns or raises what it has; one that waits before its first send, as its records are known to
        be locked, is sent once. Calls that begin later wait again. Safe inside a signal handler and in any thread.
        """
        self.stops.stop()

    def renew(self, like: GuardAdapter | None = None) -> None:
        """Begin anew in a forked process: its parent's connections, and what its threads held, are not its own.

        Args:
            like: A guard that has begun already, and shares all with this one but `inner`: see :meth:`around`.
        """
        renew_connections(self)
        if like is None:
            self._begin()
        else:
            vars(self).update({name: getattr(like, name) for name in _SHARED})

    def around(self, inner: BaseAdapter, *, owned: bool = False) -> Self:
        """Return a guard that sends through `inner`, and shares everything else with this one.

        Args:
            inner: The adapter to send through.
            owned: Whether closing that guard closes `inner`, too.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, inner=inner, _owns_inner=owned)
        remember(twin, inner)
        return twin

    def tapped(self, tap: Tap) -> Self:
        """Return a guard that sends as this one does, and whose own connections `tap` watches."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        choose = self.get_connection_with_tls_context
        vars(twin)["get_connection_with_tls_context"] = lambda *args, **given: tap.over(choose(*args, **given))
        return twin

    @property
    def repeats(self) -> bool:
        """Whether `max_retries` may repeat what CRM may have applied: its error tells only of the last try."""
        if isinstance(self.inner, GuardAdapter):
            return self.inner.repeats
        return bool(unsafe_repeats(getattr(self.inner or self, "max_retries", None)))

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
        passage = _Passage()
        try:
            outer = _passage.set(passage)
            try:
                passage.open = True
                response = inner.send(request, **options)
            finally:
                passage.open = False
                _passage.reset(outer)
        except BaseException:
            passage.open = False  # an interrupt may have come before the other one; closed, it may stay set
            raise
        response.connection = self  # digest auth sends its second try through this
        return response

    def _call(self, request: PreparedRequest, start: int, token: object, options: Mapping[str, Any]) -> GuardedCall:
        with first_import:
            from crm_guard._transport.guarded_call import GuardedCall  # noqa: PLC0415 (programs that meet no lock do without)

        if _outdated(self.locks):
            self._begin_greenlets()
        return GuardedCall(self, request, options, start, token)

    def readable(
        self, request: PreparedRequest, response: Response, *, stream: bool, timeout: Any, **_: Any
    ) -> bytes | None:
        """Return the body if items may be in it; read nothing that is no JSON, or belongs to a successful read."""
        status = response.status_code
        if status < _CLIENT_ERROR and request.method in READ_METHODS:
            return None
        kind = response.headers.get("Content-Type")
        if kind and "json" not in kind.lower():
            return None
        hooks = request.hooks.get("response")  # these look at the answer before the session reads it
        if hooks and status in _CHALLENGES:
            return None
        within = _wire.read_timeout(timeout) if stream else None
        return _wire.bounded_body(response, self.settings.max_inspect_bytes, unread=stream or hooks, within=within)

    def _begin_greenlets(self) -> None:
        """Go on with a lock registry that greenlets can wait for: gevent has patched `threading` since."""
        if type(self.locks) is not MemoryLockRegistry:  # it has threads, which are no greenlets
            self.locks = _make_registry(msgspec.structs.replace(self.settings, lock_registry="memory"), self._clock)
            warn(_PATCHED)
        if _outdated(self.locks):
            self.locks.reset()

    def _tell_of_nesting(self) -> bool:
        """Warn, once, that another guard is sending through this one, unknown to it. Return True."""
        if not self._warned:
            self._warned = True
            warn(_NESTED)
        return True


def _make_registry(settings: GuardSettings, clock: Clock | None) -> LockRegistry:
    """Make the registry of a guard, or find that which it shares: instants of a clock of its own are its alone."""
    if not settings.share_locks:
        return Unshared()
    pace = settings.wake_at_once
    if settings.lock_registry == "memory":
        return MemoryLockRegistry(wake_at_once=pace) if clock else _process_registry(pace)
    with first_import:  # an optional dependency
        from crm_guard.locks.redis import RedisLockRegistry, shared_registry  # noqa: PLC0415

    url, longest = settings.lock_registry, settings.wait_max
    if clock is None:
        return shared_registry(url, wake_at_once=pace, wait_max=longest)
    return RedisLockRegistry(url, wake_at_once=pace, wait_max=longest, clock=clock)


def _outdated(locks: LockRegistry) -> TypeGuard[MemoryLockRegistry]:
    """Return whether a registry has a mutex of another kind than `threading` makes now."""
    return isinstance(locks, MemoryLockRegistry) and type(locks.mutex) is not type(threading.Lock())


@functools.cache
def _process_lengths() -> LockLengths:
    """Return what all adapters of the process have seen of lock lengths."""
    return LockLengths()


@functools.cache
def _process_registry(wake_at_once: int) -> MemoryLockRegistry:
    """Return the registry that all adapters of the process share: many programs use one session per thread."""
    return MemoryLockRegistry(wake_at_once=wake_at_once)


def _renew_all() -> None:
    """Have every guard of a forked process begin anew, and all that a guard sends through."""
    _process_lengths.cache_clear()  # a mutex that was held at the fork stays held in the child
    first: dict[Stops, GuardAdapter] = {}
    for adapter in remembered():
        if isinstance(adapter, GuardAdapter):
            known = first.setdefault(adapter.stops, adapter)
            adapter.renew(None if known is adapter else known)
        else:
            renew_connections(adapter)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


class _Passage:
    """One send through a guard's inner adapter.

    Attributes:
        open: Whether it is under way. A context that was copied meanwhile may outlive it, as that of a greenlet or
            a task that was begun inside.
    """

    open = False


_passage: Final = ContextVar("crm_guard_passage", default=_Passage())  # noqa: B039 (this one is never opened)
"""The innermost send through an inner adapter that this thread, task or greenlet is in, or came from."""


def warn_of_multiplied_sends(*layers: BaseAdapter | None) -> bool:
    """Warn, once, if a layer below the guard repeats by status and may repeat a write; return whether it may."""
    text = next(filter(None, (warning_about(getattr(layer, "max_retries", None)) for layer in layers)), "")
    if text:
        warn(text)
    return bool(text)


def warn(message: str) -> None:
    """Warn, at the line of the program that called us, be it through `requests`."""
    with first_import:
        import inspect  # noqa: PLC0415 (costs more than the guard does, and is rarely needed)

    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("crm_guard", "requests"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
