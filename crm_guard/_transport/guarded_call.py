"""One guarded call, from its first refusal to its result: the loop around the pure exchange."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from crm_guard._protocol.address import version_before
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.approval import build_probes
from crm_guard._protocol.envelope import LOCKED
from crm_guard._protocol.exchange import Exchange, Wait, credits_left
from crm_guard._protocol.judging import (
    Judge,
    early_outcomes,
    error_in,
    failed_as_a_whole,
    outcomes_in,
    outcomes_of,
    slot_outcomes,
    unanswered_outcomes,
    unapproved,
)
from crm_guard._protocol.merge import Merged, merge, with_hint, write_body
from crm_guard._protocol.request_records import read_call
from crm_guard._transport import wire as _wire
from crm_guard._transport.diagnosis import ask
from crm_guard._transport.tap import Tap
from crm_guard._transport.telling import Teller, shown_path
from crm_guard.clock import Wake
from crm_guard.errors import GiveUpReason, GuardError
from crm_guard.events import EventKind
from crm_guard.locks.memory import Unshared, unannounced
from crm_guard.remaining import RemainingRequest
from crm_guard.remediation import Family
from crm_guard.report import CallError, GuardReport, attach_report

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from requests import PreparedRequest, Response

    from crm_guard._protocol.envelope import Item
    from crm_guard.adapter import GuardAdapter
    from crm_guard.locks.memory import LockRegistry, Waiter
    from crm_guard.report import RecordOutcome

_CLIENT_ERROR: Final = 400


class GuardedCall:
    """One call that met a refusal, or whose records are known to be locked. Used by one thread, once."""

    def __init__(
        self,
        adapter: GuardAdapter,
        request: PreparedRequest,
        options: Mapping[str, Any],
        start: int,
        token: object,
    ) -> None:
        self._adapter = adapter
        self._settings = adapter.settings
        self._request = request
        self._options = options
        self._url = request.url or ""
        self._headers = request.headers  # as last sent: a diagnosis goes with these
        self._origin = "/".join(self._url.split("/", 3)[:3]).lower().rpartition("@")[2]
        external = "X-EXTERNAL" in request.headers
        self._call = read_call(
            request.method or "", self._url, start, lambda: _wire.body_bytes(request), external=external
        )
        path = shown_path(self._url, start, self._call)
        self._teller = Teller(adapter.hooks, request.method or "", path, self._waited_so_far)
        self._judge = Judge(self._call, self._settings.retry_actions, version_before(self._url, start))
        self._waits = self._paced()
        self._began: float | None = None
        self._waited = 0.0
        self._asleep: float | None = None  # since when it sleeps, if it does
        self._spent = 1
        self._early = False  # whether its records are known to be locked, and CRM has not said so to this call
        self._exchange: Exchange[Response] | None = None
        self._in_flight = False
        self._received: Response | None = None  # the answer to what is in flight, then what it says
        self._answered: Answer[Response] | None = None
        self._trail = _wire.Trail()
        self._concluded: tuple[Response, GuardReport] | None = None
        self._told = False
        self._token = token
        self._wake = Wake()
        self._waiting: Callable[[float], None] = unannounced
        self._waiter = self._waiter_of(adapter.locks)
        self._lone = self._waiter_of(Unshared())

    def _waiter_of(self, registry: LockRegistry) -> Waiter:
        return registry.waiter(
            clock=self._adapter.clock,
            wake=self._wake,
            interrupted=self._stopped,
            announce=self._announce,
        )

    def _announce(self, delay: float) -> None:
        self._waiting(delay)

    def known_locked(self) -> bool:
        """Tell whether all records of the call are known to be locked, so that asking CRM is pointless."""
        ids = self._call.ids or ()
        refusable = self._call.endpoint.family is not Family.OTHER  # reading a locked record works
        policy = self._settings
        waits = policy.timeout > 0 and policy.max_inspect_bytes > 0 and bool(policy.retry_actions)
        worth = waits and refusable and bool(ids) and None not in ids
        return worth and self._adapter.locks.knows(self._keys(ids))

    def run_after_verdict(self) -> Response:
        """Wait until the records are said to be free or the budget is spent, and only then send."""
        self._request.path_url  # noqa: B018 (one that lacks its credentials fails now, and not after the wait)
        self._early = True
        try:
            self._adapter.stops.watch(self._wake, self._token)
            self._send_after_verdict()
            return self._converse() if self._refused() else self._report_early()
        finally:
            self.let_go()

    def take(self, response: Response, body: bytes) -> None:
        """Take the first answer over: from here on, whoever sent it need not keep it."""
        self._in_flight, self._received = True, response
        self._answered = self._answer(response, body)

    def run(self) -> Response:
        """Lead the call from the answer that was taken over to its result."""
        try:
            self._adapter.stops.watch(self._wake, self._token)
            return self._converse() if self._refused() else self._first.response
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Leave nothing of this call behind with the lock registry and `stop_waiting()`. Safe to repeat."""
        self._adapter.stops.unwatch(self._wake)
        self._waiter.leave()

    def interrupted(self, cause: BaseException, first: Response | None, *, sent: bool) -> None:
        """Put on a Ctrl-C or the like a report of all that is known, and tell the hooks. Asks nobody for more.

        Args:
            cause: What ended the call, at whatever instant before its return.
            first: The answer to the first send, where it was not taken over yet.
            sent: Whether that send had begun, where it was not ours.
        """
        self.let_go()
        if first is not None:
            self._received = first
        self._in_flight = self._in_flight or (sent and self._exchange is None)
        report = self._known(cause)
        attach_report(cause, report)
        if report.blocked or report.reason:
            cause.add_note(f"crm_guard: {_told_of(report)}")
        try:
            self._tell_end(report)
        except BaseException as later:  # a hook that ends the program, say
            attach_report(later, report)
            raise

    def _known(self, cause: BaseException) -> GuardReport:
        """Report of what an interrupt left."""
        self._waits = self._paced()  # a generator that an interrupt has ended gives nothing more
        if self._exchange is None and (answer := self._at_hand()) is not None:
            self._answered = answer
            if not self._refused():
                error = error_in(answer, self._call)
                return GuardReport(outcomes=outcomes_in(answer, self._judge), waited=self._waited, error=error)
            self._begin_exchange()
        if self._exchange is None:
            return self._early_report(cause)
        return self._settled(self._exchange, cause)[1]

    def _at_hand(self) -> Answer[Response] | None:
        """Return the answer to what is in flight, if all of it has come."""
        if self._answered is not None or self._received is None:
            return self._answered
        body = _wire.body_at_hand(self._received, self._settings.max_inspect_bytes)
        return None if body is None else self._answer(self._received, body)

    @property
    def _first(self) -> Answer[Response]:
        return cast("Answer[Response]", self._answered)

    def _refused(self) -> bool:
        """Return whether the first answer holds a refusal."""
        return self._first.envelope is not None and self._first.envelope.guarded

    def _send_after_verdict(self) -> None:
        """Wait for the verdict, send, and read the answer."""
        self._tell_early(EventKind.LOCKED, attempt=0)
        self._waiting = lambda delay: self._tell_early(EventKind.WAITING, attempt=0, delay=delay)
        try:
            keys = self._keys(self._call.ids or ())
            self._sleep(self._waiter, keys, next(self._waits), self._begin())
            self._in_flight = True
            self._received = self._adapter.transmit(self._request, **self._options)
        except Exception as exc:
            report = self._early_report(exc)
            attach_report(exc, report)
            exc.add_note(f"crm_guard: {_told_of(report)}")
            self._tell_end(report)
            raise
        body = self._adapter.readable(self._request, self._received, **self._options)
        self._answered = self._answer(self._received, body)

    def _begin_exchange(self) -> Exchange[Response]:
        self._exchange = Exchange(
            self._call,
            self._first,
            self._settings,
            self._waits,
            deadline=self._begin(),
            replayable=_wire.replayable(self._request),
        )
        self._in_flight = False
        return self._exchange

    def _converse(self) -> Response:
        exchange = self._begin_exchange()
        try:
            self._teller.tell_locked(EventKind.LOCKED, exchange, exchange.pending)
            self._share(exchange, range(len(exchange.items)))
            self._exhaust(exchange)
            outcomes = outcomes_of(exchange, self._judge)
            states = self._diagnose(exchange, unapproved(outcomes)) if self._settings.diagnose else {}
            if states:
                self._judge = self._judge.knowing(states)
                outcomes = outcomes_of(exchange, self._judge)
        except Exception as exc:  # noqa: BLE001 (results must survive whatever comes; always raised again)
            self._break_off(exchange, exc)
        return self._finish(exchange, outcomes)

    def _report_early(self) -> Response:
        """Note the wait before the first send on an answer that refuses nothing for a lock, and tell of its end."""
        answer = self._first
        error = error_in(answer, self._call)
        if error is None:
            if answer.status < _CLIENT_ERROR:
                self._waiter.verdict(locked=(), free=self._keys(self._call.ids or ()))
            self._tell_early(EventKind.UNLOCKED, attempt=1)
        else:
            self._tell_early(EventKind.GAVE_UP, attempt=1, reason=GiveUpReason.FOLLOW_UP, error=error)
        report = GuardReport(
            outcomes=outcomes_in(answer, self._judge),
            waited=self._waited,
            retry_after=error.retry_after if error else None,
            error=error,
            _response=answer.response,
        )
        attach_report(answer.response, report)
        return answer.response

    def _tell_early(self, kind: EventKind, **about: Any) -> None:
        """Tell of records that are known to be locked, before CRM has said so to this call."""
        self._teller.tell(kind, self._call.ids or (), code=LOCKED, action=self._known_action, **about)

    @property
    def _known_action(self) -> str | None:
        """What locks the records that are known to be locked: the registry holds those of `retry_actions` alone."""
        actions = self._settings.retry_actions
        return actions[0] if len(actions) == 1 else None

    def _exhaust(self, exchange: Exchange[Response]) -> None:
        """Wait and send again until nothing is pending, or something says stop."""
        while isinstance(step := exchange.decide(self._adapter.clock.now()), Wait):
            if self._stopped():
                exchange.give_up(GiveUpReason.STOPPED)
            elif slots := self._await(exchange, step):
                self._resend(exchange, slots)
            else:
                exchange.give_up(GiveUpReason.STOPPED if self._stopped() else GiveUpReason.TIMEOUT)

    def _await(self, exchange: Exchange[Response], step: Wait) -> Sequence[int]:
        """Return the slots to send now; none where the deadline or `stop_waiting` ended the wait."""
        pending = exchange.pending
        self._waiting = lambda delay: self._teller.tell_locked(EventKind.WAITING, exchange, pending, delay=delay)
        ids = {slot: exchange.record_id(slot) for slot in exchange.pending}
        keys = self._keys(ids.values())
        waiter = self._waiter if keys else self._lone
        go = self._sleep(waiter, keys or {""}, step.delay, step.deadline)
        if not go or not exchange.divisible:
            return exchange.pending if go else ()
        return [
            slot
            for slot, record_id in ids.items()
            if not record_id or self._key(record_id) in go or self._key(record_id) not in keys
        ]

    def _resend(self, exchange: Exchange[Response], slots: Sequence[int]) -> None:
        part = exchange.part(slots)
        request = _wire.copy_of(self._request, part.url, part.body)
        if self._adapter.refresh is not None:
            self._adapter.refresh(request)
            self._headers = request.headers
        exchange.sending(slots)
        self._teller.tell_slots(EventKind.RESENDING, exchange, slots)
        self._spent += 1
        self._received = self._answered = None
        self._in_flight = True
        self._received = response = self._adapter.transmit(request, **self._options)
        self._answered = self._answer(response, self._adapter.readable(request, response, **self._options))
        superseded = exchange.latest.response
        exchange.absorb(self._answered)
        self._in_flight = False  # not sooner: what is half taken in is taken in again
        if superseded is not response:  # an inner adapter may give one object twice
            self._trail.leave(superseded)
        unfree = {*exchange.pending, *exchange.uncertain}
        free = [slot for slot in slots if slot not in unfree]
        if exchange.reason is None:
            self._share(exchange, slots)
            if free:
                self._adapter.lengths.observe(self._origin, self._elapsed())
        self._teller.tell_slots(EventKind.UNLOCKED, exchange, free)

    def _answer(self, response: Response, body: bytes | None) -> Answer[Response]:
        answer = read_answer(
            response,
            response.status_code,
            body,
            self._call,
            credits=credits_left(response.headers.get("X-API-CREDITS-REMAINING")),
            retry_after=_wire.seconds_to_wait(response),
        )
        self._trail.note(response, speaks=answer.envelope is not None)
        return answer

    def _finish(self, exchange: Exchange[Response], outcomes: tuple[RecordOutcome, ...]) -> Response:
        """Turn what the exchange knows into the caller's response or exception."""
        response, report = self._conclude(exchange, outcomes)
        self._tell_end(report)
        if self._raises(exchange, report):
            try:
                self._make_usable(response)
            except Exception as exc:
                attach_report(exc, report)
                raise
            report.raise_for_blocked()
        return response

    def _make_usable(self, response: Response) -> None:
        """Read the body as far as is bearable: an error is looked at when its call, and its connection, is gone."""
        stream, timeout = self._options["stream"], self._options["timeout"]
        within = _wire.read_timeout(timeout) if stream else None
        _wire.bounded_body(response, self._settings.max_inspect_bytes, unread=stream, within=within)

    def _conclude(
        self, exchange: Exchange[Response], outcomes: tuple[RecordOutcome, ...]
    ) -> tuple[Response, GuardReport]:
        """Return response and report, made once."""
        if self._concluded is None:
            response = self._result(exchange)
            report = replace(self._report(exchange, outcomes), _response=response)
            attach_report(response, report)
            self._concluded = response, report
        return self._concluded

    def _tell_end(self, report: GuardReport) -> None:
        """Tell the hooks, once, how the call ended."""
        if self._told:
            return
        self._told = True
        if self._exchange is not None:
            self._teller.tell_end(self._exchange, report)
        elif self._early and report.reason is not None:
            about = {"attempt": report.attempts, "reason": report.reason, "error": report.error}
            self._tell_early(EventKind.GAVE_UP, **about)

    def _result(self, exchange: Exchange[Response]) -> Response:
        """Return the last response if it is the whole answer, else one made of all answers."""
        items = self._told_items(exchange)
        latest, merged = exchange.latest, None
        if not exchange.complete:
            merged = merge(exchange, items)
        elif items != exchange.items and latest.envelope and list(latest.envelope.items) == exchange.items:
            merged = Merged(latest.status, write_body(latest.envelope, items))  # not where a 401 has the last word
        response = latest.response
        if merged is not None:
            response = self._remade(exchange, merged)
            self._trail.leave(latest.response)
        self._trail.carry_cookies(response)
        response.request = self._request
        return response

    def _remade(self, exchange: Exchange[Response], merged: Merged) -> Response:
        return _wire.remade(
            self._adapter,
            self._request,
            exchange.latest.response,
            merged.status,
            self._trail.reason(merged.status),
            merged.body,
            self._trail.content_type,  # not that of the latest, which may be a gateway's page, or empty
        )

    def _told_items(self, exchange: Exchange[Response]) -> list[Item]:
        """Return the items of the answer, the blocked ones with their hints if the settings want these."""
        # Items of a composite answer lie too deep to rewrite them without touching the rest of the body.
        if not self._settings.hints_in_body or exchange.envelope.composite:
            return exchange.items
        return [
            with_hint(item, outcome.hint) if outcome.blocked else item
            for item, outcome in zip(exchange.items, slot_outcomes(exchange, self._judge), strict=True)
        ]

    def _report(self, exchange: Exchange[Response], outcomes: tuple[RecordOutcome, ...]) -> GuardReport:
        return GuardReport(
            outcomes=outcomes,
            attempts=exchange.attempts,
            waited=self._waited,
            credits_spent=self._spent,
            reason=exchange.reason,
            retry_after=self._later(exchange, outcomes),
            error=self._failure(exchange),
            _remaining=self._remaining(exchange),
        )

    def _later(self, exchange: Exchange[Response], outcomes: Sequence[RecordOutcome]) -> float | None:
        if exchange.reason is not None and (exchange.pending or exchange.uncertain):
            return exchange.retry_after
        checked_again = any(found.needs_approval and found.checked_again for found in outcomes)
        return self._settings.wait_max if checked_again else None

    def _failure(self, exchange: Exchange[Response]) -> CallError | None:
        """Return what the last send, or else the whole call, met instead of a result for each record."""
        whole = exchange.alone and failed_as_a_whole(exchange.latest, self._call)
        return exchange.error or (exchange.latest.error if whole else None)

    def _remaining(self, exchange: Exchange[Response]) -> RemainingRequest | None:
        impossible = exchange.reason in {GiveUpReason.UNMATCHED, GiveUpReason.NOT_REPLAYABLE}
        if not exchange.pending or impossible:
            return None
        part = exchange.part(exchange.pending)
        return RemainingRequest.of(_wire.copy_of(self._request, part.url, part.body))

    def _raises(self, exchange: Exchange[Response], report: GuardReport) -> bool:
        if self._settings.raise_on == "failure":
            return not report.applied and not exchange.as_it_came
        return self._settings.raise_on == "partial"

    def _break_off(self, exchange: Exchange[Response], cause: Exception) -> NoReturn:
        """Raise with all results that are there: `cause` itself, or a `GuardError` where results would be lost."""
        response, report = self._settled(exchange, cause)
        text = _told_of(report)
        cause.add_note(f"crm_guard: {text}")
        attach_report(cause, report)
        self._tell_end(report)
        if exchange.obtained:
            raise GuardError(text, report=report, response=response, request=self._request) from cause
        raise cause

    def _settled(self, exchange: Exchange[Response], cause: BaseException) -> tuple[Response, GuardReport]:
        """Return response and report of an exchange that `cause` ended; an answer that has come whole counts."""
        answer = self._at_hand() if self._in_flight and not isinstance(cause, Exception) else None
        if answer is not None:
            exchange.absorb(answer)
        elif self._in_flight and (self._adapter.repeats or not _wire.never_sent(cause)):
            exchange.lost()
        self._in_flight = False
        if exchange.pending or exchange.uncertain:
            exchange.give_up(*_reason_of(cause))
        return self._conclude(exchange, outcomes_of(exchange, self._judge))

    def _early_report(self, cause: BaseException) -> GuardReport:
        """Report of a call without an answer."""
        reason, error = _reason_of(cause)
        sent = self._in_flight
        uncertain = sent and (self._adapter.repeats or not _wire.never_sent(cause))
        uncertain = uncertain and not self._call.endpoint.reads
        outcomes: tuple[RecordOutcome, ...] = ()
        if self._early:
            of_send = error if sent else None
            outcomes = early_outcomes(self._judge, self._known_action, of_send, uncertain=uncertain)
        elif uncertain:
            outcomes = unanswered_outcomes(self._judge, error)
        return GuardReport(
            outcomes=outcomes,
            attempts=int(sent),
            waited=self._waited,
            credits_spent=int(sent),
            reason=reason,
            retry_after=self._settings.wait_max if self._early and not uncertain else None,
            error=error,
            _remaining=self._whole() if self._early and not uncertain else None,
        )

    def _whole(self) -> RemainingRequest | None:
        """Return the whole request, to be sent later; None where it cannot be sent again."""
        if not _wire.replayable(self._request):
            return None
        return RemainingRequest.of(_wire.copy_of(self._request, None, None))

    def _diagnose(self, exchange: Exchange[Response], ids: Sequence[str]) -> dict[str, str]:
        """Ask CRM for the approval states behind the refusals. No error: what cannot be learnt is left out."""
        left, module = exchange.latest.credits, self._call.route.module
        if not ids or module is None or (left is not None and left <= self._settings.min_credits):
            return {}
        adapter, tap = self._adapter, Tap()
        states, sent = ask(
            build_probes(url=self._url, module=module, ids=ids, headers=self._headers),
            adapter.tapped(tap).transmit,
            adapter.scopes,
            adapter.astray,
            origin=self._origin,
            options=self._options,
            cut=tap.cut,
        )
        self._spent += sent
        return states

    def _share(self, exchange: Exchange[Response], slots: Collection[int]) -> None:
        """Tell other calls what CRM just said of the records."""
        ids = {slot: exchange.record_id(slot) for slot in slots}
        pending = frozenset(exchange.pending)
        locked = self._keys(ids[slot] for slot in ids if slot in pending)
        free = self._keys(ids[slot] for slot in ids if slot not in pending) - locked
        self._waiter.verdict(locked=locked, free=free)

    def _sleep(self, waiter: Waiter, keys: Collection[str], delay: float, deadline: float) -> frozenset[str]:
        self._asleep = self._adapter.clock.now()
        try:
            return waiter.wait(keys, delay, deadline)
        finally:
            self._waited, self._asleep = self._waited_so_far(), None

    def _waited_so_far(self) -> float:
        return self._waited + (self._adapter.clock.now() - self._asleep if self._asleep is not None else 0.0)

    def _begin(self) -> float:
        """Return the instant at which the call's budget ends; it starts with the first refusal or wait."""
        if self._began is None:
            self._began = self._adapter.clock.now()
        return self._began + self._settings.timeout

    def _elapsed(self) -> float:
        return self._adapter.clock.now() - self._began if self._began is not None else 0.0

    def _paced(self) -> Iterator[float]:
        """Yield the waits of the settings, or what earlier locks have taught; never above `wait_max`."""
        for plain in self._settings.waits(random.random):
            learnt = self._adapter.lengths.next_wait(
                self._origin, elapsed=self._elapsed(), plain=plain, u=random.random()
            )
            yield min(learnt, self._settings.wait_max)

    def _stopped(self) -> bool:
        return self._adapter.stops.token is not self._token

    def _key(self, record_id: str) -> str:
        return f"{self._origin}|{record_id}"

    def _keys(self, ids: Iterable[str | None]) -> frozenset[str]:
        return frozenset(self._key(record_id) for record_id in ids if record_id and record_id.isdecimal())


def _reason_of(cause: BaseException) -> tuple[GiveUpReason, CallError | None]:
    """Return why a call that `cause` ended gave up: Ctrl-C and the like have a reason of their own."""
    if isinstance(cause, Exception):
        return GiveUpReason.FOLLOW_UP, CallError(code=type(cause).__name__)
    return GiveUpReason.INTERRUPTED, None


def _told_of(report: GuardReport) -> str:
    """Say in one paragraph what is known of a call that broke off."""
    written = sum(outcome.succeeded for outcome in report.outcomes)
    blocked = sum(not outcome.uncertain for outcome in report.blocked)
    unknown = sum(outcome.uncertain for outcome in report.outcomes)
    cause = f" by {report.error}" if report.error else ""
    return (
        f"the call was broken off{cause} after {report.attempts} sends and {report.waited:.1f} s of waiting: "
        f"{written} of {len(report.outcomes)} records were written, {blocked} still blocked, {unknown} not known. "
        "crm_guard.get_report() of this exception tells which."
    )
