"""Events of the guard, for metrics and logs. A hook is told, and cannot change anything."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crm_guard.outcomes import CallError, GiveUpReason
    from crm_guard.remediation import ApprovalCase


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
        error: What the most recent send met as a whole (GAVE_UP with FOLLOW_UP).
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
        """Handle `event`."""
        ...
