"""Runs one conversation, Ctrl-C included, and turns its ending into a response or an exception."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NoReturn, cast

from crm_guard._protocol.conversation import Conversation
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.request_records import read_request
from crm_guard._protocol.steps import Broken, Ending
from crm_guard._transport.bodies import make_usable
from crm_guard._transport.http_copies import body_bytes, replayable
from crm_guard._transport.performer import Performer
from crm_guard._transport.response_and_report import Results, summary_of
from crm_guard.report import GuardError, attach_report, attached_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.steps import Steps
    from crm_guard._transport.context import Channel, Context


class Driver:
    """Runs one call to its result, or to an exception that carries the results so far. Used by one thread, once.

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
        self._context, self._request, self._options = context, request, options
        address, method = CrmUrl(request.url or "", tail), request.method or ""
        external = "X-EXTERNAL" in request.headers
        named = read_request(method, address, lambda: body_bytes(request), external=external)
        self._conversation: Conversation[Response] = Conversation(
            named, address, method, context.settings, random.random, replayable=replayable(request)
        )
        self._performer = Performer(context, channel, request, options, address, named, token)
        self._results = Results(request, named, channel.build_response, self._performer)
        self._first: Answer[Response] | None = None
        self._ending: Ending[Response] | None = None
        self._end_told = False

    def known_locked(self) -> bool:
        """Return whether all records of the call are known to be locked, so that asking CRM is pointless."""
        keys = self._conversation.keys
        self._conversation.waits_first = bool(keys) and self._context.locks.knows(keys)
        return self._conversation.waits_first

    def take(self, response: Response, body: bytes) -> None:
        """Take over the first answer: from here on, whoever sent the request need not keep it."""
        self._first = self._performer.take(response, body)

    def run(self) -> Response:
        """Run the call, from the answer given to `take` or from a wait before the first send.

        Raises:
            GuardError: Records are blocked, and `raise_on` says to raise; or a resend failed, and other records
                have their results.
            requests.RequestException: The transport failed, and no record has a result.
        """
        if self._first is None:
            self._request.path_url  # noqa: B018 (one that lacks its credentials fails now, and not after the wait)
        try:
            self._performer.begin()
            try:
                ending = self._drive(self._conversation.run(self._first, self._context.clock.now()))
            except Exception as exc:  # noqa: BLE001 (results must survive whatever comes; always raised again)
                self._break_off(exc)
            return self._finish(ending) if ending is not None else cast("Answer[Response]", self._first).response
        except Exception as exc:
            if self._ending is not None and attached_report(exc) is None:  # something failed after the end
                attach_report(exc, self._results.of(self._ending)[1])
            raise
        finally:
            self._performer.leave()

    def interrupted(self, cause: BaseException, first: Response | None, body: bytes | None, *, sent: bool) -> None:
        """Attach the report to a KeyboardInterrupt or the like, and emit the final events. Sends nothing.

        Args:
            cause: What aborted the call, at any instant before its return.
            first: The answer to the first send, where it was not taken over yet.
            body: Its body, where it was read.
            sent: Whether that send had begun, where it was not ours.
        """
        ending = self._ending or self._conversation.end(self._performer.broken(cause, first, body, sent=sent))
        _, report = self._results.of(ending)
        attach_report(cause, report)
        if report.blocked or report.reason:
            cause.add_note(f"crm_guard: {summary_of(report)}")
        try:
            self._tell_end(ending)
        except BaseException as later:  # a hook that ends the program, say
            attach_report(later, report)
            raise
        finally:
            self._performer.leave()

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
                self._performer.drop_superseded(self._conversation.latest)
                reply = None
                reply = self._performer.perform(step)
        except BaseException as cause:
            self._ending = self._end(steps, cause)
            raise
        finally:
            steps.close()

    def _end(self, steps: Steps[Ending[Response] | None], cause: BaseException) -> Ending[Response]:
        """Return the ending of a call that `cause` broke off, in one step or between two."""
        broken = self._performer.broken(cause)
        try:
            steps.throw(broken)
        except StopIteration as done:
            return cast("Ending[Response]", done.value)
        except Broken:  # the cause came out of the conversation itself, and has ended it
            pass
        return self._conversation.end(broken)

    def _finish(self, ending: Ending[Response]) -> Response:
        """Turn an ending into the caller's response or exception."""
        found, report = self._results.of(ending)
        response = cast("Response", found)
        self._tell_end(ending)
        if ending.raises:
            limit = self._context.settings.max_inspect_bytes
            try:
                make_usable(response, limit, stream=self._options["stream"], timeout=self._options["timeout"])
            except Exception as exc:
                attach_report(exc, report)
                raise
            report.raise_for_blocked()
        return response

    def _break_off(self, cause: Exception) -> NoReturn:
        """Raise with all results that are there: `cause` itself, or a `GuardError` where results would be lost."""
        ending = self._ending or self._conversation.end(self._performer.broken(cause))
        response, report = self._results.of(ending)
        text = summary_of(report)
        cause.add_note(f"crm_guard: {text}")
        attach_report(cause, report)
        self._tell_end(ending)
        if ending.keeps_results:
            raise GuardError(text, report=report, response=response, request=self._request) from cause
        raise cause

    def _tell_end(self, ending: Ending[Response]) -> None:
        """Tell the hooks, once, how the call ended."""
        events, self._end_told = () if self._end_told else ending.events, True
        try:
            for event in events:
                self._performer.tell(event)
        finally:
            self._performer.telling.close()
