"""One answer of CRM, read: its items, or else what it says of the call as a whole. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from crm_guard._base.codes import REDIRECT, SERVER_ERROR, TOO_MANY_REQUESTS, UNAUTHORIZED
from crm_guard._protocol.envelope import Envelope, read_envelope, tells_success
from crm_guard._protocol.inspection import may_hold_items
from crm_guard.outcomes import CallError
from crm_guard.remediation import Family, harmless_state

if TYPE_CHECKING:
    from crm_guard._protocol.request_records import CrmRequest

R = TypeVar("R")
_MOST_SECONDS: Final = 86_400.0  # CRM's limits are per day at most
_NOT_ABOUT_RECORDS: Final = frozenset({UNAUTHORIZED, TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """One answer of CRM.

    Attributes:
        response: The transport's own object for it; never looked into here.
        status: HTTP status.
        envelope: Its items, None where it has none.
        credits: API credits that CRM says are left, None where it does not say.
        conclusive: Whether it carries a result: only then may a write be reported as succeeded.
        error: What it says of the call as a whole; of no interest where it has items about records.
        at: Instant of its arrival, in seconds on the caller's clock.
    """

    response: R
    status: int
    envelope: Envelope | None = None
    credits: int | None = None
    conclusive: bool = True
    error: CallError = field(default_factory=CallError)
    at: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the answer is about the service or the token rather than about records."""
        return self.status >= SERVER_ERROR or self.status in _NOT_ABOUT_RECORDS

    @property
    def refusal(self) -> bool:
        """Whether it holds a refusal that the guard exists for."""
        return self.envelope is not None and self.envelope.guarded

    @property
    def retry_after(self) -> float | None:
        """Seconds CRM asks to wait, None where it does not ask."""
        return self.error.retry_after


def read_answer(
    response: R,
    status: int,
    body: bytes | None,
    request: CrmRequest,
    *,
    credits: str | None = None,  # noqa: A002 (the field's name)
    retry_after: float | None = None,
    at: float = 0.0,
) -> Answer[R]:
    """Read one answer to `request`.

    Args:
        response: Kept in the answer as it is.
        status: HTTP status.
        body: The body; None where it was not read: not JSON, or too large.
        request: The request.
        credits: The header `X-API-CREDITS-REMAINING`.
        retry_after: Seconds that the header `Retry-After` asks to wait.
        at: See :class:`Answer`.
    """
    readable = body and may_hold_items(status, reads=request.endpoint.reads)
    envelope = read_envelope(body, reads=request.reads) if body and readable else None
    return Answer(
        response,
        status,
        envelope,
        _credits_left(credits),
        conclusive=envelope is not None or _succeeded(request, status, body),
        error=_read_error(status, envelope, body, retry_after),
        at=at,
    )


def _succeeded(request: CrmRequest, status: int, body: bytes | None) -> bool:
    """Return whether an answer without items is a success: what was read needs none, be it an image or values."""
    converts = request.endpoint.family is Family.CONVERT
    return status < REDIRECT and (request.endpoint.reads or tells_success(body or b"", converts=converts))


def _credits_left(value: str | None) -> int | None:
    """Read `X-API-CREDITS-REMAINING`: None where it is absent or no plausible number."""
    return int(value) if value and re.fullmatch(r"[0-9]{1,18}", value) else None


def _read_error(status: int, envelope: Envelope | None, body: bytes | None, retry_after: float | None) -> CallError:
    if envelope is not None and len(envelope.items) == 1:
        item = envelope.items[0]
        code, message, asked = item.code, item.message, item.details.get("retry_after")
    else:
        top = _object(body) if envelope is None else {}
        details = top.get("details")
        code, message = _text(top.get("code")), _text(top.get("message"))
        asked = details.get("retry_after") if isinstance(details, dict) else None
    if retry_after is None:  # zoho/crm-oas v8.0, `__apis`: a 429 with `details.retry_after`
        retry_after = _seconds(asked)
    # A code is a plain word; what is none may hold anything.
    return CallError(status=status, code=harmless_state(code) or "", message=message, retry_after=retry_after)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST_SECONDS else None


def _object(body: bytes | None) -> dict[str, Any]:
    """Return the JSON object that a body is; an empty one if it is none."""
    try:
        return msgspec.json.decode(body or b"", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
