"""`write_records`: any number of rows in, one result per row out. One lock holds back its row, and no batch.

It makes the batches, sends them from a few threads over your session (with a guard or without),
sets locked rows aside and sends them again with others, slows down at 429, and pairs results with
rows::

    import requests
    import crm_guard

    leads = "https://www.zohoapis.com/crm/v8/Leads"
    updates = ({"id": str(111112000000142001 + number), "Company": "Zylker"} for number in range(100))
    with crm_guard.write_records(requests.Session(), "PUT", leads, updates, progress=True) as writer:
        for result in writer:
            if not result.succeeded:
                print(result.index, result.row["id"], result.outcome.code, result.outcome.hint)
    print(writer.counts.written, writer.counts.blocked, writer.counts.calls)

It updates (`PUT`), inserts (`POST`), upserts (`POST .../upsert`), and, with record ids for rows,
deletes, mass updates and deletes, adds and removes tags, changes owners, assigns and removes
territories; `body=` is what each batch carries beside the rows.

What becomes of the rows:

- a lock that passes: the row is sent again, within `timeout` from its first refusal; the others go
  on;
- `NOT_APPROVED`, `INVALID_DATA`, any other refusal: a result at once; approval states are asked for
  up to 100 rows at a time;
- 429, or no connection: the batch is sent again, and all calls slow down; if none gets through
  within `timeout`, the writer ends;
- a read timeout, a 5xx, a connection lost in the middle: `uncertain`, written or not, and never
  sent again;
- 401 (after `refresh=`), 403, 404, a 400 about the call, `min_credits`, `stop_waiting()`, an error
  of the input: the writer ends: results so far, then the error;
- `close()`, the end of the `with` block, an exception in the loop, Ctrl-C: the writer ends: calls
  under way are awaited (a second Ctrl-C abandons them).

After an end before time `writer.unfinished()` has every row that was read and gave no result, each
with what is known of it; `writer.counts.final_below` is where a later run may begin. Rows with one
`key` (by default the record's id, for an upsert what it finds records by) are written in input
order. At most `max_pending` rows are in memory.

20,000 updates, 1 % of the records locked for 5 to 60 s, four workers, 0.2 s a call (`python
tests/benchmarks/bulk.py`):

    what writes them                                       seconds   calls   written twice, lost
    nothing locked                                              11     200   0, 0
    write_records                                               61     227   0, 0
    batches of 100 from four threads, guarded                   69     257   0, 0
    a tenacity loop around each batch, refused rows only        69     274   0, 0

The longest lock alone takes 60 s. Memory does not grow with the number of rows.

To keep what is blocked, and send it again tomorrow::

    import csv
    import requests
    import crm_guard

    def sync(source: str, blocked: str) -> crm_guard.WriteCounts:
        with open(source, newline="") as file, open(blocked, "x", newline="") as rest:
            table = csv.DictReader(file, strict=True, restval="")
            rows = ({name: value for name, value in row.items() if value} for row in table)  # empty cells: left out
            kept = csv.DictWriter(rest, table.fieldnames or ())
            kept.writeheader()
            leads = "https://www.zohoapis.com/crm/v8/Leads"
            with crm_guard.write_records(requests.Session(), "PUT", leads, rows) as writer:
                try:
                    for result in writer:
                        if result.outcome.blocked:
                            kept.writerow(result.row)
                        elif not result.succeeded:  # refused for another reason, or uncertain
                            print(result.to_dict())
                finally:  # where it ended before time, an error tells why
                    kept.writerows(row.row for row in writer.unfinished() if row.may_be_sent)
        return writer.counts

    print(sync("leads.csv", "blocked.csv"))  # tomorrow: sync("blocked.csv", "still_blocked.csv")

The same from a shell: `crm-guard sync`, see `crm-guard help sync`.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from crm_guard._base.imports import first_import
from crm_guard._bulk.intake import Intake
from crm_guard._bulk.ledger import Ledger
from crm_guard._bulk.options import check_options, check_rows
from crm_guard._bulk.progress import Progress
from crm_guard._protocol.scheduling.end import End
from crm_guard.clock import Wake
from crm_guard.mounting import check_session
from crm_guard.outcomes import GiveUpReason
from crm_guard.report import GuardError, GuardReport, NotApprovedError, RecordLockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from types import TracebackType

    import requests

    from crm_guard._bulk.assembly import Assembly
    from crm_guard._bulk.crew import Crew
    from crm_guard.row_results import RowResult, UnfinishedRow, WriteCounts
    from crm_guard.settings import GuardSettings, Source

__all__ = ["RecordWriter", "write_records"]

T = TypeVar("T")
Timeout: TypeAlias = float | tuple[float | None, float | None] | None

_IN_A_ROW: Final = 25
"""Results that are handed out before rows are read again."""
_LONGEST: Final = 60.0
"""Seconds that the thread sleeps at most."""

_WHY: Final = {
    GiveUpReason.STOPPED: "`stop_waiting()` ended it",
    GiveUpReason.CREDITS: "the API credits that are left reached `min_credits`",
    GiveUpReason.TIMEOUT: "no call got through within `timeout`",
}


def write_records(
    session: requests.Session,
    method: str,
    url: str,
    rows: Iterable[T],
    *,
    body: Mapping[str, Any] | None = None,
    batch_size: int = 100,
    workers: int = 4,
    max_pending: int = 10_000,
    key: Callable[[T], Hashable] | None = None,
    timeout: Timeout = (10, 120),
    settings: GuardSettings | Source = None,
    progress: Callable[[WriteCounts], object] | bool | None = None,
) -> RecordWriter[T]:
    """Write any number of rows to CRM: one row in, one `RowResult` out, whatever happens.

    Rows travel in batches, from a few threads. A row that CRM refuses for a lock of `retry_actions` waits aside and
    is sent again with others, within `settings.timeout` from its first refusal; no other row waits for it. A
    batch that CRM took none of (429) or that never left is sent again, at a slower pace. Nothing else is sent
    twice: after a timeout, a 5xx or a lost connection, a row is `uncertain`. The log and the hooks (those of the
    session's guard, and of `crm_guard.instrument`) hear of it as of single calls: see `GuardEvent`, `GuardHook`.

    Args:
        session: Any session, with or without a guard; its threads use it at the same time. Give its adapter a
            `pool_maxsize` of at least `workers`. A guard's `refresh` is called before a batch with rows that were
            sent before, and before every batch once CRM has answered 401.
        method: HTTP method.
        url: Of the bulk call: `.../crm/v8/Leads` to update (PUT), insert (POST) or delete (DELETE),
            `.../Leads/upsert` (POST), or `.../Leads/actions/` (POST) with `mass_update`, `mass_delete`, `add_tags`,
            `remove_tags`, `change_owner`, `assign_territories` or `remove_territories`.
        rows: Mappings from field names to values; or record ids, to delete, and for the actions but territories.
            Read lazily, and only in the thread that takes the results.
        body: What each batch carries beside its rows: `{"trigger": []}`, `{"tags": [...]}`, `{"data": [...]}` for
            a mass update, `{"duplicate_check_fields": [...]}`.
        batch_size: Rows in a batch; at most what CRM takes (100; 500 for actions by ids). A batch leaves once it is
            full or `rows` ends: of an input that trickles, the last rows wait for the next ones.
        workers: Calls at once. CRM allows 10 writes of more than ten rows, in some editions 5.
        max_pending: Rows that were read and whose results were not taken, those that wait for a lock included.
        key: Returns the key of a row, None for none: rows with one key are written in input order, the later after
            the earlier has its result. By default the row's id; for an upsert each value of
            `duplicate_check_fields`, or else of the field by which CRM finds duplicates in that module; none for an
            insert.
        timeout: Seconds for each send, as in `requests`: one number, or connect and read.
        settings: The policy; None for that of the session's guard, or else as `load_settings` finds it. `raise_on`
            has no effect.
        progress: Called with the counts, in the thread that takes the results, at most ten times a second and at
            the end; True shows a bar on stderr if that is a terminal, and `rich` or `tqdm` is installed.

    Returns:
        An iterator over the results, which is a context manager, too. Nothing is sent before it is iterated.

    Raises:
        SettingsError: A setting is unknown or has a value that is not allowed.
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed, or the call takes no rows.
    """
    check_session(session)
    check_options(
        method=method,
        url=url,
        key=key,
        progress=progress,
        timeout=timeout,
        workers=workers,
        pending=max_pending,
    )
    check_rows(rows)
    with first_import:
        from crm_guard._bulk.assembly import assemble  # noqa: PLC0415 (whoever imports all names needs none of it)

    assembly = assemble(
        session,
        method.upper(),
        url,
        body=body,
        batch_size=batch_size,
        workers=workers,
        key=key,
        timeout=timeout,
        settings=settings,
    )
    return RecordWriter(assembly, rows, max_pending, progress)


class RecordWriter(Generic[T]):
    """An iterator over what became of rows, made by :func:`write_records`.

    Results come as soon as they are final, in any order. Leaving the `with` block, :meth:`close`, an exception in
    the loop and Ctrl-C end it before time: nothing new is sent, sends under way are awaited and their answers kept
    (a second Ctrl-C abandons them), and every row that was read is in a result or in :meth:`unfinished`. The same
    happens, and an error is raised once all results were taken, where every batch would meet the same:

    - CRM refuses the call itself (401 after `refresh`, 403, 404, a 400 about no row), or nothing gets through: a
      `GuardError` with the `response`, and `report.error`; or the error of the connection.
    - `stop_waiting()`, or `min_credits`: a `GuardError` whose `reason` says so, unless nothing was left to do.
    - The input raises, or gives a row that is none: that exception.

    Used by one thread.
    """

    def __init__(
        self,
        assembly: Assembly,
        rows: Iterable[T],
        max_pending: int,
        progress: Callable[[WriteCounts], object] | bool | None,
    ) -> None:
        self._context, self._scheduler, self._crew = assembly.context, assembly.scheduler, assembly.crew
        self._announcer = assembly.announcer
        self._ledger: Ledger[T] = Ledger(rows, assembly.target, assembly.crew.inbox.rows.append)
        self._is_over = False
        self._in_a_row = 0
        self._now = assembly.context.clock.now
        self._intake = Intake(
            self._ledger,
            assembly.crew,
            self._now,
            most=max_pending,
            ahead=assembly.batch_size * (assembly.workers + 1),
        )
        self._began: float | None = None
        self._ended: float | None = None
        self._stopper = _Stopper(assembly.crew)
        self._token = assembly.context.stops.token
        self._progress = Progress(progress, self._now, rows)

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.__dict__.get("_is_over", True):
            self._context.stops.unwatch(self._stopper)
            self._crew.stop(End())

    def __next__(self) -> RowResult[T]:
        result: RowResult[T] | None = None
        try:
            self._ledger.forget_handed()
            results = self._scheduler.results
            if self._in_a_row and results and not self._is_over:
                self._in_a_row -= 1
                result = results[0]
            else:
                result = None if self._is_over else self._await_result()
            if result is None:
                self._conclude()
            results.popleft()
            return self._ledger.hand(result)
        except StopIteration:
            raise
        except BaseException:
            if result is not None:
                self._ledger.take_back()
            self.close()
            raise

    @property
    def counts(self) -> WriteCounts:
        """How far the writer is."""
        end = self._now() if self._ended is None else self._ended
        return replace(
            self._crew.sums,
            read=self._ledger.read,
            elapsed=0.0 if self._began is None else end - self._began,
            final_below=self._ledger.final_below,
        )

    def unfinished(self) -> list[UnfinishedRow[T]]:
        """Return each row that was read and has no result yet, or one that was not taken, in input order."""
        return self._ledger.unfinished(over=self._is_over)

    def close(self) -> None:
        """End the writer: nothing new is sent, and sends under way are awaited. Idempotent.

        A Ctrl-C meanwhile abandons these: their rows are `UNCERTAIN` in :meth:`unfinished`. A hook that calls it
        only has nothing new sent: it runs in one of the threads that would be awaited.
        """
        try:
            if self._is_over:
                return
            self._crew.stop(End(GiveUpReason.INTERRUPTED))
            if threading.current_thread() in self._crew.came:
                return
            while not self._crew.over:
                self._sleep(lambda: self._crew.over)
            self._finish()
        except BaseException:
            self._crew.abandon()
            self._finish()
            raise

    def raise_for_blocked(self) -> None:
        """Raise if any row stayed locked, or must be approved first.

        Raises:
            NotApprovedError: A row needs an approval or a review; it carries the outcomes of the first hundred rows
                that are blocked.
            RecordLockedError: A row is locked.
        """
        outcomes = tuple(self._scheduler.blocked)
        if not outcomes:
            return
        kind = NotApprovedError if any(outcome.needs_approval for outcome in outcomes) else RecordLockedError
        first = next(outcome for outcome in outcomes if outcome.needs_approval or kind is RecordLockedError)
        counts = self.counts
        message = f"{counts.blocked} of {counts.read} rows are blocked, row {first.position} by {first.code}."
        report = GuardReport(outcomes=outcomes, attempts=counts.calls, credits_spent=counts.calls)
        raise kind(f"{message} {first.hint}".strip(), report=report)

    # -- taking results

    def _begin(self) -> None:
        if self._began is None:
            self._began = self._now()
            self._context.stops.watch(self._stopper, self._token)

    def _await_result(self) -> RowResult[T] | None:
        """Return the next result, None if there will be none. Reads rows meanwhile."""
        self._begin()
        results, crew, intake = self._scheduler.results, self._crew, self._intake
        while True:
            self._progress.update(lambda: self.counts)
            if results:
                if not intake.is_slow:
                    intake.read(2 * _IN_A_ROW)
                    self._in_a_row = _IN_A_ROW - 1
                return results[0]
            if intake.read():
                continue
            crew.reinforce()
            self._sleep(lambda: bool(results) or crew.over or intake.may_read())
            if not results and crew.over:
                return results[0] if results else None  # the last ones may have come just now

    def _sleep(self, enough: Callable[[], bool]) -> None:
        """Sleep until the threads have something new, unless there is `enough` already."""
        bell = self._crew.bell
        bell.clear()
        if not enough():
            bell.wait(self._progress.interval or _LONGEST)  # no time need pass on the clock

    # -- the end

    def _finish(self) -> None:
        self._context.stops.unwatch(self._stopper)
        self._ended = self._now() if self._ended is None else self._ended
        self._is_over = True
        self._announcer.close()
        self._crew.bell.set()  # for another thread that is in here, although it should not be
        self._progress.close(lambda: self.counts)

    def _conclude(self) -> NoReturn:
        """Raise what ended the writer, the first time, or StopIteration."""
        if self._is_over:
            raise StopIteration
        self._finish()
        end = self._crew.end
        if self._crew.is_foreign:
            message = "this is a forked process, and the threads of the writer are those of its parent"
            raise RuntimeError(message)
        if end is None or end.reason is GiveUpReason.INTERRUPTED:
            raise StopIteration
        if isinstance(end.source, BaseException):
            raise _shown(end.source)
        is_done = self._ledger.ended and not self._ledger.pending
        if is_done and end.reason in {GiveUpReason.STOPPED, GiveUpReason.CREDITS}:
            raise StopIteration
        raise _error(end, self.counts, self._ledger.pending)


def _error(end: End, counts: WriteCounts, left: int) -> GuardError:
    """Return the error that tells why a writer ended before time."""
    error = end.error
    why = _WHY.get(end.reason, "every batch would meet the same") if end.reason else "it failed"
    met = f" ({error})" if error is not None else ""
    message = (
        f"the writer ended before time: {why}{met}. {counts.written} of {counts.read} rows were written, and "
        f"{left} have no result: see unfinished()."
    )
    report = GuardReport(
        attempts=counts.calls,
        credits_spent=counts.calls,
        reason=end.reason,
        retry_after=error.retry_after if error is not None else None,
        error=error,
    )
    return GuardError(message, report=report, response=end.source, request=getattr(end.source, "request", None))


def _shown(error: BaseException) -> BaseException:
    """Return an error as it may leave an iterator: StopIteration would look like a good end."""
    if not isinstance(error, StopIteration):
        return error
    shown = RuntimeError("a StopIteration ended the writer")
    shown.__cause__ = error
    return shown


class _Stopper(Wake):
    """Ends a writer instead of waking a thread: what `stop_waiting()` sets."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self._crew = crew

    def set(self) -> None:
        """End the writer. Reentrant; never blocks."""
        self._crew.stop(End(GiveUpReason.STOPPED))
