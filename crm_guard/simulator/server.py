"""The engine behind real HTTP/1.1, on the loopback interface unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Self, Unpack

from .clocks import RunningClock
from .control import Control
from .engine import Engine
from .handler import Server
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .messages import Reply, Request
    from .visit import EngineOptions

_BACKLOG = 512
_POLL_SECONDS = 0.003
_JOIN_SECONDS = 5.0
_FROM_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (an address to listen on is none to call)


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Simulator(Engine):
    """A Zoho CRM on `http://127.0.0.1:<port>`: an :class:`Engine` with a threaded keep-alive server.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. All methods are thread-safe. It may be
    started again after a stop, on another port unless `port` is given; records and log live on.

    Args:
        port: TCP port; 0 takes a free one.
        host: Address or name to listen on. With another one than 127.0.0.1, `::1` or `localhost`, whoever reaches
            the port may read and change everything.
        control: Also answer the control API below `/__simulator`, for programs in other languages:
            :mod:`crm_guard.simulator.control` documents it. Then `clock` is one that can be advanced, unless given.
        plant: Fills a CRM as it is to be at the start, and again after each reset by the control API: called with
            the engine to fill.
        **options: See :class:`crm_guard.simulator.Options`, which lists them with units and defaults.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        control: bool = False,
        plant: Callable[[Engine], object] | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        if control:
            options = {"clock": RunningClock(), **options}
        super().__init__(**options)
        if plant is not None:
            plant(self)
        self._address = (host, port)
        self._control = Control(self, plant, guarded=is_loopback(host)) if control else None
        self._wire = Wire(
            self._serve,
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
        server = self._running[0]
        host = _FROM_HERE.get(server.host, server.host)
        return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"

    @property
    def connections(self) -> int:
        """TCP connections accepted so far."""
        return self._wire.accepted

    def start(self) -> Self:
        """Begin to answer, in background threads.

        Raises:
            OSError: The port is taken, or the host is none of this machine's.
            RuntimeError: The simulator is running.
        """
        if self._running is not None:
            msg = "the simulator is running already"
            raise RuntimeError(msg)
        self._wire.stopping.clear()
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        with socket.create_server(self._address, family=family, backlog=_BACKLOG) as listening:
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

    def _serve(self, request: Request, hold: Callable[[float], object]) -> Reply:
        if self._control is not None and self._control.owns(request.path):
            return self._control.handle(request)
        return self.handle(request, hold=hold)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
