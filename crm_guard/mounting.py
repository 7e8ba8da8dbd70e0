"""Putting the guard under sessions: one that you hold, or all of a process."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from crm_guard.adapter import GuardAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from crm_guard.settings import GuardSettings, Source

_DOMAINS: Final = ("com", "eu", "in", "com.au", "jp", "ca", "sa", "com.cn", "uk", "ae", "sg")

CRM_PREFIXES: Final = tuple(
    f"https://{kind}zohoapis.{domain}/" for domain in _DOMAINS for kind in ("www.", "", "sandbox.", "developer.")
)
"""Every known host of the CRM API: production, sandbox and developer edition, in each data centre.

From Zoho's Python SDK (2026); the last three data centres are named by third parties only.
"""

_POOL: Final = ("_pool_connections", "_pool_maxsize", "_pool_block")


def mount_guard(
    session: requests.Session,
    prefixes: str | Iterable[str] = CRM_PREFIXES,
    *,
    settings: GuardSettings | Source = None,
    **adapter_kwargs: Any,
) -> GuardAdapter:
    """Mount one guard on a session.

    An adapter of another kind that is mounted there (a rate limiter, a cache, corporate TLS) becomes the guard's
    `inner`: every send, and every resend, passes through it, and closing the session closes it. A stock adapter is
    replaced; its pool sizes and `max_retries` are kept. If a guard is mounted there already, it is returned.

    Args:
        session: The session; other URLs of it are not affected.
        prefixes: URL prefixes, by default those of CRM. A missing slash at the end is added, so that
            `https://crm.example` does not match `https://crm.example.evil.test`.
        settings: As for `GuardAdapter`.
        **adapter_kwargs: As for `GuardAdapter`.

    Returns:
        The guard.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        ValueError: There is no prefix.
    """
    mounts = [_with_slash(prefix) for prefix in ([prefixes] if isinstance(prefixes, str) else prefixes)]
    if not mounts:
        message = "prefixes=() names no place to mount the guard on"
        raise ValueError(message)
    there = _mounted(session, mounts[0])
    if isinstance(there, GuardAdapter):
        guard = there
    elif there is None or type(there) is HTTPAdapter or "inner" in adapter_kwargs:
        guard = GuardAdapter(settings, **{**_pool_of(there), **adapter_kwargs})
    else:
        guard = GuardAdapter(settings, **adapter_kwargs).adopt(there)
    for mount in mounts:
        session.mount(mount, guard)
    return guard


class _Installation:
    """The hook in `requests.Session.get_adapter`, and the guards behind it. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._active: tuple[_Installed, ...] = ()
        self._original: Callable[..., BaseAdapter] | None = None

    def add(self, installed: _Installed) -> None:
        with self._mutex:
            self._active = (*self._active, installed)
            if self._original is None:
                self._original = requests.Session.get_adapter
                requests.Session.get_adapter = _hooked(self, self._original)  # type: ignore[method-assign]

    def remove(self, installed: _Installed | None) -> _Installed | None:
        """Take out `installed`, or the newest; put `get_adapter` back once none is left."""
        with self._mutex:
            chosen = installed or (self._active[-1] if self._active else None)
            if chosen not in self._active:
                return None
            self._active = tuple(other for other in self._active if other is not chosen)
            ours = getattr(requests.Session.get_adapter, "_crm_guard", None) is self
            if not self._active and self._original is not None and ours:
                requests.Session.get_adapter = self._original  # type: ignore[method-assign]
                self._original = None
            return chosen

    def choose(self, url: str, adapter: BaseAdapter) -> BaseAdapter:
        """Return the adapter to use for `url`, where the session alone would use `adapter`."""
        if isinstance(adapter, GuardAdapter):
            return adapter
        lowered = url.lower()
        for installed in reversed(self._active):
            if lowered.startswith(installed.prefixes):
                return installed.guard_for(adapter)
        return adapter


class _Installed(contextlib.AbstractContextManager["GuardAdapter"]):
    """What `install` returns: a context manager that uninstalls just this installation."""

    def __init__(
        self, guard: GuardAdapter, prefixes: tuple[str, ...], make: Callable[[BaseAdapter], GuardAdapter]
    ) -> None:
        self.guard = guard
        self.prefixes = prefixes
        self._make = make
        self._mutex = threading.Lock()
        self._around: weakref.WeakKeyDictionary[BaseAdapter, GuardAdapter] = weakref.WeakKeyDictionary()

    def guard_for(self, adapter: BaseAdapter) -> GuardAdapter:
        """Return the shared guard; for an adapter that is more than stock, a guard around it."""
        if _is_plain(adapter):
            return self.guard
        with self._mutex:
            if adapter not in self._around:
                self._around[adapter] = self._make(_Weakly(adapter))
            return self._around[adapter]

    def __enter__(self) -> GuardAdapter:
        return self.guard

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        uninstall(self)


class _Weakly(BaseAdapter):
    """Sends through a session's own adapter without keeping it alive: the session does, while it sends."""

    def __init__(self, adapter: BaseAdapter) -> None:
        super().__init__()
        self._reference = weakref.ref(adapter)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        adapter = self._reference()
        if adapter is None:
            message = "the adapter of this session is gone"
            raise requests.ConnectionError(message)
        return adapter.send(*args, **kwargs)

    def close(self) -> None:
        """Do nothing: the session closes its own adapter."""


_installation: Final = _Installation()


def install(
    prefixes: str | Iterable[str] = CRM_PREFIXES,
    *,
    settings: GuardSettings | Source = None,
    **adapter_kwargs: Any,
) -> contextlib.AbstractContextManager[GuardAdapter]:
    """Guard every session of the process, present and future, `requests.put(...)` and the like included.

    The hook is where a session chooses its adapter, so it also reaches clients that mount an adapter of their own
    later, or replace their session. URLs other than `prefixes` are not affected. All sessions share one guard and
    its connections, which outlive `Session.close()`. A session whose adapter is more than stock (a subclass, or
    with retries) keeps it, as `inner`; one that has a guard mounted keeps that. Thread-safe.

    Installations nest: the newest that matches a URL is used, and each `uninstall()` takes back the newest. Use
    the result in a `with` statement to take back just this one.

    Args:
        prefixes: URL prefixes, as for `mount_guard`.
        settings: As for `GuardAdapter`.
        **adapter_kwargs: As for `GuardAdapter`.

    Returns:
        A context manager that yields the shared guard.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
    """
    mounts = tuple(_with_slash(prefix) for prefix in ([prefixes] if isinstance(prefixes, str) else prefixes))
    guard = GuardAdapter(settings, **adapter_kwargs)

    def around(inner: BaseAdapter) -> GuardAdapter:
        return GuardAdapter(guard.settings, **{**adapter_kwargs, "inner": inner})

    installed = _Installed(guard, mounts, around)
    _installation.add(installed)
    return installed


def uninstall(installation: contextlib.AbstractContextManager[GuardAdapter] | None = None) -> None:
    """Take back the newest :func:`install`, or the given one. Does nothing where there is none. Thread-safe.

    Calls under way finish under the guard, also those that wait.
    """
    removed = _installation.remove(installation if isinstance(installation, _Installed) else None)
    if removed is not None:
        removed.guard.close_connections()


def _hooked(installation: _Installation, original: Callable[..., BaseAdapter]) -> Callable[..., BaseAdapter]:
    @functools.wraps(original)
    def get_adapter(self: requests.Session, url: str) -> BaseAdapter:
        return installation.choose(url, original(self, url))

    get_adapter._crm_guard = installation  # type: ignore[attr-defined] # noqa: SLF001 (how we know our own hook)
    return get_adapter


def _with_slash(prefix: str) -> str:
    return prefix.lower() if prefix.endswith("/") else f"{prefix.lower()}/"


def _mounted(session: requests.Session, prefix: str) -> BaseAdapter | None:
    with contextlib.suppress(requests.exceptions.InvalidSchema):
        return session.get_adapter(prefix)
    return None


def _pool_of(adapter: BaseAdapter | None) -> dict[str, Any]:
    """Return what a stock adapter was configured with, to configure its successor alike."""
    if not isinstance(adapter, HTTPAdapter):
        return {}
    pool = {name.removeprefix("_"): getattr(adapter, name) for name in _POOL if hasattr(adapter, name)}
    return {**pool, "max_retries": adapter.max_retries}


def _is_plain(adapter: BaseAdapter) -> bool:
    """Tell whether an adapter is the stock one, and would repeat nothing."""
    return type(adapter) is HTTPAdapter and not adapter.max_retries.total
