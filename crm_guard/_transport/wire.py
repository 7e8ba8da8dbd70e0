"""Between `requests` and the pure modules: bodies read with a limit, copies of requests, responses made anew."""

from __future__ import annotations

import http.client
import io
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from requests import Request
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import ConnectTimeout
from requests.utils import rewind_body
from urllib3 import HTTPHeaderDict, HTTPResponse, Retry, Timeout
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import InvalidHeader, NewConnectionError

from crm_guard.remaining import own_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    from crm_guard._protocol.approval import Probe

_FRAMING: Final = ("Content-Encoding", "Transfer-Encoding", "Content-Length")
_PIECE: Final = 64 * 1024
_MOST_COOKIES: Final = 100
_LONGEST_REASON: Final = 100


def bounded_body(response: Response, limit: int, *, unread: bool, within: float | None = None) -> bytes | None:
    """Return the body, or None if it is larger than `limit` bytes, or late: then it stays to be read.

    Of a body that urllib3 reads, at most `limit` bytes and a piece are unpacked. It counts as read where the
    session would read it next; errors on the way are those of `Response.content`.

    Args:
        response: The answer.
        limit: Bytes, after decompression.
        unread: Whether others will look at `response.raw` (`stream=True`, response hooks): `raw` gives again what
            was read of it, and its connection can be reached until it was read.
        within: Seconds for all of an unread body, as seen between two pieces of it. What is one wait for the next
            byte in a session that reads it may be many here, and whoever asks for a stream has yet to decide how
            long to read.
    """
    raw = response.raw
    if (getattr(raw, "length_remaining", None) or 0) > limit:  # what Content-Length announces
        return None
    if not getattr(response, "_content_consumed", False):
        if isinstance(raw, HTTPResponse):
            return _peek(response, raw, limit, within) if unread else _take(response, raw, limit)
        if unread and _seekable(raw):
            return _look_ahead(raw, limit)
    body: bytes | None = response.content
    return body if body is not None and len(body) <= limit else None


def body_at_hand(response: Response, limit: int) -> bytes | None:
    """Return the body if it was read to its end, and is no larger than `limit` bytes. Reads nothing."""
    body = vars(response).get("_content")
    return body if isinstance(body, bytes) and len(body) <= limit else None


def _seekable(raw: Any) -> bool:
    """Return whether a body that is no urllib3 response can be read and put back (vcrpy, `io.BytesIO`)."""
    try:
        return bool(raw.seekable())
    except Exception:  # noqa: BLE001 (not a file, or an object of the caller's that raises its own)
        return False


def _look_ahead(raw: Any, limit: int) -> bytes | None:
    start = raw.tell()
    body: bytes = raw.read(limit + 1)
    raw.seek(start)
    return body if len(body) <= limit else None


def _take(response: Response, raw: HTTPResponse, limit: int) -> bytes | None:
    """Read a body as `Response.content` would, but for the limit."""
    pieces = raw.stream(_PIECE, decode_content=True)
    taken, size, failure = [], 0, None
    try:
        for piece in pieces:
            taken.append(piece)
            size += len(piece)
            if size > limit:
                break
        else:
            body = b"".join(taken)
            vars(response).update(_content=body, _content_consumed=True)
            return body
    except TransportError as exc:
        failure = exc
    rest = _Rewound(raw, lambda: next(pieces, b""), b"".join(taken), failure)
    response.raw = rest.response(getattr(response.request, "method", None), unpacked=True)
    return None if failure is None else response.content  # raises it, in the words of `requests`


def _peek(response: Response, raw: HTTPResponse, limit: int, within: float | None) -> bytes | None:
    """Read a stream and decode what was read, then put it back."""
    rewound = _Rewound(raw, partial(_as_it_comes, raw))
    response.raw = rewound.response(getattr(response.request, "method", None))
    head = rewound.peek(limit + 1, within)
    if head is None or len(head) > limit:
        return None
    decoding = HTTPResponse(
        body=io.BytesIO(head), headers=raw.headers, preload_content=False, enforce_content_length=False
    )
    try:
        body = decoding.read(limit + 1, decode_content=True)
    except TransportError:  # the caller will meet it, too
        return None
    return body if len(body) <= limit else None


def _as_it_comes(raw: HTTPResponse) -> bytes:
    """Return what has come, at the price of one wait for the network; nothing at the end."""
    try:
        return raw.read1(_PIECE, decode_content=False) or b""
    except AttributeError:  # the body is an object of the caller's, with `read` alone
        return raw.read(_PIECE, decode_content=False)


class _Again(HTTPResponse):
    """A response whose body is no socket's: the stock stream of pieces "as they come" would never end.

    Attributes:
        lent: The connection that the body came by, to be looked at: the pool may have it back already.
    """

    lent: Any = None

    @property
    def connection(self) -> Any:
        """The connection that the body came by, None once it was read."""
        return None if self.closed else self.lent

    def stream(self, amt: int | None = _PIECE, decode_content: bool | None = None) -> Generator[bytes]:
        if amt is not None:
            yield from super().stream(amt, decode_content)
            return
        while piece := self.read1(_PIECE, decode_content):
            yield piece


class _Rewound(io.RawIOBase):
    """A stream whose beginning has been read already: gives it again, and then goes on with the rest.

    The bytes are as `more` gives them. Where reading failed, what came before is given first, and then the failure
    is raised.

    Args:
        rest: The response that is read from.
        more: Returns the next piece of its body, empty at its end.
        ready: What was read of it before.
        failure: What broke that off.
    """

    def __init__(
        self, rest: HTTPResponse, more: Callable[[], bytes], ready: bytes = b"", failure: Exception | None = None
    ) -> None:
        super().__init__()
        self._rest = rest
        self._connection = rest.connection  # reading to the end gives it back to the pool
        self._more = more
        self._ready = bytearray(ready)
        self._failure = failure
        self._ended = failure is not None

    def response(self, method: str | None, *, unpacked: bool = False) -> HTTPResponse:
        """Return a response like the one that is read from, with this as its body, `unpacked` or as it came."""
        headers = self._rest.headers
        if unpacked:
            headers = HTTPHeaderDict(headers)
            headers.discard("Content-Encoding")
        again = _Again(
            body=self,
            headers=headers,
            status=self._rest.status,
            version=self._rest.version,
            reason=self._rest.reason,
            preload_content=False,
            decode_content=self._rest.decode_content,
            original_response=getattr(self._rest, "_original_response", None),
            retries=self._rest.retries,
            enforce_content_length=False,  # the one that is read from does
            request_method=method,
            request_url=self._rest.url,
        )
        again.lent = self._connection
        again.version_string = self._rest.version_string
        return again

    def isclosed(self) -> bool:
        """Return whether all of the body was given, as `http.client` does."""
        return self.closed or (self._ended and not self._ready and self._failure is None)

    def peek(self, amount: int, within: float | None) -> bytes | None:
        """Return up to `amount` bytes, which stay to be read; None where reading failed, or took too long."""
        end = None if within is None else time.monotonic() + within
        while self._fill(min(amount, len(self._ready) + 1)):
            if end is not None and time.monotonic() >= end:
                return None
        return bytes(self._ready) if self._failure is None else None

    def read(self, size: int = -1) -> bytes:
        amount = None if size < 0 else size
        self._fill(amount)
        if amount is None:
            self._fail()
        return self._give(amount)

    def read1(self, size: int = -1) -> bytes:
        self._fill(1)
        return self._give(None if size < 0 else size)

    def _give(self, amount: int | None) -> bytes:
        if not self._ready and amount != 0:
            self._fail()
        given = bytes(self._ready[:amount])
        del self._ready[:amount]
        return given

    def _fail(self) -> None:
        """Raise what broke the body off, once: afterwards it is at its end."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _fill(self, amount: int | None) -> bool:
        """Read until `amount` bytes are ready, or the end; return whether that read anything."""
        before = len(self._ready)
        while not self._ended and (amount is None or len(self._ready) < amount):
            try:
                piece = self._more()
            except (TransportError, OSError) as exc:
                self._failure, self._ended = exc, True
            else:
                self._ready += piece
                self._ended = not piece
        return len(self._ready) > before

    def close(self) -> None:
        self._rest.close()
        self._rest.release_conn()
        super().close()


def discard(response: Response) -> None:
    """Let go of a response that nobody will read. Its connection serves again only if the body was read already."""
    try:
        response.close()
    except Exception:  # noqa: BLE001 (nobody wants this body)
        return


def replayable(request: PreparedRequest) -> bool:
    """Tell whether the body can be sent a second time: bytes, text, or a file that can be rewound."""
    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    return isinstance(_position(request), int) and not getattr(body, "closed", False)


def body_bytes(request: PreparedRequest) -> bytes | None:
    """Return the body to look into, None if it is a stream that cannot be rewound."""
    if not isinstance(_position(request), int):
        return plain_body(request)
    body = cast("Any", request.body)
    try:
        place = body.tell()
        rewind_body(request)
        try:
            return _as_bytes(body.read())
        finally:
            body.seek(place)  # it may yet have to be sent from here
    except Exception:  # noqa: BLE001 (closed meanwhile, a pipe, or an object of the caller's that raises its own)
        return None


def plain_body(request: PreparedRequest) -> bytes | None:
    """Return the body if it is bytes or text, None if it is a stream: nothing is read or moved."""
    return _as_bytes(request.body)


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


def remade(
    adapter: HTTPAdapter,
    request: PreparedRequest,
    latest: Response,
    status: int,
    reason: str | None,
    body: bytes,
    content_type: str | None,
) -> Response:
    """Make a response with the headers of `latest`, and another status and body."""
    headers = HTTPHeaderDict(getattr(latest.raw, "headers", None) or latest.headers)
    for name in _FRAMING:
        headers.discard(name)
    headers["Content-Length"] = str(len(body))
    if content_type is not None:
        headers["Content-Type"] = content_type
    raw = _Again(
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


class Trail:
    """What is kept of the answers to one call that are let go: little, however many and large they were.

    Attributes:
        content_type: The `Content-Type` of the last answer that spoke of records.
    """

    def __init__(self) -> None:
        self.content_type: str | None = None
        self._cookies: dict[tuple[str, ...], str] = {}
        self._reasons: dict[int, str] = {}

    def note(self, response: Response, *, speaks: bool) -> None:
        """Take note of an answer, and of whether it speaks of records."""
        self._reasons[response.status_code] = (response.reason or "")[:_LONGEST_REASON]
        if speaks:
            self.content_type = response.headers.get("Content-Type")

    def leave(self, response: Response) -> None:
        """Let go of an answer that is not the caller's result, but for its cookies."""
        for cookie in _cookies(response):
            self._cookies.pop(_place_of(cookie), None)
            self._cookies[_place_of(cookie)] = cookie
        for place in list(self._cookies)[:-_MOST_COOKIES]:
            del self._cookies[place]
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
        del message["Set-Cookie"]
        for cookie in (*self._cookies.values(), *own):  # the last word on a name wins
            message.add_header("Set-Cookie", cookie)
        self._cookies.clear()
        extract_cookies_to_jar(  # type: ignore[no-untyped-call]
            final.cookies, final.request, final.raw
        )


def seconds_to_wait(response: Response) -> float | None:
    """Read `Retry-After`: CRM documents none, and it is honoured where a proxy or CRM sends one."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return float(Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None


def never_sent(error: BaseException) -> bool:
    """Tell whether an error proves that no byte of the request reached CRM."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, ConnectTimeout) or isinstance(cause, NewConnectionError)


def _cookies(response: Response) -> list[str]:
    message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
    return (message.get_all("Set-Cookie") or []) if message is not None else []


def _place_of(cookie: str) -> tuple[str, ...]:
    """Return what a later `Set-Cookie` must share to replace this one: its name, domain and path."""
    pair, *attributes = (part.strip() for part in cookie.split(";"))
    scope = sorted(part.lower() for part in attributes if part.lower().startswith(("domain=", "path=")))
    return pair.partition("=")[0], *scope


def _as_bytes(body: object) -> bytes | None:
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None


def _position(request: PreparedRequest) -> object:
    return getattr(request, "_body_position", None)


def read_timeout(timeout: Any) -> float | None:
    """Return the seconds that a caller's timeout allows between two bytes; None where it names no number."""
    if isinstance(timeout, Timeout):
        begun = timeout.clone()  # with a total one, it tells what is left only once it runs
        begun.start_connect()
        timeout = begun.read_timeout
    elif isinstance(timeout, tuple) and len(timeout) == 2:  # connect, read
        timeout = timeout[1]
    return float(timeout) if isinstance(timeout, int | float) else None


def capped_timeout(timeout: Any, most: float) -> Any:
    """Return the caller's timeout with no part of it above `most` seconds."""
    if isinstance(timeout, Timeout):
        return Timeout(connect=_capped(timeout.connect_timeout, most), read=_capped(read_timeout(timeout), most))
    if isinstance(timeout, tuple):
        return tuple(_capped(part, most) for part in timeout)
    return _capped(timeout, most)


def _capped(seconds: Any, most: float) -> float:
    return min(seconds, most) if isinstance(seconds, int | float) else most
