"""Whether records may be sent again: the one place that decides it. Pure.

A record is sent again only after CRM refused that very record with a retryable lock, and only if no doubt is left
which of the request's records that is. Budgets are decided elsewhere: :mod:`crm_guard._protocol.waits_and_budgets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.slots import Fate, Slot, order_of
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crm_guard._protocol.request_records import CrmRequest


def obstacle(slots: Sequence[Slot], request: CrmRequest, *, replayable: bool, failed: bool) -> GiveUpReason | None:
    """Return None if the pending records may be sent again, or why not, whatever the budgets.

    Args:
        slots: The records of the call.
        request: The request.
        replayable: Whether its body can be sent again.
        failed: Whether the answer is about the service or the token rather than about records.
    """
    pending = [number for number, slot in enumerate(slots) if slot.fate is Fate.LOCKED]
    if not pending:
        return None
    if not replayable:
        return GiveUpReason.NOT_REPLAYABLE
    known = (_certain if request.endpoint.resend is Resend.NARROWED else _refused_whole)(slots, pending, request)
    return None if known and not failed else GiveUpReason.UNMATCHED


def _certain(slots: Sequence[Slot], pending: Collection[int], request: CrmRequest) -> bool:
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


def _refused_whole(slots: Sequence[Slot], pending: Collection[int], request: CrmRequest) -> bool:
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
