"""One connection, and the threaded server that accepts it."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, ClassVar

from .bodies import read_body
from .messages import Request, RequestError

if TYPE_CHECKING:
    from .messages import Reply
    from .wire import Wire

_NO_LINGER = struct.pack("ii", 1, 0)
_LINGER_SECONDS = 1.0
_PIECE = 65536
_ORIGIN = re.compile(r"(?i)\Ahttps?://[^/?]*")
"""How a target in absolute form begins, which a client sends that believes in a proxy; RFC 9112, 3.2.2."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection, one after the other, whatever their method."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wire: ClassVar[Wire]

    def setup(self) -> None:
        """Register the connection."""
        super().setup()
        self.number = self.wire.opened(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.wire.closed(self.connection)
        super().finish()

    def handle(self) -> None:
        """Answer requests until the connection ends; a client may leave at any time."""
        with contextlib.suppress(OSError):
            super().handle()

    def __getattr__(self, name: str) -> Any:
        """Return what answers a method, which the standard library looks up by its name."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        try:
            body = read_body(self.headers, self.rfile, self.wire.max_body)
        except RequestError as error:
            self._refuse(error.reply)
            return
        request = self._request(body)
        reply = self.wire.serve(request)
        self.close_connection = self.close_connection or reply.delivery != "whole"
        if self.wire.stopping.is_set() or reply.delivery == "drop":
            self.close_connection = True
        elif reply.delivery == "reset":
            self._reset()
        else:
            self.wfile.write(self.wire.encode(request, reply))

    def _request(self, body: bytes = b"") -> Request:
        path, _, query = _ORIGIN.sub("", self.path).partition("?")
        return Request(
            method=self.command,
            path=path or "/",
            query=query,
            headers=dict(self.headers.items()),
            body=body,
            connection=self.number,
        )

    def _refuse(self, reply: Reply) -> None:
        """Answer a request whose body cannot be read, and close: what follows may be the rest of it."""
        self.close_connection = True
        reply = replace(reply, headers={**reply.headers, "Connection": "close"})
        self.wfile.write(self.wire.encode(self._request(), reply))
        # Closed with bytes unread, a socket sends a RST, for which the client may lose the answer.
        until = time.monotonic() + _LINGER_SECONDS
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_PIECE):
                    break

    def _reset(self) -> None:
        """Answer with a TCP RST: closing a socket that lingers for zero seconds sends one."""
        self.wire.closed(self.connection)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        socket.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay quiet."""


class Server(ThreadingMixIn, TCPServer):
    """A thread for each connection of a socket that listens already; the threads end with the process.

    Args:
        listening: The socket; the server works on a duplicate of it.
        wire: What the connections share.
    """

    daemon_threads = True

    def __init__(self, listening: socket.socket, wire: Wire) -> None:
        handler = type("BoundHandler", (Handler,), {"wire": wire})
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening.dup()

    @property
    def host(self) -> str:
        """IP address that it listens on."""
        return str(self.socket.getsockname()[0])

    @property
    def port(self) -> int:
        """TCP port."""
        return int(self.socket.getsockname()[1])
