"""The records of one call, what has become of each, and which may be sent again. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.matching import match_response, records

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crm_guard._protocol.envelope import Envelope, Item
    from crm_guard._protocol.request_records import CrmRequest


class Fate(enum.Enum):
    """What has become of a record."""

    SETTLED = "settled"
    """It has a result that waiting does not change."""
    LOCKED = "locked"
    """CRM refused it for a retryable lock: it may be sent again."""
    IN_FLIGHT = "in flight"
    """It is being sent again."""
    UNCERTAIN = "uncertain"
    """It was sent again, and may have been written: the answer is lost or does not name it."""


class Slot(NamedTuple):
    """One record of the call.

    Attributes:
        request_index: Its request index, None where that is not certain.
        record_id: Its id, None where that is not certain.
        item: CRM's most recent item on it.
        fate: What has become of it.
    """

    request_index: int | None
    record_id: str | None
    item: Item
    fate: Fate


def fate_of(item: Item, actions: Collection[str]) -> Fate:
    """Return what CRM's item makes of a record."""
    return Fate.LOCKED if item.retryable(actions) else Fate.SETTLED


def slots_of(request: CrmRequest, envelope: Envelope, actions: Collection[str]) -> tuple[Slot, ...]:
    """Return the slots of an answer to the whole request."""
    matched = match_response(request, envelope)
    ids = records(request, envelope, matched)
    facts = zip(matched or [None] * len(ids), ids, envelope.items, strict=True)
    return tuple(Slot(index, record_id, item, fate_of(item, actions)) for index, record_id, item in facts)


def order_of(slots: Sequence[Slot], number: int) -> int:
    """Return a slot's request index, or its place in the answer where that is not certain."""
    index = slots[number].request_index
    return number if index is None else index


def certain(slots: Sequence[Slot], pending: Collection[int], request: CrmRequest) -> bool:
    """Return whether each pending record is known for certain, and a resend would not undo a later write.

    A row is overtaken where a later row of the same record was applied: to send the earlier one now would undo it.
    """
    if any(slots[number].request_index is None for number in pending):
        return False
    if request.ids_only:
        return True
    applied: dict[str | None, int] = {}
    for number, slot in enumerate(slots):
        if slot.item.succeeded and slot.record_id:
            applied[slot.record_id] = max(order_of(slots, number), applied.get(slot.record_id, -1))
    return all(applied.get(slots[number].record_id, -1) <= order_of(slots, number) for number in pending)


def refused_whole(slots: Sequence[Slot], pending: Collection[int], request: CrmRequest) -> bool:
    """Return whether CRM refused all of a call that is sent whole, and named the call's own record."""
    endpoint, route = request.endpoint, request.route
    if endpoint.resend is Resend.NEVER or len(pending) != len(slots):
        return False
    if not endpoint.entries and len(slots) != 1:
        return False
    if request.ids == (None,) and not endpoint.reads:
        return route.names_record  # an external id is a record all the same
    named = {slot.item.record_id for slot in slots} - {None}
    return endpoint.reads or named <= {route.record_id}
