"""Events of the guard, for metrics and logs. A hook is told, and cannot change anything."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from crm_guard.remediation import harmless_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard.errors import GiveUpReason
    from crm_guard.remediation import ApprovalCase
    from crm_guard.report import CallError

logger: Final = logging.getLogger("crm_guard")


class EventKind(enum.StrEnum):
    """What happened."""

    LOCKED = "locked"
    """CRM refused records for a lock that passes, or they are known to be locked before the first send."""
    WAITING = "waiting"
    """The call waits for about `delay` seconds, or until the records are known to be free. Emitted again when it
    waits longer than that, as it depends on another call's answer."""
    RESENDING = "resending"
    """The refused records are about to be sent again."""
    UNLOCKED = "unlocked"
    """CRM no longer refuses these records for a lock."""
    BLOCKED = "blocked"
    """CRM refuses these records for a reason that waiting will not resolve: one event for each code, action and
    case."""
    GAVE_UP = "gave_up"
    """Records are still locked, and the guard stops waiting: see `reason`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardEvent:
    """One moment of a guarded call. Holds no query, header, body or field value.

    Attributes:
        kind: What happened.
        method: HTTP method.
        path: Path of the URL; a value of an external field in it is replaced by `*`.
        record_ids: The records it happened to, as far as known.
        attempt: Sends so far, the first included; 0 before the first.
        delay: Seconds about to be waited (WAITING), else 0.
        waited: Seconds waited so far.
        reason: Why the guard gave up (GAVE_UP).
        records: How many records it happened to, those without a known id included.
        code: CRM's code for them, such as `RECORD_LOCKED`; empty where none applies.
        action: `details.action` of their lock.
        case: Why they are not approved, where that is known (BLOCKED).
        error: What the last send met as a whole (GAVE_UP with FOLLOW_UP).
    """

    kind: EventKind
    method: str
    path: str
    record_ids: tuple[str, ...] = ()
    attempt: int = 1
    delay: float = 0.0
    waited: float = 0.0
    reason: GiveUpReason | None = None
    records: int = 0
    code: str = ""
    action: str | None = None
    case: ApprovalCase | None = None
    error: CallError | None = None


class GuardHook(Protocol):
    """Something to call with each event, in the thread of the call. Must be quick; its exceptions are dropped."""

    def __call__(self, event: GuardEvent, /) -> object:
        """Take note of `event`."""
        ...


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
