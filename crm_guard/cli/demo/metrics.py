"""Serves what the demo's guards count as Prometheus would fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import requests

from crm_guard.cli.plain import CommandError
from crm_guard.instrumentation import instrument

if TYPE_CHECKING:
    from types import TracebackType

    from crm_guard.events import GuardHook

_USAGE_ERROR = 2
_SECONDS = 10


class MetricsPage:
    """`/metrics` on a free port of 127.0.0.1, for all guards of the process while it is entered.

    Attributes:
        url: Where it is, once it is entered.

    Raises:
        CommandError: `prometheus-client` is not installed.
    """

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 (an extra)

            from crm_guard.instrumentation.prometheus import PrometheusHook  # noqa: PLC0415
        except ImportError:
            message = "--metrics needs prometheus-client: pip install 'crm-guard[prometheus]'"
            raise CommandError(message, _USAGE_ERROR) from None
        self._registry = CollectorRegistry()
        self._hook = PrometheusHook(registry=self._registry)
        self._before: tuple[GuardHook, ...] = ()
        self._server: Any = None
        self.url = ""

    def __enter__(self) -> Self:
        from prometheus_client import start_http_server  # noqa: PLC0415

        self._server, self._thread = start_http_server(0, "127.0.0.1", self._registry)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        self._before = instrument([self._hook])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        instrument(self._before)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_SECONDS)

    def read(self) -> str:
        """Fetch the page over HTTP, and return its text."""
        with requests.Session() as session:
            session.trust_env = False  # it is not behind a proxy
            return session.get(self.url, timeout=_SECONDS).text
