"""Traces: a span for each wait, and what CRM refused as events of the span around the call."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from crm_guard.events import EventKind

try:
    from opentelemetry import trace
except ImportError as exc:
    _message = "OpenTelemetryHook needs the OpenTelemetry API: pip install 'crm-guard[opentelemetry]'"
    raise ImportError(_message, name=exc.name) from exc

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from crm_guard.events import GuardEvent

_RESENDS: Final = "http.request.resend_count"
"""A standard attribute: https://opentelemetry.io/docs/specs/semconv/http/http-spans/."""


_MOST_IDS: Final = 100


class OpenTelemetryHook:
    """Traces what locks cost, with the OpenTelemetry API.

    - Each wait is a span `crm_guard.wait` below the current span; one that takes longer than it was to take has an
      event `crm_guard.waiting`.
    - The current span gets an event for each refusal (`crm_guard.locked`, `crm_guard.blocked`), resend, unlock and
      for what was given up, with `crm_guard.code`, `.action`, `.case`, `.reason`, `.records`, `.attempt`, `.waited`
      (seconds) and `.module`.
    - A resend counts as `http.request.resend_count`: in its event, and on the current span if that is one of an
      HTTP client, as `opentelemetry-instrumentation-requests` makes it. That may be installed before or after the
      guard, or not at all.

    The current span of `write_records` is that of the caller when the threads started. No attribute holds a body, a
    header, a URL, a token or the value of an external field. But a span that an exception leaves records its text,
    if that is how it was made, and the text of a `GuardError` names records. Thread-safe. A pickle has the
    settings, and the global tracer provider of where it is loaded.

    Args:
        tracer_provider: Where the spans of waits go; None means the global one, also if that is set later.
        record_ids: Whether CRM's record ids are told, as `crm_guard.record_ids`, a hundred at most.
    """

    def __init__(self, *, tracer_provider: TracerProvider | None = None, record_ids: bool = False) -> None:
        self._provider, self._record_ids = tracer_provider, record_ids
        self._tracer = trace.get_tracer("crm_guard", _version(), tracer_provider)

    def __call__(self, event: GuardEvent) -> object:
        """Handle `event`; return the span of a wait."""
        about = self._attributes(event)
        if event.kind is EventKind.WAITING and not event.again:
            # What ends the wait is an event of the call's own span; its text may name records.
            return self._tracer.start_as_current_span(
                "crm_guard.wait", attributes=about, record_exception=False, set_status_on_exception=False
            )
        span = trace.get_current_span()
        if span.is_recording():
            if event.kind is EventKind.RESENDING:
                about[_RESENDS] = event.attempt - 1
                if _is_of_http_client(span):
                    span.set_attribute(_RESENDS, event.attempt - 1)
            span.add_event(f"crm_guard.{event.kind.value}", about)
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpenTelemetryHook):
            return NotImplemented
        return self._provider is other._provider and self._record_ids == other._record_ids

    def __hash__(self) -> int:
        return hash((id(self._provider), self._record_ids))

    def __copy__(self) -> OpenTelemetryHook:
        return self

    def __deepcopy__(self, memo: object) -> OpenTelemetryHook:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._provider is not None:
            message = "an OpenTelemetryHook with a tracer_provider of its own cannot be pickled"
            raise TypeError(message)
        return partial(type(self), record_ids=self._record_ids), ()

    def _attributes(self, event: GuardEvent) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue | None] = {
            "http.request.method": event.method,
            "crm_guard.module": event.module or None,
            "crm_guard.records": event.records,
            "crm_guard.attempt": event.attempt,
            "crm_guard.waited": event.waited,
            "crm_guard.delay": event.delay if event.kind is EventKind.WAITING else None,
            "crm_guard.code": event.code or None,
            "crm_guard.action": event.action,
            "crm_guard.case": event.case.value if event.case else None,
            "crm_guard.reason": event.reason.value if event.reason else None,
            "crm_guard.error": str(event.error) if event.error else None,
            "crm_guard.record_ids": event.record_ids[:_MOST_IDS] if self._record_ids else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def _version() -> str | None:
    try:
        return version("crm-guard")
    except PackageNotFoundError:  # copied, and not installed
        return None


def _is_of_http_client(span: Span) -> bool:
    """Return whether a span is a client's; the API does not tell, the SDK does."""
    return getattr(span, "kind", None) is trace.SpanKind.CLIENT
