"""What CRM's answers mean for each record: its outcome, with the hint that applies. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crm_guard._base.codes import CLIENT_ERROR, RECORD_LOCKED, SERVER_ERROR, UNAPPROVED
from crm_guard._protocol.approval_case import Diagnosis, choose
from crm_guard._protocol.matching import match_response, pointed_index, records
from crm_guard._protocol.slots import Fate
from crm_guard.outcomes import CallError, GiveUpReason, RecordOutcome
from crm_guard.remediation import (
    RECORD_ID,
    Family,
    hint_for_bystander,
    hint_for_follow_up,
    hint_for_lock,
    hint_for_uncertain,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.envelope import Envelope, Item
    from crm_guard._protocol.exchange import Exchange
    from crm_guard._protocol.request_records import CrmRequest


@dataclass(frozen=True, slots=True)
class Judge:
    """What is needed to judge an item besides the item itself.

    Attributes:
        request: The request's records.
        actions: The `details.action` values of locks that pass.
        version: The API version in the URL, such as `v8`.
        states: `$approval_state` by record id, as far as it was asked for.
    """

    request: CrmRequest
    actions: Collection[str]
    version: str
    states: Mapping[str, str] = field(default_factory=dict)

    def knowing(self, states: Mapping[str, str]) -> Judge:
        """Return a judge that knows the approval states of some records."""
        return replace(self, states=states)

    def outcome(
        self,
        item: Item,
        record_id: str | None,
        position: int,
        *,
        uncertain: bool = False,
        error: CallError | None = None,
        longer: bool = True,
    ) -> RecordOutcome:
        """Judge one item.

        Args:
            item: CRM's most recent item on the record.
            record_id: The record.
            position: Where it stands in the request.
            uncertain: Whether it was sent again since, and has no result of that.
            error: What the most recent send met as a whole.
            longer: Whether a larger budget would have helped.
        """
        state = self.states.get(record_id or "")
        diagnosis = self._diagnose(item, state)
        retryable = item.retryable(self.actions)
        if uncertain:
            hint = hint_for_uncertain(str(error) if error else None)
        elif retryable and error:
            hint = hint_for_follow_up(str(error), error.status, error.retry_after)
        else:
            hint = diagnosis.hint if diagnosis else self._lock_hint(item, record_id, longer=longer)
        return RecordOutcome(
            position=position,
            record_id=record_id,
            code=item.code,
            action=item.action if item.guarded else None,
            message=item.message,
            succeeded=item.succeeded and not uncertain,
            retryable=retryable and not uncertain,
            case=diagnosis.case if diagnosis else None,
            candidates=diagnosis.candidates if diagnosis else (),
            hint=hint,
            approval_state=state,
            uncertain=uncertain,
        )

    def _diagnose(self, item: Item, state: str | None) -> Diagnosis | None:
        needs_person = item.guarded and item.code in UNAPPROVED
        return choose(item.code, state, self.request.endpoint.family) if needs_person else None

    def _lock_hint(self, item: Item, record_id: str | None, *, longer: bool) -> str:
        if not item.guarded:
            return ""
        return hint_for_lock(
            item.action,
            retryable=item.retryable(self.actions),
            family=self.request.endpoint.family,
            module=self.request.route.module,
            record_id=record_id,
            version=self.version,
            longer=longer,
        )


def outcomes_of(exchange: Exchange[Any], judge: Judge) -> tuple[RecordOutcome, ...]:
    """Judge every record of an exchange."""
    if not exchange.slots:  # answered by something that is no envelope: an image, an empty 204
        return (RecordOutcome(position=0, record_id=exchange.request.route.record_id, succeeded=True),)
    outcomes = slot_outcomes(exchange, judge)
    return _completed(exchange.latest, judge, outcomes) if exchange.alone else outcomes


def slot_outcomes(exchange: Exchange[Any], judge: Judge) -> tuple[RecordOutcome, ...]:
    """Judge every slot of an exchange."""
    longer = exchange.reason in {None, GiveUpReason.TIMEOUT, GiveUpReason.ATTEMPTS}
    return tuple(
        judge.outcome(
            slot.item,
            slot.record_id,
            _first(slot.request_index, slot.item.sub, number),
            uncertain=slot.fate is Fate.UNCERTAIN,
            error=exchange.error,
            longer=longer,
        )
        for number, slot in enumerate(exchange.slots)
    )


def outcomes_in(answer: Answer[Any], judge: Judge) -> tuple[RecordOutcome, ...]:
    """Judge an answer, outside any exchange."""
    outcomes: tuple[RecordOutcome, ...] = ()
    if answer.envelope is not None:
        matched = match_response(judge.request, answer.envelope)
        ids = records(judge.request, answer.envelope, matched)
        indexes = matched or [None] * len(ids)
        outcomes = tuple(
            judge.outcome(item, ids[number], _first(indexes[number], item.sub, number))
            for number, item in enumerate(answer.envelope.items)
        )
    return _completed(answer, judge, outcomes)


def unanswered_outcomes(judge: Judge, error: CallError | None = None) -> tuple[RecordOutcome, ...]:
    """Return the outcomes of a call whose first answer was lost: all uncertain."""
    request = judge.request
    if request.names_one and not _names_record(request):
        return ()
    hint = hint_for_uncertain(str(error) if error else None)
    return tuple(
        RecordOutcome(position=position, record_id=record_id, hint=hint, uncertain=True)
        for position, record_id in enumerate(request.ids or ())
    )


def early_outcomes(
    judge: Judge, action: str | None, error: CallError | None, *, uncertain: bool
) -> tuple[RecordOutcome, ...]:
    """Return the outcomes of a call without an answer, whose records were known to be locked.

    Args:
        judge: Of the call.
        action: What locks them, None where that is not known.
        error: What the first send met, None where there was none.
        uncertain: Whether they may have been written.
    """
    if uncertain:
        hint = hint_for_uncertain(str(error) if error else None)
    else:
        hint = hint_for_lock(action, retryable=True, family=judge.request.endpoint.family, longer=False)
    return tuple(
        RecordOutcome(
            position=position,
            record_id=record_id,
            code=RECORD_LOCKED,
            action=action,
            retryable=not uncertain,
            hint=hint,
            uncertain=uncertain,
        )
        for position, record_id in enumerate(judge.request.ids or ())
    )


def failed_as_a_whole(answer: Answer[Any], request: CrmRequest) -> bool:
    """Return whether an answer has one result for the call instead of one per record."""
    envelope = answer.envelope
    if envelope is None:
        return answer.status >= CLIENT_ERROR or (not answer.conclusive and _is_known(request))
    if envelope.composite or any(item.succeeded for item in envelope.items):
        return False
    if request.ids is None or request.names_one:
        return envelope.bare and not envelope.guarded and not _names_record(request)
    return _covers_less(answer, request, envelope)


def _is_known(request: CrmRequest) -> bool:
    """Return whether the form of a success is known: other endpoints may answer one in any way."""
    return request.endpoint.family is not Family.OTHER and request.route.names_module


def _names_record(request: CrmRequest) -> bool:
    """Return whether the path names a record: `settings/variables` looks as if it did."""
    route = request.route
    if not route.names_record:
        return False
    return route.external or _is_known(request) or RECORD_ID.fullmatch(route.record_id or "") is not None


def _covers_less(answer: Answer[Any], request: CrmRequest, envelope: Envelope) -> bool:
    """Return whether a refusal has one item for the whole call, or items for those records only that caused it."""
    ids, items = request.ids or (), envelope.items
    if envelope.key == "tags":
        return True
    if len(items) == len(ids) or (answer.status < CLIENT_ERROR and envelope.listed):
        return False
    return len(items) == 1 or len(set(named_indexes(request, items)) - {None}) == len(items)


def error_in(answer: Answer[Any], request: CrmRequest) -> CallError | None:
    """Return what an answer says of the call as a whole, None where each record has its own result."""
    return answer.error if answer.failed or failed_as_a_whole(answer, request) else None


def _completed(answer: Answer[Any], judge: Judge, outcomes: tuple[RecordOutcome, ...]) -> tuple[RecordOutcome, ...]:
    """Return one outcome for each record that the request names, where an answer tells of the call as a whole.

    A record that the answer names as the cause keeps its own outcome. The others all get the same one: refused
    (4xx) or uncertain.
    """
    request = judge.request
    if not failed_as_a_whole(answer, request):
        return tuple(qualified(outcome, answer, request) for outcome in outcomes)
    if not request.ids or (request.names_one and not _names_record(request)):
        return ()
    causes = _causes(answer, request, outcomes)
    items = answer.envelope.items if answer.envelope is not None else ()
    item = next((item for item in items if item.guarded), None)
    if item is not None and not causes:
        return tuple(judge.outcome(item, record_id, position) for position, record_id in enumerate(request.ids))
    return tuple(
        causes.get(position) or outcome_of_call(answer, request, position, record_id, bystander=bool(causes))
        for position, record_id in enumerate(request.ids)
    )


def qualified(outcome: RecordOutcome, answer: Answer[Any], request: CrmRequest) -> RecordOutcome:
    """Return an outcome, uncertain where a failing server reports a refusal: that proves nothing."""
    if answer.status < SERVER_ERROR or outcome.succeeded or outcome.blocked or request.endpoint.reads:
        return outcome
    return replace(outcome, uncertain=True, hint=hint_for_uncertain(str(answer.error)))


def _causes(
    answer: Answer[Any], request: CrmRequest, outcomes: Sequence[RecordOutcome]
) -> dict[int, RecordOutcome]:
    """Return the outcomes of the records that an answer names as the cause of its refusal, by their positions."""
    if answer.envelope is None or not answer.error.refused:
        return {}
    named = zip(named_indexes(request, answer.envelope.items), outcomes, strict=True)
    return {index: replace(outcome, position=index) for index, outcome in named if index is not None}


def named_indexes(request: CrmRequest, items: Sequence[Item]) -> list[int | None]:
    """Return where the record that each item names stands in the request; None for none, or for one of several."""
    ids = request.ids or ()
    once = {record_id for record_id, count in Counter(ids).items() if record_id and count == 1}
    index_of = {record_id: index for index, record_id in enumerate(ids) if record_id in once}
    pointed_to = (pointed_index(item, request.container, len(ids)) for item in items)
    return [index_of.get(item.record_id or "", at) for item, at in zip(items, pointed_to, strict=True)]


def outcome_of_call(
    answer: Answer[Any], request: CrmRequest, position: int, record_id: str | None, *, bystander: bool
) -> RecordOutcome:
    """Return the outcome of a record of which the answer has no item of its own."""
    uncertain = not answer.error.refused and not request.endpoint.reads
    return RecordOutcome(
        position=position,
        record_id=record_id,
        code="" if bystander else answer.error.code,
        message="" if bystander else answer.error.message,
        hint=hint_for_bystander() if bystander else hint_for_uncertain(str(answer.error)) if uncertain else "",
        uncertain=uncertain,
    )


def unapproved(outcomes: Iterable[RecordOutcome]) -> tuple[str, ...]:
    """Return the records whose approval state is worth asking for, each once."""
    return tuple(dict.fromkeys(found.record_id for found in outcomes if found.needs_approval and found.record_id))


def _first(*candidates: int | None) -> int:
    return next(found for found in candidates if found is not None)
