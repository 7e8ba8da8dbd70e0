"""One guarded call: a generator that decides everything and performs nothing. Pure.

:meth:`Conversation.run` yields a step (see :mod:`crm_guard._protocol.steps`) for everything that needs a network, a
clock or another call, and is sent the reply. It returns an `Ending`. When a step fails or is interrupted, the
driver throws `Broken` there, and the conversation returns its ending (see :mod:`crm_guard._protocol.interrupts`).
Where an interrupt came between two steps, the driver gets that ending from :meth:`Conversation.end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crm_guard._base.codes import UNAPPROVED
from crm_guard._protocol import interrupts, known_locked
from crm_guard._protocol.call_events import Teller
from crm_guard._protocol.call_facts import Facts
from crm_guard._protocol.call_result import ending_of
from crm_guard._protocol.exchange import Exchange
from crm_guard._protocol.record_outcomes import (
    Judge,
    outcomes_of,
    unapproved,
)
from crm_guard._protocol.slots import Fate
from crm_guard._protocol.steps import Ask, Broken, Ending, Send, Share, Tell, Wait, Waited
from crm_guard._protocol.waits_and_budgets import Pacing
from crm_guard.events import EventKind
from crm_guard.outcomes import GiveUpReason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.crm_url import CrmUrl
    from crm_guard._protocol.request_records import CrmRequest, Part
    from crm_guard._protocol.steps import Steps
    from crm_guard.settings import GuardSettings

R = TypeVar("R")


class Conversation(Generic[R]):
    """One call that met a refusal, or whose records are known to be locked. Used by one thread, once.

    Args:
        request: The request's records.
        address: Its URL.
        method: HTTP method.
        settings: The policy.
        random: As for :class:`~crm_guard._protocol.waits_and_budgets.Pacing`.
        replayable: Whether the body can be sent again.

    Attributes:
        waits_first: Whether the call waits before its first send, as its records are known to be locked.
    """

    def __init__(
        self,
        request: CrmRequest,
        address: CrmUrl,
        method: str,
        settings: GuardSettings,
        random: Callable[[], float],
        *,
        replayable: bool = True,
    ) -> None:
        shown = address.shown_path(
            request.route.segments, external=request.route.external and request.route.names_record
        )
        judge = Judge(request, settings.retry_actions, address.version)
        teller = Teller(method, shown, request.route.module)
        self._facts = Facts(request, address.origin, settings, judge, teller, replayable)
        self._judge = judge
        self._pacing = Pacing(settings, random)
        self.waits_first = False
        self._now = 0.0
        self._first: Answer[R] | None = None
        self._exchange: Exchange[R] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the records if the call may wait before its first send, else empty."""
        return known_locked.keys_to_ask(self._facts)

    @property
    def latest(self) -> Answer[R] | None:
        """The most recent answer that was taken in."""
        return self._exchange.latest if self._exchange is not None else self._first

    def run(self, first: Answer[R] | None, now: float) -> Steps[Ending[R] | None]:
        """Run the call.

        Args:
            first: The first answer; None where the records are known to be locked, and nothing was sent yet.
            now: The instant, in seconds on the driver's clock.

        Returns:
            How it ended; None where the first answer refuses nothing: it is the result, unmodified.
        """
        try:
            self._first, self._now = first, now
            if first is None:
                self.waits_first = True
                self._first = first = yield from known_locked.send_after_verdict(self._facts, self._pacing)
                if not first.refusal:
                    return (yield from known_locked.conclude(self._facts, first))
            elif not first.refusal:
                return None
            return (yield from self._converse(self._begin(first)))
        except Broken as broken:
            return self.end(broken)

    def end(self, broken: Broken[R]) -> Ending[R]:
        """Return the ending of an aborted call. Idempotent; yields nothing."""
        exchange = self._exchange
        if exchange is None:
            answer = self._first or broken.answer
            if answer is None:
                return interrupts.unanswered(self._facts, self._pacing, broken, waited_first=self.waits_first)
            if not answer.refusal:
                return interrupts.unguarded(self._facts, answer)
            exchange = self._begin(answer)
        interrupts.settle(exchange, self._pacing, broken)
        return ending_of(exchange, self._facts, self._judge, self._pacing)

    # -- from the first refusal on

    def _begin(self, first: Answer[R]) -> Exchange[R]:
        exchange = Exchange(
            self._facts.request, first, self._facts.settings.retry_actions, replayable=self._facts.replayable
        )
        self._pacing.begin(first.at)
        if exchange.pending:
            self._pacing.draw(first.retry_after)
        self._exchange = exchange
        return exchange

    def _converse(self, exchange: Exchange[R]) -> Steps[Ending[R]]:
        pending, teller = exchange.pending, self._facts.teller
        if pending:
            yield Tell(teller.of_locked(EventKind.LOCKED, exchange, pending))
        if self.waits_first and (free := sorted(set(range(len(exchange.slots))).difference(pending))):
            names = [exchange.slots[number].record_id for number in free]
            yield Tell(teller.event(EventKind.UNLOCKED, names, attempt=exchange.attempts, pending=len(pending)))
        self._now = yield self._share(exchange, range(len(exchange.slots)))
        yield from self._resend_until_settled(exchange)
        if states := (yield from self._diagnose(exchange)):
            self._judge = self._judge.knowing(states)
        return ending_of(exchange, self._facts, self._judge, self._pacing)

    def _resend_until_settled(self, exchange: Exchange[R]) -> Steps[None]:
        """Wait and send again until nothing is pending, or something forbids it."""
        facts = self._facts
        while exchange.pending and exchange.reason is None:
            left = exchange.latest.credits
            limit = self._pacing.limit(attempts=exchange.attempts, credits=left, now=self._now)
            if limit is not None:
                exchange.give_up(limit)
                return
            pending = {number: exchange.slots[number].record_id for number in exchange.pending}
            keys = facts.keys(pending.values())
            event = facts.teller.of_locked(EventKind.WAITING, exchange, pending)
            waited = yield from _wait(Wait(keys, self._pacing.delay, self._pacing.begin(self._now), event))
            if not waited.go:
                exchange.give_up(GiveUpReason.STOPPED if waited.stopped else GiveUpReason.TIMEOUT)
                return
            held = keys - waited.go  # a record that has no key goes with the others
            going = [number for number, record_id in pending.items() if facts.key(record_id) not in held]
            yield from self._resend(exchange, going if exchange.divisible else list(pending))

    def _resend(self, exchange: Exchange[R], numbers: Collection[int]) -> Steps[None]:
        """Send some slots again, and absorb the answer."""
        ids = {number: exchange.slots[number].record_id for number in numbers}
        teller, left = self._facts.teller, len(exchange.pending)
        yield Tell(teller.event(EventKind.RESENDING, ids.values(), attempt=exchange.attempts + 1, pending=left))
        part = exchange.part(numbers)
        exchange.sending(numbers)
        exchange.absorb((yield from _send(part)))
        self._pacing.after(exchange.latest, pending=bool(exchange.pending))
        slots = exchange.slots  # none after an image
        free = [n for n in numbers if n >= len(slots) or slots[n].fate is Fate.SETTLED]
        if exchange.reason is None:
            self._now = yield self._share(exchange, numbers, ids)
            if again := sorted(set(numbers).intersection(exchange.pending)):
                self._now = yield Tell(teller.of_locked(EventKind.LOCKED, exchange, again))
        if free:
            names = [slots[n].record_id if n < len(slots) else ids[n] for n in free]
            left, attempt = len(exchange.pending), exchange.attempts
            self._now = yield Tell(teller.event(EventKind.UNLOCKED, names, attempt=attempt, pending=left))

    def _diagnose(self, exchange: Exchange[R]) -> Steps[Mapping[str, str]]:
        """Ask for the approval states behind the refusals, if that is allowed and of use."""
        module, allowed = self._facts.request.route.module, self._facts.settings.diagnose
        of_use = module is not None and any(slot.item.code in UNAPPROVED for slot in exchange.slots)
        if not allowed or not of_use or self._pacing.out_of_credits(exchange.latest.credits):
            return {}
        ids = unapproved(outcomes_of(exchange, self._judge))
        if not ids or module is None:
            return {}
        states: Mapping[str, str] = yield Ask(module, ids)
        return states

    def _share(
        self, exchange: Exchange[R], numbers: Iterable[int], ids: Mapping[int, str | None] | None = None
    ) -> Share:
        """Return what CRM just said of some slots."""
        slots, keys = exchange.slots, self._facts.keys
        known = {n: slots[n].record_id if n < len(slots) else (ids or {}).get(n) for n in numbers}
        pending = set(exchange.pending)
        locked = keys(known[n] for n in known if n in pending)
        free = keys(known[n] for n in known if n not in pending) - locked
        return Share(locked, free, (exchange.latest.retry_after or 0.0) if locked else 0.0)


def _send(part: Part) -> Steps[Answer[Any]]:
    answer: Answer[Any] = yield Send(part)
    return answer


def _wait(wait: Wait) -> Steps[Waited]:
    waited: Waited = yield wait
    return waited
