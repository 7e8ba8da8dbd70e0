"""The state machine of one guarded call: what has become of each record, and what may be sent again. Pure.

Theory of operation. An exchange begins with an answer that holds a refusal. Each item of that answer is a slot, and
the slots keep their order. A slot's *fate* is LOCKED while CRM's most recent answer on its record is a retryable
lock; such slots are *pending*. Whoever drives the exchange takes the request for some of them from
:meth:`Exchange.part`, calls :meth:`Exchange.sending`, which makes them IN_FLIGHT, and gives the answer to
:meth:`Exchange.absorb`. From IN_FLIGHT a slot becomes SETTLED, LOCKED again, or UNCERTAIN where the answer is lost
or does not name it. SETTLED and UNCERTAIN are final, so a record is sent again only after CRM refused that very
record.

Two kinds of calls differ. A *divisible* one (a batch) is narrowed to the slots that are sent, and each item is
matched to one of these. A call that is sent *whole* (one record, or an endpoint whose parts cannot be told apart)
is sent again only while CRM refuses all of it, so each answer replaces the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.matching import found_in, repointed
from crm_guard._protocol.precedents import Precedents
from crm_guard._protocol.request_records import CrmRequest, Part
from crm_guard._protocol.resend_rules import obstacle
from crm_guard._protocol.slots import Fate, Slot, fate_of, order_of, slots_of
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.envelope import Item
    from crm_guard.outcomes import CallError

R = TypeVar("R")
_Absorbed: TypeAlias = "tuple[tuple[Slot, ...], GiveUpReason | None]"


class Exchange(Generic[R]):
    """One call, from its first refusal on. Used by one thread.

    Slots are referred to by their numbers: their places in :attr:`slots`.

    Args:
        request: The request's records.
        first: The first answer; has an envelope.
        actions: The values of `details.action` that are waited for.
        replayable: Whether the body can be sent again.

    Attributes:
        latest: The most recent answer; the ones before it are not kept.
        alone: Whether it is the only one so far.
        precedents: What a merged answer takes from the others.
        slots: The records; empty once the answer holds no items (an image).
        attempts: Sends so far whose answers were absorbed or lost.
        flight: The number of the most recent send; the first is 1.
        reason: Why the exchange stopped with something pending or uncertain.
        error: Why the most recent send failed as a whole.
    """

    def __init__(
        self, request: CrmRequest, first: Answer[R], actions: Collection[str], *, replayable: bool = True
    ) -> None:
        if first.envelope is None:
            message = "an exchange begins with an answer that has items"
            raise ValueError(message)
        self.request = request
        self.latest = first
        self.alone = True
        self.precedents = Precedents(first, first.envelope)
        self.attempts = self.flight = 1
        self.error: CallError | None = None
        self._actions, self._replayable = actions, replayable
        self._sent: tuple[int, ...] = ()
        self.slots = slots_of(request, first.envelope, actions)
        self.reason = self.may_resend()

    @property
    def items(self) -> list[Item]:
        """CRM's most recent item on each record."""
        return [slot.item for slot in self.slots]

    @property
    def pending(self) -> tuple[int, ...]:
        """The slots that may be sent again."""
        return self._with(Fate.LOCKED)

    @property
    def uncertain(self) -> tuple[int, ...]:
        """The slots whose record may have been written."""
        return self._with(Fate.UNCERTAIN)

    @property
    def in_flight(self) -> bool:
        """Whether the answer to the most recent send has not been absorbed."""
        return bool(self._with(Fate.IN_FLIGHT))

    @property
    def has_final_result(self) -> bool:
        """Whether some record has a final result."""
        return not self.slots or bool(self._with(Fate.SETTLED))

    @property
    def complete(self) -> bool:
        """Whether the most recent answer is about every slot, in order: then it is the result, unmodified."""
        if self.alone or not self.divisible:
            return True
        if self.reason is GiveUpReason.FOLLOW_UP and not self.has_final_result:
            return True
        envelope = self.latest.envelope
        return envelope is not None and list(envelope.items) == self.items

    @property
    def divisible(self) -> bool:
        """Whether some of the pending slots can be sent without the others."""
        return self.request.endpoint.resend is Resend.NARROWED

    @property
    def return_unmodified(self) -> bool:
        """Whether the answer is returned without a verdict of the guard's own."""
        never = self.request.endpoint.resend is Resend.NEVER
        follow_up = self.reason is GiveUpReason.FOLLOW_UP and self.complete
        return never or follow_up or self.reason is GiveUpReason.UNMATCHED

    def may_resend(self) -> GiveUpReason | None:
        """Return None if what is pending may be sent again, or why not, whatever the budgets."""
        return self._obstacle(self.slots)

    def give_up(self, reason: GiveUpReason, error: CallError | None = None) -> None:
        """Stop: whatever is pending stays as it is."""
        self.reason = self.reason or reason
        self.error = self.error or error

    def part(self, numbers: Iterable[int]) -> Part:
        """Return what to change in the request to ask for some slots alone."""
        return self.request.narrow(sorted(map(self._order, numbers))) if self.divisible else Part()

    def sending(self, numbers: Iterable[int]) -> None:
        """Record that the :meth:`part` for some pending slots is being sent."""
        self._sent, self.flight = tuple(sorted(numbers, key=self._order)), self.attempts + 1
        self.slots = self._as(Fate.IN_FLIGHT)

    def absorb(self, answer: Answer[R]) -> None:
        """Take in the answer to the most recent send. Safe to repeat, also after an interrupt half way."""
        self.attempts, self.latest, self.alone = self.flight, answer, False
        self.precedents.add(answer)
        slots, reason = (self._part_with if self.divisible else self._whole_with)(answer)
        self.reason = self.reason or reason
        self.slots = slots  # last: until then the send is in flight, and its answer is absorbed again

    def lost(self) -> None:
        """Record that the most recent send may have arrived, and that no answer will come. Safe to repeat."""
        self.attempts = self.flight
        self.slots = self._as(self._fate_of_lost)

    def recall(self, *, begun: bool) -> None:
        """Record that nothing of the most recent send has arrived; `begun`: that it counts as an attempt."""
        self.attempts = self.flight if begun else self.attempts
        self.slots = self._as(Fate.LOCKED)

    # -- reading answers: each returns the slots, and why these may not be sent again

    def _whole_with(self, answer: Answer[R]) -> _Absorbed:
        if answer.failed or not answer.conclusive:
            return self._follow_up(answer)
        slots = slots_of(self.request, answer.envelope, self._actions) if answer.envelope else ()
        return slots, self._obstacle(slots)

    def _part_with(self, answer: Answer[R]) -> _Absorbed:
        envelope, request = answer.envelope, self.request
        if answer.failed or envelope is None or (envelope.bare and len(self._sent) > 1):
            return self._follow_up(answer)
        ids = [self._requested_id(self.slots[number]) for number in self._sent]
        found, matched = found_in(request, envelope.items, ids)
        slots = list(self.slots)
        for sent_index, number in enumerate(self._sent):
            item = found.get(sent_index)
            slots[number] = (
                self._updated(number, sent_index, item)
                if item is not None
                else slots[number]._replace(fate=self._fate_of_lost)
            )
        still_locked = any(slots[number].fate is Fate.LOCKED for number in self._sent)
        if len(found) < len(self._sent) or (not matched and still_locked):
            return tuple(slots), GiveUpReason.UNMATCHED
        return tuple(slots), self._obstacle(slots)

    def _follow_up(self, answer: Answer[R]) -> _Absorbed:
        """Stop at an answer without results; unless CRM refused the call with it, the records may be written."""
        self.error = answer.error
        return self._as(Fate.LOCKED if answer.error.refused else self._fate_of_lost), GiveUpReason.FOLLOW_UP

    def _obstacle(self, slots: Sequence[Slot]) -> GiveUpReason | None:
        return obstacle(slots, self.request, replayable=self._replayable, failed=self.latest.failed)

    def _updated(self, number: int, sent_index: int, item: Item) -> Slot:
        slot = self.slots[number]
        shown = repointed(item, self.request.container, sent_index, self._order(number))
        return Slot(slot.request_index, item.record_id or slot.record_id, shown, fate_of(item, self._actions))

    @property
    def _fate_of_lost(self) -> Fate:
        """What a slot becomes whose answer is lost: a read may be repeated."""
        return Fate.LOCKED if self.request.endpoint.reads else Fate.UNCERTAIN

    # -- slots

    def _with(self, fate: Fate) -> tuple[int, ...]:
        return tuple(number for number, slot in enumerate(self.slots) if slot.fate is fate)

    def _as(self, fate: Fate) -> tuple[Slot, ...]:
        """Return the slots with those of the most recent send, as far as these are not final, in another fate."""
        open_slots = {n for n in self._sent if self.slots[n].fate in {Fate.LOCKED, Fate.IN_FLIGHT}}
        return tuple(
            slot._replace(fate=fate) if number in open_slots else slot for number, slot in enumerate(self.slots)
        )

    def _order(self, number: int) -> int:
        return order_of(self.slots, number)

    def _requested_id(self, slot: Slot) -> str | None:
        ids = self.request.ids
        return ids[slot.request_index] if ids and slot.request_index is not None else None
