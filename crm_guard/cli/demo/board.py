"""The live display: a row per job, updated by the guard's events, and a progress bar."""

from __future__ import annotations

import enum
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crm_guard.cli.plain import harmless
from crm_guard.cli.terminal import signs
from crm_guard.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from crm_guard.cli.demo.plan import Job
    from crm_guard.cli.demo.results import Result
    from crm_guard.cli.terminal import Signs
    from crm_guard.events import GuardEvent
    from crm_guard.report import GuardReport

_LINES_AROUND: Final = 7
_WIDE: Final = 88
_NARROW: Final = 60
_ID_TAIL: Final = 6
_ID_LENGTH: Final = 18
_SHORT_ID_LENGTH: Final = 12


class Phase(enum.Enum):
    """The phases of a job."""

    QUEUED = "queued"
    SENDING = "sending"
    WAITING = "waiting"
    WRITTEN = "written"
    BLOCKED = "blocked"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self in (Phase.WRITTEN, Phase.BLOCKED, Phase.FAILED)


_STYLES: Final = {
    Phase.QUEUED: "dim",
    Phase.SENDING: "cyan",
    Phase.WAITING: "yellow",
    Phase.WRITTEN: "green",
    Phase.BLOCKED: "magenta",
    Phase.FAILED: "bold red",
}
_URGENCY: Final = (Phase.FAILED, Phase.WAITING, Phase.SENDING, Phase.BLOCKED, Phase.WRITTEN, Phase.QUEUED)


class View(NamedTuple):
    """A snapshot of a row."""

    phase: Phase
    state: str
    sends: int
    waited: float
    settled: int


class Row:
    """The display state of one job. Thread-safe: the job's thread writes, the display reads."""

    def __init__(self, job: Job, on_lock: Callable[[Row], None] | None = None) -> None:
        self.job = job
        self.result: Result | None = None
        self._on_lock = on_lock
        self._told = 0
        self._mutex = threading.Lock()
        self._phase = Phase.QUEUED
        self._sends = self._sends_before = 0
        self._waited = self._waited_before = 0.0
        self._locked: set[str] = set()
        self._until = self._since = 0.0

    def start(self) -> None:
        """Record the start of the job."""
        with self._mutex:
            self._phase, self._sends = Phase.SENDING, 1

    def note(self, event: GuardEvent) -> None:
        """Record an event of the guard. A wait is told if the number of locked records has changed."""
        with self._mutex:
            self._record(event)
            news = event.kind is EventKind.WAITING and self._told != len(self._locked)
            if news:
                self._told = len(self._locked)
        if news and self._on_lock is not None:
            self._on_lock(self)

    def _record(self, event: GuardEvent) -> None:
        self._sends = self._sends_before + event.attempt
        self._waited = self._waited_before + event.waited
        if event.kind is EventKind.LOCKED:
            self._locked |= set(event.record_ids)
        elif event.kind is EventKind.WAITING:
            self._phase, self._since = Phase.WAITING, time.monotonic()
            self._until = self._since + event.delay
        elif event.kind is EventKind.RESENDING:
            self._phase = Phase.SENDING
        elif event.kind is EventKind.UNLOCKED:
            self._locked -= set(event.record_ids)

    def advance(self, report: GuardReport) -> None:
        """Record the end of a call."""
        with self._mutex:
            self._sends = self._sends_before = self._sends_before + report.attempts
            self._waited = self._waited_before = self._waited_before + report.waited
            self._phase = Phase.SENDING

    def finish(self, result: Result) -> None:
        """Record the end of the job."""
        with self._mutex:
            self.result = result
            self._phase = Phase.FAILED if result.error else Phase.BLOCKED if result.blocked else Phase.WRITTEN

    def view(self) -> View:
        """Return a snapshot of the row."""
        now = time.monotonic()
        with self._mutex:
            waiting = self._phase is Phase.WAITING
            waited = self._waited + (now - self._since if waiting else 0.0)
            return View(self._phase, self._state(now), self._sends, waited, self._settled())

    def _state(self, now: float) -> str:
        if self.result is not None:
            return ended(self.result)
        if self._phase is Phase.WAITING:
            left = f"again in {max(0.0, self._until - now):.1f} s"
            if self.job.single:
                return f"locked, sent {left}"
            return f"{len(self._locked)} of {len(self.job.ids)} locked, {left}"
        resending = self._phase is Phase.SENDING and self._locked
        return "sending again" if resending else self._phase.value

    def _settled(self) -> int:
        """Return the number of the job's records that have a result."""
        if self._phase.over:
            return len(self.job.ids)
        return len(self.job.ids) - len(self._locked) if self._locked else 0


def ended(result: Result) -> str:
    """Return a short description of how a job ended."""
    if result.error:
        return harmless(result.error)
    blocked = result.blocked
    if result.job.single:
        if blocked:
            return f"blocked: {blocked[0].case or blocked[0].action or blocked[0].code}"
        return "downloaded" if not result.job.steps[-1].writes else "written"
    written = len(result.job.ids) - len(blocked)
    return f"{written} written" + (f", {len(blocked)} blocked" if blocked else "")


class Rows:
    """All rows, and the time since their creation.

    Args:
        jobs: One row for each.
        on_lock: Called in a job's thread when it begins to wait for another number of locked records than before.
    """

    def __init__(self, jobs: Sequence[Job], on_lock: Callable[[Row], None] | None = None) -> None:
        self._rows = {job.number: Row(job, on_lock) for job in jobs}
        self._started = time.monotonic()

    def of(self, job: Job) -> Row:
        """Return the row of `job`."""
        return self._rows[job.number]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started


class Board:
    """Renders the rows and the progress, as many as the terminal has room for.

    Args:
        rows: The rows.
        whole: Render every row even if they do not fit, for the final frame.
    """

    def __init__(self, rows: Rows, *, whole: bool = False) -> None:
        self._rows = rows
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = [(row, row.view()) for row in self._rows]
        room = len(shown) if self._whole else max(1, console.size.height - _LINES_AROUND)
        table = _table(shown, room, options.max_width, signs(console))
        yield Group(table, Text(""), _progress(shown, options.max_width, self._rows.elapsed))


def _table(shown: Sequence[tuple[Row, View]], room: int, width: int, used: Signs) -> Table:
    wide = width >= _NARROW
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=width < _WIDE)
    table.add_column("  job", no_wrap=True)
    if wide:
        table.add_column("record", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=min(width // 3, 32), ratio=1)
    if wide:
        table.add_column("sends", justify="right", no_wrap=True)
    table.add_column("waited", justify="right", no_wrap=True)
    chosen = _most_urgent(shown, room)
    for row, view in chosen:
        table.add_row(*_cells(row.job, view, width, used))
    if len(chosen) < len(shown):
        table.add_row(Text(f"{used.more} {len(shown) - len(chosen)} more", "dim"))
    return table


def _most_urgent(shown: Sequence[tuple[Row, View]], room: int) -> list[tuple[Row, View]]:
    """Return the rows that fit, in the order of the plan; running jobs take precedence."""
    urgent = sorted(shown, key=lambda pair: _URGENCY.index(pair[1].phase))[:room]
    return sorted(urgent, key=lambda pair: pair[0].job.number)


def _cells(job: Job, view: View, width: int, used: Signs) -> list[RenderableType]:
    style = _STYLES[view.phase]
    name, state = Text.assemble((_sign(view.phase, used), style), f" {job.name}"), Text(view.state, style)
    waited = f"{view.waited:.1f} s" if view.waited else ""
    if width < _NARROW:
        return [name, state, waited]
    return [name, Text(_records(job, width, used), "dim"), state, str(view.sends or ""), waited]


def _records(job: Job, width: int, used: Signs) -> str:
    if not job.single:
        return f"{len(job.ids)} {job.module}"
    return job.ids[0] if width >= _WIDE else f"{used.more}{job.ids[0][-_ID_TAIL:]}"


def _sign(phase: Phase, used: Signs) -> str:
    known = {
        Phase.QUEUED: used.queued,
        Phase.SENDING: used.sending,
        Phase.WAITING: used.waiting,
        Phase.WRITTEN: used.good,
    }
    return known.get(phase, used.bad)


def _progress(shown: Sequence[tuple[Row, View]], width: int, elapsed: float) -> RenderableType:
    over = sum(view.phase.over for _, view in shown)
    settled = sum(view.settled for _, view in shown)
    total = sum(len(row.job.ids) for row, _ in shown)
    counts = [f"{settled} of {total} records", f"{over} of {len(shown)} jobs", f"{elapsed:.1f} s"]
    grid = Table.grid(padding=(0, 2))
    wide = width >= _NARROW
    grid.add_row(ProgressBar(total=total, completed=settled, width=24 if wide else 8), *counts[not wide :])
    return grid


class Lines:
    """Prints the rows as lines, for output that is not a terminal: one when a job waits, and one when it has ended.

    Thread-safe: lines come whole, and in the order of their times.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.rows = Rows(jobs, self.tell_lock)
        self._console = console
        self._mutex = threading.Lock()

    def tell_columns(self) -> None:
        """Print what the columns are."""
        self._print("    s", "job", "record", "state", "sends", "waited")

    def tell_lock(self, row: Row) -> None:
        """Print that a job waits."""
        self._tell(row, row.view()._replace(sends=0, waited=0.0))

    def tell_end(self, row: Row) -> None:
        """Print how a job ended."""
        self._tell(row, row.view())

    def _tell(self, row: Row, view: View) -> None:
        job, width = row.job, self._console.width
        waited = f"{view.waited:.1f} s" if view.waited else ""
        record = _records(job, width, signs(self._console))
        with self._mutex:
            self._print(f"{self.rows.elapsed:5.1f}", job.name, record, view.state, str(view.sends or ""), waited)

    def _print(self, seconds: str, name: str, record: str, state: str, sends: str, waited: str) -> None:
        room = _ID_LENGTH if self._console.width >= _WIDE else _SHORT_ID_LENGTH
        line = f"{seconds}  {name:<14} {record:<{room}}  {state:<28}"
        numbers = f"  {sends:>5}  {waited:>6}" if sends else ""
        self._console.print(Text((line + numbers).rstrip()), soft_wrap=True)
