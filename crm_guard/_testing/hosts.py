"""Send what is addressed to Zoho's hosts to a server of this machine.

The detour is where urllib3 chooses a connection, below everything that tests use to look at or to answer requests
(`responses`, adapters, hooks), so URLs stay as they are, and none of these can lead a call past it to Zoho.
"""

from __future__ import annotations

import functools
import re
import threading
import weakref
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool, PoolManager, ProxyManager

from crm_guard._testing.patches import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZOHO: Final = re.compile(r"(?i)(?:[a-z0-9-]+\.)*zoho(?:apis|cloud)?(?:\.[a-z]{2,3}){1,2}\.?")
"""Every host below `zoho.com`, `zohoapis.eu`, `zohocloud.ca` and so on: CRM, accounts, uploads.

As Zoho's Python SDK (2026) names them; any country, so that none is called by mistake.
"""

_KEPT: Final = ("maxsize", "block", "timeout", "retries", "headers", "blocksize")
"""The arguments of a connection pool that are neither about TLS nor about a proxy."""


@contextmanager
def zoho_hosts_at(url: str) -> Iterator[None]:
    """Have `requests` and urllib3 connect to `url` for every host of Zoho, with proxies and without.

    At the end, the idle connections to `url` are closed, in sessions that live on, too.

    Args:
        url: An `http` URL with a port.
    """
    detour = _Detour(url)
    try:
        with ExitStack() as patches:
            for kind in (PoolManager, ProxyManager):
                patched = detour.around(vars(kind)["connection_from_host"])
                patches.enter_context(replaced(kind, connection_from_host=patched))
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
        self._place = _Place(address.hostname or "", address.port or 0)
        self._mutex = threading.Lock()
        self._managers: weakref.WeakSet[PoolManager] = weakref.WeakSet()

    def around(self, original: Callable[..., HTTPConnectionPool]) -> Callable[..., HTTPConnectionPool]:
        """Return a `connection_from_host` that takes the detour where it is due."""

        @functools.wraps(original)
        def connection_from_host(
            manager: PoolManager, host: str | None, port: int | None = None, *args: Any, **options: Any
        ) -> HTTPConnectionPool:
            is_zoho = host is not None and ZOHO.fullmatch(host) is not None
            if is_zoho or (host, port) == self._place:
                with self._mutex:
                    self._managers.add(manager)
            return self._pool_of(manager) if is_zoho else original(manager, host, port, *args, **options)

        return connection_from_host

    def _pool_of(self, manager: PoolManager) -> HTTPConnectionPool:
        """Return a plain pool among those of `manager`, whose own kind may go through a SOCKS proxy."""
        pools: Any = manager.pools  # of urllib3's own keys, says its type
        with pools.lock:
            pool: HTTPConnectionPool | None = pools.get(self._place)
            if pool is None:
                kept = {name: value for name, value in manager.connection_pool_kw.items() if name in _KEPT}
                pool = pools[self._place] = HTTPConnectionPool(*self._place, **kept)
            return pool

    def close(self) -> None:
        """Drop the pools, and close their idle connections; one in use is closed when it comes back."""
        with self._mutex:
            managers = list(self._managers)
        for manager in managers:
            for key in manager.pools.keys():  # noqa: SIM118 (urllib3's container is not iterable)
                if (key.key_host, key.key_port) == self._place:
                    with suppress(KeyError):  # meanwhile its session was closed
                        manager.pools.pop(key).close()
