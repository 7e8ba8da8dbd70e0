"""What became of the rows of a sync: counts, and the failures in groups that share state, code and case."""

from __future__ import annotations

import enum
from bisect import insort
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from crm_guard.cli.sync.entry import entry_of
from crm_guard.row_results import RowState

if TYPE_CHECKING:
    from crm_guard.cli.sync.entry import Entry, EntryId
    from crm_guard.outcomes import RecordOutcome
    from crm_guard.row_results import RowResult, UnfinishedRow

_LINES_KEPT: Final = 5
_NOTED: Final = ("_code", "_case", "_message", "_hint")


class State(enum.StrEnum):
    """Why a row was not written, or may not have been."""

    BLOCKED = "blocked"
    """It is locked, or a person must approve it first."""
    FAILED = "failed"
    """CRM refused it for another reason."""
    UNCERTAIN = "uncertain"
    """It may have been written or not."""
    PARKED = "parked"
    """CRM refused it, for a lock or with its whole call, and it was to be sent again when the run ended."""
    NEVER_SENT = "never_sent"
    """It never reached CRM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A row that was not written for certain.

    Attributes:
        entry: The row.
        state: What is known of it.
        code: CRM's code, or the class of the exception that the send met.
        case: The case of a missing approval, or the `details.action` of a lock.
        message: CRM's own text.
        hint: What to do about it.
        held_back: It was not sent because an earlier run left it uncertain.
    """

    entry: Entry
    state: State
    code: str = ""
    case: str = ""
    message: str = ""
    hint: str = ""
    held_back: bool = False

    @property
    def uncertain(self) -> bool:
        """Whether it may have been written."""
        return self.state is State.UNCERTAIN

    @classmethod
    def of_result(cls, result: RowResult[Entry | EntryId]) -> Self:
        """Return the failure of a row with a result."""
        return cls._of(entry_of(result.row), _final_state(result.outcome), result.outcome)

    @classmethod
    def of_unfinished(cls, row: UnfinishedRow[Entry | EntryId], cause: str = "") -> Self | None:
        """Return the failure of a row without a result that was taken; None if it was written after all.

        Args:
            row: The row.
            cause: The code of what CRM refused its whole call with, where it did.
        """
        outcome = row.outcome
        if row.state is RowState.ANSWERED and outcome is not None:
            return None if outcome.succeeded else cls._of(entry_of(row.row), _final_state(outcome), outcome)
        known = {RowState.NEVER_SENT: State.NEVER_SENT, RowState.PARKED: State.PARKED}
        found = cls._of(entry_of(row.row), known.get(row.state, State.UNCERTAIN), outcome)
        return replace(found, code=cause) if outcome is None and found.state is State.PARKED else found

    @classmethod
    def never_sent(cls, entry: Entry) -> Self:
        """Return the failure of a row that was not reached."""
        return cls(entry=entry, state=State.NEVER_SENT)

    @classmethod
    def of_held_back(cls, entry: Entry) -> Self:
        """Return the failure of a row that is not sent again, with what the earlier run noted."""
        noted = {name[1:]: str(entry.notes.get(name) or "") for name in _NOTED}
        return cls(entry=entry, state=State.UNCERTAIN, held_back=True, **noted)

    @classmethod
    def _of(cls, entry: Entry, state: State, outcome: RecordOutcome | None) -> Self:
        if outcome is None:
            return cls(entry=entry, state=state)
        return cls(
            entry=entry,
            state=state,
            code=outcome.code,
            case=outcome.case or outcome.action or " or ".join(outcome.candidates),
            message=outcome.message,
            hint=outcome.hint,
        )


def _final_state(outcome: RecordOutcome) -> State:
    if outcome.uncertain:
        return State.UNCERTAIN
    return State.BLOCKED if outcome.blocked else State.FAILED


@dataclass(slots=True, kw_only=True)
class Group:
    """Failures that share state, code and case.

    Attributes:
        first: One of them.
        count: How many there are.
        lines: Their first few lines.
    """

    first: Failure
    count: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the rows.

    Attributes:
        written: How many rows CRM wrote.
        groups: The failures, in the order of the states, then as they came.
        unread_from: The line from which on nothing was read; None if all was.
    """

    written: int = 0
    unread_from: int | None = None
    _groups: dict[tuple[State, bool, str, str], Group] = field(default_factory=dict)

    def add(self, failure: Failure) -> None:
        """Count a failure."""
        key = (failure.state, failure.held_back, failure.code, failure.case)
        group = self._groups.setdefault(key, Group(first=failure))
        group.count += 1
        insort(group.lines, failure.entry.line)
        del group.lines[_LINES_KEPT:]

    @property
    def groups(self) -> list[Group]:
        """The failures."""
        return sorted(self._groups.values(), key=lambda group: list(State).index(group.first.state))

    @property
    def failures(self) -> int:
        """How many rows were not written for certain."""
        return sum(group.count for group in self._groups.values())

    @property
    def all_written(self) -> bool:
        """Whether all rows were written."""
        return not self._groups and self.unread_from is None
