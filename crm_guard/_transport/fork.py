"""What a forked process must not share with its parent: connections.

Both would send by one socket, and either may read the answer to what the other one sent: a refused write would be
told as a success. So the child begins with empty pools, for every adapter that a guard is or sends through.

This runs before anything else does in the child, and so calls no code of the caller's and takes no lock: a thread
that held one at the fork is not there to release it. It also sees to the locks of the old pools: urllib3 takes them
once more when these go.
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

# By identity: an adapter of somebody else's may define equality, and so have no hash.
_adapters: Final = weakref.WeakValueDictionary[int, Any]()


def remember(*adapters: object) -> None:
    """Have :func:`remembered` name adapters as long as they live. Thread-safe."""
    for adapter in adapters:
        with contextlib.suppress(TypeError):  # None, or of a class with slots and no room for a weak reference
            _adapters[id(adapter)] = adapter


def remembered() -> Iterator[object]:
    """Yield all adapters that are still there. Safe in a forked process, whatever lost threads were doing."""
    for reference in _adapters.valuerefs():
        adapter = reference()
        if adapter is not None:
            yield adapter


def renew_connections(adapter: object) -> None:
    """Give an adapter empty pools in place of those of its parent process; one without pools is left alone.

    The parent goes on using its connections: the child closes no more than its own ends of them.
    """
    state = getattr(adapter, "__dict__", {})
    manager, proxied = state.get("poolmanager"), state.get("proxy_manager")
    if isinstance(manager, PoolManager):
        state["poolmanager"] = _emptied(manager)
    if isinstance(proxied, dict):
        state["proxy_manager"] = {
            url: _emptied(manager) for url, manager in proxied.items() if isinstance(manager, PoolManager)
        }


def _emptied(manager: PoolManager) -> PoolManager:
    """Return a manager like `manager`, TLS and proxy settings included, that has no pool yet."""
    pools = manager.pools
    for pool in list(pools._container.values()):  # noqa: SLF001 (its methods take the lock)
        _abandon(pool)
    twin = object.__new__(type(manager))
    vars(twin).update(vars(manager), pools=RecentlyUsedContainer(pools._maxsize))  # noqa: SLF001
    return twin


def _abandon(pool: HTTPConnectionPool) -> None:
    """Close the idle connections of a pool, and make its locks anew: urllib3 takes them when the pool goes."""
    waiting: Any = pool.pool
    if waiting is None:  # it was closed
        return
    sockets: list[Any] = [connection.sock for connection in waiting.queue if connection is not None]
    type(waiting).__init__(waiting, waiting.maxsize)
    for sock in sockets:
        with contextlib.suppress(Exception):  # None, or broken: it is not needed any more
            sock.close()
