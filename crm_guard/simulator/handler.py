"""One connection, on werkzeug's threaded server. The only module that imports werkzeug."""

from __future__ import annotations

import socket
import struct
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from werkzeug.serving import BaseWSGIServer, DechunkedInput, WSGIRequestHandler, make_server

from .messages import Request

if TYPE_CHECKING:
    from .wire import Wire

_NO_LINGER = struct.pack("ii", 1, 0)


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
        request = self._request()
        reply = self.wire.serve(request)
        self.close_connection = self.close_connection or reply.delivery != "whole"
        if self.wire.stopping.is_set() or reply.delivery == "drop":
            self.close_connection = True
        elif reply.delivery == "reset":
            self._reset()
        else:
            self.wfile.write(self.wire.encode(request, reply))

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        return Request(
            method=self.command,
            path=path,
            query=query,
            headers=dict(self.headers.items()),
            body=self._read_body(),
            connection=self.number,
        )

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return DechunkedInput(cast("IO[bytes]", self.rfile)).read()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            msg = "the client went away in the middle of its request"
            raise ConnectionAbortedError(msg)
        return body

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
