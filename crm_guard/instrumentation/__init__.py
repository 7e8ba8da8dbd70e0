"""Logs, traces, metrics: the events of guarded calls and of `write_records`, and ready hooks for them.

The logger `crm_guard` has one line when a call begins to wait and one when its records are unlocked
(INFO), and one for what is blocked or given up, with what to do (WARNING). Calls that wait for the
same record say it once, and the last one what became of the others. All else is DEBUG:

    INFO    PUT /crm/v8/Leads/1: waiting, 1 record (1) RECORD_LOCKED zia_vision_processing, attempt 1, ...
    INFO    PUT /crm/v8/Leads/1: unlocked, 1 record (1), attempt 15, waited 60.9 s
    INFO    PUT /crm/v8/Leads/1: 49 more calls unlocked, 1 record (1), waited up to 61.3 s
    WARNING PUT /crm/v8/Leads/2: blocked, 1 record (2) NOT_APPROVED zia_rejected, attempt 1, ...: Zia rejected ...

Each log record has the fields of the event as `guard_kind`, `guard_module`, `guard_record_ids`,
`guard_records`, `guard_attempt`, `guard_waited`, `guard_code`, `guard_action`, `guard_case`,
`guard_reason`, `guard_hint` and so on; none holds a body, a token or a field value. `structlog` and
JSON formatters take them as they are: `structlog.stdlib.ExtraAdder()` in the `processors` of a
`ProcessorFormatter`. With Django, name the logger in `LOGGING`::

    import logging.config

    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "crm": {
                "()": "logging.Formatter",
                "fmt": "%(levelname)s %(guard_module)s %(message)s",
                "defaults": {"guard_module": "-"},  # for lines that are about no call
            }
        },
        "handlers": {"crm": {"class": "logging.StreamHandler", "formatter": "crm"}},
        "loggers": {"crm_guard": {"handlers": ["crm"], "level": "INFO"}},
    }
    logging.config.dictConfig(LOGGING)  # Django does this with its setting

A hook is called with each `crm_guard.GuardEvent`. `crm_guard.instrument` sets the hooks of the
whole process, for every guard and writer in it; `hooks=` of `GuardAdapter`, `mount_guard` and
`install` those of one guard, called after them::

    import requests
    import crm_guard
    from crm_guard.instrumentation import OpenTelemetryHook, PrometheusHook

    crm_guard.instrument([OpenTelemetryHook(), PrometheusHook()])  # extras `opentelemetry`, `prometheus`
    crm_guard.mount_guard(requests.Session(), hooks=[lambda event: print(event.kind, event.record_ids)])

- `OpenTelemetryHook()`: a span `crm_guard.wait` for each wait; events of the current span for each
  refusal, resend and unlock, with code, action, case and number of records;
  `http.request.resend_count`. With and without `opentelemetry-instrumentation-requests`. No record
  ids unless `record_ids=True`.
- `PrometheusHook()`: `crm_guard_refusals_total`, `crm_guard_wait_seconds`,
  `crm_guard_waits_in_progress`, `crm_guard_resends_total`, `crm_guard_unlocked_records_total`,
  `crm_guard_blocked_records_total`, `crm_guard_gave_up_total` and others, by module, action, case
  or reason; `crm-guard demo --metrics` shows them.
- your own, `hook(event)`: it may return a context manager from a `WAITING` event, which is entered
  for the wait and left before the resend. Its exceptions are logged and cost nothing; `sys.exit()`
  in it ends the call as Ctrl-C does.

Neither hook is imported unless it is asked for. CPU time per locked call, as a ratio to a guard
without hooks (`python tests/benchmarks/hooks.py`, noise 0.02): `PrometheusHook` 1.00,
`OpenTelemetryHook` 1.03 with the SDK and 1.02 without it, both 1.02. A call that meets no lock
calls no hook.

On SIGTERM see `crm_guard.clock`, or `crm-guard help stopping`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from crm_guard._transport.hooks import check_hooks, replace_process_hooks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard.events import GuardHook
    from crm_guard.instrumentation.opentelemetry import OpenTelemetryHook
    from crm_guard.instrumentation.prometheus import PrometheusHook

__all__ = ["OpenTelemetryHook", "PrometheusHook", "instrument"]

_HOMES: Final = {"OpenTelemetryHook": "opentelemetry", "PrometheusHook": "prometheus"}


def instrument(hooks: Iterable[GuardHook]) -> tuple[GuardHook, ...]:
    """Set the hooks of the process: they hear of every guard and every writer in it, present and future.

    Those of an earlier call are replaced, so that calling it again counts nothing twice; `instrument([])` undoes
    it. Calls under way are included from their next event on. A hook that a guard has as well is called once.
    Forked processes inherit the hooks; others, as of `multiprocessing` with `spawn`, set their own. Thread-safe.

    Args:
        hooks: See `GuardHook`.

    Returns:
        The hooks that it replaces.

    Raises:
        TypeError: It is no iterable, or one of them cannot be called with an event.
    """
    return replace_process_hooks(check_hooks(hooks, "instrument(...)"))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
