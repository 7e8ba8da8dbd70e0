"""Shut down a connection of an adapter's pool while another thread waits for its answer.

`requests` exposes a connection only with the response: too late if not even the status line arrives. So a
:class:`Tap` wraps the pool and sees each connection checked out and returned. It shuts down only a checked-out
connection: a returned one may already serve another call.
"""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import EmptyPoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response
    from urllib3.connectionpool import ConnectionPool

_OUT_OF_TIME = "the diagnosis ran out of time"


def tapped(adapter: Any, tap: Tap) -> Callable[..., Response]:
    """Return a `transmit` that sends as a guard's does, and whose own connections `tap` watches."""
    twin = object.__new__(type(adapter))
    vars(twin).update(vars(adapter))
    choose = adapter.get_connection_with_tls_context
    vars(twin)["get_connection_with_tls_context"] = lambda *args, **given: tap.over(choose(*args, **given))
    transmit: Callable[..., Response] = twin.transmit
    return transmit


class Tap:
    """Tracks the connection that one thread sends on, and can shut it down. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._connection: Any = None
        self._expired = False

    def over(self, pool: ConnectionPool) -> ConnectionPool:
        """Return a view of a pool, with the same connections, that reports to this tap.

        It relies on two undocumented methods of urllib3; a pool without them is returned unchanged.
        """
        get, put = getattr(pool, "_get_conn", None), getattr(pool, "_put_conn", None)
        if get is None or put is None:
            return pool

        def get_connection(*args: Any, **options: Any) -> Any:
            connection = get(*args, **options)
            with self._mutex:
                expired = self._expired
                self._connection = None if expired else connection
            if expired:  # not closed: its previous user may still be closing its own answer
                put(connection)
                raise EmptyPoolError(pool, _OUT_OF_TIME)  # urllib3 neither retries it nor returns a connection
            connect = connection.connect

            def connect_in_time() -> None:
                connect()
                if self._expired:  # `cut` found no socket to shut down
                    raise TimeoutError(_OUT_OF_TIME)

            vars(connection)["connect"] = connect_in_time
            return connection

        def put_connection(connection: Any) -> None:
            if connection is not None:
                vars(connection).pop("connect", None)
            with self._mutex:
                self._connection, expired = None, self._expired
            if expired and connection is not None:
                connection.close()
            put(None if expired else connection)

        view = copy.copy(pool)
        vars(view).update(_get_conn=get_connection, _put_conn=put_connection)
        return view

    def cut(self) -> None:
        """Shut down the checked-out connection, if any, and refuse further ones."""
        with self._mutex:
            self._expired = True
            sock: Any = getattr(self._connection, "sock", None)
            with contextlib.suppress(OSError, TypeError):  # already shut down, not connected, or no real socket
                # Not `SSLSocket.shutdown`: it would drop the TLS state that the reading thread uses.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
