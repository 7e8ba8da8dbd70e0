"""Metrics: refusals, waits, resends, and what became of the records, for Prometheus."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from crm_guard.events import EventKind

try:
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram
except ImportError as exc:
    _message = "PrometheusHook needs prometheus-client: pip install 'crm-guard[prometheus]'"
    raise ImportError(_message, name=exc.name) from exc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from crm_guard.events import GuardEvent

_SECONDS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_MOST_MODULES: Final = 100
_MOST_WORDS: Final = 30
_OTHER: Final = "other"


class PrometheusHook:
    """Counts what locks and missing approvals cost, with `prometheus-client`.

    | Metric | Labels | |
    |---|---|---|
    | `crm_guard_refusals_total` | `module`, `action` | answers that refused records for a lock that passes |
    | `crm_guard_refused_records_total` | `module`, `action` | the records in them |
    | `crm_guard_wait_seconds` (histogram) | `module`, `action` | waits that ended, and their seconds |
    | `crm_guard_waits_in_progress` (gauge) | `module` | calls that wait now |
    | `crm_guard_resends_total` | `module` | |
    | `crm_guard_unlocked_records_total` | `module` | records whose lock ended while the guard waited |
    | `crm_guard_blocked_records_total` | `module`, `code`, `cause` | by approval case, or action of the lock |
    | `crm_guard_gave_up_total` | `module`, `reason` | calls that gave up waiting |
    | `crm_guard_gave_up_records_total` | `module`, `reason` | the records that they left |

    For `write_records` an answer about many rows counts once, and each group of rows that wait together is a wait.
    Labels are bounded: what comes after the first hundred modules, and the first thirty other words, is `other`. In
    the multi-process mode of `prometheus-client` the gauge sums up live processes.

    Hooks of one registry share their metrics. Thread-safe. A pickle counts into the default registry of where it is
    loaded.

    Args:
        registry: Where the metrics are registered; None means the default one.

    Raises:
        ValueError: The registry has other metrics of these names.
    """

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self._is_default = registry is None
        self._metrics = _metrics_of(REGISTRY if registry is None else registry)

    def __call__(self, event: GuardEvent) -> object:
        """Count `event`; return what measures a wait."""
        return self._metrics.count(event)

    def __eq__(self, other: object) -> bool:
        return self._metrics is other._metrics if isinstance(other, PrometheusHook) else NotImplemented

    def __hash__(self) -> int:
        return id(self._metrics)

    def __copy__(self) -> PrometheusHook:
        return self

    def __deepcopy__(self, memo: object) -> PrometheusHook:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._is_default:
            message = "a PrometheusHook with a registry of its own cannot be pickled"
            raise TypeError(message)
        return type(self), ()


class _Metrics:
    """The metrics of one registry. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        lock, given_up = ("module", "action"), ("module", "reason")
        self._modules, self._words = _Bounded(_MOST_MODULES), _Bounded(_MOST_WORDS)
        self._refusals = _counter("refusals", "Answers that refused records for a lock that passes.", lock)
        self._refused = _counter("refused_records", "Records refused for a lock that passes.", lock)
        self._resends = _counter("resends", "Requests sent again for records that were locked.", ("module",))
        self._unlocked = _counter("unlocked_records", "Records whose lock ended while waited for.", ("module",))
        self._blocked = _counter(
            "blocked_records", "Records that waiting does not unblock.", ("module", "code", "cause")
        )
        self._gave_up = _counter("gave_up", "Calls that gave up waiting.", given_up)
        self._left = _counter("gave_up_records", "Records left by calls that gave up waiting.", given_up)
        self._seconds = Histogram(
            "crm_guard_wait_seconds", "Waits for a lock.", lock, registry=None, buckets=_SECONDS
        )
        self._waiting = Gauge(
            "crm_guard_waits_in_progress",
            "Calls that wait for a lock now.",
            ("module",),
            registry=None,
            multiprocess_mode="livesum",
        )
        counters = self._refusals, self._refused, self._resends, self._unlocked, self._blocked
        _register([*counters, self._gave_up, self._left, self._seconds, self._waiting], registry)

    def count(self, event: GuardEvent) -> object:
        """Count an event; return what measures a wait."""
        module, word = self._modules.label(event.module), self._words.label
        match event.kind:
            case EventKind.LOCKED if event.attempt:  # else it is known to be locked, and nobody was refused
                labels = module, word(event.action)
                self._refusals.labels(*labels).inc()
                self._refused.labels(*labels).inc(event.records)
            case EventKind.WAITING if not event.again:
                return self._wait(module, word(event.action))
            case EventKind.RESENDING:
                self._resends.labels(module).inc()
            case EventKind.UNLOCKED:
                self._unlocked.labels(module).inc(event.records)
            case EventKind.BLOCKED:
                cause = event.case.value if event.case else event.action
                self._blocked.labels(module, word(event.code), word(cause)).inc(event.records)
            case EventKind.GAVE_UP:
                reason = event.reason.value if event.reason else ""
                self._gave_up.labels(module, reason).inc()
                self._left.labels(module, reason).inc(event.records)
        return None

    @contextlib.contextmanager
    def _wait(self, module: str, action: str) -> Iterator[None]:
        waiting, began = self._waiting.labels(module), time.monotonic()
        waiting.inc()
        try:
            yield
        finally:
            waiting.dec()
            self._seconds.labels(module, action).observe(time.monotonic() - began)


def _counter(name: str, about: str, labels: tuple[str, ...]) -> Counter:
    return Counter(f"crm_guard_{name}", about, labels, registry=None)


def _register(collectors: list[Collector], registry: CollectorRegistry) -> None:
    """Register all, or none where a name is taken."""
    done: list[Collector] = []
    try:
        for collector in collectors:
            registry.register(collector)
            done.append(collector)
    except ValueError:
        for collector in done:
            registry.unregister(collector)
        raise


class _Bounded:
    """The values of a label: the first so many, and `other`. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._mutex = threading.Lock()
        self._known: set[str] = set()

    def label(self, value: str | None) -> str:
        """Return the value of the label for `value`."""
        text = value or ""
        if text in self._known:
            return text
        with self._mutex:
            if text not in self._known and len(self._known) >= self._most:
                return _OTHER
            self._known.add(text)
            return text


_mutex: Final = threading.Lock()
_of_registry: Final = weakref.WeakKeyDictionary[Any, _Metrics]()


def _metrics_of(registry: CollectorRegistry) -> _Metrics:
    """Return the metrics of a registry: a second registration of one name is an error there."""
    with _mutex:
        metrics = _of_registry.get(registry)
        if metrics is None:
            metrics = _of_registry[registry] = _Metrics(registry)
        return metrics
