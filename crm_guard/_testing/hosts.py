"""Send what is addressed to Zoho's hosts to a server of this machine.

The detour is where urllib3 chooses a connection, below everything that tests use to look at or to answer requests
(`responses`, adapters, hooks), so URLs stay as they are, and none of these can lead a call past it to Zoho. What
takes another way finds no address for Zoho's names.
"""

from __future__ import annotations

import functools
import socket
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool, PoolManager, ProxyManager

from crm_guard._testing.names import ZOHO
from crm_guard._testing.patches import InUse, Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEPT: Final = ("maxsize", "block", "timeout", "retries", "headers", "blocksize")
"""The arguments of a connection pool that are neither about TLS nor about a proxy."""


@contextmanager
def zoho_hosts_at(url: str) -> Iterator[None]:
    """Have `requests` and urllib3 connect to `url` for every host of Zoho, with proxies and without.

    Of several such blocks the one that began last answers; they may end in any order. `url` itself is reached
    without a proxy, too. At the end, the idle connections to it are closed, in sessions that live on, too.

    Meanwhile `socket.getaddrinfo` refuses Zoho's names: clients of other kinds fail rather than reach Zoho.

    Args:
        url: An `http` URL with a port.
    """
    detour = _Detour(url)
    try:
        with _detours.using(detour):
            yield
    finally:
        detour.close()


class _Place(NamedTuple):
    """An address, and the key of its pool among those of a manager: the names are those of urllib3's keys."""

    key_host: str
    key_port: int


class _Detour:
    """Pools of connections to one address, each in the pool manager that was asked for it. Thread-safe."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.place = _Place(address.hostname or "", address.port or 0)
        self._mutex = threading.Lock()
        self._managers: weakref.WeakSet[PoolManager] = weakref.WeakSet()

    def pool_of(self, manager: PoolManager) -> HTTPConnectionPool:
        """Return a plain pool among those of `manager`, whose own kind may go through a SOCKS proxy."""
        with self._mutex:
            self._managers.add(manager)
        pools: Any = manager.pools  # of urllib3's own keys, says its type
        with pools.lock:
            pool: HTTPConnectionPool | None = pools.get(self.place)
            if pool is None:
                kept = {name: value for name, value in manager.connection_pool_kw.items() if name in _KEPT}
                pool = pools[self.place] = HTTPConnectionPool(*self.place, **kept)
            return pool

    def close(self) -> None:
        """Drop the pools, and close their idle connections; one in use is closed when it comes back."""
        with self._mutex:
            managers = list(self._managers)
        for manager in managers:
            with suppress(KeyError):  # its session was closed
                manager.pools.pop(self.place).close()  # type: ignore[call-overload]


_detours: Final[InUse[_Detour]] = InUse()


def _is_zoho(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    return isinstance(name, str) and ZOHO.fullmatch(name) is not None


def _detour_to(host: str | None, port: int | None) -> _Detour | None:
    """Return the detour to take for an address, if one is due."""
    detours = _detours.all
    if detours and _is_zoho(host):
        return detours[-1]
    return next((detour for detour in detours if detour.place == (host, port)), None)


def _with_detour(original: Callable[..., HTTPConnectionPool]) -> Callable[..., HTTPConnectionPool]:
    @functools.wraps(original)
    def connection_from_host(
        manager: PoolManager, host: str | None, port: int | None = None, *args: Any, **options: Any
    ) -> HTTPConnectionPool:
        detour = _detour_to(host, port)
        return detour.pool_of(manager) if detour else original(manager, host, port, *args, **options)

    return connection_from_host


def _without_zoho(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if _detours.all and _is_zoho(host):
            text = "a simulated CRM stands in for Zoho's hosts: requests and urllib3's pool managers alone reach it"
            raise socket.gaierror(socket.EAI_NONAME, text)
        return original(host, *args, **options)

    return getaddrinfo


_detours.patches += (
    Patch(PoolManager, "connection_from_host", _with_detour),
    Patch(ProxyManager, "connection_from_host", _with_detour),
    Patch(socket, "getaddrinfo", _without_zoho),
)
