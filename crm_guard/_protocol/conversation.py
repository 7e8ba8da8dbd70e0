"""One guarded call: a generator that decides everything and performs nothing. Pure.

:meth:`Conversation.run` yields a step (see :mod:`crm_guard._protocol.steps`) for everything that needs a network, a
clock or another call, and is sent the reply. It returns an `Ending`. Whatever breaks the call off is thrown in as
`Broken` at the step that was under way, and ends it. Where an interrupt came between two steps, the driver asks for
that ending itself, by :meth:`Conversation.end`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from crm_guard._base.codes import CLIENT_ERROR, RECORD_LOCKED
from crm_guard._protocol.ending import failure_of, merged_of, raises
from crm_guard._protocol.exchange import Exchange, Fate
from crm_guard._protocol.judging import (
    Judge,
    early_outcomes,
    error_in,
    outcomes_in,
    outcomes_of,
    unanswered_outcomes,
    unapproved,
)
from crm_guard._protocol.pacing import Pacing
from crm_guard._protocol.request_records import Part
from crm_guard._protocol.steps import Ask, Broken, Ending, Send, Share, Step, Tell, Wait, Waited
from crm_guard._protocol.telling import Teller
from crm_guard.events import EventKind
from crm_guard.outcomes import GiveUpReason
from crm_guard.remediation import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from crm_guard._protocol.address import Address
    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard.events import GuardEvent
    from crm_guard.outcomes import RecordOutcome
    from crm_guard.settings import GuardSettings

R = TypeVar("R")
T = TypeVar("T")
Steps: TypeAlias = Generator[Step, Any, T]

_WHOLE: Final = Part()


class Conversation(Generic[R]):
    """One call that met a refusal, or whose records are known to be locked. Used by one thread, once.

    Args:
        request: The request's records.
        address: Its URL.
        method: HTTP method.
        settings: The policy.
        random: As for :class:`~crm_guard._protocol.pacing.Pacing`.
        replayable: Whether the body can be sent again.
    """

    def __init__(
        self,
        request: CrmRequest,
        address: Address,
        method: str,
        settings: GuardSettings,
        random: Callable[[], float],
        *,
        replayable: bool = True,
    ) -> None:
        self._request, self._settings, self._replayable = request, settings, replayable
        self._origin = address.origin
        self._judge = Judge(request, settings.retry_actions, address.version)
        self._pacing = Pacing(settings, random)
        shown = address.shown_path(
            request.route.segments, external=request.route.external and request.route.names_record
        )
        self._teller = Teller(method, shown)
        self._early = False  # whether its records are believed locked, and CRM has not said so to this call
        self._first: Answer[R] | None = None
        self._exchange: Exchange[R] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """The records' keys if it makes sense to wait before the first send, should all be locked; else none."""
        policy, ids = self._settings, self._request.ids or ()
        waits = policy.timeout > 0 and policy.max_inspect_bytes > 0 and bool(policy.retry_actions)
        refusable = self._request.endpoint.family is not Family.OTHER  # reading a locked record works
        return self._keys(ids) if waits and refusable and None not in ids else frozenset()

    @property
    def latest(self) -> Answer[R] | None:
        """The most recent answer that was taken in."""
        return self._exchange.latest if self._exchange is not None else self._first

    def run(self, first: Answer[R] | None, now: float) -> Steps[Ending[R] | None]:
        """Lead the call to its end.

        Args:
            first: The first answer; None where the records are known to be locked, and nothing was sent yet.
            now: The instant, in seconds on the driver's clock.

        Returns:
            How it ended; None where the first answer refuses nothing, and is the result as it came.
        """
        try:
            self._first = first
            if first is None:
                self._first = first = yield from self._send_after_verdict(now)
                if not first.refusal:
                    return (yield from self._conclude_early(first))
            elif not first.refusal:
                return None
            return (yield from self._converse(self._begin(first)))
        except Broken as broken:
            return self.end(broken)

    def end(self, broken: Broken[R]) -> Ending[R]:
        """Return how a call ended that was broken off. Asks nobody for more. Safe to repeat."""
        if self._exchange is None:
            answer = self._first or broken.answer
            if answer is None:
                return self._unanswered(broken)
            if not answer.refusal:
                error = error_in(answer, self._request)
                return Ending(answer=answer, outcomes=outcomes_in(answer, self._judge), error=error)
            self._begin(answer)
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 (for the type checker)
        self._resolve(exchange, broken)
        if exchange.pending or exchange.uncertain:
            exchange.give_up(broken.reason, broken.error)
        return self._ending(exchange, outcomes_of(exchange, self._judge))

    # -- before the first send

    def _send_after_verdict(self, now: float) -> Steps[Answer[R]]:
        """Wait until the records are said to be free, or the budget is spent, and only then send."""
        self._early = True
        yield Tell(self._early_event(EventKind.LOCKED, attempt=0))
        event = self._early_event(EventKind.WAITING, attempt=0)
        yield Wait(self._keys(self._request.ids or ()), self._pacing.draw(), self._pacing.begin(now), event)
        return (yield from _send(_WHOLE, again=False))

    def _conclude_early(self, answer: Answer[R]) -> Steps[Ending[R]]:
        """End a call that waited, and whose first answer refuses nothing for a lock."""
        error = error_in(answer, self._request)
        if error is None:
            if answer.status < CLIENT_ERROR:
                yield Share(frozenset(), self._keys(self._request.ids or ()))
            event = self._early_event(EventKind.UNLOCKED, attempt=1)
        else:
            event = self._early_event(EventKind.GAVE_UP, attempt=1, reason=GiveUpReason.FOLLOW_UP, error=error)
        yield Tell(event)
        return Ending(
            answer=answer,
            outcomes=outcomes_in(answer, self._judge),
            retry_after=error.retry_after if error else None,
            error=error,
        )

    def _unanswered(self, broken: Broken[R]) -> Ending[R]:
        """End a call without an answer."""
        sent = broken.sends > 0
        uncertain = sent and broken.arrived and not self._request.endpoint.reads
        untouched = self._early and not uncertain
        outcomes: tuple[RecordOutcome, ...] = ()
        events: tuple[GuardEvent, ...] = ()
        if self._early:
            met = broken.error if sent else None
            outcomes = early_outcomes(self._judge, self._known_action, met, uncertain=uncertain)
            about = {"attempt": broken.sends, "reason": broken.reason, "error": broken.error}
            events = (self._early_event(EventKind.GAVE_UP, **about),)
        elif uncertain:
            outcomes = unanswered_outcomes(self._judge, broken.error)
        return Ending(
            answer=None,
            outcomes=outcomes,
            attempts=broken.sends,
            reason=broken.reason,
            retry_after=self._settings.wait_max if untouched else None,
            error=broken.error,
            remaining=_WHOLE if untouched and self._replayable else None,
            events=events,
        )

    def _early_event(self, kind: EventKind, **about: Any) -> GuardEvent:
        ids = self._request.ids or ()
        return self._teller.event(kind, ids, code=RECORD_LOCKED, action=self._known_action, **about)

    @property
    def _known_action(self) -> str | None:
        """What locks the records that are known to be locked: the registry holds those of `retry_actions` alone."""
        actions = self._settings.retry_actions
        return actions[0] if len(actions) == 1 else None

    # -- from the first refusal on

    def _begin(self, first: Answer[R]) -> Exchange[R]:
        exchange = Exchange(self._request, first, self._settings.retry_actions, replayable=self._replayable)
        self._pacing.begin(first.at)
        if exchange.pending:
            self._pacing.draw(first.retry_after)
        self._exchange = exchange
        return exchange

    def _converse(self, exchange: Exchange[R]) -> Steps[Ending[R]]:
        if pending := exchange.pending:
            yield Tell(self._teller.of_locked(EventKind.LOCKED, exchange, pending))
        yield self._share(exchange, range(len(exchange.slots)))
        yield from self._resend_until_settled(exchange)
        outcomes = outcomes_of(exchange, self._judge)
        if states := (yield from self._diagnose(exchange, outcomes)):
            self._judge = self._judge.knowing(states)
            outcomes = outcomes_of(exchange, self._judge)
        return self._ending(exchange, outcomes)

    def _resend_until_settled(self, exchange: Exchange[R]) -> Steps[None]:
        """Wait and send again until nothing is pending, or something forbids it."""
        while exchange.pending and exchange.reason is None:
            latest = exchange.latest
            limit = self._pacing.limit(attempts=exchange.attempts, credits=latest.credits, now=latest.at)
            if limit is not None:
                exchange.give_up(limit)
                return
            pending = {number: exchange.slots[number].record_id for number in exchange.pending}
            keys = self._keys(pending.values())
            event = self._teller.of_locked(EventKind.WAITING, exchange, pending)
            waited = yield from _wait(Wait(keys, self._pacing.delay, self._pacing.begin(latest.at), event))
            if waited.reason is not None:
                exchange.give_up(waited.reason)
                return
            going = [number for number, record_id in pending.items() if self._goes(record_id, keys, waited.go)]
            yield from self._resend(exchange, going if exchange.divisible else list(pending))

    def _resend(self, exchange: Exchange[R], numbers: Collection[int]) -> Steps[None]:
        """Send some slots again, and absorb the answer."""
        ids = {number: exchange.slots[number].record_id for number in numbers}
        event = self._teller.event(EventKind.RESENDING, ids.values(), attempt=exchange.attempts + 1)
        yield Tell(event)
        part = exchange.part(numbers)
        exchange.sending(numbers)
        exchange.absorb((yield from _send(part)))
        self._pace(exchange)
        slots = exchange.slots  # none after an image
        free = [n for n in numbers if n >= len(slots) or slots[n].fate is Fate.SETTLED]
        if exchange.reason is None:
            yield self._share(exchange, numbers, ids)
        if free:
            names = [slots[n].record_id if n < len(slots) else ids[n] for n in free]
            yield Tell(self._teller.event(EventKind.UNLOCKED, names, attempt=exchange.attempts))

    def _pace(self, exchange: Exchange[R]) -> None:
        asked = exchange.latest.retry_after
        if exchange.pending:
            self._pacing.draw(asked)
        else:
            self._pacing.at_least(self._pacing.delay, asked)

    def _diagnose(self, exchange: Exchange[R], outcomes: Collection[RecordOutcome]) -> Steps[Mapping[str, str]]:
        """Ask for the approval states behind the refusals, if that is allowed and of use."""
        ids, module = unapproved(outcomes), self._request.route.module
        wanted = self._settings.diagnose and ids and module is not None
        if not wanted or module is None or self._pacing.out_of_credits(exchange.latest.credits):
            return {}
        states: Mapping[str, str] = yield Ask(module, ids)
        return states

    # -- the end

    def _resolve(self, exchange: Exchange[R], broken: Broken[R]) -> None:
        """Settle what was in flight when the call was broken off."""
        if not exchange.in_flight:
            return
        begun = broken.sends >= exchange.flight
        if begun and broken.answer is not None:
            exchange.absorb(broken.answer)
            self._pace(exchange)
        elif begun and broken.arrived:
            exchange.lost()
        else:
            exchange.recall(begun=begun)

    def _ending(self, exchange: Exchange[R], outcomes: tuple[RecordOutcome, ...]) -> Ending[R]:
        return Ending(
            answer=exchange.latest,
            merged=merged_of(exchange, self._judge, hints=self._settings.hints_in_body),
            outcomes=outcomes,
            attempts=exchange.attempts,
            reason=exchange.reason,
            retry_after=self._later(exchange, outcomes),
            error=failure_of(exchange),
            remaining=self._remaining(exchange),
            events=tuple(self._teller.of_end(exchange, outcomes)),
            raises=raises(self._settings.raise_on, exchange, outcomes),
            keeps_results=exchange.has_final_result,
        )

    def _later(self, exchange: Exchange[R], outcomes: Iterable[RecordOutcome]) -> float | None:
        """Return the seconds after which a later call makes sense."""
        if exchange.reason is not None and (exchange.pending or exchange.uncertain):
            return self._pacing.delay
        checked_again = any(found.checked_again for found in outcomes)
        return self._settings.wait_max if checked_again else None

    def _remaining(self, exchange: Exchange[R]) -> Part | None:
        impossible = exchange.reason in {GiveUpReason.UNMATCHED, GiveUpReason.NOT_REPLAYABLE}
        return exchange.part(exchange.pending) if exchange.pending and not impossible else None

    # -- keys

    def _share(
        self, exchange: Exchange[R], numbers: Iterable[int], ids: Mapping[int, str | None] | None = None
    ) -> Share:
        """Return what CRM just said of some slots."""
        slots = exchange.slots
        known = {n: slots[n].record_id if n < len(slots) else (ids or {}).get(n) for n in numbers}
        pending = set(exchange.pending)
        locked = self._keys(known[n] for n in known if n in pending)
        return Share(locked, self._keys(known[n] for n in known if n not in pending) - locked)

    def _goes(self, record_id: str | None, keys: Collection[str], go: Collection[str]) -> bool:
        """Return whether a pending record is to be sent now: one that has no key goes with the others."""
        key = f"{self._origin}|{record_id}"
        return key in go or key not in keys

    def _keys(self, ids: Iterable[str | None]) -> frozenset[str]:
        return frozenset(f"{self._origin}|{name}" for name in ids if name and name.isdecimal())


def _send(part: Part, *, again: bool = True) -> Steps[Answer[Any]]:
    answer: Answer[Any] = yield Send(part, again)
    return answer


def _wait(wait: Wait) -> Steps[Waited]:
    waited: Waited = yield wait
    return waited
