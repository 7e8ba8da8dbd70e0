"""From what CRM said to what it means for each record: outcomes, with the hint that applies. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crm_guard._approval import Diagnosis, choose
from crm_guard._batch import Call, lay, records
from crm_guard._envelope import UNAPPROVED, Envelope, Item
from crm_guard.remediation import UNCERTAIN_HINT, hint_for_lock
from crm_guard.report import RecordOutcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from crm_guard._exchange import Exchange


@dataclass(frozen=True, slots=True)
class Judge:
    """What is needed to judge an item besides the item itself.

    Attributes:
        call: The request's records.
        actions: The `details.action` values of locks that pass.
        version: The API version in the URL, such as `v8`.
        states: `$approval_state` by record id, as far as it was asked for.
    """

    call: Call
    actions: Collection[str]
    version: str
    states: Mapping[str, str] = field(default_factory=dict)

    def knowing(self, states: Mapping[str, str]) -> Judge:
        """Return a judge that knows the approval states of some records."""
        return replace(self, states=states)

    def outcome(
        self, item: Item, record_id: str | None, position: int, *, uncertain: bool = False
    ) -> RecordOutcome:
        """Judge one item."""
        state = self.states.get(record_id or "")
        diagnosis = self._diagnose(item, state)
        return RecordOutcome(
            position=position,
            record_id=record_id,
            code=item.code,
            action=item.action if item.guarded else None,
            message=item.message,
            succeeded=item.succeeded and not uncertain,
            retryable=item.retryable(self.actions) and not uncertain,
            case=diagnosis.case if diagnosis else None,
            candidates=diagnosis.candidates if diagnosis else (),
            hint=UNCERTAIN_HINT if uncertain else diagnosis.hint if diagnosis else self._lock_hint(item, record_id),
            approval_state=state,
            uncertain=uncertain,
        )

    def _diagnose(self, item: Item, state: str | None) -> Diagnosis | None:
        needs_person = item.guarded and item.code in UNAPPROVED
        return choose(item.code, state, self.call.endpoint.family) if needs_person else None

    def _lock_hint(self, item: Item, record_id: str | None) -> str:
        if not item.guarded:
            return ""
        return hint_for_lock(
            item.action,
            retryable=item.retryable(self.actions),
            family=self.call.endpoint.family,
            module=self.call.route.module,
            record_id=record_id,
            version=self.version,
        )


def outcomes_of(exchange: Exchange[Any], judge: Judge) -> tuple[RecordOutcome, ...]:
    """Judge every slot of an exchange."""
    if not exchange.items:  # answered by something that is no envelope: an image, an empty 204
        return (RecordOutcome(position=0, record_id=exchange.call.route.record_id, succeeded=True),)
    return tuple(
        judge.outcome(
            item, exchange.record_id(slot), _position(exchange, slot), uncertain=slot in exchange.uncertain
        )
        for slot, item in enumerate(exchange.items)
    )


def outcomes_in(envelope: Envelope, judge: Judge) -> tuple[RecordOutcome, ...]:
    """Judge every item of an answer, outside any exchange."""
    laid = lay(judge.call, envelope)
    found = records(judge.call, envelope, laid)
    places = laid or [None] * len(found)
    return tuple(
        judge.outcome(item, found[index], _first(places[index], item.sub, index))
        for index, item in enumerate(envelope.items)
    )


def _first(*wishes: int | None) -> int:
    return next(wish for wish in wishes if wish is not None)


def unapproved(outcomes: Sequence[RecordOutcome]) -> tuple[str, ...]:
    """Return the records whose approval state is worth asking for, each once."""
    return tuple(dict.fromkeys(found.record_id for found in outcomes if found.needs_approval and found.record_id))


def _position(exchange: Exchange[Any], slot: int) -> int:
    return _first(exchange.places[slot], exchange.items[slot].sub, slot)
