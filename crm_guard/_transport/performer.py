"""Performs the steps of one conversation on `requests`, the clock, the lock registry and the hooks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crm_guard._base.retry_after import seconds_to_wait
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.approval_probe import build_probes
from crm_guard._protocol.steps import Ask, Broken, Send, Share, Tell, Wait, Waited
from crm_guard._transport.bodies import body_at_hand, inspectable_body
from crm_guard._transport.event_log import complain
from crm_guard._transport.http_copies import Trail, copy_of, never_sent
from crm_guard._transport.probe_thread import ask
from crm_guard._transport.tap import Tap
from crm_guard._transport.telling import Around, Telling
from crm_guard.clock import Wake
from crm_guard.locks import Unshared, WaitContext
from crm_guard.outcomes import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import PreparedRequest, Response

    from crm_guard._protocol.crm_url import CrmUrl
    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard._protocol.steps import Step
    from crm_guard._transport.context import Channel, Context
    from crm_guard.events import GuardEvent
    from crm_guard.locks import LockRegistry, Waiter


class Performer:
    """Performs what a conversation asks for. Used by one thread, for one call.

    Args:
        context: What the guard's calls have in common.
        channel: How requests are sent.
        request: The caller's request.
        options: The keyword arguments of each send.
        address: The request's URL.
        named: The request's records.
        token: That of `context.stops` when the call began.

    Attributes:
        trail: What is kept of dropped answers.
        telling: Tells the log and the hooks.
    """

    def __init__(
        self,
        context: Context,
        channel: Channel,
        request: PreparedRequest,
        options: Mapping[str, Any],
        address: CrmUrl,
        named: CrmRequest,
        token: object,
    ) -> None:
        self._context, self._channel = context, channel
        self._request, self._options = request, options
        self._headers = request.headers  # of the most recent send: used for the diagnosis
        self._address, self._named, self._token = address, named, token
        self._sends = self._probes = 0
        self.trail = Trail()
        self._received: Response | None = None  # the response to the most recent send,
        self._body: bytes | None = None  # its body, where it was read,
        self._answer: Answer[Response] | None = None  # and what it says
        self._kept: Response | None = None  # the one that the conversation holds
        self._waited = 0.0
        self._asleep_since: float | None = None
        self._waiting: GuardEvent | None = None
        self._around, self.telling = Around(), Telling(context.hooks, address.origin)
        self._wake = Wake()
        self._waiter = self._waiter_of(context.locks)
        self._lone = self._waiter_of(Unshared())

    def _waiter_of(self, registry: LockRegistry) -> Waiter:
        return registry.waiter(WaitContext(self._context.clock, self._wake, self._stopped, self._announce))

    def begin(self) -> None:
        """Register for `stop_waiting()`."""
        self._context.stops.watch(self._wake, self._token)

    def leave(self) -> None:
        """Remove this call from the lock registry and `stop_waiting()`. Safe to repeat."""
        self._context.stops.unwatch(self._wake)
        with _tolerated():
            self._waiter.leave()
        self._around.leave()  # whatever an interrupt has left

    def take(self, response: Response, body: bytes) -> Answer[Response]:
        """Take over the answer to a first send by somebody else, and return what it says."""
        self._sends, self._received, self._body = 1, response, body
        self._answer = answer = self._read(response, body)
        return answer

    @property
    def waited(self) -> float:
        """Seconds spent waiting so far."""
        asleep = 0.0 if self._asleep_since is None else self._context.clock.now() - self._asleep_since
        return self._waited + asleep

    @property
    def spent(self) -> int:
        """Requests made so far: sends, and those of the diagnosis."""
        return self._sends + self._probes

    def perform(self, step: Step) -> object:
        """Perform a step, and return the reply to it."""
        match step:
            case Send():
                return self._send(step)
            case Wait():
                return self._wait(step)
            case Ask():
                return self._ask(step)
            case Share():
                with _tolerated():
                    self._waiter.verdict(locked=step.locked, free=step.free, retry_after=step.retry_after)
            case Tell():
                self.tell(step.event)
        return self._context.clock.now()

    def tell(self, event: GuardEvent) -> None:
        """Tell the log and the hooks of an event."""
        self.telling.tell(replace(event, waited=self.waited), self._around)

    def drop_superseded(self, latest: Answer[Response] | None) -> None:
        """Close the response that the conversation held before its `latest` answer."""
        if latest is None or latest.response is self._kept:  # an inner adapter may give one object twice
            return
        if self._kept is not None:
            self.trail.drop(self._kept)
        self._kept = latest.response

    def broken(
        self,
        cause: BaseException,
        first: Response | None = None,
        body: bytes | None = None,
        *,
        sent: bool = False,
    ) -> Broken[Response]:
        """Return what a conversation must know of its end by `cause`.

        Args:
            cause: An error of the transport, or an interrupt.
            first: The answer to a first send by somebody else, where it was not taken over yet.
            body: The body of that answer, where it was read.
            sent: Whether that send had begun.
        """
        if sent and first is not None:
            self._received, self._body = first, body
        self._sends = max(self._sends, int(sent))
        arrived = self._channel.repeats or not never_sent(cause)
        if isinstance(cause, Exception):
            error = CallError(code=type(cause).__name__)
            return Broken(error, sends=self._sends, arrived=arrived, answer=self._answer)
        return Broken(sends=self._sends, arrived=arrived, answer=self._answer_at_hand())

    def _answer_at_hand(self) -> Answer[Response] | None:
        """Return the answer to the most recent send, if it was read completely."""
        if self._answer is not None or self._received is None:
            return self._answer
        body = self._body
        if body is None:
            body = body_at_hand(self._received, self._context.settings.max_inspect_bytes)
        return None if body is None else self._read(self._received, body)

    def _send(self, step: Send) -> Answer[Response]:
        request = self._request
        if step.again:
            request = copy_of(request, step.part.url, step.part.body)
            if self._context.refresh is not None:
                self._context.refresh(request)
                self._headers = request.headers
        stream, timeout = self._options["stream"], self._options["timeout"]
        self._received = self._answer = self._body = None
        self._sends += 1
        self._received = response = self._channel.transmit(request, **self._options)
        self._body = inspectable_body(request, response, self._context.settings, stream, timeout)
        self._answer = answer = self._read(response, self._body)
        return answer

    def _read(self, response: Response, body: bytes | None) -> Answer[Response]:
        answer = read_answer(
            response,
            response.status_code,
            body,
            self._named,
            credits=response.headers.get("X-API-CREDITS-REMAINING"),
            retry_after=seconds_to_wait(response.headers.get("Retry-After")),
            at=self._context.clock.now(),
        )
        self.trail.note(response, has_items=answer.envelope is not None)
        return answer

    def _wait(self, step: Wait) -> Waited:
        if self._stopped():
            return Waited(stopped=True)
        self._waiting = step.event
        waiter = self._waiter if step.keys else self._lone
        self._asleep_since = self._context.clock.now()
        try:
            with self._around:
                go = waiter.wait(step.keys or {""}, step.delay, step.deadline)
        finally:
            self._waited, self._asleep_since = self.waited, None
        return Waited(go, stopped=self._stopped())

    def _ask(self, step: Ask) -> Mapping[str, str]:
        tap = Tap()
        states, sent = ask(
            build_probes(url=self._address.url, module=step.module, ids=step.ids, headers=self._headers),
            self._channel.tapped(tap),
            self._context.scopes,
            self._context.late,
            origin=self._address.origin,
            options=self._options,
            cut=tap.cut,
        )
        self._probes += sent
        return states

    def _announce(self, delay: float) -> None:
        if self._waiting is not None:
            self.tell(replace(self._waiting, delay=delay))
            self._waiting = replace(self._waiting, again=True)

    def _stopped(self) -> bool:
        return self._context.stops.over(self._token)


@contextmanager
def _tolerated() -> Iterator[None]:
    """Log an error of the lock registry: what calls share must not cost the result of one."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 (a registry of the user's own may raise anything)
        complain("the lock registry failed: %s", type(exc).__name__)
