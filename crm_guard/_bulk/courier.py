"""Sends the batches of a writer through the caller's session, and asks for approval states."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from requests import Response
from requests.exceptions import (
    InvalidHeader,
    InvalidProxyURL,
    InvalidSchema,
    InvalidURL,
    MissingSchema,
    RequestException,
)

from crm_guard._base.retry_after import seconds_to_wait
from crm_guard._protocol.approval_probe import build_probes
from crm_guard._protocol.scheduling.reading import Delivery, lost, read_batch
from crm_guard._transport.http_copies import never_sent
from crm_guard._transport.nesting import Passage, passage
from crm_guard._transport.probe_thread import ask
from crm_guard._transport.tap import Tap, tapped
from crm_guard.outcomes import CallError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Session

    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.scheduling.reading import Reading
    from crm_guard._protocol.scheduling.row import Batch, Question
    from crm_guard._protocol.scheduling.target import Target
    from crm_guard._transport.context import Context
    from crm_guard.adapter import GuardAdapter

_UNSENT: Final = (InvalidHeader, InvalidProxyURL, InvalidSchema, InvalidURL, MissingSchema)
"""Errors of `requests` before anything is sent."""
_JSON: Final = {"Content-Type": "application/json"}


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
            return self._read(batch, response)
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

    def _read(self, batch: Batch, response: object) -> Sent:
        if not isinstance(response, Response):
            message = f"session.request returned a {type(response).__name__}, and no requests.Response"
            raise TypeError(message)
        self._headers = response.request.headers
        delivery = Delivery(
            response.status_code,
            response.content or b"",
            response.headers.get("X-API-CREDITS-REMAINING"),
            seconds_to_wait(response.headers.get("Retry-After")),
        )
        reading = read_batch(delivery, self._judge, *_named(batch))
        return Sent(reading, reading.error, response)

    def _failed(self, batch: Batch, exc: BaseException, through: Passage) -> Sent:
        response = getattr(exc, "response", None)
        if isinstance(exc, RequestException) and isinstance(response, Response):  # a hook that raises for a status
            with contextlib.suppress(Exception):  # its body may have broken off
                return self._read(batch, response)
        error = CallError(code=type(exc).__name__)
        if not self._repeats and never_sent(exc):
            return Sent(None, error, exc)
        if isinstance(exc, _UNSENT) and not through.reached:
            return Sent(None, error, exc, fatal=True)
        fatal = not isinstance(exc, RequestException)
        return Sent(lost(self._judge, *_named(batch), error), error, exc, fatal=fatal)


def _named(batch: Batch) -> tuple[list[str | None], list[int]]:
    return [row.record_id for row in batch.rows], [row.index for row in batch.rows]
