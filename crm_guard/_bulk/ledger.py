"""The rows that were read, and what is known of each, for the thread that takes the results."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

from crm_guard._protocol.scheduling.row import Row, Stage
from crm_guard.row_results import RowResult, RowState, UnfinishedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from crm_guard._protocol.scheduling.target import Target
    from crm_guard.outcomes import RecordOutcome

T = TypeVar("T")


class Ledger(Generic[T]):
    """The rows that were read and whose results were not taken. Used by one thread.

    A Ctrl-C may come at any line: a row is in one of the lists before it leaves the other.

    Args:
        rows: The input.
        target: Where the rows go.
        hand_over: Takes each row that was read.

    Attributes:
        ended: Whether there are no more.
    """

    def __init__(self, rows: Iterable[T], target: Target, hand_over: Callable[[Row], object]) -> None:
        later = itertools.chain.from_iterable((rows,))  # even `iter(rows)`: it may run a query
        self._numbered: Iterator[tuple[int, T]] = zip(itertools.count(), later, strict=False)
        self._target, self._is_list = target, type(rows) in (list, tuple)
        self._hand_over = hand_over
        self._raw: list[tuple[int, T]] = []
        self._rows: dict[int, Row] = {}  # in input order
        self._handed: int | None = None  # taken, unless something came between
        self._admitted = 0
        self.ended = False

    @property
    def read(self) -> int:
        """How many rows were read."""
        return self._raw[-1][0] + 1 if self._raw else self._admitted

    @property
    def pending(self) -> int:
        """How many rows were read and have no result that was taken."""
        return len(self._rows) + len(self._raw)

    @property
    def final_below(self) -> int:
        """The index below which all results were taken."""
        first = self._oldest()
        if first is not None:
            return first
        return self._raw[0][0] if self._raw else self.read

    def read_on(self, most: int) -> Iterator[None]:
        """Read up to `most` rows, and hand them over; stop after each portion, before the next may be waited for.

        Raises:
            TypeError: A row is of a kind that the call does not take.
            ValueError: A row is no record id.
            Exception: Whatever the input raises.
        """
        step = most if self._is_list else 1  # an input that computes its rows may use one object for all of them
        for _ in range(0, most, step):
            self.ended = True  # unless it turns out that it is not
            self._raw.extend(itertools.islice(self._numbered, step))  # at once: no row is lost on the way
            if not self._raw:
                return
            self._admit_all()
            self.ended = False
            yield

    def hand(self, result: RowResult[T]) -> RowResult[T]:
        """Record that a result is being taken, and return it."""
        self._handed = result.index
        return result

    def take_back(self) -> None:
        """Record that the most recent result did not reach whoever takes them."""
        self._handed = None

    def forget_handed(self) -> None:
        """Drop the row whose result was taken."""
        if self._handed is not None:
            self._rows.pop(self._handed, None)
            self._handed = None

    def unfinished(self, *, over: bool) -> list[UnfinishedRow[T]]:
        """Return the rows without a result, or whose result was not taken.

        Args:
            over: Whether no answer will come any more.
        """
        alive = [row for row in list(self._rows.values()) if row.index != self._handed]
        rows: list[UnfinishedRow[T]] = [_unfinished(row, over=over) for row in alive]
        unread = [(index, value) for index, value in self._raw if index not in self._rows]
        return rows + [UnfinishedRow(index=index, row=value, state=RowState.NEVER_SENT) for index, value in unread]

    def _oldest(self) -> int | None:
        while True:
            try:
                return next((index for index in self._rows if index != self._handed), None)
            except RuntimeError:  # another thread asks, and this one has gone on meanwhile
                continue

    def _admit_all(self) -> None:
        """Make rows of what was read. What fails stays where it is, and so do those behind it."""
        rows, hand_over, make = self._rows, self._hand_over, self._target.row
        index = 0
        try:
            for index, value in self._raw:
                row = make(index, value)
                rows[index] = row
                hand_over(row)
                self._admitted = index + 1
            self._raw.clear()
        except BaseException as exc:
            # By `rows`: an exception of a signal handler may come between two lines, and a row may get its result.
            self._raw[:] = [pair for pair in self._raw if pair[0] not in rows]
            self._admitted = max(self._admitted, next(reversed(rows), -1) + 1)
            for kind in (TypeError, RecursionError, ValueError):
                if isinstance(exc, kind):
                    message = f"row {index} cannot be sent: it {exc}"
                    raise kind(message) from exc  # a subclass may take other arguments
            raise


def _unfinished(row: Row, *, over: bool) -> UnfinishedRow[T]:
    stage = row.stage  # read before the result: a row that is done may be about to get it
    result, refusal = row.result, row.refusal
    outcome: RecordOutcome | None
    if result is not None:
        state, outcome = RowState.ANSWERED, result.outcome
    elif stage is Stage.UNDIAGNOSED:
        state, outcome = (RowState.ANSWERED if over else RowState.IN_FLIGHT), refusal
    elif stage in {Stage.IN_FLIGHT, Stage.DONE}:
        state, outcome = (RowState.UNCERTAIN if over else RowState.IN_FLIGHT), None
    else:
        state, outcome = (RowState.PARKED if row.attempts else RowState.NEVER_SENT), refusal
    return UnfinishedRow(index=row.index, row=row.value, state=state, outcome=outcome)
