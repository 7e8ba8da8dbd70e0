"""Reports of responses, also of those that never passed a guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from requests import PreparedRequest, Response
from requests.exceptions import RequestException

from crm_guard._protocol.address import tail_finder, version_before
from crm_guard._protocol.answer import read_answer
from crm_guard._protocol.inspection import READ_METHODS
from crm_guard._protocol.judging import Judge, error_in, outcomes_in
from crm_guard._protocol.request_records import read_call
from crm_guard._transport.wire import plain_body, seconds_to_wait
from crm_guard.report import GuardReport, attached_report
from crm_guard.settings import GuardSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULTS: Final = GuardSettings()
_REQUESTS: Final = RequestException.__module__
_usual_tail: Final = tail_finder(_DEFAULTS.path_pattern)
_CLIENT_ERROR: Final = 400


def get_report(response: Response | BaseException) -> GuardReport:
    """Return what became of each record of a CRM call.

    Args:
        response: A response, whether or not a guard made it; or an exception that ended a guarded call, such as a
            `GuardError`, a `ConnectionError` in the middle of a resend, or a `KeyboardInterrupt`. The exceptions
            that it was raised from, or while handling (`__cause__`, `__context__`), and those of an exception group
            are searched, too: a client's own error often wraps the guard's. An exception that carries a response,
            such as that of `raise_for_status`, stands for this response.

    Returns:
        The guard's own report where there is one. Else what the response itself tells, with one attempt and no
        waits; without outcomes where it tells of no records, or where its body was read as a stream and is gone.
        The body of a successful read is not touched.

    Raises:
        requests.RequestException: The body was still to be read (`stream=True`), and broke off. That is not passed
            over in silence: whoever reads on would take the body for a short one.
    """
    if isinstance(response, Response):
        return attached_report(response) or _read(response) or GuardReport(_response=response)
    links = _links(response)
    found = (attached_report(link) or _carried(getattr(link, "response", None)) for link in links)
    return next((report for report in found if report is not None), GuardReport())


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, the nearest first.

    An error of `requests`, or one that knows its request, is not about what was being handled when it was raised.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        own = isinstance(found, RequestException) and (
            type(found).__module__ == _REQUESTS or found.request is not None or found.response is not None
        )
        group = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
        origins = (found.__cause__, None if own else found.__context__, *group)
        waiting += [origin for origin in origins if origin is not None]


def _carried(response: object) -> GuardReport | None:
    """Return the report of the response that an exception carries; None if it is no CRM answer."""
    return (attached_report(response) or _read(response)) if isinstance(response, Response) else None


def _read(response: Response) -> GuardReport | None:
    """Return what a response itself tells, None if it is no CRM answer that can be looked into."""
    request: object = response.request  # of a response made by hand anything, and no status at all
    status: object = response.status_code
    if not isinstance(request, PreparedRequest) or not isinstance(status, int):
        return None
    url = request.url or ""
    # The guard that sent it knows which URLs are CRM calls: a gateway may have paths of its own.
    start = getattr(getattr(response, "connection", None), "tail_of", _usual_tail)(url)
    if start < 0 or (request.method in READ_METHODS and status < _CLIENT_ERROR):
        return None
    body = _body_of(response)
    if body is None and status < _CLIENT_ERROR:  # whoever has read it knows more than we do
        return None
    external = "X-EXTERNAL" in request.headers
    call = read_call(request.method or "", url, start, lambda: plain_body(request), external=external)
    answer = read_answer(response, status, body, call, retry_after=seconds_to_wait(response))
    judge = Judge(call, _DEFAULTS.retry_actions, version_before(url, start))
    error = error_in(answer, call)
    return GuardReport(
        outcomes=outcomes_in(answer, judge),
        retry_after=error.retry_after if error else None,
        error=error,
        _response=response,
    )


def _body_of(response: Response) -> bytes | None:
    """Return the body; None where it was read as a stream, in part or in whole."""
    if getattr(response, "_content", False) is False and _was_read(response):
        return None
    return response.content or b""


def _was_read(response: Response) -> bool:
    raw = response.raw
    try:
        return bool(getattr(response, "_content_consumed", False) or raw.closed or raw.tell() > 0)
    except Exception:  # noqa: BLE001 (not every raw object can tell)
        return False
