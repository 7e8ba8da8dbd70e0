"""Putting the guard under sessions: one that you hold, or all of a process."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack, cast

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from crm_guard._transport.options import check_options
from crm_guard.adapter import GuardAdapter, warn, warn_of_multiplied_sends
from crm_guard.settings import GuardSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from crm_guard._transport.options import AdapterOptions
    from crm_guard.settings import Source

_DOMAINS: Final = ("com", "eu", "in", "com.au", "jp", "ca", "sa", "com.cn", "uk", "ae", "sg")

CRM_PREFIXES: Final = tuple(
    f"https://{kind}zohoapis.{domain}/" for domain in _DOMAINS for kind in ("www.", "", "sandbox.", "developer.")
)
"""Every known host of the CRM API: production, sandbox and developer edition, in each data centre.

From Zoho's Python SDK (2026); the last three data centres are named by third parties only.
"""

_SHARED_POOL: Final = {"pool_maxsize": 32}
"""All threads of a process share one pool; CRM itself takes at most 25 calls at once."""

_SESSION: Final = next(kind for kind in reversed(requests.sessions.Session.__mro__) if "get_adapter" in vars(kind))
"""The class that `requests` defines: what is called `requests.Session` now may be a subclass, of a cache say."""


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
        The guard of the first prefix. Prefixes with adapters of their own have guards of their own, alike.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        TypeError: `session` is no `requests.Session`, or an argument is unknown or is a setting.
        ValueError: There is no prefix, or one that is no URL.
    """
    _check_session(session)
    check_options(adapter_kwargs, "mount_guard(session, ")
    mounts = _checked(prefixes)
    places = dict(_places(session, mounts))
    guarded = [adapter for adapter in places.values() if isinstance(adapter, GuardAdapter)]
    if guarded and (settings is not None or adapter_kwargs):
        warn("a guard is mounted there already, and stays as it is; to replace it, mount a new GuardAdapter")
    if len(guarded) < len(places):
        guards = _guards(places.values(), settings, adapter_kwargs)
        for place, adapter in places.items():
            session.mount(place, guards[id(adapter)])
    return cast("GuardAdapter", _in_charge(session, mounts[0]))


def _check_session(session: object) -> None:
    """Refuse a session of another library: it would send through us, fail on the answer, and so lose it."""
    if isinstance(session, _SESSION):
        return
    kind = f"{type(session).__module__}.{type(session).__qualname__}".removeprefix("builtins.")
    message = (
        f"session must be a requests.Session, and is a {kind}: a session of another library sends through an "
        "adapter of requests, but does not understand its answers"
    )
    raise TypeError(message)


def _in_charge(session: requests.Session, url: str) -> BaseAdapter | None:
    """Return the adapter that the session itself would choose for a URL in lower case."""
    return next((found for prefix, found in session.adapters.items() if url.startswith(prefix.lower())), None)


def _places(session: requests.Session, mounts: Iterable[str]) -> Iterator[tuple[str, BaseAdapter | None]]:
    """Yield where to mount, and who is in charge there now; other prefixes of the session behind it included."""
    for mount in mounts:
        yield mount, _in_charge(session, mount)
        for prefix, adapter in session.adapters.items():
            if prefix.lower().startswith(mount) and prefix != mount:
                yield prefix, adapter


def _guards(
    adapters: Iterable[BaseAdapter | None], settings: GuardSettings | Source, kwargs: AdapterOptions
) -> dict[int, GuardAdapter]:
    """Return a guard for each adapter, by its identity: one for all, but for those that become its `inner`."""
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


_Chooser: TypeAlias = "Callable[..., BaseAdapter]"


class _Installation:
    """One guard under all sessions, for some prefixes."""

    def __init__(self, mounts: tuple[str, ...], settings: GuardSettings, kwargs: Mapping[str, Any]) -> None:
        self.mounts = mounts
        self.arguments = (mounts, settings, kwargs)
        self.guard = GuardAdapter(settings, **{**_SHARED_POOL, **kwargs})
        self.users = 0
        self._warned = False

    def guard_for(self, url: str, adapter: BaseAdapter) -> GuardAdapter:
        """Return the shared guard; for an adapter that is more than stock, one that sends through it.

        That one lives no longer than the call and its response, and so nothing is kept of sessions.
        """
        if _is_stock(adapter) and _is_default(adapter):
            return self.guard
        if not self._warned and self.guard.guards(url):
            self._warned = warn_of_multiplied_sends(adapter)
        return self.guard.around(adapter)


class _Handle(contextlib.AbstractContextManager["GuardAdapter"]):
    """What `install` returns: leaving its `with` block takes back just this call of `install`."""

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
            _hook.leave(installation)


class _Hook:
    """The hook in `get_adapter` of the session classes, and the installations behind it. Thread-safe.

    It stands wherever `requests.Session` and its bases define that method: a subclass that somebody else has put in
    the place of `requests.Session` meanwhile, or takes away later, makes no difference. And it stays harmless where
    other programs patch `get_adapter` over it, whatever the order of undoing: without installations it passes
    everything through, and a second layer of it finds a guard, which it leaves alone.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._active: tuple[_Installation, ...] = ()
        self._hung: dict[_Chooser, tuple[type[requests.Session], _Chooser]] = {}  # ours -> where, in place of what

    def enter(self, *arguments: Any) -> _Installation:
        """Put in an installation, or join the newest one if its arguments are the same."""
        with self._mutex:
            if not self._active or self._active[-1].arguments != arguments:
                self._active = (*self._active, _Installation(*arguments))
            self._active[-1].users += 1
            self._hang()
            return self._active[-1]

    def leave(self, installation: _Installation) -> None:
        """Take out an installation, unless others still use it."""
        with self._mutex:
            installation.users -= 1
            if installation.users > 0 or installation not in self._active:
                return
            self._remove(installation)
        installation.guard.close()

    def pop(self) -> None:
        """Take out the newest installation, whoever uses it."""
        with self._mutex:
            if not self._active:
                return
            newest = self._active[-1]
            self._remove(newest)
        newest.guard.close()

    def choose(self, url: str, adapter: BaseAdapter) -> BaseAdapter:
        """Return the adapter to use for `url`, where the session alone would use `adapter`."""
        active = self._active
        if not active or isinstance(adapter, GuardAdapter):
            return adapter
        lowered = url.lower()
        for installation in reversed(active):
            if lowered.startswith(installation.mounts):
                return installation.guard_for(url, adapter)
        return adapter

    def renew(self) -> None:
        """Make a forked process independent of a thread that held the mutex. Guards see to themselves."""
        self._mutex = threading.Lock()

    def _remove(self, installation: _Installation) -> None:
        self._active = tuple(other for other in self._active if other is not installation)
        if not self._active:
            self._unhang()

    def _hang(self) -> None:
        for kind in _choosing_classes():
            original = vars(kind)["get_adapter"]
            if original not in self._hung:
                hooked = _hooked(self, original)
                self._hung[hooked] = kind, original
                kind.get_adapter = hooked  # type: ignore[method-assign]

    def _unhang(self) -> None:
        for hooked, (kind, original) in list(self._hung.items()):
            if vars(kind).get("get_adapter") is hooked:  # else it lies under a patch of somebody else
                kind.get_adapter = original  # type: ignore[method-assign]
                del self._hung[hooked]


def _choosing_classes() -> list[type[requests.Session]]:
    """Return the classes that sessions get `get_adapter` from, as things stand now."""
    kinds = (*getattr(requests.Session, "__mro__", ()), _SESSION)  # a mock in its place has no bases
    return [kind for kind in dict.fromkeys(kinds) if "get_adapter" in vars(kind)]


def _hooked(hook: _Hook, original: _Chooser) -> _Chooser:
    @functools.wraps(original)
    def get_adapter(self: requests.Session, url: str) -> BaseAdapter:
        return hook.choose(url, original(self, url))

    return get_adapter


_hook: Final = _Hook()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hook.renew)


def install(
    prefixes: str | Iterable[str] = CRM_PREFIXES,
    *,
    settings: GuardSettings | Source = None,
    **adapter_kwargs: Unpack[AdapterOptions],
) -> contextlib.AbstractContextManager[GuardAdapter]:
    """Guard every session of the process, present and future, `requests.put(...)` and the like included.

    The hook is where a session chooses its adapter, so it also reaches clients that mount an adapter of their own
    later, or replace their session. URLs other than `prefixes` are not affected. All sessions share one guard and
    its connections, which outlive `Session.close()`; a forked process begins with none. A session whose adapter
    is more than the stock one (another class, retries, a pool of another size) keeps it, as `inner`; one that has
    a guard mounted keeps that. Thread-safe.

    Installing twice with the same arguments is as good as once. Others nest: the newest that matches a URL is
    used. Use the result in a `with` statement to take back just this one.

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
    return _Handle(_hook.enter(_checked(prefixes), policy, adapter_kwargs))


def uninstall() -> None:
    """Take back the newest :func:`install`, however often it was repeated. Without one, do nothing. Thread-safe.

    Calls under way finish under the guard, also those that wait.
    """
    _hook.pop()


def _checked(prefixes: str | Iterable[str]) -> tuple[str, ...]:
    """Return prefixes as `requests` compares them, each with its slash at the end."""
    given = [prefixes] if isinstance(prefixes, str) else list(prefixes)
    wrong = [prefix for prefix in given if prefix.find("://") < 1]
    if wrong or not given:
        message = f"prefixes={prefixes!r} names no place to mount the guard on: give URLs, like {CRM_PREFIXES[0]!r}"
        raise ValueError(message)
    return tuple(map(_closed, given))


def _closed(prefix: str) -> str:
    bare = prefix.lower().rstrip("/")
    return f"{bare}/" if "://" in bare else f"{bare}//"  # a scheme alone, `https://`, stays as it is


_STOCK: Final = HTTPAdapter()


def _is_stock(adapter: BaseAdapter | None) -> bool:
    """Return whether an adapter is the one of `requests`, and nobody put anything of their own into it."""
    return (
        type(adapter) is HTTPAdapter
        and vars(adapter).keys() == vars(_STOCK).keys()
        and _tls_of(adapter) == _tls_of(_STOCK)
    )


def _is_default(adapter: BaseAdapter) -> bool:
    """Return whether a stock adapter was made without arguments, or with such as change nothing."""
    pool = _pool_of(adapter)
    return pool.pop("max_retries").total == 0 and pool.items() <= _pool_of(_STOCK).items()


def _pool_of(adapter: BaseAdapter | None) -> dict[str, Any]:
    """Return what a stock adapter was configured with, to configure its successor alike."""
    if not isinstance(adapter, HTTPAdapter):
        return {}
    names = ("pool_connections", "pool_maxsize", "pool_block")
    return {**{name: getattr(adapter, f"_{name}") for name in names}, "max_retries": adapter.max_retries}


def _tls_of(adapter: HTTPAdapter) -> dict[str, Any]:
    """Return what was passed to the connections beside the size of their pool."""
    manager = adapter.poolmanager
    return {key: value for key, value in manager.connection_pool_kw.items() if key not in ("maxsize", "block")}
