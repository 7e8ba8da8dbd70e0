"""What became of one record, and why a call failed or stopped waiting: plain values, frozen and picklable."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crm_guard._base.codes import (
    BEING_CHECKED,
    CLIENT_ERROR,
    RECORD_LOCKED,
    REQUEST_TIMEOUT,
    SERVER_ERROR,
    UNAPPROVED,
)
from crm_guard.remediation import RECORD_ID, harmless_state, shown_error

if TYPE_CHECKING:
    from crm_guard.remediation import ApprovalCase


class GiveUpReason(enum.StrEnum):
    """Why the guard stopped waiting although a record was still locked."""

    ATTEMPTS = "attempts"
    """`GuardSettings.attempts` sends were made."""
    TIMEOUT = "timeout"
    """The next wait would have ended after the time budget, `GuardSettings.timeout`."""
    NOT_REPLAYABLE = "not_replayable"
    """The request's body was a stream that can be sent only once."""
    UNMATCHED = "unmatched"
    """The answer does not tell without doubt which records of the request were refused."""
    FOLLOW_UP = "follow_up"
    """The next send met another problem (401, 429, 5xx, a broken connection): `GuardReport.error` names it."""
    CREDITS = "credits"
    """CRM's remaining API credits reached `GuardSettings.min_credits`."""
    STOPPED = "stopped"
    """`stop_waiting()` ended the wait."""
    INTERRUPTED = "interrupted"
    """A `KeyboardInterrupt`, `SystemExit` or the like ended the call: it carries the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """Why a call, or its most recent send, failed as a whole: no answer, or one without a result for each record.

    `str()` of it is short and holds nothing personal: `429 TOO_MANY_REQUESTS, Retry-After 60 s`.

    Attributes:
        status: HTTP status; None where no answer came.
        code: CRM's code, such as `INVALID_TOKEN`, empty where the answer has none; where no answer came the class
            of the exception, such as `ConnectionError`.
        message: CRM's own text, for people.
        retry_after: Seconds that the answer asks to wait (`Retry-After`, or `details.retry_after`), else None.
    """

    status: int | None = None
    code: str = ""
    message: str = field(default="", repr=False)
    retry_after: float | None = None

    def __str__(self) -> str:
        return shown_error(self.status, self.code, self.retry_after)

    @property
    def refused(self) -> bool:
        """Whether nothing was applied for certain: CRM refused the call (4xx, but for the 408 of a gateway)."""
        status = self.status
        return status is not None and CLIENT_ERROR <= status < SERVER_ERROR and status != REQUEST_TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """CRM's most recent answer on one record, and what it means.

    Attributes:
        position: Index of the record in the request; where that is not known, of its item in the answer.
        record_id: The record, None where neither answer nor request names it.
        code: CRM's code, such as `SUCCESS` or `RECORD_LOCKED`; where the call failed as a whole and no record is
            named as the cause, the code of that failure; empty where CRM sent none (an image download).
        action: `details.action` of a lock.
        message: CRM's own text. Two codes share one text: for people, not for programs.
        succeeded: Whether CRM applied the call to the record.
        retryable: Whether the refusal is a lock that passes by itself.
        case: Why the record is not approved, where that is known.
        candidates: The possible cases otherwise, the likeliest first.
        hint: What to do about it; empty for records that are not blocked.
        approval_state: The record's `$approval_state`, where it was asked for.
        uncertain: The record was sent, and the answer was lost or tells nothing: it may have been written or not.
    """

    position: int
    record_id: str | None = None
    code: str = ""
    action: str | None = None
    message: str = ""
    succeeded: bool = False
    retryable: bool = False
    case: ApprovalCase | None = None
    candidates: tuple[ApprovalCase, ...] = ()
    hint: str = ""
    approval_state: str | None = None
    uncertain: bool = False

    def __repr__(self) -> str:
        """Leave out what may hold a value: CRM's message, and a record's name that is no id."""
        shown = {
            "position": self.position,
            "record_id": shown_id(self.record_id),
            "code": harmless_state(self.code),
            "action": harmless_state(self.action),
            "succeeded": self.succeeded,
            "retryable": self.retryable,
            "uncertain": self.uncertain,
            "candidates": [case.value for case in self.candidates],
        }
        return f"RecordOutcome({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to approve, reject or review first."""
        return not self.succeeded and self.code in UNAPPROVED

    @property
    def checked_again(self) -> bool:
        """Whether Zia is checking the record's image again, so that a later try may well work."""
        return self.needs_approval and self.approval_state == BEING_CHECKED

    @property
    def blocked(self) -> bool:
        """Whether CRM most recently answered with a lock or a missing approval; outdated where `uncertain`."""
        return self.needs_approval or (not self.succeeded and self.code == RECORD_LOCKED)


def shown_id(record_id: str | None) -> str | None:
    """Return a record id that may enter a text: another name of a record may be the value of a field."""
    return record_id if record_id and RECORD_ID.fullmatch(record_id) else None
