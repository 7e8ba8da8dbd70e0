"""Prints explanations: one after the other for people, or as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from crm_guard._base.codes import CLIENT_ERROR
from crm_guard.cli.explain.meaning import Explanation, Question, explain
from crm_guard.cli.outcomes import BYSTANDER, UNNAMED_LOCK, Verdict, as_json, full_line, listed, verdict
from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.terminal import make_console, signs, write_json
from crm_guard.remediation import harmless_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from crm_guard.cli.explain.meaning import Meaning
    from crm_guard.outcomes import RecordOutcome

_USAGE_ERROR: Final = 2
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def run_explain(question: Question, *, as_document: bool) -> None:
    """Print what each answer in a text means.

    Raises:
        CommandError: The text holds no answer that can be read, or the state is not a valid value.
    """
    if question.state and harmless_state(question.state) is None:
        message = (
            f"--state {harmless(question.state)!r} is not a value of $approval_state (example: zia_vision_rejected)"
        )
        raise CommandError(message, _USAGE_ERROR)
    found = explain(question)
    if as_document:
        write_json({"answers": [_document(one) for one in found]})
    else:
        _show_all(found, make_console())


def understood(found: Explanation) -> str:
    """Return in one line what an answer was read as."""
    pasted, facts = found.pasted, found.facts
    call = f"{facts.method or ''} {found.path if facts.path else ''}".strip()
    parts = [
        pasted.form,
        f"status {facts.status}" if facts.status else "",
        call,
        *pasted.notes,
        "cut off: only what was complete is explained" if pasted.cut else "",
    ]
    return harmless(", ".join(part for part in parts if part))


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "understood": understood(found),
        "cut": found.pasted.cut,
        "call": {"method": found.method, "path": found.path, "guessed": found.guessed},
        "records": len(found.outcomes),
        "guarded": found.guarded,
        "error": _error_document(found),
        "outcomes": [as_json(outcome, _verdict(found, outcome)) for outcome in found.outcomes],
        "meanings": [_meaning_document(meaning) for meaning in found.meanings],
    }


def _meaning_document(meaning: Meaning) -> dict[str, Any]:
    return {
        "action": meaning.action,
        "case": meaning.case,
        "approval_state": meaning.state,
        "retryable": meaning.retryable,
        "hint": meaning.hint,
    }


def _error_document(found: Explanation) -> dict[str, Any] | None:
    error = found.error
    if error is None:
        return None
    return {
        "status": error.status if found.status_known else None,
        "code": error.code,
        "message": error.message,
        "retry_after": error.retry_after,
        "refused": error.refused,
    }


def _verdict(found: Explanation, outcome: RecordOutcome) -> Verdict:
    if outcome.position in found.unnamed:
        return UNNAMED_LOCK
    usual = verdict(outcome)
    own = outcome.code or outcome.succeeded or outcome.uncertain
    return usual if own or not any(one.code and not one.succeeded for one in found.outcomes) else BYSTANDER


def _show_all(found: Sequence[Explanation], console: Console) -> None:
    for number, one in enumerate(found, 1):
        if number > 1:
            console.print()
        count = f"Answer {number} of {len(found)}: read as " if len(found) > 1 else "Read as: "
        console.print(Text(count + understood(one), "dim"), soft_wrap=True)
        _show(one, console)


def _show(found: Explanation, console: Console) -> None:
    if not found.guarded and (text := _unblocked(found)):
        console.print(text)
    if found.error is not None:
        fate = "nothing was applied" if found.error.refused else "it is not known what was applied"
        error = found.error if found.status_known else found.error.code
        console.print(Text(harmless(f"The call failed as a whole ({error}): {fate}.")))
    if found.outcomes:
        _show_outcomes(found, console)
    if found.meanings:
        _show_meanings(found, console)


def _show_outcomes(found: Explanation, console: Console) -> None:
    guess = "  (guessed; pass --method and --path to be certain)" if found.guessed and found.guarded else ""
    if not found.pasted.bare or found.facts.method or found.facts.path:
        console.print(Text.assemble((f"{found.method} {harmless(found.path)}", "bold"), (guess, "dim")))
        console.print()
    if not found.pasted.bare:
        console.print(
            listed(found.outcomes, signs(console), lambda outcome: full_line(outcome, _verdict(found, outcome)))
        )


def _show_meanings(found: Explanation, console: Console) -> None:
    """Print what a code can mean, where the text does not tell."""
    console.print(Text(f"{found.outcomes[-1].code} alone does not tell why. It can mean:"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for number, meaning in enumerate(found.meanings, 1):
        name = meaning.case or meaning.state or meaning.action or "no details.action in the answer"
        grid.add_row(f"{number}.", Text(harmless(name), "bold"))
        grid.add_row("", Text(harmless(meaning.hint)))
    console.print(grid)


def _unblocked(found: Explanation) -> str:
    """Return what to say where no record is blocked; never that nothing is where the body is missing."""
    status = found.facts.status
    if not found.pasted.body and status is not None and status >= CLIENT_ERROR:
        return "The text has no JSON body, so it does not tell whether a record is locked: add the body."
    if found.pasted.rows:
        return "Nothing is blocked by this: it holds records (of a read, or of a request), not results of a write."
    text = "Nothing is blocked: no record is locked or waits for an approval."
    if found.pasted.cut:
        text = "Nothing is blocked as far as the text goes; it was cut, and the rest may tell of locks."
    return text if found.outcomes else f"{text} The response has no per-record results."
