"""What became of each record of a call."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crm_guard.errors import GiveUpReason, GuardError, NotApprovedError, RecordLockedError
from crm_guard.remediation import RECORD_ID, harmless_state, shown_error

if TYPE_CHECKING:
    from requests import Response

    from crm_guard.remaining import RemainingRequest
    from crm_guard.remediation import ApprovalCase

_NEEDS_APPROVAL: Final = frozenset({"NOT_APPROVED", "NOT_REVIEWED"})
_NAMES_SHOWN: Final = 5
_REQUEST_TIMEOUT: Final = 408

_ATTRIBUTE: Final = "_crm_guard_report"

_STOPPED: Final = {
    GiveUpReason.ATTEMPTS: "the guard gave up after the last send that `attempts` allows",
    GiveUpReason.TIMEOUT: "the next wait would have ended after the time budget (`timeout`)",
    GiveUpReason.NOT_REPLAYABLE: "the body was a stream that can be sent only once; send bytes or a seekable file",
    GiveUpReason.UNMATCHED: "the answer does not tell without doubt what was applied, so nothing was sent again",
    GiveUpReason.FOLLOW_UP: "the next send met {error}",
    GiveUpReason.CREDITS: "the API credits that are left reached `min_credits`",
    GiveUpReason.STOPPED: "`stop_waiting()` ended the wait",
    GiveUpReason.INTERRUPTED: "the call was interrupted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """Why a call, or its last send, failed as a whole: an answer that has no result for each record, or no answer.

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
        return self.status is not None and 400 <= self.status < 500 and self.status != _REQUEST_TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """What CRM said last of one record.

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
        return not self.succeeded and self.code in _NEEDS_APPROVAL

    @property
    def checked_again(self) -> bool:
        """Whether Zia has taken up the record's image anew since, so that a later try may well work."""
        return self.needs_approval and self.approval_state == "zia_vision_validation"

    @property
    def blocked(self) -> bool:
        """Whether CRM's last word was a lock or a missing approval; where `uncertain`, it may be outdated."""
        return self.needs_approval or (not self.succeeded and self.code == "RECORD_LOCKED")


@dataclass(frozen=True, kw_only=True)
class GuardReport:
    """What became of one call.

    A pickled report leaves behind its response, the credentials of the remaining request (see `RemainingRequest`),
    and a remaining request whose body is a stream.

    Attributes:
        outcomes: One per record, in the order of CRM's first answer; where the call failed as a whole, one per
            record that the request names, in its order, and none where it names none that can be told.
        attempts: Sends of the call, the first included; 0 where it was interrupted before that.
        waited: Seconds spent waiting between sends.
        credits_spent: Every request made for the call: sends and diagnosis. CRM may weigh one request as more.
        reason: Why the guard stopped waiting, None where nothing was left to wait for.
        retry_after: Seconds after which another try makes sense, None where no wait will help.
        error: What failed the call, or its last send, as a whole; None where each record has its own result.
    """

    outcomes: tuple[RecordOutcome, ...] = ()
    attempts: int = 1
    waited: float = 0.0
    credits_spent: int = 1
    reason: GiveUpReason | None = None
    retry_after: float | None = None
    error: CallError | None = None
    _response: Response | None = field(default=None, repr=False, compare=False)
    _remaining: RemainingRequest | None = field(default=None, repr=False, compare=False)

    @property
    def blocked(self) -> tuple[RecordOutcome, ...]:
        """The outcomes of the records of which CRM's last word was a lock or a missing approval."""
        return tuple(outcome for outcome in self.outcomes if outcome.blocked)

    @property
    def applied(self) -> bool:
        """Whether CRM applied the call to at least one record."""
        return any(outcome.succeeded for outcome in self.outcomes)

    def __getstate__(self) -> dict[str, object]:
        remaining = self._remaining if self._remaining is not None and self._remaining.portable else None
        return {**self.__dict__, "_response": None, "_remaining": remaining}

    def remaining_request(self) -> RemainingRequest | None:
        """Return a request for just the records still locked, or None: see `GuardError.remaining_request`."""
        return type(self._remaining).of(self._remaining) if self._remaining is not None else None

    def raise_for_blocked(self) -> None:
        """Raise if any record is blocked.

        Raises:
            NotApprovedError: A record needs an approval or a review. It wins where records are locked too, since
                no wait mends it; it carries all outcomes.
            RecordLockedError: A record is locked.
        """
        error = self._error()
        if error is not None:
            raise error

    def _error(self) -> GuardError | None:
        if not self.blocked:
            return None
        kind = NotApprovedError if any(outcome.needs_approval for outcome in self.blocked) else RecordLockedError
        request = self._response.request if self._response is not None else None
        return kind(self._text(kind), report=self, response=self._response, request=request)

    def _text(self, kind: type[GuardError]) -> str:
        """One readable paragraph: what, which record, why no longer waited, what to do."""
        chosen = [outcome for outcome in self.blocked if outcome.needs_approval or kind is RecordLockedError]
        first = chosen[0]
        cause = first.case or harmless_state(first.action)
        about = f" ({cause})" if cause else ""
        parts = [f"CRM refused {self._which(chosen)} with {first.code}{about}."]
        if kind is RecordLockedError and self.reason:
            sent = {0: "Not sent", 1: "Sent once"}.get(self.attempts, f"Sent {self.attempts} times")
            why = _STOPPED[self.reason].format(error=self.error or "another problem")
            parts.append(f"{sent}, waited {self.waited:.1f} s: {why}.")
        return " ".join([*parts, first.hint]).strip()

    def _which(self, chosen: list[RecordOutcome]) -> str:
        names = [name for outcome in chosen if (name := shown_id(outcome.record_id))]
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        if len(chosen) == len(self.outcomes) == 1:
            return f"record {shown}".strip()
        return f"{len(chosen)} of {len(self.outcomes)} records{f' ({shown})' if shown else ''}"


def shown_id(record_id: str | None) -> str | None:
    """Return a record id that may enter a text: another name of a record may be the value of a field."""
    return record_id if record_id and RECORD_ID.fullmatch(record_id) else None


def attach_report(carrier: Response | BaseException, report: GuardReport) -> None:
    """Put `report` on a response, or on an exception that ends a call."""
    with contextlib.suppress(AttributeError):  # an exception class with slots has no room
        setattr(carrier, _ATTRIBUTE, report)


def attached_report(carrier: object) -> GuardReport | None:
    """Return the report that :func:`attach_report` put there."""
    report = getattr(carrier, _ATTRIBUTE, None) or getattr(carrier, "report", None)
    return report if isinstance(report, GuardReport) else None
