"""Leads one call to its end: drives its conversation, and turns the ending into a response or an exception."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NoReturn, cast

from crm_guard._protocol.address import Address
from crm_guard._protocol.conversation import Conversation
from crm_guard._protocol.request_records import read_request
from crm_guard._protocol.steps import Broken, Ending
from crm_guard._transport.bodies import bounded_body, read_timeout
from crm_guard._transport.messages import body_bytes, copy_of, never_sent, remade, replayable
from crm_guard._transport.performer import Performer
from crm_guard.outcomes import CallError, GiveUpReason
from crm_guard.remaining import RemainingRequest
from crm_guard.report import GuardError, GuardReport, attach_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

    from crm_guard._protocol.conversation import Steps
    from crm_guard._protocol.request_records import Part
    from crm_guard._transport.context import Channel, Context


class Driver:
    """Leads one call to its result, or to an exception that carries the results so far. Used by one thread, once.

    Args:
        context: What the guard's calls have in common.
        channel: How requests are sent.
        request: The caller's request.
        options: The keyword arguments of each send.
        tail: Offset in the URL just past its API version.
        token: That of `context.stops` when the call began.
    """

    def __init__(
        self,
        context: Context,
        channel: Channel,
        request: PreparedRequest,
        options: Mapping[str, Any],
        tail: int,
        token: object,
    ) -> None:
        self._context, self._channel = context, channel
        self._request, self._options = request, options
        address, method = Address(request.url or "", tail), request.method or ""
        external = "X-EXTERNAL" in request.headers
        named = read_request(method, address, lambda: body_bytes(request), external=external)
        self._conversation: Conversation[Response] = Conversation(
            named, address, method, context.settings, random.random, replayable=replayable(request)
        )
        self._performer = Performer(context, channel, request, options, address, named, token)
        self._kept: Response | None = None  # the answer that the conversation holds
        self._ending: Ending[Response] | None = None
        self._concluded: tuple[Response | None, GuardReport] | None = None
        self._end_told = False

    def known_locked(self) -> bool:
        """Return whether all records of the call are known to be locked, so that asking CRM is pointless."""
        keys = self._conversation.keys
        return bool(keys) and self._context.locks.knows(keys)

    def take(self, response: Response, body: bytes) -> None:
        """Take over the first answer: from here on, whoever sent the request need not keep it."""
        self._performer.take(response, body)

    def lead(self) -> Response:
        """Lead the call from the answer that was taken over, or else from a wait for its first send, to its result.

        Raises:
            GuardError: Records are blocked, and `raise_on` says to raise; or a resend failed, and other records
                have their results.
            requests.RequestException: The transport failed, and no record has a result.
        """
        first = self._performer.answer
        if first is None:
            self._request.path_url  # noqa: B018 (one that lacks its credentials fails now, and not after the wait)
        try:
            self._performer.begin()
            try:
                ending = self._drive(self._conversation.run(first, self._context.clock.now()))
            except Exception as exc:  # noqa: BLE001 (results must survive whatever comes; always raised again)
                self._break_off(exc)
            if ending is None:
                return cast("Response", self._performer.received)
            return self._finish(ending)
        finally:
            self._performer.leave()

    def interrupted(self, cause: BaseException, first: Response | None, *, sent: bool) -> None:
        """Attach to a Ctrl-C or the like a report of all that is known, and tell the hooks. Asks nobody for more.

        Args:
            cause: What ended the call, at whatever instant before its return.
            first: The answer to the first send, where it was not taken over yet.
            sent: Whether that send had begun, where it was not ours.
        """
        self._performer.leave()
        if first is not None:
            self._performer.received = first
        self._performer.sends = max(self._performer.sends, int(sent))
        ending = self._ending or self._conversation.end(self._broken(cause))
        _, report = self._conclude(ending)
        attach_report(cause, report)
        if report.blocked or report.reason:
            cause.add_note(f"crm_guard: {_summary(report)}")
        try:
            self._tell_end(ending)
        except BaseException as later:  # a hook that ends the program, say
            attach_report(later, report)
            raise

    # -- steps

    def _drive(self, steps: Steps[Ending[Response] | None]) -> Ending[Response] | None:
        """Perform each step, and return the ending. If one fails, end the conversation and raise the error."""
        reply: object = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as done:
                    self._ending = done.value
                    return self._ending
                self._drop_superseded()
                reply = None
                reply = self._performer.perform(step)
        except BaseException as cause:
            self._ending = self._end(steps, cause)
            raise
        finally:
            steps.close()

    def _drop_superseded(self) -> None:
        """Close the answer that the conversation held before the one that it holds now."""
        latest = self._conversation.latest
        if latest is None or latest.response is self._kept:  # an inner adapter may give one object twice
            return
        superseded, self._kept = self._kept, latest.response
        if superseded is not None:
            self._performer.trail.drop(superseded)

    # -- the end

    def _end(self, steps: Steps[Ending[Response] | None], cause: BaseException) -> Ending[Response] | None:
        """Return the ending of a call that `cause` broke off, between two steps or in one."""
        broken = self._broken(cause)
        try:
            steps.throw(broken)
        except StopIteration as done:
            return cast("Ending[Response]", done.value)
        except Broken:  # the cause came out of the conversation itself, and has ended it
            pass
        return self._conversation.end(broken)

    def _broken(self, cause: BaseException) -> Broken[Response]:
        arrived = self._channel.repeats or not never_sent(cause)
        if isinstance(cause, Exception):
            error = CallError(code=type(cause).__name__)
            return Broken(GiveUpReason.FOLLOW_UP, error, sends=self._performer.sends, arrived=arrived)
        answer = self._performer.answer_at_hand()  # one that has come whole counts
        return Broken(GiveUpReason.INTERRUPTED, sends=self._performer.sends, arrived=arrived, answer=answer)

    def _finish(self, ending: Ending[Response]) -> Response:
        """Turn an ending into the caller's response or exception."""
        response, report = self._conclude(ending)
        self._tell_end(ending)
        result = cast("Response", response)
        if ending.raises:
            try:
                self._make_usable(result)
            except Exception as exc:
                attach_report(exc, report)
                raise
            report.raise_for_blocked()
        return result

    def _break_off(self, cause: Exception) -> NoReturn:
        """Raise with all results that are there: `cause` itself, or a `GuardError` where results would be lost."""
        ending = self._ending or self._conversation.end(self._broken(cause))
        response, report = self._conclude(ending)
        text = _summary(report)
        cause.add_note(f"crm_guard: {text}")
        attach_report(cause, report)
        self._tell_end(ending)
        if ending.keeps_results:
            raise GuardError(text, report=report, response=response, request=self._request) from cause
        raise cause

    def _conclude(self, ending: Ending[Response]) -> tuple[Response | None, GuardReport]:
        """Return response and report, made once."""
        if self._concluded is None:
            response = self._result(ending)
            report = GuardReport(
                outcomes=ending.outcomes,
                attempts=ending.attempts,
                waited=self._performer.waited,
                credits_spent=self._performer.sends + self._performer.probes,
                reason=ending.reason,
                retry_after=ending.retry_after,
                error=ending.error,
                _response=response,
                _remaining=self._remaining(ending.remaining),
            )
            if response is not None:
                attach_report(response, report)
            self._concluded = response, report
        return self._concluded

    def _result(self, ending: Ending[Response]) -> Response | None:
        """Return the most recent response if it is the whole answer, else one made of all answers."""
        if ending.answer is None:
            return None
        self._drop_superseded()
        response, merged = ending.answer.response, ending.merged
        if merged is not None:
            reason = self._performer.trail.reason(merged.status)
            kind = (
                self._performer.trail.content_type
            )  # not that of the latest, which may be a gateway's page, or empty
            build = self._channel.build_response
            result = remade(build, self._request, response, merged.status, reason, merged.body, kind)
            self._performer.trail.drop(response)
            response = result
        self._performer.trail.carry_cookies(response)
        response.request = self._request
        return response

    def _remaining(self, part: Part | None) -> RemainingRequest | None:
        return None if part is None else RemainingRequest.of(copy_of(self._request, part.url, part.body))

    def _tell_end(self, ending: Ending[Response]) -> None:
        """Tell the hooks, once, how the call ended."""
        events, self._end_told = () if self._end_told else ending.events, True
        for event in events:
            self._performer.tell(event)

    def _make_usable(self, response: Response) -> None:
        """Read the body as far as is bearable: an error is looked at when its call, and its connection, is gone."""
        stream, timeout = self._options["stream"], self._options["timeout"]
        within = read_timeout(timeout) if stream else None
        bounded_body(response, self._context.settings.max_inspect_bytes, unread=stream, within=within)


def _summary(report: GuardReport) -> str:
    """Say in one paragraph what is known of a call that was broken off."""
    written = sum(outcome.succeeded for outcome in report.outcomes)
    blocked = sum(not outcome.uncertain for outcome in report.blocked)
    unknown = sum(outcome.uncertain for outcome in report.outcomes)
    cause = f" by {report.error}" if report.error else ""
    return (
        f"the call was broken off{cause} after {report.attempts} sends and {report.waited:.1f} s of waiting: "
        f"{written} of {len(report.outcomes)} records were written, {blocked} still blocked, {unknown} not known. "
        "crm_guard.get_report() of this exception tells which."
    )
