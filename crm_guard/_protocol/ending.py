"""What an exchange comes to: the merged answer, the error of the call as a whole, and whether to raise. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crm_guard._protocol.judging import Judge, failed_as_a_whole, slot_outcomes
from crm_guard._protocol.merge import Merged, merge, with_hint, write_body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crm_guard._protocol.envelope import Item
    from crm_guard._protocol.exchange import Exchange
    from crm_guard.outcomes import CallError, RecordOutcome


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


def failure_of(exchange: Exchange[Any]) -> CallError | None:
    """Return what the most recent send, or else the whole call, met instead of a result for each record."""
    whole = exchange.alone and failed_as_a_whole(exchange.latest, exchange.request)
    return exchange.error or (exchange.latest.error if whole else None)


def raises(raise_on: str, exchange: Exchange[Any], outcomes: Iterable[RecordOutcome]) -> bool:
    """Return whether the setting `raise_on` asks to raise for the blocked records of an exchange."""
    if raise_on == "failure":
        return not exchange.return_unmodified and not any(outcome.succeeded for outcome in outcomes)
    return raise_on == "partial"
