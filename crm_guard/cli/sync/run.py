"""The run of a sync: rows in, results told, and every row accounted for, however it ends."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from crm_guard.bulk import write_records
from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.sync.entry import EntryId
from crm_guard.cli.sync.lines import InputError
from crm_guard.cli.sync.signals import Stopped
from crm_guard.cli.sync.tally import Failure, Tally
from crm_guard.report import GuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from crm_guard.bulk import RecordWriter
    from crm_guard.cli.sync.call import Call
    from crm_guard.cli.sync.entry import Entry
    from crm_guard.cli.sync.signals import Stop
    from crm_guard.cli.sync.source import Source
    from crm_guard.row_results import RowResult, WriteCounts

_FAILED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended.

    Attributes:
        tally: What became of the rows.
        counts: What it cost.
        error: What ended it before time, None if nothing did.
        kept: How many failures were written to their file.
    """

    tally: Tally
    counts: WriteCounts
    error: BaseException | None = None
    kept: int = 0


class Run:
    """One run. Used by the main thread.

    Args:
        source: The input.
        write_failure: Called with each failure, at once.
        stop: What signals ask for.
        by_id: Rows are sent as record ids.
        include_uncertain: Send rows that an earlier run left uncertain.
    """

    def __init__(
        self,
        source: Source,
        write_failure: Callable[[Failure], None],
        stop: Stop,
        *,
        by_id: bool,
        include_uncertain: bool,
    ) -> None:
        self._source, self._write_failure, self._stop = source, write_failure, stop
        self._by_id, self._include_uncertain = by_id, include_uncertain
        self._tally = Tally()
        self._is_read = False
        self._broken: CommandError | None = None
        self._kept = 0

    def is_sent(self, entry: Entry) -> bool:
        """Return whether a row is sent at all."""
        return self._include_uncertain or not entry.marked_uncertain

    def perform(self, session: requests.Session, call: Call, total: int | None, **options: Any) -> Ended:
        """Send the rows, and return how that ended, whatever that was.

        Args:
            session: Sends the calls.
            call: Where the rows go.
            total: How many there are, None if that is not known.
            **options: Further arguments of `write_records`.
        """
        rows = self._rows() if total is None else _CountedRows(self._rows(), total)
        writer = write_records(session, call.method, call.url, rows, body=call.body, progress=True, **options)
        error = self._take(writer)
        if error is None and not self._is_read:  # a signal came while nothing was left to send
            error = Stopped()
        for row in writer.unfinished():
            failure = Failure.of_unfinished(row, _code_of(error))
            if failure is None:
                self._tally.written += 1
            else:
                self._record(failure)
        error = self._read_rest(error)
        return Ended(tally=self._tally, counts=writer.counts, error=self._broken or error, kept=self._kept)

    def _take(self, writer: RecordWriter[Entry | EntryId]) -> BaseException | None:
        """Take all results; return what ended the writer before time."""
        taken: list[RowResult[Entry | EntryId]] = []
        error: BaseException | None = None
        try:
            with writer:
                while not (self._broken or self._stop.interrupted):
                    self._stop.may_interrupt = True
                    taken.extend(islice(writer, 1))  # one step: no result is lost on the way
                    self._stop.may_interrupt = False
                    if not taken:
                        break
                    self._note(taken.pop())
                self._stop.may_interrupt = True  # the `with` awaits what is under way
        except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 (told once every row is accounted for)
            error = exc
        self._stop.may_interrupt = False
        for result in taken:
            self._note(result)
        return error

    def _note(self, result: RowResult[Entry | EntryId]) -> None:
        if result.succeeded:
            self._tally.written += 1
        else:
            self._record(Failure.of_result(result))

    def _rows(self) -> Iterator[Entry | EntryId]:
        entries = self._source.entries()
        while True:
            self._stop.may_interrupt = False
            self._stop.check()  # before the next row is read: none is lost
            entry = next(entries, None)
            if entry is None:
                self._is_read = True
                break
            if not self.is_sent(entry):
                self._record(Failure.of_held_back(entry))
                continue
            row = EntryId.of(entry) if self._by_id else entry
            if self._stop.by is None:
                self._stop.may_interrupt = True
                yield row
            else:
                self._record(Failure.never_sent(entry))
        if self._stop.interrupted:
            self._stop.check()
        self._stop.may_interrupt = True

    def _read_rest(self, error: BaseException | None) -> BaseException | None:
        """Note as failures the rows that the writer did not read any more, where that takes no waiting."""
        try:
            if self._source.is_file and not isinstance(error, InputError):
                for entry in self._source.entries():
                    held = not self.is_sent(entry)
                    self._record(Failure.of_held_back(entry) if held else Failure.never_sent(entry))
            elif error is not None:
                self._tally.unread_from = self._source.line + (not isinstance(error, InputError))
        except InputError as trouble:
            self._tally.unread_from = self._source.line
            return error or trouble
        return error

    def _record(self, failure: Failure) -> None:
        self._tally.add(failure)
        if self._broken is None:
            try:
                self._write_failure(failure)
                self._kept += 1
            except OSError as error:
                message = f"the file of --failed cannot be written: {harmless(error.strerror or str(error))}"
                self._broken = CommandError(message, _FAILED)


def _code_of(error: BaseException | None) -> str:
    """Return the code of what ended a writer before time, where CRM refused a whole call."""
    found = error.report.error if isinstance(error, GuardError) and error.report is not None else None
    return found.code if found is not None else ""


class _CountedRows:
    """The rows, with a length: the bar tells the time that is left."""

    def __init__(self, rows: Iterator[Entry | EntryId], total: int) -> None:
        self._rows, self._total = rows, total

    def __iter__(self) -> Iterator[Entry | EntryId]:
        return self._rows

    def __len__(self) -> int:
        return self._total
