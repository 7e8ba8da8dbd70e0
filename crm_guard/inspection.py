"""Reports of responses, also of those that never passed a guard."""

from __future__ import annotations

import re
from typing import Final

from requests import PreparedRequest, Response

from crm_guard._batch import read_call
from crm_guard._envelope import read_envelope
from crm_guard._glance import READ_METHODS
from crm_guard._judgement import Judge, outcomes_in
from crm_guard._wire import plain_body
from crm_guard.report import GuardReport, attached_report
from crm_guard.settings import GuardSettings

_DEFAULTS: Final = GuardSettings()
_CRM: Final = re.compile(r"https?://[^/]+" + _DEFAULTS.path_pattern)
_CLIENT_ERROR: Final = 400


def get_report(response: Response | BaseException) -> GuardReport:
    """Return what became of each record of a CRM call.

    Args:
        response: A response, whether or not a guard made it; or an exception that ended a guarded call, such as a
            `GuardError`, a `ConnectionError` in the middle of a resend, or a `KeyboardInterrupt`. An exception that
            carries a response, such as that of `raise_for_status`, stands for this response.

    Returns:
        The guard's own report where there is one. Else what the response itself tells, with one attempt and no
        waits; without outcomes where it tells of no records, or where its body was read as a stream and is gone.
        The body of a successful read is not touched.
    """
    found = attached_report(response)
    if found is not None:
        return found
    if isinstance(response, BaseException):
        carried = getattr(response, "response", None)
        return get_report(carried) if isinstance(carried, Response) else GuardReport()
    return _read(response)


def _content(response: Response) -> bytes:
    """Return the body; nothing where the caller has read it as a stream, so that it is gone."""
    if getattr(response, "_content_consumed", False) and getattr(response, "_content", False) is False:
        return b""
    return response.content or b""


def _read(response: Response) -> GuardReport:
    request: PreparedRequest | None = response.request
    url = (request.url if request is not None else None) or ""
    found = _CRM.match(url)
    if request is None or found is None:
        return GuardReport(_response=response)
    if request.method in READ_METHODS and response.status_code < _CLIENT_ERROR:
        return GuardReport(_response=response)
    external = "X-EXTERNAL" in request.headers
    call = read_call(request.method or "", url, found.end(), lambda: plain_body(request), external=external)
    envelope = read_envelope(_content(response), reads=call.reads)
    if envelope is None or (call.endpoint.reads and response.status_code < _CLIENT_ERROR):
        return GuardReport(_response=response)
    version = url[: found.end()].rstrip("/").rpartition("/")[2]
    judge = Judge(call, _DEFAULTS.retry_actions, version)
    return GuardReport(outcomes=outcomes_in(envelope, judge), _response=response)
