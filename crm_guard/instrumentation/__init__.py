"""Ready hooks for traces and metrics, and the hooks of the whole process.

A hook is called with each `crm_guard.GuardEvent` of guarded calls and of `write_records`:

- `crm_guard.instrument([...])` sets those of the process, for every guard and writer in it;
- `hooks=[...]` of `GuardAdapter`, `mount_guard` and `install` those of one guard, called after them.

`OpenTelemetryHook` needs the extra `opentelemetry`, `PrometheusHook` the extra `prometheus`; neither is imported
unless it is asked for. Logs need no hook: see the logger `crm_guard`.
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
