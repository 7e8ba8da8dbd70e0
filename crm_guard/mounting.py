"""Mount the guard on one session (`mount_guard`), or on every session of the process (`install`).

A session of your own::

    import requests
    import crm_guard

    session = requests.Session()
    crm_guard.mount_guard(session)
    lead = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"
    session.put(lead, json={"data": [{"Company": "Zylker"}]})

Clients that call `requests.put(...)`, as the official SDKs do, have no session to mount anything
on::

    import requests
    import crm_guard

    lead = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"
    with crm_guard.install():  # or install() ... uninstall()
        requests.put(lead, json={"data": [{"Company": "Zylker"}]})

Only the URLs of CRM are guarded, below `CRM_PREFIXES` or your own `prefixes`. Others pass as
through a stock adapter.

Under other clients:

- Zoho's Python SDK: `install()`. A refusal is an `SDKException` whose text has the hint;
  `get_report(exception)` finds the report, and its `.cause` is the `NotApprovedError` or
  `RecordLockedError`. A batch of which only some records were written is an answer of the SDK,
  unless `raise_on="partial"` makes it an exception as well. The SDK opens one connection per call;
  under the guard 100 calls use one.
- `zoho-crm-connector`: `mount_guard(client.requests_session)`. Its `Retry` is kept, with one
  warning that says what it may repeat.
- `zohocrmapi`, and any other client of `requests`: `install()`.
- To keep a client's own handling of errors: `install(settings={"raise_on": "never"})`. It sees the
  status and the body that it knows. With `"hints_in_body": True` the hint follows the `message` of
  a blocked record, which is all that most clients show.
- Sessions of `niquests` are rejected before anything is sent.

Together with other adapters and hooks:

- A rate limiter, cache, TLS or host-header adapter that is mounted already becomes `inner`: every
  send, resend and diagnosis passes through it. A stock adapter is replaced; its pool sizes and
  `max_retries` are kept. A guard that is mounted already stays: two never stack.
- Digest and NTLM auth, redirects, proxies, cookies, hooks: as with the stock adapter. Cookies of
  all attempts are kept.
- A wait may outlive the access token: `refresh=renew` has `renew(request)` called with a copy
  before each resend, to set `Authorization` anew.
- `requests_cache.install_cache()` works before or after `install()`; each can be undone alone.
- `session.close()` closes what the guard made or took over from the session, but neither an
  `inner=` that you passed nor a lock registry: guards with the same `redis://` URL, `wake_at_once`
  and `wait_max` share one, which ends with the last. Where threads have a session each and one
  adapter, closing a session ends no other call.
- Pickles and deep copies keep the settings; connections and locks start empty. After a `fork`
  (prefork workers, `multiprocessing`) guards, and adapters that they send through, start with new
  connections.
- gevent 24.2.1 or later, patched before or after the import: greenlets wait side by side. A
  `redis://` registry needs the patch first, or locks stay within the process, with a warning.

`max_retries=` of urllib3 works underneath, and may repeat a write that CRM applied: a PUT or DELETE
whose answer was lost, also with `max_retries=3`. These two policies repeat none. The first repeats
what was never sent, the second also what CRM refused as a whole with 429 (with its own backoff:
urllib3 honours `Retry-After` for 503 as well, or not at all)::

    import requests
    from urllib3 import Retry
    import crm_guard

    connections = Retry(connect=3, read=False, other=0, respect_retry_after_header=False)
    throttled = Retry(
        total=5,
        connect=3,
        read=False,
        other=0,
        status=5,
        status_forcelist=[429],
        allowed_methods=None,
        backoff_factor=1,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    crm_guard.mount_guard(requests.Session(), max_retries=throttled)

A policy with a `status_forcelist` that may repeat an applied write causes a warning that names what
is unsafe in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack, cast

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from crm_guard._transport.advice import warn, warn_of_multiplied_sends
from crm_guard._transport.options import check_options
from crm_guard.adapter import GuardAdapter
from crm_guard.settings import GuardSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from crm_guard._transport.options import AdapterOptions
    from crm_guard.settings import Source

_DOMAINS: Final = ("com", "eu", "in", "com.au", "jp", "ca", "sa", "com.cn", "uk", "ae", "sg")


class _Prefixes(tuple[str, ...]):
    """A tuple of URLs that signatures show by its name."""

    __slots__ = ()
    __str__ = tuple.__repr__

    def __repr__(self) -> str:
        return "CRM_PREFIXES"


CRM_PREFIXES: Final[tuple[str, ...]] = _Prefixes(
    f"https://{kind}zohoapis.{domain}/" for domain in _DOMAINS for kind in ("www.", "", "sandbox.", "developer.")
)
"""Every known host of the CRM API: production, sandbox and developer edition, in each data centre.

From Zoho's Python SDK (2026); the last three data centres are documented by third parties only.
`print(CRM_PREFIXES)` shows them.
"""

_SHARED_POOL: Final = {"pool_maxsize": 32}
"""All threads of a process share one pool; CRM allows at most 25 concurrent calls."""

_SESSION: Final = next(kind for kind in reversed(requests.sessions.Session.__mro__) if "get_adapter" in vars(kind))
"""The class that `requests` defines: `requests.Session` may meanwhile name a subclass, for example of a cache."""


def mount_guard(
    session: requests.Session,
    prefixes: str | Iterable[str] = CRM_PREFIXES,
    *,
    settings: GuardSettings | Source = None,
    **adapter_kwargs: Unpack[AdapterOptions],
) -> GuardAdapter:
    """Mount one guard on a session.

    An adapter of another kind that is mounted there (a rate limiter, a cache, corporate TLS) becomes the guard's
    `inner`: every send, and every resend, passes through it, and closing the session closes it. A stock adapter is
    replaced; its pool sizes and `max_retries` are kept. Where a guard is mounted already, it stays.

    Args:
        session: The session; other URLs of it are not affected.
        prefixes: URL prefixes, by default those of CRM. A missing slash at the end is added, so that
            `https://crm.example` does not match `https://crm.example.evil.test`.
        settings: As for `GuardAdapter`.
        **adapter_kwargs: As for `GuardAdapter`. With `inner`, that adapter is used instead of those mounted.

    Returns:
        The guard of the first prefix. Prefixes with adapters of their own have equal guards of their own.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        TypeError: `session` is no `requests.Session`, or an argument is unknown or is a setting.
        ValueError: There is no prefix, or one that is no URL.
    """
    check_session(session)
    check_options(adapter_kwargs, "mount_guard(session, ")
    mounts = _normalized_prefixes(prefixes)
    places = dict(_mount_points(session, mounts))
    guarded = [adapter for adapter in places.values() if isinstance(adapter, GuardAdapter)]
    if guarded and (settings is not None or adapter_kwargs):
        warn("a guard is mounted there already, and stays as it is; to replace it, mount a new GuardAdapter")
    if len(guarded) < len(places):
        guards = _guards(places.values(), settings, adapter_kwargs)
        for place, adapter in places.items():
            session.mount(place, guards[id(adapter)])
    return cast("GuardAdapter", _mounted_adapter(session, mounts[0]))


def check_session(session: object) -> None:
    """Reject a session of another library: it would send, then fail on the answer and lose it."""
    if isinstance(session, _SESSION):
        return
    kind = f"{type(session).__module__}.{type(session).__qualname__}".removeprefix("builtins.")
    message = (
        f"session must be a requests.Session, and is a {kind}: a session of another library sends through an "
        "adapter of requests, but does not understand its answers"
    )
    raise TypeError(message)


def _mounted_adapter(session: requests.Session, url: str) -> BaseAdapter | None:
    """Return the adapter that the session itself would choose for a URL in lower case."""
    return next((found for prefix, found in session.adapters.items() if url.startswith(prefix.lower())), None)


def _mount_points(session: requests.Session, mounts: Iterable[str]) -> Iterator[tuple[str, BaseAdapter | None]]:
    """Yield each prefix to mount on and the adapter now used there, including longer prefixes of the session."""
    for mount in mounts:
        yield mount, _mounted_adapter(session, mount)
        for prefix, adapter in session.adapters.items():
            if prefix.lower().startswith(mount) and prefix != mount:
                yield prefix, adapter


def _guards(
    adapters: Iterable[BaseAdapter | None], settings: GuardSettings | Source, kwargs: AdapterOptions
) -> dict[int, GuardAdapter]:
    """Return a guard for each adapter, by `id`: one shared guard, except for adapters that become an `inner`."""
    distinct = {id(adapter): adapter for adapter in adapters}
    stock = next((found for found in distinct.values() if _is_stock(found)), None)
    shared = GuardAdapter(settings, **{**_pool_of(stock), **kwargs})
    made: dict[int, GuardAdapter] = {}
    for key, adapter in distinct.items():
        if isinstance(adapter, GuardAdapter):
            made[key] = adapter
        elif adapter is None or adapter is stock or "inner" in kwargs:
            made[key] = shared
        else:
            warn_of_multiplied_sends(adapter)
            made[key] = shared.around(adapter, owned=True)
    return made


_GetAdapter: TypeAlias = "Callable[..., BaseAdapter]"


class _Installation:
    """One shared guard for all sessions, for some prefixes."""

    def __init__(self, mounts: tuple[str, ...], settings: GuardSettings, kwargs: Mapping[str, Any]) -> None:
        self.mounts = mounts
        self.arguments = (mounts, settings, kwargs)
        self.guard = GuardAdapter(settings, **{**_SHARED_POOL, **kwargs})
        self.users = 0
        self._warned = False

    def guard_for(self, url: str, adapter: BaseAdapter) -> GuardAdapter:
        """Return the shared guard, or one that sends through `adapter` if that is not a default stock adapter.

        The latter lives only as long as the call and its response, so no session is kept alive.
        """
        if _is_stock(adapter) and _is_default(adapter):
            return self.guard
        if not self._warned and self.guard.guards(url):
            self._warned = warn_of_multiplied_sends(adapter)
        return self.guard.around(adapter)


class _InstallContext(contextlib.AbstractContextManager["GuardAdapter"]):
    """What `install` returns: leaving its `with` block undoes only this call of `install`."""

    def __init__(self, installation: _Installation) -> None:
        self._installation: _Installation | None = installation
        self._guard = installation.guard

    def __enter__(self) -> GuardAdapter:
        return self._guard

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        installation, self._installation = self._installation, None
        if installation is not None:
            _hook.release(installation)


class _AdapterHook:
    """The patch of `get_adapter` in the session classes, and the installations that it serves. Thread-safe.

    It patches `requests.Session` and each of its bases that defines the method, so it works even if another library
    replaces `requests.Session` by a subclass, now or later. It is also safe if others patch `get_adapter` on top of
    it and undo that in any order: without installations it passes everything through, and a second layer leaves a
    guard as it is.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._active: tuple[_Installation, ...] = ()
        # patch -> class, original
        self._patched: dict[_GetAdapter, tuple[type[requests.Session], _GetAdapter]] = {}

    def add(self, *arguments: Any) -> _Installation:
        """Add an installation, or reuse the newest one if its arguments are equal."""
        with self._mutex:
            if not self._active or self._active[-1].arguments != arguments:
                self._active = (*self._active, _Installation(*arguments))
            self._active[-1].users += 1
            self._patch()
            return self._active[-1]

    def release(self, installation: _Installation) -> None:
        """Remove an installation, unless it still has other users."""
        with self._mutex:
            installation.users -= 1
            if installation.users > 0 or installation not in self._active:
                return
            self._remove(installation)
        installation.guard.close()

    def remove_newest(self) -> None:
        """Remove the newest installation, however many users it has."""
        with self._mutex:
            if not self._active:
                return
            newest = self._active[-1]
            self._remove(newest)
        newest.guard.close()

    @property
    def active(self) -> tuple[_Installation, ...]:
        """The installations, the newest last."""
        return self._active

    def remove_all_but(self, kept: tuple[_Installation, ...]) -> None:
        """Remove every installation that is not in `kept`, however many users it has."""
        with self._mutex:
            removed = [found for found in self._active if found not in kept]
            for installation in removed:
                self._remove(installation)
        for installation in removed:
            installation.guard.close()

    def choose(self, url: str, adapter: BaseAdapter) -> BaseAdapter:
        """Return the adapter to use for `url`, for which the session would use `adapter`."""
        active = self._active
        if not active or isinstance(adapter, GuardAdapter):
            return adapter
        lowered = url.lower()
        for installation in reversed(active):
            if lowered.startswith(installation.mounts):
                return installation.guard_for(url, adapter)
        return adapter

    def after_fork(self) -> None:
        """Replace the mutex after a fork: a thread that held it is gone. Guards reset themselves."""
        self._mutex = threading.Lock()

    def _remove(self, installation: _Installation) -> None:
        self._active = tuple(other for other in self._active if other is not installation)
        if not self._active:
            self._unpatch()

    def _patch(self) -> None:
        for kind in _patchable_classes():
            original = vars(kind)["get_adapter"]
            if original not in self._patched:
                hooked = _wrap(self, original)
                self._patched[hooked] = kind, original
                kind.get_adapter = hooked  # type: ignore[method-assign]

    def _unpatch(self) -> None:
        for hooked, (kind, original) in list(self._patched.items()):
            if vars(kind).get("get_adapter") is hooked:  # else another patch is on top of it
                kind.get_adapter = original  # type: ignore[method-assign]
                del self._patched[hooked]


def _patchable_classes() -> list[type[requests.Session]]:
    """Return the classes that currently define `get_adapter` for sessions."""
    kinds = (*getattr(requests.Session, "__mro__", ()), _SESSION)  # a mock has no `__mro__`
    return [kind for kind in dict.fromkeys(kinds) if "get_adapter" in vars(kind)]


def _wrap(hook: _AdapterHook, original: _GetAdapter) -> _GetAdapter:
    @functools.wraps(original)
    def get_adapter(self: requests.Session, url: str) -> BaseAdapter:
        return hook.choose(url, original(self, url))

    return get_adapter


_hook: Final = _AdapterHook()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hook.after_fork)


def install(
    prefixes: str | Iterable[str] = CRM_PREFIXES,
    *,
    settings: GuardSettings | Source = None,
    **adapter_kwargs: Unpack[AdapterOptions],
) -> contextlib.AbstractContextManager[GuardAdapter]:
    """Guard every session of the process, present and future, `requests.put(...)` and the like included.

    The hook is in `Session.get_adapter`, so it also covers clients that mount an adapter of their own later, or
    replace their session. URLs other than `prefixes` are not affected. All sessions share one guard and
    its connections, which outlive `Session.close()`; a forked process starts with none. A session whose adapter
    is more than the stock one (another class, retries, a pool of another size) keeps it, as `inner`; one that has
    a guard mounted keeps that. Thread-safe.

    Installing again with the same arguments adds no second guard. Others nest: the newest that matches a URL is
    used. Use the result in a `with` statement to undo just this call.

    Args:
        prefixes: URL prefixes, as for `mount_guard`.
        settings: As for `GuardAdapter`.
        **adapter_kwargs: As for `GuardAdapter`; `pool_maxsize` is 32 by default.

    Returns:
        A context manager that yields the shared guard.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        TypeError: An argument is unknown, or is a setting.
        ValueError: There is no prefix, or one that is no URL.
    """
    check_options(adapter_kwargs, "install(")
    policy = settings if isinstance(settings, GuardSettings) else load_settings(settings)
    return _InstallContext(_hook.add(_normalized_prefixes(prefixes), policy, adapter_kwargs))


def uninstall() -> None:
    """Undo the newest :func:`install`, however often it was repeated; no-op if there is none. Thread-safe.

    Calls under way, including those that wait, finish under the guard.
    """
    _hook.remove_newest()


@contextlib.contextmanager
def installations_undone() -> Iterator[None]:
    """Undo, at the end of the block, each :func:`install` that it left behind. For tests.

    Blocks may end in any order: what was installed since a later one began is left to that one.
    """
    block = _Block(_hook.active)
    _blocks.append(block)
    try:
        yield
    finally:
        number = _blocks.index(block)
        del _blocks[number]
        later = [found for found in _hook.active if found not in _blocks[number].before] if _blocks[number:] else []
        _hook.remove_all_but((*block.before, *later))


class _Block:
    """A block of `installations_undone`: what was installed before."""

    def __init__(self, before: tuple[_Installation, ...]) -> None:
        self.before = before


_blocks: Final[list[_Block]] = []
"""Those under way, in the order in which they began."""


def _normalized_prefixes(prefixes: str | Iterable[str]) -> tuple[str, ...]:
    """Return prefixes in lower case, as `requests` compares them, each with a trailing slash."""
    given = [prefixes] if isinstance(prefixes, str) else list(prefixes)
    wrong = [prefix for prefix in given if prefix.find("://") < 1]
    if wrong or not given:
        message = f"prefixes={prefixes!r} names no place to mount the guard on: give URLs, like {CRM_PREFIXES[0]!r}"
        raise ValueError(message)
    return tuple(map(_with_slash, given))


def _with_slash(prefix: str) -> str:
    bare = prefix.lower().rstrip("/")
    return f"{bare}/" if "://" in bare else f"{bare}//"  # a bare scheme, `https://`, is kept


_STOCK: Final = HTTPAdapter()


def _is_stock(adapter: BaseAdapter | None) -> bool:
    """Return whether an adapter is an unmodified `HTTPAdapter`."""
    return (
        type(adapter) is HTTPAdapter
        and vars(adapter).keys() == vars(_STOCK).keys()
        and _tls_of(adapter) == _tls_of(_STOCK)
    )


def _is_default(adapter: BaseAdapter) -> bool:
    """Return whether a stock adapter was made without arguments, or with ones that change nothing."""
    pool = _pool_of(adapter)
    return pool.pop("max_retries").total == 0 and pool.items() <= _pool_of(_STOCK).items()


def _pool_of(adapter: BaseAdapter | None) -> dict[str, Any]:
    """Return the pool arguments of a stock adapter, for the guard that replaces it."""
    if not isinstance(adapter, HTTPAdapter):
        return {}
    names = ("pool_connections", "pool_maxsize", "pool_block")
    return {**{name: getattr(adapter, f"_{name}") for name in names}, "max_retries": adapter.max_retries}


def _tls_of(adapter: HTTPAdapter) -> dict[str, Any]:
    """Return the connection arguments other than the pool size."""
    manager = adapter.poolmanager
    return {key: value for key, value in manager.connection_pool_kw.items() if key not in ("maxsize", "block")}
