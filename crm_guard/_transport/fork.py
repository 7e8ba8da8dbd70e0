"""Give a forked process connection pools of its own.

Parent and child would share sockets, and one could read the answer to a request of the other: a refused write would
be reported as a success. So the child starts with empty pools, for every guard and every adapter it sends through.

This runs first in the child, calls no user code and takes no lock: a thread that held one at the fork no longer
exists to release it. It also replaces the locks of the old pools, as urllib3 takes them when it disposes of these.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Final

from urllib3 import PoolManager
from urllib3._collections import RecentlyUsedContainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.connectionpool import HTTPConnectionPool

# By identity: a third-party adapter may define equality and so be unhashable.
_adapters: Final = weakref.WeakValueDictionary[int, Any]()


def remember(*adapters: object) -> None:
    """Register adapters for :func:`remembered`, by weak reference. Thread-safe."""
    for adapter in adapters:
        with contextlib.suppress(TypeError):  # None, or a class with slots and no `__weakref__`
            _adapters[id(adapter)] = adapter


def remembered() -> Iterator[object]:
    """Yield all registered adapters still alive. Safe in a forked process, whatever other threads were doing."""
    for reference in _adapters.valuerefs():
        adapter = reference()
        if adapter is not None:
            yield adapter


def renew_connections(adapter: object) -> None:
    """Replace the pools that an adapter inherited by empty ones; no-op for an adapter without pools.

    The connections of the parent stay usable: the child closes only its own file descriptors.
    """
    state = getattr(adapter, "__dict__", {})
    manager, proxied = state.get("poolmanager"), state.get("proxy_manager")
    if isinstance(manager, PoolManager):
        state["poolmanager"] = _without_pools(manager)
    if isinstance(proxied, dict):
        state["proxy_manager"] = {
            url: _without_pools(manager) for url, manager in proxied.items() if isinstance(manager, PoolManager)
        }


def _without_pools(manager: PoolManager) -> PoolManager:
    """Return a copy of `manager`, including TLS and proxy settings, without pools."""
    pools = manager.pools
    for pool in list(pools._container.values()):  # noqa: SLF001 (its methods take the lock)
        _discard_pool(pool)
    fresh = object.__new__(type(manager))
    vars(fresh).update(vars(manager), pools=RecentlyUsedContainer(pools._maxsize))  # noqa: SLF001
    return fresh


def _discard_pool(pool: HTTPConnectionPool) -> None:
    """Close the idle connections of a pool and replace its locks: urllib3 takes them when it drops the pool."""
    idle: Any = pool.pool
    if idle is None:  # closed
        return
    sockets: list[Any] = [connection.sock for connection in idle.queue if connection is not None]
    type(idle).__init__(idle, idle.maxsize)
    for sock in sockets:
        with contextlib.suppress(Exception):  # None, or broken
            sock.close()
