"""One answer of CRM, read: its items, or else what it says of the call as a whole. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from crm_guard._protocol.envelope import Envelope, read_envelope, tells_success
from crm_guard.remediation import Family, harmless_state
from crm_guard.report import CallError

if TYPE_CHECKING:
    from crm_guard._protocol.request_records import Call

R = TypeVar("R")
_MOST_SECONDS: Final = 86_400.0  # CRM's limits are per day at most
_REDIRECT: Final = 300
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_NOT_ABOUT_RECORDS: Final = frozenset({401, 429})


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """One answer of CRM.

    Attributes:
        response: Whatever the caller wants to find again; not looked into here.
        status: HTTP status.
        envelope: Its items, None where it has none.
        credits: API credits that CRM says are left, None where it does not say.
        conclusive: Whether it carries a result: only then may a write be told to have succeeded.
        error: What it says of the call as a whole; of no interest where it has items about records.
    """

    response: R
    status: int
    envelope: Envelope | None = None
    credits: int | None = None
    conclusive: bool = True
    error: CallError = field(default_factory=CallError)

    @property
    def failed(self) -> bool:
        """Whether the answer is about the service or the token rather than about records."""
        return self.status >= _SERVER_ERROR or self.status in _NOT_ABOUT_RECORDS

    @property
    def retry_after(self) -> float | None:
        """Seconds CRM asks to wait, None where it does not ask."""
        return self.error.retry_after


def read_answer(
    response: R,
    status: int,
    body: bytes | None,
    call: Call,
    *,
    credits: int | None = None,  # noqa: A002 (the field's name)
    retry_after: float | None = None,
) -> Answer[R]:
    """Read one answer to `call`.

    Args:
        response: To be found again in the answer.
        status: HTTP status.
        body: The body; None where it was not read: no JSON, or too large.
        call: The request.
        credits: See :class:`Answer`.
        retry_after: Seconds that the header `Retry-After` asks to wait.
    """
    # What a read returns are values of fields, which may be called `code` and `status`.
    holds_values = call.endpoint.reads and status < _CLIENT_ERROR
    envelope = read_envelope(body, reads=call.reads) if body and not holds_values else None
    return Answer(
        response,
        status,
        envelope,
        credits,
        conclusive=envelope is not None or _succeeded(call, status, body),
        error=_read_error(status, envelope, body, retry_after),
    )


def _succeeded(call: Call, status: int, body: bytes | None) -> bool:
    """Return whether an answer without items is a success: what was read needs none, be it an image or values."""
    converts = call.endpoint.family is Family.CONVERT
    return status < _REDIRECT and (call.endpoint.reads or tells_success(body or b"", converts=converts))


def _read_error(status: int, envelope: Envelope | None, body: bytes | None, retry_after: float | None) -> CallError:
    if envelope is not None and len(envelope.items) == 1:
        item = envelope.items[0]
        code, message, wish = item.code, item.message, item.details.get("retry_after")
    else:
        top = _object(body) if envelope is None else {}
        details = top.get("details")
        code, message = _text(top.get("code")), _text(top.get("message"))
        wish = details.get("retry_after") if isinstance(details, dict) else None
    if retry_after is None:  # zoho/crm-oas v8.0, `__apis`: a 429 with `details.retry_after`
        retry_after = _seconds(wish)
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
