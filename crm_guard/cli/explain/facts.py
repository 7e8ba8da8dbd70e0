"""What the text around an answer tells of its call: status, method, path. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from crm_guard.cli.explain.pasted import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOKED_AT: Final = 4000
"""Characters before an answer; what stands further away belongs to something else."""
# A comma ends it, unless it stands between ids.
_URL: Final = (
    r"(?:https?://[^\s/\"'<>]{1,255})?/crm/"
    r"(?:(?<=[?&])ids=[0-9]{1,25}(?:,[0-9]{1,25}){0,500}(?![0-9])|[^\s\"'<>)\]},]){1,4000}"
)
_CALL: Final = re.compile(rf"(?i)\b(get|post|put|patch|delete)\b[\s:,(\"'f]{{1,6}}({_URL})")
_ADDRESS: Final = re.compile(_URL)
_USUAL: Final = r"(?<![\w.:,/-])(20[0-7]|40[0-9]|41[235]|429|50[0-4])"
_STATUSES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b([1-5][0-9]{2}) (?:Client|Server) Error\b",  # requests.HTTPError
        r"<Response \[([1-5][0-9]{2})\]>",
        r"(?i)\bstatus(?:[ _-]?code)?\W{1,4}([1-5][0-9]{2})\b",
        r"\bHTTP/[\d.]{1,3}\"? ([1-5][0-9]{2})\b",  # an access log; urllib3
        r"\bHTTP\W{0,2}(?:(?:[Ee]rror|[Cc]ode)\W{0,2})?([1-5][0-9]{2})\b",
        rf"{_USUAL}\s{{1,3}}(?:GET|POST|PUT|PATCH|DELETE)\s",
        rf"{_USUAL} (?:OK|Multi-Status|Bad Request|Unauthorized|Forbidden|Too Many|Internal Server|Bad Gateway)",
        rf"{_USUAL}\W{{0,3}}\Z",  # right before the answer
    )
)
_STATUS_KEYS: Final = ("status", "status_code", "statusCode", "http_status", "httpStatus")
_METHOD_KEYS: Final = ("method", "http_method", "httpMethod")
_PATH_KEYS: Final = ("url", "path", "uri", "request_url")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})


def facts_in(text: str) -> Facts:
    """Return what the end of a text tells of the call whose answer follows."""
    near = text[-_LOOKED_AT:]
    status = next((found for pattern in _STATUSES if (found := _last(pattern, near))), None)
    call, address = _last(_CALL, near), _last(_ADDRESS, near)
    path = call[2] if call else address[0] if address else ""
    return Facts(
        status=int(status[1]) if status else None,
        method=call[1].upper() if call else None,
        path=path.rstrip(".,:;") or None,
    )


def failure_in(text: str) -> Facts | None:
    """Return the facts of an error text of `requests` about a CRM call (`400 Client Error: ... for url: ...`)."""
    found = _last(_STATUSES[0], text[-_LOOKED_AT:])
    facts = facts_in(text) if found else Facts()
    return facts if found and facts.path else None


def facts_of(entry: Mapping[str, Any]) -> Facts:
    """Return what a log object, or a HAR entry, tells of the call."""
    inner = entry.get("request")
    own = Facts(
        status=_first(entry, _STATUS_KEYS, _as_status),
        method=_first(entry, _METHOD_KEYS, _as_method),
        path=_first(entry, _PATH_KEYS, _as_path),
    )
    if isinstance(inner, dict) and inner is not entry:
        own = own.over(facts_of(inner))
    return own.over(_facts_of_google(entry.get("httpRequest")))


def _facts_of_google(request: object) -> Facts:
    """Return what an entry of Google's Cloud Logging tells (`HttpRequest`), if that is a call to CRM.

    Mostly it is the call that the program itself was answering.
    """
    if not isinstance(request, dict) or (path := _as_path(request.get("requestUrl"))) is None:
        return Facts()
    return Facts(
        status=_as_status(request.get("status")), method=_as_method(request.get("requestMethod")), path=path
    )


def _first(entry: Mapping[str, Any], keys: tuple[str, ...], read: Any) -> Any:
    return next((found for key in keys if (found := read(entry.get(key))) is not None), None)


def _as_status(value: object) -> int | None:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{3}", value) else value
    return number if isinstance(number, int) and 100 <= number <= 599 else None


def _as_method(value: object) -> str | None:
    return value.upper() if isinstance(value, str) and value.upper() in _METHODS else None


def _as_path(value: object) -> str | None:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return found[0] if found else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 (the last one)
        pass
    return found
