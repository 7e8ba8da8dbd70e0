"""The records of one call, and what has become of each. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

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
    rows = zip(matched or [None] * len(ids), ids, envelope.items, strict=True)
    return tuple(Slot(index, record_id, item, fate_of(item, actions)) for index, record_id, item in rows)


def order_of(slots: Sequence[Slot], number: int) -> int:
    """Return a slot's request index, or its place in the answer where that is not certain."""
    index = slots[number].request_index
    return number if index is None else index
