"""The body of an HTTP/1.1 request: where it ends, and that it ends at all. Pure but for the stream it reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from .messages import RequestError, body_too_large, unreadable_body

if TYPE_CHECKING:
    from email.message import Message

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?\r?\n")
_LINE_BYTES = 4096
_TRAILERS = 100


class Stream(Protocol):
    """What a request is read from: blocking, and at its end where the client has left."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return a line with its end, of at most `size` bytes."""


def read_body(headers: Message, stream: Stream, limit: int) -> bytes:
    """Read the body of one request.

    Args:
        headers: Headers of the request.
        stream: Where it goes on behind them.
        limit: Largest body to read, in bytes. Of a larger one nothing, or no more than this, is read.

    Returns:
        The body, decoded from chunks; empty where no header announces one.

    Raises:
        RequestError: It is larger (413), or it cannot be told where it ends (400). The stream is then of no use.
        ConnectionAbortedError: The client left before the end.
    """
    lengths, codings = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    if codings is None:
        return _exactly(_length(lengths, limit), stream) if lengths else b""
    # Both at once, or another coding: two servers may read that in two ways.
    if lengths is not None or [coding.strip().lower() for coding in codings] != ["chunked"]:
        raise RequestError(unreadable_body())
    return _dechunked(stream, limit)


def _length(lengths: list[str], limit: int) -> int:
    digits = lengths[0].strip()
    if len(lengths) > 1 or not (digits.isascii() and digits.isdigit()):
        raise RequestError(unreadable_body())
    if not _LENGTH.fullmatch(digits) or int(digits) > limit:
        raise RequestError(body_too_large(limit))
    return int(digits)


def _exactly(size: int, stream: Stream) -> bytes:
    body = stream.read(size)
    if len(body) < size:
        msg = "the client went away in the middle of its request"
        raise ConnectionAbortedError(msg)
    return body


def _dechunked(stream: Stream, limit: int) -> bytes:
    body = bytearray()
    while size := _chunk_size(stream):
        if len(body) + size > limit:
            raise RequestError(body_too_large(limit))
        body += _exactly(size, stream)
        if _line(stream) not in (b"\r\n", b"\n"):
            raise RequestError(unreadable_body())
    for _ in range(_TRAILERS):
        if _line(stream) in (b"\r\n", b"\n"):
            return bytes(body)
    raise RequestError(unreadable_body())


def _chunk_size(stream: Stream) -> int:
    found = _CHUNK.fullmatch(_line(stream))
    if found is None:
        raise RequestError(unreadable_body())
    return int(found[1], 16)


def _line(stream: Stream) -> bytes:
    line = stream.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        if len(line) == _LINE_BYTES:
            raise RequestError(unreadable_body())
        _exactly(1, stream)  # the client has left
    return line
