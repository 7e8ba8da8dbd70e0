"""A loopback HTTP/1.1 server in a process of its own that does nothing but answer canned bytes: `with Loopback()`.

One thread per kept-alive connection, one `sendall` per answer: the client's cost is what is to be seen. `PUT
.../Leads/locked` answers in pairs, per connection: first 100 items of which ten are locked, then successes, for as
many records as a narrowed (ten) or a whole (hundred) resend asks.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socketserver
from typing import Self

from canned import ANSWERS, JSON, LATE_SUCCESSES, MANY_RECORDS, MANY_SUCCESSES, SOME_LOCKED

PREFIX = b"/crm/v8/"


def _framed(status: int, kind: str, body: bytes) -> tuple[bytes, bytes]:
    reason = {200: "OK", 207: "Multi-Status", 400: "Bad Request"}[status]
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Server: ZGS\r\nDate: Sun, 10 May 2026 08:10:47 GMT\r\nX-API-CREDITS-REMAINING: 4999\r\n"
        "Cache-Control: private, no-cache, no-store\r\nX-Frame-Options: SAMEORIGIN\r\n\r\n"
    )
    return head.encode(), body


_ANSWERS = {path.encode(): _framed(*answer) for path, answer in ANSWERS.items()}
_SOME_LOCKED = _framed(207, JSON, SOME_LOCKED)
_RESENT_SOME = _framed(200, JSON, LATE_SUCCESSES)
_RESENT_ALL = _framed(200, JSON, MANY_SUCCESSES)


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        refused = itertools.cycle((True, False))
        while line := self.rfile.readline():
            size = self._skip_head()
            self.rfile.read(size)
            path = line.split()[1].removeprefix(PREFIX)
            head, body = self._locked(next(refused), size) if path == b"Leads/locked" else _ANSWERS[path]
            self._send(head, body)

    def _skip_head(self) -> int:
        """Read to the end of the headers; return the length of the body."""
        size = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        return size

    def _send(self, head: bytes, body: bytes) -> None:
        if len(body) < 1 << 20:
            self.request.sendall(head + body)
        else:
            self.request.sendall(head)
            self.request.sendall(body)

    @staticmethod
    def _locked(refused: bool, size: int) -> tuple[bytes, bytes]:
        if refused:
            return _SOME_LOCKED
        return _RESENT_ALL if size >= len(MANY_RECORDS) else _RESENT_SOME


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """Let clients go as they like."""


def _serve(port, cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    with _Server(("127.0.0.1", 0), _Connection) as server:
        port.send(server.server_address[1])
        server.serve_forever()


class Loopback:
    """The server, while the `with` block runs; `url` ends where the module's name begins.

    Args:
        cpu: The one processor that the server may use.
    """

    def __init__(self, cpu: int | None = None):
        self._cpu = cpu

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._cpu), daemon=True)
        self._process.start()
        theirs.close()  # so that a server that fails to start is no reason to wait for ever
        self.url = f"http://127.0.0.1:{ours.recv()}{PREFIX.decode()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
