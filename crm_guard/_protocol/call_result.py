"""How an exchange ended: its merged answer, outcomes, error, what remains, and whether to raise. Pure.

Also which of a call's records a later request may ask for: :func:`certain_positions` and :func:`part_for`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from crm_guard._base.codes import SERVER_ERROR
from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.matching import match_response
from crm_guard._protocol.merge import Merged, merge, with_hint, write_body
from crm_guard._protocol.record_outcomes import Judge, failed_as_a_whole, outcomes_of, slot_outcomes
from crm_guard._protocol.request_records import Part
from crm_guard._protocol.steps import Ending
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.call_facts import Facts
    from crm_guard._protocol.envelope import Item
    from crm_guard._protocol.exchange import Exchange
    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard._protocol.waits_and_budgets import Pacing
    from crm_guard.outcomes import CallError, RecordOutcome

R = TypeVar("R")

_DOUBT: Final = "the answer does not tell without doubt which records of the request it is about"
_NEVER: Final = "the answer to such a call does not show all that was applied, so no part of it may be sent again"
_ENTRIES: Final = "the call is sent as a whole, and its answer has several results: a part cannot be sent alone"
_OVERTAKEN: Final = (
    "the same record was or may have been written by a later row, or stands in the request twice and was written: "
    "to send it again would undo or repeat that"
)


def ending_of(exchange: Exchange[R], facts: Facts, judge: Judge, pacing: Pacing) -> Ending[R]:
    """Return how an exchange ended.

    Args:
        exchange: The exchange.
        facts: Of the call.
        judge: Knows the approval states.
        pacing: Of the call.
    """
    outcomes = outcomes_of(exchange, judge)
    resent = exchange.divisible and not exchange.alone  # the answer that said where each record stands is gone
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
        certain=_unambiguous(outcomes, [slot.request_index for slot in exchange.slots]) if resent else None,
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


def certain_positions(
    outcomes: Sequence[RecordOutcome], answer: Answer[Any] | None, request: CrmRequest
) -> frozenset[int]:
    """Return the positions of those outcomes that are without doubt about the record at this request index.

    Args:
        outcomes: All of a call that was sent once at most.
        answer: The answer to it; None where none came, and the outcomes were made from the request.
        request: The request.
    """
    if answer is None or failed_as_a_whole(answer, request):
        return frozenset(outcome.position for outcome in outcomes)
    if answer.envelope is None or answer.status >= SERVER_ERROR:  # a failing server proves nothing
        return frozenset()
    if request.names_one:
        return frozenset(outcome.position for outcome in outcomes)
    return _unambiguous(outcomes, match_response(request, answer.envelope) or ())


def _unambiguous(outcomes: Iterable[RecordOutcome], indexes: Iterable[int | None]) -> frozenset[int]:
    """Return the indexes at which one outcome stands: one whose index is not known may stand at any."""
    taken = Counter(outcome.position for outcome in outcomes)
    return frozenset(index for index in indexes if index is not None and taken[index] == 1)


def part_for(
    chosen: Collection[RecordOutcome],
    outcomes: Sequence[RecordOutcome],
    request: CrmRequest,
    certain: Collection[int],
) -> Part:
    """Return what to change in a request so that it asks for some of its records alone.

    Args:
        chosen: Those of the outcomes whose records to ask for; none of them was or may have been applied.
        outcomes: All of the call.
        request: The request.
        certain: Of the outcomes, by `certain_positions`.

    Raises:
        ValueError: That cannot be done, or not without doubt.
    """
    narrowed = request.endpoint.resend is Resend.NARROWED
    obstacle = (_batch_obstacle if narrowed else _whole_obstacle)(chosen, outcomes, request, certain)
    if obstacle is not None:
        raise ValueError(obstacle)
    return request.narrow(sorted({outcome.position for outcome in chosen})) if narrowed else Part()


def _batch_obstacle(
    chosen: Iterable[RecordOutcome],
    outcomes: Iterable[RecordOutcome],
    request: CrmRequest,
    certain: Collection[int],
) -> str | None:
    """Return why some records of a batch must not be asked for, None if they may."""
    count = len(request.ids or ())
    if any(outcome.position not in certain or outcome.position >= count for outcome in chosen):
        return _DOUBT
    latest: dict[str | None, int] = {}
    for outcome in outcomes:
        if outcome.record_id and (outcome.succeeded or outcome.uncertain):
            latest[outcome.record_id] = max(outcome.position, latest.get(outcome.record_id, -1))
    for outcome in chosen:
        written = latest.get(outcome.record_id, -1)
        if written > outcome.position or (request.ids_only and written >= 0):  # bare ids all ask for the same
            return _OVERTAKEN
    return None


def _whole_obstacle(
    chosen: Iterable[RecordOutcome],
    outcomes: Sequence[RecordOutcome],
    request: CrmRequest,
    certain: Collection[int],
) -> str | None:
    """Return why a call that cannot be narrowed must not be sent again, None if it may."""
    if request.endpoint.resend is Resend.NEVER:
        return _NEVER
    if len(outcomes) > 1:
        return _ENTRIES
    route = request.route
    known = route.names_record or request.endpoint.reads
    for outcome in chosen:
        other = outcome.blocked and outcome.record_id not in {None, route.record_id}
        if not known or outcome.position not in certain or (other and not route.external):
            return _DOUBT
    return None
