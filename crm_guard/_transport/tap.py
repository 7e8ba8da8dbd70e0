"""A connection of an adapter's pool that can be cut while another thread waits for it.

`requests` hands out a connection with the response, which is too late where its first line is what does not come.
So a :class:`Tap` stands between the adapter and its pool, and sees each connection go out and come back. It cuts
only what is out: a connection that is back may be another call's by then.
"""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import EmptyPoolError

if TYPE_CHECKING:
    from urllib3.connectionpool import ConnectionPool

_LATE = "the diagnosis is late"


class Tap:
    """Watches the connections of the sends of one thread, and can cut them. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._out: Any = None
        self._late = False

    def over(self, pool: ConnectionPool) -> ConnectionPool:
        """Return a view of a pool, with the same connections, that this tap watches.

        That takes two methods of urllib3 that are not documented; without them the pool is returned as it is.
        """
        take, give = getattr(pool, "_get_conn", None), getattr(pool, "_put_conn", None)
        if take is None or give is None:
            return pool

        def taken(*args: Any, **options: Any) -> Any:
            connection = take(*args, **options)
            with self._mutex:
                late = self._late
                self._out = None if late else connection
            if late:  # not to be closed: who had it before may be about to close its own answer
                give(connection)
                raise EmptyPoolError(pool, _LATE)  # after which urllib3 puts nothing back, and does not try again
            connect = connection.connect

            def connected() -> None:
                connect()
                if self._late:  # there was no socket to be cut
                    raise TimeoutError(_LATE)

            vars(connection)["connect"] = connected
            return connection

        def given(connection: Any) -> None:
            if connection is not None:
                vars(connection).pop("connect", None)
            with self._mutex:
                self._out, late = None, self._late
            if late and connection is not None:
                connection.close()
            give(None if late else connection)

        view = copy.copy(pool)
        vars(view).update(_get_conn=taken, _put_conn=given)
        return view

    def cut(self) -> None:
        """End the connection that is out, if one is, and let none go out any more."""
        with self._mutex:
            self._late = True
            sock: Any = getattr(self._out, "sock", None)
            with contextlib.suppress(OSError, TypeError):  # ended already; not connected yet, or no real socket
                # Not by the method of a TLS socket, which would take its state from the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
