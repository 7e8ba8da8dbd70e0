"""How an exchange ended: its merged answer, outcomes, error, what remains, and whether to raise. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from crm_guard._protocol.merge import Merged, merge, with_hint, write_body
from crm_guard._protocol.record_outcomes import Judge, failed_as_a_whole, outcomes_of, slot_outcomes
from crm_guard._protocol.steps import Ending
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard._protocol.call_facts import Facts
    from crm_guard._protocol.envelope import Item
    from crm_guard._protocol.exchange import Exchange
    from crm_guard._protocol.request_records import Part
    from crm_guard._protocol.waits_and_budgets import Pacing
    from crm_guard.outcomes import CallError, RecordOutcome

R = TypeVar("R")


def ending_of(exchange: Exchange[R], facts: Facts, judge: Judge, pacing: Pacing) -> Ending[R]:
    """Return how an exchange ended.

    Args:
        exchange: The exchange.
        facts: Of the call.
        judge: Knows the approval states.
        pacing: Of the call.
    """
    outcomes = outcomes_of(exchange, judge)
    return Ending(
        answer=exchange.latest,
        merged=merged_of(exchange, judge, hints=facts.settings.hints_in_body),
        outcomes=outcomes,
        attempts=exchange.attempts,
        reason=exchange.reason,
        retry_after=_retry_after(exchange, outcomes, pacing),
        error=_failure_of(exchange),
        remaining=_remaining(exchange),
        events=tuple(facts.teller.of_end(exchange, outcomes)),
        raises=_raises(facts.settings.raise_on, exchange, outcomes),
        keeps_results=exchange.has_final_result,
    )


def merged_of(exchange: Exchange[Any], judge: Judge, *, hints: bool) -> Merged | None:
    """Return the status and body of the result; None where the most recent answer is the result, unmodified.

    Args:
        exchange: The exchange.
        judge: Knows the hints.
        hints: Whether the messages of blocked items get their hints (`hints_in_body`).
    """
    items, latest = exchange.items, exchange.latest
    shown = _with_hints(exchange, judge) if hints and not exchange.precedents.opening.composite else items
    if not exchange.complete:
        return merge(exchange, shown)
    if shown != items and latest.envelope and list(latest.envelope.items) == items:  # not where it is a 401, say
        return Merged(latest.status, write_body(latest.envelope, shown))
    return None


def _with_hints(exchange: Exchange[Any], judge: Judge) -> list[Item]:
    # Items of a composite answer lie too deep to rewrite them without touching the rest of the body.
    outcomes = slot_outcomes(exchange, judge)
    return [
        with_hint(item, outcome.hint) if outcome.blocked else item
        for item, outcome in zip(exchange.items, outcomes, strict=True)
    ]


def _failure_of(exchange: Exchange[Any]) -> CallError | None:
    """Return what the most recent send, or else the whole call, met instead of a result for each record."""
    whole = exchange.alone and failed_as_a_whole(exchange.latest, exchange.request)
    return exchange.error or (exchange.latest.error if whole else None)


def _raises(raise_on: str, exchange: Exchange[Any], outcomes: Iterable[RecordOutcome]) -> bool:
    """Return whether the setting `raise_on` asks to raise for the blocked records of an exchange."""
    if raise_on == "failure":
        return not exchange.return_unmodified and not any(outcome.succeeded for outcome in outcomes)
    return raise_on == "partial"


def _retry_after(exchange: Exchange[Any], outcomes: Iterable[RecordOutcome], pacing: Pacing) -> float | None:
    """Return the seconds after which a later call makes sense, None where no wait will help."""
    if exchange.reason is not None and (exchange.pending or exchange.uncertain):
        return pacing.delay
    return pacing.longest if any(found.checked_again for found in outcomes) else None


def _remaining(exchange: Exchange[Any]) -> Part | None:
    """Return what to change in the request to send later what is still locked, None where that is unsafe."""
    impossible = exchange.reason in {GiveUpReason.UNMATCHED, GiveUpReason.NOT_REPLAYABLE}
    return exchange.part(exchange.pending) if exchange.pending and not impossible else None
