"""Between `requests` and the pure modules: bodies read with a limit, copies of requests, responses made anew."""

from __future__ import annotations

import http.client
import io
from typing import TYPE_CHECKING, Any, Final, cast

from requests import Request
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import ConnectTimeout
from requests.utils import rewind_body
from urllib3 import HTTPHeaderDict, HTTPResponse, Retry
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import InvalidHeader, NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    from crm_guard._approval import Probe

_FRAMING: Final = ("Content-Encoding", "Transfer-Encoding", "Content-Length")


def bounded_body(response: Response, limit: int, *, stream: bool) -> bytes | None:
    """Return the body, or None if it is larger than `limit` bytes: then it stays to be read.

    A body that the caller would read anyway (`stream=False`) is read in full, as `requests` itself does, unless it
    announces that it is too large.
    """
    length = response.headers.get("Content-Length", "")
    announced = length.isdecimal()
    if announced and int(length) > limit:
        return None
    raw = response.raw
    if (
        not stream
        or (announced and "Content-Encoding" not in response.headers)
        or not isinstance(raw, HTTPResponse)
    ):
        body: bytes | None = response.content
        return body if body is not None and len(body) <= limit else None
    head, failure = _head(raw, limit + 1)
    response.raw = _Rewound.response(head, failure, raw)
    return None if failure or len(head) > limit else cast("bytes", response.content)


def _head(raw: HTTPResponse, amount: int) -> tuple[bytes, Exception | None]:
    try:
        return raw.read(amount, decode_content=True), None
    except (TransportError, OSError) as exc:
        return b"", exc


class _Rewound(io.RawIOBase):
    """A stream whose beginning has been read already: gives it again, and then goes on with the rest."""

    def __init__(self, head: bytes, failure: Exception | None, rest: HTTPResponse) -> None:
        super().__init__()
        self._head = io.BytesIO(head)
        self._failure = failure
        self._rest = rest

    @classmethod
    def response(cls, head: bytes, failure: Exception | None, rest: HTTPResponse) -> HTTPResponse:
        headers = HTTPHeaderDict(rest.headers)
        for name in _FRAMING:
            headers.discard(name)
        return HTTPResponse(
            body=cls(head, failure, rest),
            headers=headers,
            status=rest.status,
            version=rest.version,
            reason=rest.reason,
            preload_content=False,
            original_response=getattr(rest, "_original_response", None),
        )

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._failure is not None:
            raise self._failure
        amount = None if size < 0 else size
        return self._head.read(amount) or self._rest.read(amount, decode_content=True)

    def close(self) -> None:
        self._rest.close()
        super().close()


def discard(response: Response) -> None:
    """Read a response to its end, so that its connection can be used again; close it if that fails."""
    try:
        response.content  # noqa: B018 (reading is the point)
    except Exception:  # noqa: BLE001 (nobody wants this body)
        response.close()


def replayable(request: PreparedRequest) -> bool:
    """Tell whether the body can be sent a second time: bytes, text, or a file that can be rewound."""
    body: object = request.body
    return body is None or isinstance(body, bytes | str) or isinstance(_position(request), int)


def body_bytes(request: PreparedRequest) -> bytes | None:
    """Return the body to look into, None if it is a stream that cannot be rewound."""
    if not isinstance(_position(request), int):
        return plain_body(request)
    rewind_body(request)
    return _as_bytes(cast("Any", request.body).read())


def plain_body(request: PreparedRequest) -> bytes | None:
    """Return the body if it is bytes or text, None if it is a stream: nothing is read or moved."""
    return _as_bytes(request.body)


def copy_of(request: PreparedRequest, url: str | None, body: bytes | None) -> PreparedRequest:
    """Copy a request, with another URL or body where given, ready to be sent. The original is not changed."""
    copy = request.copy()
    copy.url = url or copy.url
    if body is not None:
        copy.body = body
        copy.headers["Content-Length"] = str(len(body))
        copy.headers.pop("Transfer-Encoding", None)
    elif isinstance(_position(copy), int):
        rewind_body(copy)
    return copy


def probe_request(probe: Probe) -> PreparedRequest:
    """Make the request of a diagnosis: none of the session's headers, cookies or hooks."""
    return Request("GET", probe.url, headers=dict(probe.headers)).prepare()


def remade(
    adapter: HTTPAdapter, request: PreparedRequest, latest: Response, status: int, reason: str | None, body: bytes
) -> Response:
    """Make a response with the headers of `latest` and another status and body."""
    headers = HTTPHeaderDict(getattr(latest.raw, "headers", None) or latest.headers)
    for name in _FRAMING:
        headers.discard(name)
    headers["Content-Length"] = str(len(body))
    raw = HTTPResponse(
        body=io.BytesIO(body),
        headers=headers,
        status=status,
        version=getattr(latest.raw, "version", 11),
        reason=reason or http.client.responses.get(status, ""),
        preload_content=False,
        original_response=getattr(latest.raw, "_original_response", None),
        request_method=request.method,
        request_url=request.url,
    )
    return adapter.build_response(request, raw)


def carry_cookies(earlier: Sequence[Response], final: Response) -> None:
    """Add the cookies of earlier attempts to the final response: a session sees only that one."""
    message = getattr(getattr(final.raw, "_original_response", None), "msg", None)
    cookies = [cookie for response in earlier for cookie in _cookies(response)]
    if message is None or not cookies:
        return
    own = message.get_all("Set-Cookie") or []
    del message["Set-Cookie"]
    for cookie in (*cookies, *own):  # the last word on a name wins
        message.add_header("Set-Cookie", cookie)
    extract_cookies_to_jar(  # type: ignore[no-untyped-call]
        final.cookies, final.request, final.raw
    )


def seconds_to_wait(response: Response) -> float | None:
    """Read `Retry-After`: CRM documents none, and it is honoured where a proxy or CRM sends one."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return Retry().parse_retry_after(value)
    except (InvalidHeader, ValueError, OverflowError):
        return None


def never_sent(error: BaseException) -> bool:
    """Tell whether an error proves that no byte of the request reached CRM."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, ConnectTimeout) or isinstance(cause, NewConnectionError)


def _cookies(response: Response) -> list[str]:
    message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
    return (message.get_all("Set-Cookie") or []) if message is not None else []


def _as_bytes(body: object) -> bytes | None:
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None


def _position(request: PreparedRequest) -> object:
    return getattr(request, "_body_position", None)


def capped_timeout(timeout: Any, most: float) -> Any:
    """Return the caller's timeout with no part of it above `most` seconds."""
    if timeout is None:
        return most
    if isinstance(timeout, tuple):
        return tuple(capped_timeout(part, most) for part in timeout)
    return min(timeout, most) if isinstance(timeout, int | float) else timeout
