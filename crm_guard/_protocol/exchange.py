"""The state machine of one guarded call: answers in, the next step out. No I/O, no clock, no randomness of its own.

Theory of operation. An exchange begins with an answer that holds a refusal. Each item of that answer is a *slot*;
the slots keep their order to the end. A slot is *pending* while CRM's last word on it is a lock that passes. While
anything is pending, :meth:`Exchange.decide` returns how long to wait; the caller waits, takes the request for some
pending slots from :meth:`Exchange.part`, says that it is :meth:`Exchange.sending` it, and gives the answer to
:meth:`Exchange.absorb`, which puts each new item into its slot. A slot that is no longer pending never becomes
pending again, so a record is sent again only after CRM's last word on that very record was a refusal.

Two kinds of calls differ. A call that can be *narrowed* (a batch) matches each answer to what was sent, and keeps
what it cannot match. A call that is sent *whole* (one record, or an endpoint whose parts cannot be told apart) is
sent again only while all of it is refused, so each answer simply replaces the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from crm_guard._protocol.endpoints import Resend
from crm_guard._protocol.precedents import Precedents
from crm_guard._protocol.request_records import Call, Part, lay, match, match_named, records, repointed
from crm_guard.errors import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.envelope import Item
    from crm_guard.report import CallError
    from crm_guard.settings import GuardSettings

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Deliver:
    """Nothing is pending: hand over the result."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait `delay` seconds, then send again, but never past `deadline`."""

    delay: float
    deadline: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Something is pending, and waiting further is not allowed or makes no sense."""

    reason: GiveUpReason


Step = Deliver | Wait | GiveUp


class Exchange(Generic[R]):
    """One call, from its first refusal on. Used by one thread.

    Args:
        call: The request's records.
        first: The first answer; has an envelope.
        settings: The budgets and the retryable actions.
        waits: The waits of this call in seconds, without end.
        deadline: When the call has to be over.
        replayable: Whether the body can be sent again.

    Attributes:
        latest: The last answer; the ones before it are not kept.
        alone: Whether it is the only one so far.
        precedents: What a merged answer takes from the others.
        items: CRM's last word on each slot.
        places: The position of each slot in the request, None where it is not certain.
        pending: Slots whose record is locked, and may be sent again.
        uncertain: Slots that were sent again, and whose answer was lost or tells nothing.
        attempts: Sends so far.
        reason: Why the exchange stopped with something pending.
        error: What the last send met as a whole (`FOLLOW_UP`).
        retry_after: Seconds after which a later try makes sense.
    """

    def __init__(
        self,
        call: Call,
        first: Answer[R],
        settings: GuardSettings,
        waits: Iterator[float],
        *,
        deadline: float,
        replayable: bool = True,
    ) -> None:
        if first.envelope is None:
            message = "an exchange begins with an answer that has items"
            raise ValueError(message)
        self.call = call
        self.latest = first
        self.alone = True
        self.precedents = Precedents(first, first.envelope)
        self.envelope = self.precedents.opening
        self.items: list[Item] = list(first.envelope.items)
        laid = lay(call, first.envelope)
        self.places: list[int | None] = laid or [None] * len(self.items)
        self.uncertain: frozenset[int] = frozenset()
        self.attempts = 1
        self.reason: GiveUpReason | None = None
        self.error: CallError | None = None
        self.retry_after: float | None = None
        self._settings = settings
        self._waits = waits
        self._deadline = deadline
        self._sent: tuple[int, ...] = tuple(range(len(self.items)))
        self._ids = records(call, first.envelope, laid)
        self.pending = self._locked(self._sent)
        if self.pending:
            self.retry_after = max(next(waits), first.retry_after or 0.0)
            self.reason = self._obstacle(first, replayable=replayable)

    def decide(self, now: float) -> Step:
        """Say what to do at the instant `now`. Draws no wait: asking twice changes nothing."""
        if not self.pending:
            return Deliver()
        self.reason = self.reason or self._limit(now)
        return GiveUp(self.reason) if self.reason else Wait(self.retry_after or 0.0, self._deadline)

    def give_up(self, reason: GiveUpReason, error: CallError | None = None) -> None:
        """Stop, with whatever is pending staying as it is."""
        self.reason = self.reason or reason
        self.error = self.error or error

    def sending(self, slots: Collection[int]) -> None:
        """Take note that the :meth:`part` for `slots` is being sent."""
        self._sent = tuple(sorted(slots, key=self._position))
        self.attempts += 1

    def part(self, slots: Collection[int]) -> Part:
        """Return what to change in the request to ask for just `slots`."""
        return self.call.narrow(sorted(self._position(slot) for slot in slots)) if self._narrowed else Part()

    def absorb(self, answer: Answer[R]) -> None:
        """Take in the answer to what was sent last. To do so again, after an interrupt half way, is safe."""
        self.precedents.add(answer)
        self.latest, self.alone = answer, False
        waited_for = self._sent
        if self._narrowed:
            self._absorb_part(answer)
        else:
            self._absorb_whole(answer)
        locked = self._locked(set(waited_for) | set(self.pending))
        self.pending = tuple(slot for slot in locked if slot not in self.uncertain)
        if self._overtaken():
            self.reason = self.reason or GiveUpReason.UNMATCHED
        if self.pending:
            wait = next(self._waits, self.retry_after or 0.0)  # a generator may have died of an interrupt
            self.retry_after = max(wait, answer.retry_after or 0.0)

    def lost(self) -> None:
        """Take note that what was being sent may have arrived, and that no answer will come. Twice is as once."""
        pending = frozenset(self.pending)
        self._lose([*self.uncertain, *(slot for slot in self._sent if slot in pending)])
        self.pending = tuple(slot for slot in self.pending if slot not in self.uncertain)

    @property
    def obtained(self) -> bool:
        """Whether some record has a result that is final."""
        return any(slot not in self.uncertain and not self._is_locked(slot) for slot, _ in enumerate(self.items))

    @property
    def complete(self) -> bool:
        """Whether the last answer speaks of every slot, in order: then it is the result, as it is."""
        if self.alone or not self._narrowed:
            return True
        if self.reason is GiveUpReason.FOLLOW_UP and not self.obtained:
            return True
        envelope = self.latest.envelope
        return envelope is not None and list(envelope.items) == self.items

    @property
    def divisible(self) -> bool:
        """Whether some of the pending slots can be sent without the others."""
        return self._narrowed

    @property
    def as_it_came(self) -> bool:
        """Whether the answer goes back without a verdict of the guard's own."""
        never = self.call.endpoint.resend is Resend.NEVER
        return (
            never
            or self.reason is GiveUpReason.UNMATCHED
            or (self.reason is GiveUpReason.FOLLOW_UP and self.complete)
        )

    def record_id(self, slot: int) -> str | None:
        """Return the record that a slot speaks of, or spoke of before an answer without items (an image)."""
        return self._ids[slot] if slot < len(self._ids) else self.call.route.record_id

    @property
    def _narrowed(self) -> bool:
        return self.call.endpoint.resend is Resend.NARROWED

    def _position(self, slot: int) -> int:
        place = self.places[slot]
        return slot if place is None else place

    def _is_locked(self, slot: int) -> bool:
        return self.items[slot].retryable(self._settings.retry_actions)

    def _locked(self, slots: Collection[int]) -> tuple[int, ...]:
        return tuple(slot for slot in sorted(slots) if slot < len(self.items) and self._is_locked(slot))

    def _limit(self, now: float) -> GiveUpReason | None:
        """Return the budget that forbids another wait."""
        if self.attempts >= self._settings.attempts:
            return GiveUpReason.ATTEMPTS
        if self.latest.credits is not None and self.latest.credits <= self._settings.min_credits:
            return GiveUpReason.CREDITS
        # Positive form: a wait that cannot be seen to end in time does not begin.
        in_time = now + (self.retry_after or 0.0) <= self._deadline
        return None if in_time and self._settings.timeout > 0 else GiveUpReason.TIMEOUT

    def _obstacle(self, first: Answer[R], *, replayable: bool) -> GiveUpReason | None:
        """Return why nothing may be sent again, whatever the budgets."""
        if not replayable:
            return GiveUpReason.NOT_REPLAYABLE
        matched = self._certain() if self._narrowed else self._refused_whole()
        return None if matched and not first.failed else GiveUpReason.UNMATCHED

    def _certain(self) -> bool:
        return all(self.places[slot] is not None for slot in self.pending) and not self._overtaken()

    def _overtaken(self) -> bool:
        """Whether a later row of a pending row's record was applied: to send the earlier one now would undo it."""
        if not self._narrowed or self.call.alike:
            return False
        applied = {
            record_id: self._position(slot)
            for slot, item in enumerate(self.items)
            if item.succeeded and (record_id := self._ids[slot])
        }
        return any(applied.get(self._ids[slot] or "", -1) > self._position(slot) for slot in self.pending)

    def _refused_whole(self) -> bool:
        """Whether CRM refused all of a call that is sent whole, and it is the call's own record that it named."""
        endpoint, route = self.call.endpoint, self.call.route
        if endpoint.resend is Resend.NEVER or len(self.pending) != len(self.items):
            return False
        if not endpoint.entries and len(self.items) != 1:
            return False
        if self.call.ids == (None,) and not endpoint.reads:
            return route.names_record  # an external id is a record all the same
        named = {item.record_id for item in self.items} - {None}
        return endpoint.reads or named <= {route.record_id}

    def _absorb_whole(self, answer: Answer[R]) -> None:
        if answer.failed or not answer.conclusive:
            self._follow_up(answer)
            return
        envelope = answer.envelope or self.envelope
        items = list(answer.envelope.items) if answer.envelope else []
        laid = lay(self.call, envelope) if items else None
        ids = records(self.call, envelope, laid) if answer.envelope else self._ids
        # At once, so that an interrupt does not find parts that do not fit each other.
        self.envelope, self.items, self.places, self._ids = envelope, items, laid or [None] * len(items), ids
        self._sent = tuple(range(len(self.items)))
        self.pending = self._locked(self._sent)
        if self.pending and not self._refused_whole():
            self.reason = GiveUpReason.UNMATCHED

    def _absorb_part(self, answer: Answer[R]) -> None:
        envelope = answer.envelope
        if answer.failed or envelope is None or (envelope.bare and len(self._sent) > 1):
            self._follow_up(answer)
            return
        ids = [self._sent_id(slot) for slot in self._sent]
        places = match(
            envelope.items,
            ids,
            container=self.call.container,
            alike=self.call.alike,
            ordered=self.call.endpoint.ordered,
        )
        found = _by_place(places, envelope.items) if places else match_named(envelope.items, ids)
        for place, item in found.items():
            slot = self._sent[place]
            self._fill(slot, repointed(item, self.call.container, place, self._position(slot)))
        missing = [slot for place, slot in enumerate(self._sent) if place not in found]
        self._lose(missing)
        if missing or (places is None and self._locked(self._sent)):
            self.reason = GiveUpReason.UNMATCHED

    def _follow_up(self, answer: Answer[R]) -> None:
        """Stop at an answer without results; unless CRM refused the call with it, the records may be written."""
        self.reason, self.error = GiveUpReason.FOLLOW_UP, answer.error
        self.retry_after = max(self.retry_after or 0.0, answer.retry_after or 0.0)
        if not answer.error.refused:
            self._lose(self._sent)

    def _fill(self, slot: int, item: Item) -> None:
        self.items[slot] = item
        self._ids[slot] = item.record_id or self._ids[slot]

    def _lose(self, slots: Sequence[int]) -> None:
        self.uncertain = frozenset() if self.call.endpoint.reads else frozenset(slots)

    def _sent_id(self, slot: int) -> str | None:
        place, ids = self.places[slot], self.call.ids
        return ids[place] if ids and place is not None else None


def _by_place(places: Sequence[int | None], items: Sequence[Item]) -> dict[int, Item]:
    return {place: item for place, item in zip(places, items, strict=True) if place is not None}


def credits_left(value: str | None) -> int | None:
    """Read `X-API-CREDITS-REMAINING`: None where it is absent or no number that makes sense."""
    return int(value) if value and re.fullmatch(r"[0-9]{1,18}", value) else None
