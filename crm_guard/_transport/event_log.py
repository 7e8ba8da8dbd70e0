"""Writes events to the logger `crm_guard`, and calls the hooks."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

from crm_guard.events import EventKind, GuardEvent
from crm_guard.remediation import harmless_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard.events import GuardHook

logger: Final = logging.getLogger("crm_guard")

_IDS_SHOWN: Final = 5
_LEVELS: Final = {
    EventKind.WAITING: logging.INFO,
    EventKind.BLOCKED: logging.WARNING,
    EventKind.GAVE_UP: logging.WARNING,
}


def log_event(event: GuardEvent) -> None:
    """Write `event` to the logger `crm_guard`: waits at INFO, blocked records at WARNING, the rest at DEBUG.

    The line names the records by their ids, the code, and the action or case. The event is in the record's
    `guard_event` attribute, for structured logs.
    """
    level = _LEVELS.get(event.kind, logging.DEBUG)
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "%s %s: %s, %s%s, attempt %d, waited %.1f s%s",
            event.method,
            event.path,
            event.kind.value,
            _records(event),
            _cause(event),
            event.attempt,
            event.waited,
            _tail(event),
            extra={"guard_event": event},
        )


def emit(hooks: Iterable[GuardHook], event: GuardEvent) -> None:
    """Log `event` and tell every hook; an exception in a hook is logged and dropped."""
    with contextlib.suppress(Exception):  # a broken filter or handler must not cost a result
        log_event(event)
    for hook in hooks:
        try:
            hook(event)
        except Exception as exc:  # noqa: BLE001 (a bug in metrics must not cost a bulk result)
            logger.warning("a hook failed on a %s event: %s", event.kind.value, type(exc).__name__)


def _records(event: GuardEvent) -> str:
    """Return how many records, and which: `3 records (1, 2, 3)`."""
    shown = ", ".join(event.record_ids[:_IDS_SHOWN]) + (", ..." if len(event.record_ids) > _IDS_SHOWN else "")
    noun = "record" if event.records == 1 else "records"
    return f"{event.records} {noun} ({shown})" if shown else f"{event.records} {noun}"


def _cause(event: GuardEvent) -> str:
    """Return code, and action or case: ` RECORD_LOCKED zia_vision_processing`."""
    words = (harmless_state(event.code), harmless_state(event.action), event.case and event.case.value)
    return "".join(f" {word}" for word in words if word)


def _tail(event: GuardEvent) -> str:
    if event.reason:
        error = f" ({event.error})" if event.error else ""
        return f", reason {event.reason.value}{error}"
    return f", next wait {event.delay:.1f} s" if event.kind is EventKind.WAITING else ""
