"""How one record's outcome is shown: a verdict in words, and the hint. For `explain` and for the demo."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.table import Table
from rich.text import Text

from crm_guard.cli.terminal import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from crm_guard.cli.terminal import Signs
    from crm_guard.report import RecordOutcome


class Verdict(NamedTuple):
    """What an outcome means, in a word for programs and in words for people."""

    name: str
    words: str
    style: str


_WRITTEN: Final = Verdict("written", "written", "green")
_PASSES: Final = Verdict("wait", "locked, and the lock passes by itself: the guard waits for it", "yellow")
_STAYS: Final = Verdict("locked", "locked, and waiting does not help", "red")
_CHECKED: Final = Verdict("wait", "being checked again: try later", "yellow")
_PERSON: Final = Verdict("person", "waits for a person", "magenta")
_UNCERTAIN: Final = Verdict("uncertain", "not known: it may have been written", "yellow")
_FAILED: Final = Verdict("failed", "refused for a reason that is none of the guard's", "red")


def verdict(outcome: RecordOutcome) -> Verdict:
    """Return what an outcome means."""
    if outcome.succeeded:
        return _WRITTEN
    if outcome.uncertain:
        return _UNCERTAIN
    if outcome.needs_approval:
        return _CHECKED if outcome.checked_again else _PERSON
    if outcome.blocked:
        return _PASSES if outcome.retryable else _STAYS
    return _FAILED


def as_json(outcome: RecordOutcome) -> dict[str, Any]:
    """Return an outcome for a JSON document."""
    return {
        "position": outcome.position,
        "record_id": outcome.record_id,
        "verdict": verdict(outcome).name,
        "code": outcome.code,
        "action": outcome.action,
        "message": outcome.message,
        "succeeded": outcome.succeeded,
        "blocked": outcome.blocked,
        "retryable": outcome.retryable,
        "uncertain": outcome.uncertain,
        "case": outcome.case,
        "candidates": list(outcome.candidates),
        "approval_state": outcome.approval_state,
        "hint": outcome.hint,
    }


def listed(
    outcomes: Iterable[RecordOutcome], signs: Signs, head: Callable[[RecordOutcome], Text]
) -> RenderableType:
    """Show outcomes one below the other; neighbours with the same hint share it, below them.

    Args:
        outcomes: What to show.
        signs: The signs before each record.
        head: Makes the line of a record.
    """
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for hint, group in groupby(outcomes, key=lambda outcome: outcome.hint):
        if hint and grid.row_count:
            grid.add_row()
        for outcome in group:
            grid.add_row(
                Text(signs.good if outcome.succeeded else signs.bad, verdict(outcome).style), head(outcome)
            )
        if hint:
            grid.add_row("", Text(harmless(hint)))
    return grid


def full_line(outcome: RecordOutcome) -> Text:
    """Return record, code and verdict, with the case and the state as far as they are known."""
    found = verdict(outcome)
    action = f" ({harmless(outcome.action)})" if outcome.action else ""
    line = Text.assemble(_name(outcome), f"  {harmless(outcome.code)}{action}  ", (found.words, found.style))
    if outcome.case:
        line.append(f": {outcome.case}", found.style)
    elif outcome.candidates:
        line.append(f": {' or '.join(outcome.candidates)}", found.style)
    if outcome.approval_state:
        line.append(f"  $approval_state {harmless(outcome.approval_state)}", "dim")
    return line


def short_line(outcome: RecordOutcome) -> Text:
    """Return record, case and state of a blocked record, in columns."""
    why = outcome.case or outcome.action or " or ".join(outcome.candidates) or outcome.code
    line = Text.assemble(_name(outcome), "  ", (f"{harmless(why):<20}", verdict(outcome).style))
    return line.append(f" {harmless(outcome.approval_state or '')}", "dim")


def _name(outcome: RecordOutcome) -> tuple[str, str]:
    return harmless(outcome.record_id) if outcome.record_id else f"record at position {outcome.position}", "bold"
