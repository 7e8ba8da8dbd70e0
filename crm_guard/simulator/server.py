"""The engine behind real HTTP/1.1 on the loopback interface."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self, Unpack

from .engine import Engine
from .handler import Server
from .wire import Wire

if TYPE_CHECKING:
    from types import TracebackType

    from .visit import EngineOptions

_BACKLOG = 512
_POLL_SECONDS = 0.003
_JOIN_SECONDS = 5.0


class Simulator(Engine):
    """A Zoho CRM on `http://127.0.0.1:<port>`: an :class:`Engine` with a threaded keep-alive server.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. All methods are thread-safe. It may be
    started again after a stop, on another port unless `port` is given; records and log live on.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        **options: See :class:`crm_guard.simulator.Options`, which lists them with units and defaults.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, *, port: int = 0, **options: Unpack[EngineOptions]) -> None:
        super().__init__(**options)
        self._port = port
        self._wire = Wire(
            lambda request, hold: self.handle(request, hold=hold),
            compresses=self._options.gzip,
            max_body=self._options.max_body,
        )
        self._running: tuple[Server, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """Address to send calls to, for instance `http://127.0.0.1:54321`.

        Raises:
            RuntimeError: The simulator is not running.
        """
        if self._running is None:
            msg = "the simulator is not running: use it in a with statement, or call start()"
            raise RuntimeError(msg)
        return f"http://127.0.0.1:{self._running[0].port}"

    @property
    def connections(self) -> int:
        """TCP connections accepted so far."""
        return self._wire.accepted

    def start(self) -> Self:
        """Begin to answer, in background threads.

        Raises:
            OSError: The port is taken.
            RuntimeError: The simulator is running.
        """
        if self._running is not None:
            msg = "the simulator is running already"
            raise RuntimeError(msg)
        self._wire.stopping.clear()
        with socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG) as listening:
            server = Server(listening, self._wire)
        thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_SECONDS,), name="crm-simulator", daemon=True
        )
        thread.start()
        self._running = (server, thread)
        return self

    def stop(self) -> None:
        """Close the port and every connection, cut delays short, and wait for the threads. Idempotent."""
        if self._running is None:
            return
        server, thread = self._running
        self._wire.stopping.set()
        server.shutdown()
        thread.join(_JOIN_SECONDS)
        server.server_close()
        self._wire.close()
        self._running = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
