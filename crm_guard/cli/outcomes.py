"""Formats record outcomes, for `explain` and the demo: a verdict and the hint."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.table import Table
from rich.text import Text

from crm_guard.cli.plain import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from crm_guard.cli.terminal import Signs
    from crm_guard.outcomes import RecordOutcome


class Verdict(NamedTuple):
    """What an outcome means: a name for programs, words and a style for people."""

    name: str
    words: str
    style: str


_WRITTEN: Final = Verdict("written", "written", "green")
_TRANSIENT: Final = Verdict("wait", "locked by a transient lock: the guard waits for it", "yellow")
_LOCKED: Final = Verdict("locked", "locked for a reason that waiting will not resolve", "red")
_RECHECKED: Final = Verdict("wait", "being checked again: retry later", "yellow")
_PERSON: Final = Verdict("person", "waits for a person", "magenta")
_UNCERTAIN: Final = Verdict("uncertain", "unknown: it may have been written", "yellow")
UNNAMED_LOCK: Final = Verdict("locked", "locked; by what is not in the text", "yellow")
"""Of a text that does not hold all of CRM's answer: not what `verdict` would say of such an outcome."""
_FAILED: Final = Verdict("failed", "refused for a reason that the guard does not handle", "red")
BYSTANDER: Final = Verdict("failed", "not written: refused with another record", "yellow")
"""Of a record that is not the cause of a refusal of the whole call: `verdict` sees one record alone."""


def verdict(outcome: RecordOutcome) -> Verdict:
    """Return the verdict on an outcome."""
    if outcome.succeeded:
        return _WRITTEN
    if outcome.uncertain:
        return _UNCERTAIN
    if outcome.needs_approval:
        return _RECHECKED if outcome.checked_again else _PERSON
    if outcome.blocked:
        return _TRANSIENT if outcome.retryable else _LOCKED
    return _FAILED


def as_json(outcome: RecordOutcome, found: Verdict | None = None) -> dict[str, Any]:
    """Return an outcome as a JSON object, with the usual verdict unless another is given."""
    return {
        "position": outcome.position,
        "record_id": outcome.record_id,
        "verdict": (found or verdict(outcome)).name,
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
    """Return a table with a row per outcome; adjacent outcomes with the same hint share one line for it.

    Args:
        outcomes: The rows.
        signs: The symbols of the first column.
        head: Formats the line of a record.
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


def full_line(outcome: RecordOutcome, found: Verdict | None = None) -> Text:
    """Return record, code and verdict (the usual one unless given), and case and approval state if known."""
    found = found or verdict(outcome)
    action = f" ({harmless(outcome.action)})" if outcome.action else ""
    code = f"{harmless(outcome.code)}{action}  " if outcome.code else ""
    line = Text.assemble(_name(outcome), f"  {code}", (found.words, found.style))
    if outcome.case:
        line.append(f": {outcome.case}", found.style)
    elif outcome.candidates:
        line.append(f": {' or '.join(outcome.candidates)}", found.style)
    if outcome.approval_state:
        line.append(f"  $approval_state {harmless(outcome.approval_state)}", "dim")
    return line


def short_line(outcome: RecordOutcome) -> Text:
    """Return id, case and approval state, if known, of a blocked record, in columns."""
    why = outcome.case or outcome.action or " or ".join(outcome.candidates) or outcome.code
    line = Text.assemble(_name(outcome), "  ", (f"{harmless(why):<20}", verdict(outcome).style))
    state = f" state {harmless(outcome.approval_state)}" if outcome.approval_state else ""
    return line.append(state, "dim")


def _name(outcome: RecordOutcome) -> tuple[str, str]:
    return harmless(outcome.record_id) if outcome.record_id else f"record at position {outcome.position}", "bold"
