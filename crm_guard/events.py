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
    """CRM refused records for a lock that passes, each time that it does; or, with `attempt` 0, they are known to
    be locked before the first send."""
    WAITING = "waiting"
    """The call waits for about `delay` seconds, or until the records are known to be free. Emitted `again` when it
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
    """One moment of a guarded call, or of `write_records`. Holds no query, header, body or field value.

    `write_records` emits one event for the rows of one answer that share a code, action, case and reason; `attempt`
    and `waited` are then those of the row that was sent most often, and waited longest.

    Attributes:
        kind: What happened.
        method: HTTP method.
        path: Path of the URL; a value of an external field in it is replaced by `*`.
        module: API name of the records' module, such as `Leads`; empty where the path names none.
        record_ids: The records it happened to, as far as known.
        attempt: Sends so far, the first included; 0 before the first.
        delay: Seconds about to be waited (WAITING), else 0.
        waited: Seconds waited so far.
        again: Whether this wait was announced before, and takes longer (WAITING).
        pending: How many records of the call, or rows of the writer, wait for a lock from here on.
        reason: Why the guard gave up (GAVE_UP).
        records: How many records it happened to, those without a known id included.
        code: CRM's code for them, such as `RECORD_LOCKED`; empty where none applies.
        action: `details.action` of their lock.
        case: Why they are not approved, where that is known (BLOCKED).
        hint: What to do (BLOCKED, GAVE_UP): of the first of the records.
        error: What the most recent send met as a whole (GAVE_UP with FOLLOW_UP).
    """

    kind: EventKind
    method: str
    path: str
    module: str = ""
    record_ids: tuple[str, ...] = ()
    attempt: int = 1
    delay: float = 0.0
    waited: float = 0.0
    again: bool = False
    pending: int = 0
    reason: GiveUpReason | None = None
    records: int = 0
    code: str = ""
    action: str | None = None
    case: ApprovalCase | None = None
    hint: str = ""
    error: CallError | None = None


class GuardHook(Protocol):
    """Something to call with each event, and what it may return from a `WAITING` event: what surrounds the wait.

    It is called in the thread of the call; for `write_records` in one of the writer's threads, never in two at
    once. It must be quick. An exception costs nothing: it is logged and dropped. A `SystemExit` or another
    `BaseException` ends the call as a Ctrl-C would: the results so far are kept, and `get_report` finds them. In a
    writer it ends the writer, and is raised once the results so far were taken.

    A context manager that it returns from `WAITING` is entered for that wait and left before anything is sent
    again; with the exception, if one ended the wait, which it cannot suppress. For `write_records` the wait is that
    of the rows that one answer refused, until the last of them is sent again or given up; it is entered and left in
    one `contextvars` context, but perhaps in two threads.
    """

    def __call__(self, event: GuardEvent, /) -> object:
        """Handle `event`; return a context manager for the wait, or anything else."""
        ...
