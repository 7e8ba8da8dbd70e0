"""What the demo says after the day: what was sent again, which records are blocked and why, cost and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from crm_guard.cli.demo.bulk import counted_rows
from crm_guard.cli.demo.checks import sent
from crm_guard.cli.demo.unguarded import heading
from crm_guard.cli.outcomes import as_json, listed, short_line
from crm_guard.cli.terminal import signs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from crm_guard.cli.demo.bulk import Bulk
    from crm_guard.cli.demo.checks import Check, Day
    from crm_guard.cli.demo.results import Result
    from crm_guard.cli.demo.unguarded import Unguarded
    from crm_guard.cli.terminal import Signs
    from crm_guard.outcomes import RecordOutcome


def show_day(day: Day, console: Console) -> None:
    """Print what the day came to: what was sent again, which records stay blocked and what to do about it."""
    blocked = _blocked(day)
    _section(console, "Batches: only what CRM refused was sent again", _batches(day))
    records = "1 record stays" if len(blocked) == 1 else f"{len(blocked)} records stay"
    title = f"{records} blocked: who must do what"
    _section(console, title, listed(_by_hint(blocked), signs(console), short_line))
    _section(console, "Cost", _cost(day))


def announce_bulk(rows: int, console: Console) -> None:
    """Print what the bulk update is."""
    title = f"Bulk update of {counted_rows(rows)} by write_records: a locked row holds back no other"
    console.print(Text(f"\n{title}", "bold"))


def show_bulk(bulk: Bulk, console: Console) -> None:
    """Print what the bulk update took."""
    console.print(Group(*bulk.lines()))


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """Print each check, and whether all held."""
    used = signs(console)
    _section(console, "Checks against the simulator's own counts", _checks(checks, used))
    failed = [check.name for check in checks if not check.held]
    if failed:
        verdict = f"{used.bad} {len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}"
        console.print(Text(verdict, "bold red"))
    else:
        console.print(Text(f"{used.good} All {len(checks)} checks passed.", "bold green"))


def show_unguarded(days: Sequence[Unguarded], console: Console, *, speed: float) -> None:
    """Print what would have become of the day without the guard."""
    _section(console, heading(speed), Group(*(Text(day.line()) for day in days)))


def document(
    day: Day, bulk: Bulk, checks: Sequence[Check], unguarded: Sequence[Unguarded], *, seed: int, speed: float
) -> dict[str, Any]:
    """Return the summary as a JSON document."""
    return {
        "ok": all(check.held for check in checks),
        "seed": seed,
        "speed": speed,
        "seconds": round(day.seconds, 3),
        "counts": _counts(day),
        "bulk": bulk.document(),
        "without_guard": {other.habit.name: other.document() for other in unguarded},
        "checks": [check._asdict() for check in checks],
        "outcomes": [_outcome(result) for result in day.results],
    }


def _counts(day: Day) -> dict[str, Any]:
    return {
        "jobs": len(day.results),
        "records": len(day.wanted),
        "records_written": sum(times > 0 for times in day.writes.values()),
        "records_blocked": len(_blocked(day)),
        "writes": sum(day.writes.values()),
        "refusals": sum(day.refusals.values()),
        "calls": len(day.calls),
        "diagnosis_calls": day.probes,
        "credits": sum(call.credits for call in day.calls),
        "waited": round(sum(result.waited for result in day.results), 3),
    }


def _outcome(result: Result) -> dict[str, Any]:
    job = result.job
    return {
        "job": job.name,
        "module": job.module,
        "records": len(job.ids),
        "record_id": job.ids[0] if job.single else None,
        "result": "failed" if result.error else "blocked" if result.blocked else "done",
        "error": result.error,
        "sends": result.attempts,
        "calls": result.calls,
        "waited": round(result.waited, 3),
        "blocked": [as_json(outcome) for outcome in result.blocked],
    }


def _blocked(day: Day) -> list[RecordOutcome]:
    return [outcome for result in day.results for outcome in result.blocked]


def _by_hint(outcomes: Sequence[RecordOutcome]) -> list[RecordOutcome]:
    """Return the outcomes grouped by hint, in order of the first occurrence of each hint."""
    first = {outcome.hint: place for place, outcome in reversed(list(enumerate(outcomes)))}
    return sorted(outcomes, key=lambda outcome: first[outcome.hint])


def _section(console: Console, title: str, content: RenderableType) -> None:
    console.print()
    console.print(Text(title, "bold"))
    console.print(content)


def _batches(day: Day) -> RenderableType:
    counted = sent(day)
    lines = []
    for result in day.results:
        size = len(result.job.ids)
        if not result.job.single:
            carried = sum(counted[record_id] for record_id in result.job.ids)
            name = f"{result.job.name} {size} {result.job.module}"
            line = f"{name:<20} {result.attempts} sends, {carried:>3} records sent"
            lines.append(Text.assemble(line, (f"  (whole batches each time: {result.attempts * size})", "dim")))
    return Group(*lines)


def _cost(day: Day) -> str:
    counts = _counts(day)
    return (
        f"{counts['jobs']} jobs on {counts['records']} records in {day.seconds:.1f} s: {counts['calls']} calls "
        f"({counts['diagnosis_calls']} of them to learn why a record is blocked), {counts['credits']} API credits, "
        f"{counts['refusals']} refusals, {counts['waited']:.1f} s waited in total over all threads."
    )


def _checks(checks: Sequence[Check], used: Signs) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for check in checks:
        sign = Text(used.good, "green") if check.held else Text(used.bad, "bold red")
        detail = Text(f" ({check.detail})", "dim") if check.held else Text(f": {check.detail}", "red")
        grid.add_row(sign, Text.assemble(check.name, detail))
    return grid
