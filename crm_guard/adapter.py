"""The adapter: sends each call, inspects its answer, and hands a call that met a refusal to a driver.

How it works:

    PreparedRequest -> GuardAdapter.send -> pool, or `inner` -> Response -> nothing guarded: this object
                                                                  |
                                                                  v  a refusal
    _protocol/   Conversation   which records did CRM refuse, beyond doubt? send which again, when?
                                what is the result? It asks: Send, Wait, Share (what is known of a lock),
                                Ask (for approval states), Tell (the hooks)
    _transport/  Driver         performs each step on `requests`, the clock, the locks and the hooks;
                                returns one answer

The conversation is a generator without I/O, clock or randomness; the driver decides nothing. A body
that is not JSON, or belongs to a successful read, is never read. One adapter serves any number of
threads.

What is sent again: for create, update, upsert, delete by `ids`, mass update, mass delete, add and
remove tags, change owner, and assign and remove territories, only the records that CRM refused.
Single records, share, convert and images are sent again as a whole, and only while CRM refuses all
of the call. Composite requests, `cvid` jobs and mass convert are never sent again: their answers do
not show what was applied.

Limits:

- A call takes at most its first send, `timeout`, one more send that began within it, and 5 seconds
  of diagnosis; a send takes what `requests` allows: the connect timeout, and the read timeout
  between any two bytes. A Redis that hangs adds a quarter of a second, once.
- With `stream=True` an answer is inspected for no longer than the read timeout, checked between two
  pieces of it, and then returned unmodified. No more of a body is decompressed than
  `max_inspect_bytes` (with `br`, that takes Brotli 1.2: urllib3 warns of older ones).
- A diagnosis is sent by a thread of its own: with an inner adapter that works only in its caller's,
  `case` is None.
- It does not retry 429, 5xx or broken connections; for policies of urllib3 that do see
  `crm_guard.mounting`.
- No OAuth: `refresh=` is called with our copy of the request before each resend, to renew
  `Authorization`.
- `Response.elapsed` includes the waits (see `get_report(response).waited`), and for an inspected
  answer (that of a write, or an error) the transfer of its body.
- Response hooks find `response.raw` unread and its connection reachable, as with the stock adapter,
  except for a merged answer. An inspected answer lacks what is below `raw` (`raw._fp`,
  `raw.read_chunked`); a 401 or 407 is left unread if a hook may need that. With raw objects that
  are neither urllib3's nor seekable, `stream=True` leaves the body in `content`.
- Locks inside jobs (`cvid`, mass convert, bulk write) are invisible to any HTTP client.
- Zoho publishes neither the duration of an image check nor the `details.action` of a merge lock,
  and nothing here was tried against a live org: the API facts come from Zoho's documentation and
  OpenAPI files.

Cost. If nothing is locked, an answer is searched once for one rare byte string and returned. CPU
time per call as a ratio to the stock adapter over loopback, medians of interleaved rounds (`python
tests/benchmarks/overhead.py`; the stock adapter against itself: 0.99 to 1.00 in this run, 0.97 to
1.03 in others):

                               guard   tenacity loop over r.json()   requests-ratelimiter   CacheControl
    PUT, one record             1.03   1.10                          1.06                   1.03
    PUT, 100 records            1.00   1.43                          1.06                   1.02
    PUT, INVALID_DATA           1.03   1.07                          1.05                   1.04
    GET, 200 records            1.02   2.27                          1.03                   1.50
    GET, 64 MB as a stream      0.99   1.00                          1.01                   1.92

That is 10 to 16 microseconds of a call that takes 500 without a network;
`tests/benchmarks/README.md` accounts for them line by line. `import crm_guard` costs nothing beyond
`import requests`; mounting a guard adds 28 % of that. The modules that handle a refusal are loaded
by the first one.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, Unpack, overload

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from crm_guard._base.imports import first_import
from crm_guard._protocol.crm_url import tail_finder
from crm_guard._protocol.inspection import marked
from crm_guard._transport.advice import warn, warn_of_multiplied_sends
from crm_guard._transport.bodies import inspectable_body
from crm_guard._transport.context import Channel, Context
from crm_guard._transport.fork import remember, remembered, renew_connections
from crm_guard._transport.hooks import check_hooks
from crm_guard._transport.nesting import passage, send_through
from crm_guard._transport.options import check_options, split_positional
from crm_guard._transport.registries import blocks_greenlets, for_greenlets, make_registry
from crm_guard._transport.retries import unsafe_repeats
from crm_guard.clock import SystemClock
from crm_guard.remaining import own_copy
from crm_guard.settings import GuardSettings, Source, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from requests.adapters import BaseAdapter
    from urllib3 import Retry

    from crm_guard._transport.driver import Driver
    from crm_guard._transport.options import AdapterOptions, OwnOptions
    from crm_guard.clock import Clock
    from crm_guard.events import GuardHook
    from crm_guard.locks import LockRegistry

_CALL: Final = "GuardAdapter("
_UNSENT: Final = Response()
"""In place of an answer: the first send has not begun."""
_NESTED: Final = "a guard sends through another guard: waits and sends would multiply, so the inner one only sends"


class GuardAdapter(HTTPAdapter):
    """A `requests` transport adapter that waits out CRM's transient locks, and explains its other refusals.

    Mount it on a session; other URLs pass as through a plain `HTTPAdapter`. A CRM call whose records are locked by
    an image check waits and is sent again, but only for the records that CRM refused. One adapter may be used from
    any number of threads. The caller's request is never changed. Its settings, hooks, refresh and locks cannot be
    replaced: make a new adapter.

    `Response.elapsed` covers the waits too; `get_report(response).waited` tells them apart.

    Args:
        settings: The policy; a mapping or the path of a TOML file is read as `load_settings` reads it, and None
            means `load_settings()`.
        hooks: Called with each `GuardEvent`, see `GuardHook`; after those of `crm_guard.instrument`.
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

    __attrs__: Final = [*HTTPAdapter.__attrs__, "inner", "given", "_owns_inner"]  # type: ignore[misc]

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
        policy = settings if isinstance(settings, GuardSettings) else load_settings(settings)
        self.inner = inner
        self.given = _Given(policy, check_hooks(hooks, "GuardAdapter(hooks=...)"), refresh, clock, lock_registry)
        self._owns_inner = False
        try:
            super().__init__(*stock, **http_adapter_kwargs)
        except TypeError:  # a class that inherits from more than us may take more
            check_options(http_adapter_kwargs, _CALL)
            raise
        warn_of_multiplied_sends(self, inner)
        if isinstance(inner, GuardAdapter):
            warn(_NESTED)
        self._assemble(self.given.context())

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc] # types-requests leaves it out
        self._assemble(self.given.context())

    def _assemble(self, context: Context) -> None:
        """Set what cannot be pickled; `tail_of` maps a URL to the offset just past its API version, or -1."""
        self.context = context
        self.tail_of = tail_finder(context.settings.path_pattern)
        self.warned_of_nesting = False
        remember(self, self.inner)

    @property
    def settings(self) -> GuardSettings:
        """The policy."""
        return self.context.settings

    @property
    def hooks(self) -> tuple[GuardHook, ...]:
        """Called with each `GuardEvent`, after those of `crm_guard.instrument`."""
        return self.context.hooks

    @property
    def refresh(self) -> Callable[[PreparedRequest], object] | None:
        """Called with a copy of the request before each resend."""
        return self.context.refresh

    @property
    def locks(self) -> LockRegistry:
        """Where calls share what they know of a lock."""
        return self.context.locks

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; where CRM refuses records for a transient lock, wait and send these again.

        Raises:
            RecordLockedError: Records are locked, and CRM applied nothing of the call (see `raise_on`).
            NotApprovedError: Records wait for a person, and CRM applied nothing of the call (see `raise_on`).
            GuardError: A resend failed in transport after other records had their results: see `__cause__`.
            requests.RequestException: As from any adapter.
        """
        if not isinstance(request, PreparedRequest):
            raise TypeError(_foreign(request))
        tail = self.tail_of(request.url or "")
        options = {"stream": stream, "timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        if tail < 0 or passage.get().open:
            return _pass_on(self, request, tail, options)
        token = self.context.stops.token
        driver: Driver | None = None
        body: bytes | None = None
        response: Response | None = _UNSENT
        try:
            if self.context.locks:
                driver = _driver_of(self, request, tail, token, options)
                if driver.known_locked():
                    return driver.run()
                driver = None
            response = None
            response = self.transmit(request, **options)
            body = inspectable_body(request, response, self.context.settings, stream, timeout)
            if body is None or not marked(body):
                return response
            driver = _driver_of(self, request, tail, token, options)
            driver.take(response, body)
            response = body = None  # the driver drops what it has taken over when it is superseded
            return driver.run()
        except Exception:  # the driver has attached a report where there is one
            raise
        except BaseException as exc:  # Ctrl-C, or `sys.exit()` in a hook: at any line above, and inside of it
            with contextlib.suppress(Exception):
                driver = driver or _driver_of(self, request, tail, token, options)
                driver.interrupted(exc, response, body, sent=response is not _UNSENT)
            raise

    def guards(self, url: str) -> bool:
        """Return whether `url` is that of a CRM call, by `path_pattern` and an API version in its path."""
        return self.tail_of(url) >= 0

    def close(self) -> None:
        """Drop idle connections, as the stock adapter does. Calls under way go on, waiting ones too."""
        super().close()
        if self._owns_inner and self.inner is not None:
            self.inner.close()

    def stop_waiting(self, *, for_good: bool = False) -> None:
        """End the waits of this adapter's calls at once (`GiveUpReason.STOPPED`).

        Each call returns or raises what it has; one that waits before its first send, as its records are known to
        be locked, is sent once. Safe inside a signal handler and in any thread.

        Args:
            for_good: Whether calls that begin later do not wait either. By default they do.
        """
        self.context.stops.stop(for_good=for_good)

    def start_over(self, context: Context) -> None:
        """Start over in a forked process: with no connection of its parent, and a `context` of its own."""
        renew_connections(self)
        self.context = context

    def around(self, inner: BaseAdapter, *, owned: bool = False) -> Self:
        """Return a guard that sends through `inner`, closes it if `owned`, and shares all else with this one."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), inner=inner, _owns_inner=owned)  # what a subclass has added, too
        remember(twin, inner)
        return twin

    def transmit(self, request: PreparedRequest, **options: Any) -> Response:
        """Send once, without looking at the answer.

        Args:
            request: The request.
            **options: The keyword arguments of `HTTPAdapter.send`.
        """
        inner = self.inner
        if inner is None:
            return super().send(request, **options)
        if isinstance(inner, GuardAdapter):
            return inner.transmit(request, **options)
        response = send_through(inner, request, options)
        response.connection = self  # digest auth sends its second try through this
        return response


def _driver_of(
    guard: GuardAdapter, request: PreparedRequest, tail: int, token: object, options: Mapping[str, Any]
) -> Driver:
    """Make the driver of a call that needs one."""
    with first_import:
        from crm_guard._transport.driver import Driver  # noqa: PLC0415 (programs that meet no lock do without)
        from crm_guard._transport.tap import tapped  # noqa: PLC0415

    context = usable_context(guard)
    channel = Channel(guard.transmit, partial(tapped, guard), guard.build_response, repeats(guard))
    return Driver(context, channel, request, options, tail, token)


def usable_context(guard: GuardAdapter) -> Context:
    """Return the context of a guard, with locks that greenlets can wait for where gevent patched meanwhile."""
    context = guard.context
    if blocks_greenlets(context.locks):
        locks = for_greenlets(context.locks, context.settings, guard.given.clock)
        guard.context = context = replace(context, locks=locks)
    return context


def repeats(guard: GuardAdapter) -> bool:
    """Return whether `max_retries` may repeat what CRM may have applied: its error is only about the last try."""
    if isinstance(guard.inner, GuardAdapter):
        return repeats(guard.inner)
    return bool(unsafe_repeats(getattr(guard.inner or guard, "max_retries", None)))


def _pass_on(guard: GuardAdapter, request: PreparedRequest, tail: int, options: Mapping[str, Any]) -> Response:
    """Send only: to other URLs, for a writer of many rows, and below another guard, of which it warns once."""
    if tail < 0:
        return guard.transmit(request, **options)
    through = passage.get()
    if not through.intended:
        if not guard.warned_of_nesting:
            guard.warned_of_nesting = True
            warn(_NESTED)
        return guard.transmit(request, **options)
    if through.renews and guard.refresh is not None:
        request = own_copy(request)
        guard.refresh(request)
    through.begin()
    response = guard.transmit(request, **options)
    through.end(response.status_code)
    return response


def _foreign(request: object) -> str:
    kind = f"{type(request).__module__}.{type(request).__qualname__}"
    return (
        f"this guard was given a {kind}, and serves sessions of `requests` alone: another library would send the "
        "request, and then fail on the answer. Nothing was sent. Mount the guard on a requests.Session"
    )


class _Given(NamedTuple):
    """The arguments of a guard, as far as they travel in a pickle."""

    settings: GuardSettings
    hooks: tuple[GuardHook, ...]
    refresh: Callable[[PreparedRequest], object] | None
    clock: Clock | None
    lock_registry: LockRegistry | None

    def context(self) -> Context:
        """Return a new context."""
        locks = self.lock_registry
        if locks is None:  # an empty registry is false
            locks = make_registry(self.settings, self.clock)
        return Context(self.settings, self.hooks, self.refresh, self.clock or SystemClock(), locks)


def _renew_all() -> None:
    """Have every guard of a forked process start over, and all that a guard sends through."""
    renewed: dict[int, Context] = {}
    before = []  # kept, so that no identity is used twice
    for adapter in remembered():
        if isinstance(adapter, GuardAdapter):
            before.append(adapter.context)
            if id(adapter.context) not in renewed:
                renewed[id(adapter.context)] = adapter.context.for_child()
            adapter.start_over(renewed[id(adapter.context)])
        else:
            renew_connections(adapter)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
