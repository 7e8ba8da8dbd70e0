"""What became of each row that was given to `write_records`: plain values, picklable."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import msgspec

from crm_guard.outcomes import GiveUpReason, RecordOutcome

T_co = TypeVar("T_co", covariant=True)


class Written(msgspec.Struct, frozen=True, gc=False):
    """What CRM said of a row that it wrote: the row's result makes an outcome of it when that is asked for."""

    record_id: str | None
    code: str
    message: str


class RowResult(msgspec.Struct, Generic[T_co], frozen=True, eq=False):
    """What became of one row; it does not change any more.

    Attributes:
        index: Where the row stood in the input; the first is 0.
        row: The row, as it was given.
        succeeded: Whether CRM wrote it.
        attempts: How often it was sent, also with others.
        waited: Seconds from the first refusal for a lock to the answer that decided.
        reason: Why it was no longer waited for a lock, None where there was nothing to wait for.
    """

    index: int
    row: T_co
    succeeded: bool
    _told: RecordOutcome | Written
    attempts: int = 1
    waited: float = 0.0
    reason: GiveUpReason | None = None

    @property
    def outcome(self) -> RecordOutcome:
        """CRM's most recent answer on the row, and what it means. Its `position` is the row's index."""
        told = self._told
        if isinstance(told, RecordOutcome):
            return told
        return RecordOutcome(
            position=self.index,
            record_id=told.record_id,
            code=told.code,
            message=told.message,
            succeeded=True,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, the row included: for a file or a queue of failures."""
        outcome = self.outcome
        return {
            "index": self.index,
            "row": self.row,
            "succeeded": self.succeeded,
            "record_id": outcome.record_id,
            "code": outcome.code,
            "action": outcome.action,
            "message": outcome.message,
            "case": outcome.case.value if outcome.case else None,
            "hint": outcome.hint,
            "uncertain": outcome.uncertain,
            "attempts": self.attempts,
            "waited": self.waited,
            "reason": self.reason.value if self.reason else None,
        }

    def __repr__(self) -> str:
        """Leave out the row's values."""
        reason = f", reason={self.reason.value!r}" if self.reason else ""
        return f"RowResult(index={self.index}, outcome={self.outcome!r}, attempts={self.attempts}{reason})"


class RowState(enum.StrEnum):
    """What is known of a row without a result, or whose result was not taken."""

    NEVER_SENT = "never_sent"
    """It never reached CRM."""
    PARKED = "parked"
    """CRM refused it, and it was to be sent again."""
    IN_FLIGHT = "in_flight"
    """It is being sent: only while the writer runs."""
    UNCERTAIN = "uncertain"
    """It was sent, and its answer was not awaited or did not come: it may have been written or not."""
    ANSWERED = "answered"
    """It has a result that was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedRow(Generic[T_co]):
    """A row that was read, and has no result yet or one that was not taken.

    Attributes:
        index: Where the row stood in the input.
        row: The row, as it was given.
        state: What is known of it.
        outcome: CRM's most recent answer on it, None where there is none.
    """

    index: int
    row: T_co
    state: RowState
    outcome: RecordOutcome | None = None

    @property
    def may_be_sent(self) -> bool:
        """Whether it was not written for certain: never sent, or refused most recently."""
        if self.state is RowState.ANSWERED and self.outcome is not None:
            return not self.outcome.succeeded and not self.outcome.uncertain
        return self.state in {RowState.NEVER_SENT, RowState.PARKED}

    def __repr__(self) -> str:
        """Leave out the row's values."""
        return f"UnfinishedRow(index={self.index}, state={self.state.value!r}, outcome={self.outcome!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCounts:
    """How far a writer is. Rows that were read and are in no other count are yet to be sent.

    Attributes:
        read: Rows read from the input.
        written: Rows that CRM wrote.
        blocked: Rows that stayed locked, or that a person must approve first.
        failed: Rows that CRM refused for another reason.
        uncertain: Rows that were sent, and may have been written or not.
        waiting: Rows that wait for a lock.
        in_flight: Rows that are being sent.
        calls: Requests made, those that ask for approval states included.
        credits: API credits that these cost by Zoho's price list (one for ten rows to insert, update or upsert).
        elapsed: Seconds since the writer began.
        final_below: The results of all rows below this index were taken: a later run may begin here.
    """

    read: int = 0
    written: int = 0
    blocked: int = 0
    failed: int = 0
    uncertain: int = 0
    waiting: int = 0
    in_flight: int = 0
    calls: int = 0
    credits: int = 0
    elapsed: float = 0.0
    final_below: int = 0

    @property
    def final(self) -> int:
        """Rows that have a result."""
        return self.written + self.blocked + self.failed + self.uncertain

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return asdict(self)
