"""One connection, on werkzeug's threaded server. The only module that imports werkzeug."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from .bodies import read_body
from .messages import Request, RequestError

if TYPE_CHECKING:
    from .messages import Reply
    from .wire import Wire

_NO_LINGER = struct.pack("ii", 1, 0)
_LINGER_SECONDS = 1.0
_PIECE = 65536


class Handler(WSGIRequestHandler):
    """Answers the requests of one connection, one after the other.

    Werkzeug's own handler closes the connection after every answer; this one keeps it alive, and talks to the
    engine without WSGI in between.
    """

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

    def run_wsgi(self) -> None:
        """Answer one request, whatever its method."""
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
        path, _, query = self.path.partition("?")
        return Request(
            method=self.command,
            path=path,
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

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Stay quiet."""

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay quiet."""


def make_http_server(listening: socket.socket, wire: Wire) -> BaseWSGIServer:
    """Return a threaded server on a socket that listens; it works on a duplicate of the socket."""
    handler = type("BoundHandler", (Handler,), {"wire": wire, "protocol_version": "HTTP/1.1"})
    host, port = listening.getsockname()[:2]
    return make_server(host, port, _no_application, threaded=True, request_handler=handler, fd=listening.fileno())


def _no_application(_environ: Any, _start: Any) -> list[bytes]:
    """Never called: the handler talks to the engine itself."""
    return []
