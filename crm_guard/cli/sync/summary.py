"""The summary of a sync: what became of the rows, what it cost, and where the failures are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from crm_guard.cli.plain import harmless
from crm_guard.cli.sync.tally import State
from crm_guard.cli.terminal import signs

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from crm_guard.cli.sync.run import Ended
    from crm_guard.cli.sync.tally import Group

_NAMES: Final = {
    State.BLOCKED: ("blocked", "magenta"),
    State.FAILED: ("failed", "red"),
    State.UNCERTAIN: ("uncertain", "yellow"),
    State.PARKED: ("not written", "yellow"),
    State.NEVER_SENT: ("not sent", "yellow"),
}
_ABOUT: Final = {
    State.UNCERTAIN: "May have been written or not: look into CRM first. A sync of the failures leaves these out, "
    "unless --include-uncertain is given.",
    State.PARKED: "CRM took none of the call that it was in: it can be sent again.",
}
_HELD_BACK: Final = "Not sent: an earlier run left these uncertain. --include-uncertain sends them."


def show_summary(ended: Ended, failed: Path | None, console: Console) -> None:
    """Print the summary.

    Args:
        ended: How the run ended.
        failed: The file of failures, None if there is none.
        console: Where to.
    """
    tally, counts, used = ended.tally, ended.counts, signs(console)
    rate = tally.written / counts.elapsed if counts.elapsed > 0 else 0.0
    sign, style = (used.good, "green") if tally.all_written else (used.bad, "red")
    total = tally.written + tally.failures
    line = (
        f" {tally.written:,} of {total:,} rows written in {counts.elapsed:.1f} s ({rate:,.0f} a second): "
        f"{counts.calls:,} calls, {counts.credits:,} API credits."
    )
    console.print(Text.assemble((sign, style), line))
    if tally.groups:
        console.print(_table(tally.groups))
    if tally.unread_from is not None:
        console.print(f"Nothing was read from line {tally.unread_from} on.")
    if tally.failures:
        console.print(Text(_where(ended, failed)), soft_wrap=True)


def _where(ended: Ended, failed: Path | None) -> str:
    """Return where the rows that were not written are."""
    count = ended.tally.failures
    rows = f"{count:,} rows that were not written are" if count > 1 else "row that was not written is"
    if failed is None:
        return f"The {rows} in no file: see --failed."
    if ended.kept < count:
        return f"{harmless(str(failed))} is incomplete: {ended.kept:,} of {count:,} rows are in it."
    return f"The {rows} in {harmless(str(failed))}, which can be synced as it is."


def summary_document(ended: Ended, failed: Path | None, error: str | None) -> dict[str, Any]:
    """Return the summary as a JSON document.

    Args:
        ended: How the run ended.
        failed: The file of failures, None if there is none.
        error: What ended the run before time, None if nothing did.
    """
    tally, counts = ended.tally, ended.counts
    return {
        "ok": tally.all_written and error is None,
        "rows": tally.written + tally.failures,
        "written": tally.written,
        **{state.value: _count(tally.groups, state) for state in State},
        "calls": counts.calls,
        "credits": counts.credits,
        "seconds": round(counts.elapsed, 3),
        "failures": [_group(group) for group in tally.groups],
        "failed_file": str(failed) if failed and tally.failures else None,
        "failed_file_complete": ended.kept == tally.failures if failed and tally.failures else None,
        "unread_from_line": tally.unread_from,
        "error": error,
    }


def _count(groups: list[Group], state: State) -> int:
    return sum(group.count for group in groups if group.first.state is state)


def _group(group: Group) -> dict[str, Any]:
    first = group.first
    return {
        "state": first.state.value,
        "held_back": first.held_back,
        "code": first.code,
        "case": first.case or None,
        "message": first.message,
        "hint": first.hint,
        "count": group.count,
        "first_lines": group.lines,
    }


def _table(groups: list[Group]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for group in groups:
        first = group.first
        name, style = _NAMES[first.state]
        case = f" {harmless(first.case)}" if first.case else ""
        grid.add_row(
            f"{group.count:,}", Text(name, style), Text(f"{harmless(first.code)}{case}{_lines(group)}".strip())
        )
        about = _HELD_BACK if first.held_back else first.hint or _ABOUT.get(first.state, "") or first.message
        if about:
            grid.add_row("", "", Text(harmless(about), "dim"))
    return grid


def _lines(group: Group) -> str:
    numbers = ", ".join(map(str, group.lines))
    more = ", ..." if group.count > len(group.lines) else ""
    return f" (line{'s' if group.count > 1 else ''} {numbers}{more})"
