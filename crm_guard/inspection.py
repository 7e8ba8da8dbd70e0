"""Reports of responses, also of those that never passed a guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from requests import PreparedRequest, Response

from crm_guard._address import tail_finder, version_before
from crm_guard._answer import read_answer
from crm_guard._batch import read_call
from crm_guard._glance import READ_METHODS
from crm_guard._judgement import Judge, error_in, outcomes_in
from crm_guard._wire import plain_body, seconds_to_wait
from crm_guard.report import GuardReport, attached_report
from crm_guard.settings import GuardSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULTS: Final = GuardSettings()
_tail: Final = tail_finder(_DEFAULTS.path_pattern)
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
    """
    if isinstance(response, Response):
        return attached_report(response) or _read(response)
    chain = list(_chain(response))
    carried = [getattr(error, "response", None) for error in chain]
    reports = (attached_report(carrier) for pair in zip(chain, carried, strict=True) for carrier in pair)
    found = next((report for report in reports if report is not None), None)
    if found is not None:
        return found
    return next((_read(answer) for answer in carried if isinstance(answer, Response)), GuardReport())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, the nearest first."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        group = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
        waiting += [origin for origin in (found.__cause__, found.__context__, *group) if origin is not None]


def _read(response: Response) -> GuardReport:
    request: PreparedRequest | None = response.request
    url = (request.url if request is not None else None) or ""
    start, status = _tail(url), response.status_code
    if request is None or start < 0 or (request.method in READ_METHODS and status < _CLIENT_ERROR):
        return GuardReport(_response=response)
    gone = getattr(response, "_content_consumed", False) and getattr(response, "_content", False) is False
    if gone and status < _CLIENT_ERROR:  # the caller has read it as a stream, and knows more than we do
        return GuardReport(_response=response)
    external = "X-EXTERNAL" in request.headers
    call = read_call(request.method or "", url, start, lambda: plain_body(request), external=external)
    body = b"" if gone else response.content or b""
    answer = read_answer(response, status, body, call, retry_after=seconds_to_wait(response))
    judge = Judge(call, _DEFAULTS.retry_actions, version_before(url, start))
    error = error_in(answer, call)
    return GuardReport(
        outcomes=outcomes_in(answer, judge),
        retry_after=error.retry_after if error else None,
        error=error,
        _response=response,
    )
