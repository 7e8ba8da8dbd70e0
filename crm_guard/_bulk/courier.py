"""Sends the batches of a writer through the caller's session, and asks for approval states."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from requests import Response, Session
from requests.exceptions import (
    InvalidHeader,
    InvalidProxyURL,
    InvalidSchema,
    InvalidURL,
    MissingSchema,
    RequestException,
)
from requests.hooks import dispatch_hook

from crm_guard._base.retry_after import seconds_to_wait
from crm_guard._protocol.approval_probe import build_probes
from crm_guard._protocol.scheduling.reading import Delivery, beyond_doubt, lost, read_batch
from crm_guard._transport.http_copies import never_sent
from crm_guard._transport.nesting import Passage, passage
from crm_guard._transport.probe_thread import ask
from crm_guard._transport.retries import was_repeated
from crm_guard._transport.tap import Tap, tapped
from crm_guard.outcomes import CallError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.scheduling.reading import Reading
    from crm_guard._protocol.scheduling.row import Batch, Question
    from crm_guard._protocol.scheduling.target import Target
    from crm_guard._transport.context import Context
    from crm_guard.adapter import GuardAdapter

_UNSENT: Final = (InvalidHeader, InvalidProxyURL, InvalidSchema, InvalidURL, MissingSchema)
"""Errors of `requests` before anything is sent."""
_JSON: Final = {"Content-Type": "application/json"}
_AFTER_AN_ANSWER: Final = (dispatch_hook.__code__, Session.resolve_redirects.__code__)
"""What `requests` runs once an answer has come."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch that was to be sent.

    Attributes:
        reading: What CRM's answer says; None where no byte of the batch reached CRM.
        error: What the send met instead of an answer.
        source: The response, or the exception.
        fatal: Whether every other batch would meet the same exception.
    """

    reading: Reading | None
    error: CallError
    source: Response | BaseException
    fatal: bool = False


class Courier:
    """Sends for one writer. Used by its threads at the same time.

    Args:
        session: The caller's.
        guard: The guard that the session sends through, or one that sends through the session's adapter.
        context: That of the guard.
        target: Where the rows go.
        judge: Judges items.
        timeout: As in `requests`, for each send.
        repeats: Whether the session's adapter may repeat what CRM may have applied.
    """

    def __init__(
        self,
        session: Session,
        guard: GuardAdapter,
        context: Context,
        target: Target,
        judge: Judge,
        *,
        timeout: Any,
        repeats: bool,
    ) -> None:
        self._session, self._guard, self._context = session, guard, context
        self._target, self._judge = target, judge
        self._timeout, self._repeats = timeout, repeats
        self._headers: Mapping[str, str] = session.headers  # type: ignore[assignment] # later those of a request

    def send(self, batch: Batch) -> Sent:
        """Send a batch, once. Raises nothing, whatever the session does."""
        through = Passage()
        through.intended, through.renews = True, batch.renewed
        try:
            response = self._request(batch, through)
            return self._read(batch, response, through)
        except BaseException as exc:  # noqa: BLE001 (a batch that was sent must not be lost, whatever came)
            return self._failed(batch, exc, through)

    def ask(self, question: Question) -> tuple[Mapping[str, str], int]:
        """Return `$approval_state` by record id, as far as CRM told it in time, and the calls made."""
        address, module = self._target.address, self._target.template.route.module
        tap = Tap()
        try:
            options = self._session.merge_environment_settings(address.url, {}, None, None, None)
            return ask(
                build_probes(url=address.url, module=module or "", ids=question.ids, headers=self._headers),
                partial(tapped, self._guard)(tap),
                self._context.scopes,
                self._context.late,
                origin=address.origin,
                options={**options, "timeout": self._timeout},
                cut=tap.cut,
            )
        except Exception:  # noqa: BLE001 (an explanation must never cost the result)
            return {}, 0

    def _request(self, batch: Batch, through: Passage) -> Response:
        url, body = self._target.request([row.encoded for row in batch.rows])
        token = passage.set(through)
        through.open = True
        try:
            return self._session.request(
                self._target.method,
                url,
                data=body,
                headers=_JSON if body is not None else None,
                timeout=self._timeout,
                allow_redirects=False,
                stream=False,
            )
        finally:
            through.open = False
            passage.reset(token)

    def _read(self, batch: Batch, response: object, through: Passage) -> Sent:
        if not isinstance(response, Response):
            message = f"session.request returned a {type(response).__name__}, and no requests.Response"
            raise TypeError(message)
        if response.request is not None:
            self._headers = response.request.headers
        delivery = Delivery(
            response.status_code,
            response.content or b"",
            response.headers.get("X-API-CREDITS-REMAINING"),
            seconds_to_wait(response.headers.get("Retry-After")),
        )
        reading = read_batch(delivery, self._judge, *_named(batch))
        if through.in_doubt or was_repeated(response):  # it is about the latest send alone
            reading = beyond_doubt(reading, self._judge, *_named(batch))
        return Sent(reading, reading.error, response)

    def _failed(self, batch: Batch, exc: BaseException, through: Passage) -> Sent:
        response = getattr(exc, "response", None)
        if isinstance(exc, RequestException) and isinstance(response, Response):  # a hook that raises for a status
            with contextlib.suppress(Exception):  # its body may have broken off
                if self._is_of(batch, response.request):
                    return self._read(batch, response, through)
        error = CallError(code=type(exc).__name__)
        if not _has_answer(exc):
            is_of = self._is_of(batch, getattr(exc, "request", None))
            if is_of and not self._repeats and not through.in_doubt and never_sent(exc):
                return Sent(None, error, exc)
            if isinstance(exc, _UNSENT) and (is_of or not through.reached):
                return Sent(None, error, exc, fatal=True)
        fatal = not isinstance(exc, RequestException)
        return Sent(lost(self._judge, *_named(batch), error), error, exc, fatal=fatal)

    def _is_of(self, batch: Batch, request: object) -> bool:
        """Return whether a request is the one that was made for a batch, and none that a hook makes beside it."""
        url, body = self._target.request([row.encoded for row in batch.rows])
        asked, wanted = urlsplit(str(getattr(request, "url", ""))), urlsplit(url)
        with contextlib.suppress(ValueError):
            return (
                getattr(request, "method", None) == self._target.method
                and getattr(request, "body", None) == body
                and (asked.hostname, asked.port) == (wanted.hostname, wanted.port)
                and (body is not None or wanted.query in asked.query)
            )
        return False


def _has_answer(exc: BaseException) -> bool:
    """Return whether an exception comes from what `requests` does with an answer, such as a hook."""
    return any(frame.f_code in _AFTER_AN_ANSWER for frame, _ in walk_tb(exc.__traceback__))


def _named(batch: Batch) -> tuple[list[str | None], list[int]]:
    return [row.record_id for row in batch.rows], [row.index for row in batch.rows]
