"""Requests copied for a resend, responses made from several, and what is kept of those that are dropped."""

from __future__ import annotations

import http.client
import io
from typing import TYPE_CHECKING, Any, Final, cast

from requests import Request
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import ConnectTimeout
from requests.utils import rewind_body
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from crm_guard._transport.bodies import BufferedResponse
from crm_guard.remaining import own_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response
    from urllib3 import HTTPResponse

    from crm_guard._protocol.approval_probe import Probe
    from crm_guard._protocol.merge import Merged

_FRAMING: Final = ("Content-Encoding", "Transfer-Encoding", "Content-Length")
_MOST_COOKIES: Final = 100
_LONGEST_REASON: Final = 100


def discard(response: Response) -> None:
    """Close a response that nobody will read. Its connection is reused only if the body was read already."""
    try:
        response.close()
    except Exception:  # noqa: BLE001 (nobody wants this body)
        return


def replayable(request: PreparedRequest) -> bool:
    """Return whether the body can be sent a second time: bytes, text, or a file that can be rewound."""
    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    if not isinstance(_position(request), int) or getattr(body, "closed", False):
        return False
    try:
        return callable(getattr(body, "seek", None)) and getattr(body, "seekable", lambda: True)()
    except Exception:  # noqa: BLE001 (an object of the caller's that raises its own)
        return False


def body_bytes(request: PreparedRequest) -> bytes | None:
    """Return the body to look into, None if it is a stream that cannot be rewound."""
    if not isinstance(_position(request), int):
        return _as_bytes(request.body)
    body = cast("Any", request.body)
    try:
        offset = body.tell()
        rewind_body(request)
        try:
            return _as_bytes(body.read())
        finally:
            body.seek(offset)  # the send begins from here
    except Exception:  # noqa: BLE001 (closed meanwhile, a pipe, or an object of the caller's that raises its own)
        return None


def copy_of(request: PreparedRequest, url: str | None, body: bytes | None) -> PreparedRequest:
    """Copy a request, with another URL or body where given, ready to be sent. The original is not changed."""
    copy = own_copy(request)
    copy.url = url or copy.url
    if body is not None:
        copy.body = body
        vars(copy)["_body_position"] = None  # bytes are not rewound
        copy.headers["Content-Length"] = str(len(body))
        copy.headers.pop("Transfer-Encoding", None)
    elif isinstance(_position(copy), int):
        rewind_body(copy)
    return copy


def probe_request(probe: Probe) -> PreparedRequest:
    """Make the request of a diagnosis: none of the session's headers, cookies or hooks."""
    return Request("GET", probe.url, headers=dict(probe.headers)).prepare()


class Trail:
    """What is kept of the answers to one call that are dropped: little, however many and large they were.

    Attributes:
        content_type: The `Content-Type` of the most recent answer with items.
    """

    def __init__(self) -> None:
        self.content_type: str | None = None
        self._cookies: dict[tuple[str, ...], str] = {}
        self._reasons: dict[int, str] = {}

    def note(self, response: Response, *, has_items: bool) -> None:
        """Record the reason phrase of an answer, and its content type if it has items."""
        self._reasons[response.status_code] = (response.reason or "")[:_LONGEST_REASON]
        if has_items:
            self.content_type = response.headers.get("Content-Type")

    def drop(self, response: Response) -> None:
        """Close an answer that is not the caller's result, and keep its cookies."""
        for cookie in _cookies(response):
            self._cookies.pop(_cookie_key(cookie), None)
            self._cookies[_cookie_key(cookie)] = cookie
        for key in list(self._cookies)[:-_MOST_COOKIES]:
            del self._cookies[key]
        discard(response)

    def reason(self, status: int) -> str | None:
        """Return the reason phrase that an answer with this status came with."""
        return self._reasons.get(status)

    def carry_cookies(self, final: Response) -> None:
        """Add the cookies of earlier answers to the final one: a session sees only that."""
        message = getattr(getattr(final.raw, "_original_response", None), "msg", None)
        if message is None or not self._cookies:
            return
        own = message.get_all("Set-Cookie") or []
        self._cookies |= {_cookie_key(cookie): cookie for cookie in own}  # the last one of a name wins
        del message["Set-Cookie"]
        for cookie in self._cookies.values():
            message.add_header("Set-Cookie", cookie)
        self._cookies.clear()
        extract_cookies_to_jar(  # type: ignore[no-untyped-call]
            final.cookies, final.request, final.raw
        )


def remade(
    build: Callable[[PreparedRequest, HTTPResponse], Response],
    request: PreparedRequest,
    latest: Response,
    merged: Merged,
    trail: Trail,
) -> Response:
    """Make a response by `build`, with the headers of `latest` and the status and body of `merged`."""
    headers = HTTPHeaderDict(getattr(latest.raw, "headers", None) or latest.headers)
    for name in _FRAMING:
        headers.discard(name)
    headers["Content-Length"] = str(len(merged.body))
    if trail.content_type is not None:  # the latest answer may be a gateway's page, or empty
        headers["Content-Type"] = trail.content_type
    raw = BufferedResponse(
        body=io.BytesIO(merged.body),
        headers=headers,
        status=merged.status,
        version=getattr(latest.raw, "version", 11),
        reason=trail.reason(merged.status) or http.client.responses.get(merged.status, ""),
        preload_content=False,
        original_response=getattr(latest.raw, "_original_response", None),
        request_method=request.method,
        request_url=request.url,
    )
    return build(request, raw)


def never_sent(error: BaseException) -> bool:
    """Return whether an error proves that no byte of the request reached CRM: there was no connection."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(cause, ProxyError):
        cause = cause.original_error
        return isinstance(cause, ConnectTimeoutError)  # and the subclasses, as below
    return isinstance(error, ConnectTimeout) or isinstance(cause, NewConnectionError)


def _cookies(response: Response) -> list[str]:
    message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
    return (message.get_all("Set-Cookie") or []) if message is not None else []


def _cookie_key(cookie: str) -> tuple[str, ...]:
    """Return what a later `Set-Cookie` must share to replace this one: its name, domain and path."""
    pair, *attributes = (part.strip() for part in cookie.split(";"))
    scope = sorted(part.lower() for part in attributes if part.lower().startswith(("domain=", "path=")))
    return pair.partition("=")[0], *scope


def _as_bytes(body: object) -> bytes | None:
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None


def _position(request: PreparedRequest) -> object:
    return getattr(request, "_body_position", None)
