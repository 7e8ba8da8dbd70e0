"""What all connections of a simulator share: their sockets and threads, the stop signal, the bytes of an answer."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .messages import Reply, Request

_JOIN_SECONDS = 5.0
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)  # with one, clients would take it for the next answer


class Wire:
    """The open connections of one simulator. Thread-safe.

    Args:
        handle: Answers a request, and holds the call in service as its second argument says.
        compresses: Whether bodies are compressed for clients that accept it.
        max_body: Largest request body that is read, in bytes.
    """

    def __init__(
        self, handle: Callable[[Request, Callable[[float], object]], Reply], *, compresses: bool, max_body: int
    ) -> None:
        self.stopping = threading.Event()
        self.max_body = max_body
        self._handle = handle
        self._compresses = compresses
        self._mutex = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._ending: list[threading.Thread] = []
        self._accepted = 0

    @property
    def accepted(self) -> int:
        """Connections so far."""
        with self._mutex:
            return self._accepted

    def opened(self, connection: socket.socket) -> int:
        """Keep track of a connection of this thread, and return its number."""
        with self._mutex:
            self._accepted += 1
            self._open[connection] = threading.current_thread()
            number = self._accepted
        if self.stopping.is_set():
            _shut(connection)
        return number

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection of this thread, which is about to end."""
        with self._mutex:
            if thread := self._open.pop(connection, None):
                self._ending = [*(other for other in self._ending if other.is_alive()), thread]

    def close(self) -> None:
        """End every connection and delay, and wait for their threads."""
        self.stopping.set()
        with self._mutex:
            connections, threads = list(self._open), [*self._open.values(), *self._ending]
        for connection in connections:
            _shut(connection)
        for thread in threads:
            thread.join(_JOIN_SECONDS)

    def serve(self, request: Request) -> Reply:
        """Answer a request; a delay ends early when the simulator stops."""
        return self._handle(request, self.stopping.wait)

    def encode(self, request: Request, reply: Reply) -> bytes:
        """Return the bytes of an answer; of a truncated one only the first part."""
        headers, body = dict(reply.headers), b"" if reply.status in _BODILESS else reply.body
        if self._compresses and body and "gzip" in (request.header("Accept-Encoding") or ""):
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if reply.status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(body))
        sent = body[: len(body) // 2] if reply.delivery == "truncated" else body
        sent = b"" if request.method == "HEAD" else sent
        return _head(reply.status, headers) + sent


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
