"""A lean CRM in a process of its own, whose records are locked until given instants: `with BulkServer()`.

Not the simulator: that models much more of CRM, and takes 4 ms of CPU for a batch of a hundred rows, as much as the
client; this one takes 0.5 ms. Answers have the documented shape, an item for each row in the order of the
request, and 207 or 400 where some or all are refused. A call stays `latency` seconds; CRM decides in its middle.
Instants are those of `time.monotonic`, which all processes of a host share.
"""

from __future__ import annotations

import multiprocessing
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from bulk_rows import KIND, answer, ids_of

_REASONS = {200: "OK", 207: "Multi-Status", 400: "Bad Request"}
_HEADS = {
    status: f"HTTP/1.1 {status} {reason}\r\nContent-Type: {KIND}\r\nServer: ZGS\r\nContent-Length: ".encode()
    for status, reason in _REASONS.items()
}


@dataclass
class Scene:
    """What the server is told, and what it saw."""

    latency: float = 0.0
    ends: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    writes: Counter[str] = field(default_factory=Counter)


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self.rfile.readline():
            came, size = time.monotonic(), 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            self.serve(self.rfile.read(size), came)

    def serve(self, body: bytes, came: float) -> None:
        scene = self.server.scene
        ids = ids_of(body)
        sleep_until(came + scene.latency / 2)
        now, ends = time.monotonic(), scene.ends
        refused = [ends.get(record, 0.0) > now for record in ids]
        status, text = answer(ids, refused)
        with self.server.mutex:
            scene.calls += 1
            scene.writes.update(record for record, is_refused in zip(ids, refused, strict=True) if not is_refused)
        sleep_until(came + scene.latency)
        self.request.sendall(b"%b%d\r\n\r\n%b" % (_HEADS[status], len(text), text))


def sleep_until(instant: float) -> None:
    left = instant - time.monotonic()
    if left > 0:
        time.sleep(left)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256
    scene = Scene()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.mutex = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Let clients go as they like."""


def _serve(orders) -> None:
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    orders.send(server.server_address[1])
    while (scene := orders.recv()) is not None:
        server.scene = scene
        cpu = time.process_time()
        orders.send(None)
        orders.recv()
        orders.send((server.scene, time.process_time() - cpu))


class BulkServer:
    """The server, while the `with` block runs."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.origin = f"http://127.0.0.1:{self._orders.recv()}"
        return self

    def begin(self, latency: float, ends: dict[str, float]) -> None:
        """Begin a scene: `ends` are the instants at which records unlock."""
        self._orders.send(Scene(latency, ends))
        self._orders.recv()

    def end(self) -> tuple[Scene, float]:
        """Return what the server saw, and its CPU seconds."""
        self._orders.send(True)
        return self._orders.recv()

    def __exit__(self, *_: object) -> None:
        self._orders.send(None)
        self._process.join()
