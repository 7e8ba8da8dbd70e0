"""What the tests of instrumentation share: a tracer, the samples of a registry, and programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import requests
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import crm_guard
from crm_guard import GuardSettings
from crm_guard.instrumentation import OpenTelemetryHook
from crm_guard.locks import Unshared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from prometheus_client import CollectorRegistry

    from crm_guard.locks import WaitContext
    from crm_guard.simulator import Simulator

ROOT = Path(crm_guard.__file__).parents[1]
ROW = {"data": [{"Company": "Zylker"}]}
ACTION = "zia_vision_processing"
RESENDS = "http.request.resend_count"


class Open(SpanProcessor):
    """Counts the spans that began and did not end."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.mutex = threading.Lock()

    def on_start(self, span: Any, parent_context: object = None) -> None:
        with self.mutex:
            self.names.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        with self.mutex:
            self.names.remove(span.name)


class Lab:
    """A tracer provider that nobody else knows.

    Attributes:
        provider: The provider.
        tracer: A tracer of it, for the spans of the caller.
        hook: A hook that traces there.
        open: The names of the spans that did not end yet.
    """

    def __init__(self, **options: Any) -> None:
        self.provider, self.exporter, opened = TracerProvider(**options), InMemorySpanExporter(), Open()
        self.open = opened.names
        self.provider.add_span_processor(opened)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the caller")
        self.hook = OpenTelemetryHook(tracer_provider=self.provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name that ended, by their begin."""
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time)

    @property
    def waits(self) -> list[ReadableSpan]:
        return self.spans("crm_guard.wait")

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    def text(self, *left_out: str) -> str:
        """Return all that was exported as one text, attributes of some names left out."""
        lines = []
        for span in self.exporter.get_finished_spans():
            attributes = {key: value for key, value in span.attributes.items() if key not in left_out}
            events = [(event.name, dict(event.attributes)) for event in span.events]
            lines.append(repr((span.name, attributes, events, span.status.description, span.links)))
        return "\n".join(lines)


class Announcing(Unshared):
    """Has each wait announced three times, as one that depends on the answer to another call."""

    def waiter(self, context: WaitContext) -> Any:
        made = MagicMock()

        def wait(keys: Any, delay: float, deadline: float) -> Any:
            for number in range(3):
                context.announce(float(number))
            return frozenset(keys)

        made.wait.side_effect = wait
        return made


def names(span: ReadableSpan) -> list[str]:
    """Return the names of a span's events, in order."""
    return [event.name.removeprefix("crm_guard.") for event in span.events]


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Return whether a span is the child of another one, in its trace and in its time."""
    return (
        child.parent is not None
        and child.parent.span_id == parent.context.span_id
        and child.context.trace_id == parent.context.trace_id
        and parent.start_time <= child.start_time <= child.end_time
    )


def guarded(crm: Simulator, *hooks: Any, clock: Any = None, **options: Any) -> requests.Session:
    """Return a session with a guard that has these hooks; settings go by their names."""
    fields = set(GuardSettings.__struct_fields__) - {"lock_registry"}
    policy = {name: options.pop(name) for name in list(options) if name in fields}
    session = requests.Session()
    session.mount(
        crm.url + "/", crm_guard.GuardAdapter(GuardSettings(**policy), hooks=hooks, clock=clock, **options)
    )
    return session


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return the samples of a registry by name and values of labels, without buckets and times of creation."""
    order = ("module", "action", "code", "cause", "reason")
    return {
        (
            sample.name.removeprefix("crm_guard_"),
            *(sample.labels[label] for label in order if label in sample.labels),
        ): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_bucket", "_created", "_sum"))
    }


def program(text: str, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a program of Python's, for which every warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(text: str, *arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Run a program to its end; return the lines that it printed."""
    with program(text, *arguments, environment=environment) as child:
        output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert not errors
    return output.splitlines()
