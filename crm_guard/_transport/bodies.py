"""Response bodies, read within a size and a time, and put back for whoever reads next."""

from __future__ import annotations

import io
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from urllib3 import HTTPHeaderDict, HTTPResponse, Timeout
from urllib3.exceptions import HTTPError as TransportError

from crm_guard._base.codes import PROXY_UNAUTHORIZED, UNAUTHORIZED
from crm_guard._protocol.inspection import READ_ITEMS_FROM, READ_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from requests import PreparedRequest, Response

    from crm_guard.settings import GuardSettings

_PIECE: Final = 64 * 1024
_CHALLENGES: Final = frozenset({UNAUTHORIZED, PROXY_UNAUTHORIZED})
"""Where a hook authenticates (NTLM), it needs the very connection that such an answer came by."""


class BufferedResponse(HTTPResponse):
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


def inspectable_body(
    request: PreparedRequest, response: Response, settings: GuardSettings, stream: bool, timeout: Any
) -> bytes | None:
    """Return the body if items may be in it; read nothing that is not JSON, or belongs to a successful read.

    Args:
        request: The request.
        response: Its answer.
        settings: The policy.
        stream: As given to the adapter.
        timeout: As given to the adapter.
    """
    if request.method in READ_METHODS and response.status_code < READ_ITEMS_FROM:  # every call comes along here
        return None
    kind = response.headers.get("Content-Type")
    if kind and "json" not in kind.lower():
        return None
    hooks = request.hooks.get("response")  # these look at the answer before the session reads it
    if hooks and response.status_code in _CHALLENGES:
        return None
    within = read_timeout(timeout) if stream else None
    return bounded_body(response, settings.max_inspect_bytes, unread=stream or hooks, within=within)


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


def make_usable(response: Response, limit: int, *, stream: bool, timeout: Any) -> None:
    """Read a body as far as `limit` and the read timeout allow: errors are looked at after their call has ended."""
    bounded_body(response, limit, unread=stream, within=read_timeout(timeout) if stream else None)


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
    response.raw = _response_over(rest, raw, getattr(response.request, "method", None), unpacked=True)
    return None if failure is None else response.content  # raises it, in the words of `requests`


def _peek(response: Response, raw: HTTPResponse, limit: int, within: float | None) -> bytes | None:
    """Read a stream and decode what was read, then put it back."""
    rewound = _Rewound(raw, partial(_as_it_comes, raw))
    response.raw = _response_over(rewound, raw, getattr(response.request, "method", None))
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


def _response_over(
    stream: io.RawIOBase, rest: HTTPResponse, method: str | None, *, unpacked: bool = False
) -> HTTPResponse:
    """Return a response like `rest`, with another stream as its body.

    Args:
        stream: The body.
        rest: The response that the stream was made of.
        method: HTTP method.
        unpacked: Whether the stream gives the decompressed body.
    """
    headers = rest.headers
    if unpacked:
        headers = HTTPHeaderDict(headers)
        headers.discard("Content-Encoding")
    again = BufferedResponse(
        body=stream,
        headers=headers,
        status=rest.status,
        version=rest.version,
        reason=rest.reason,
        preload_content=False,
        decode_content=rest.decode_content,
        original_response=getattr(rest, "_original_response", None),
        retries=rest.retries,
        enforce_content_length=False,  # the one that is read from does
        request_method=method,
        request_url=rest.url,
    )
    again.lent = rest.connection  # reading to the end gives it back to the pool
    again.version_string = rest.version_string
    return again


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
        self._more = more
        self._ready = bytearray(ready)
        self._failure = failure
        self._ended = failure is not None

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
