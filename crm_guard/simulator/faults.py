"""Faults on demand: what goes wrong on the way to CRM, in front of it, and on the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from .messages import JSON_TYPE, Json, Reply, Request, bare, invalid_token, too_many_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FOREIGN_ID = "999999000000999999"
"""Id that the faults `foreign_id` and `extra_item` bring in: no record ever has it."""


class FaultKind(StrEnum):
    """What goes wrong."""

    RESET = "reset"
    """TCP RST instead of an answer."""
    DROP = "drop"
    """The connection is closed instead of an answer."""
    TRUNCATED = "truncated"
    """Half of the body, then the connection is closed."""
    UNAUTHORIZED = "401"
    """401 INVALID_TOKEN."""
    THROTTLED = "429"
    """429 TOO_MANY_REQUESTS."""
    SERVER_ERROR = "500"
    """500 INTERNAL_ERROR, as JSON."""
    BAD_GATEWAY = "502"
    """502 with an HTML page, as a gateway sends it."""
    EMPTY = "empty"
    """204 without a body."""
    GARBAGE = "garbage"
    """200 with a body that breaks off in the middle of its JSON, with a `Content-Length` that fits."""
    ANSWER = "answer"
    """Any status and body that the caller gives."""
    SLOW = "slow"
    """The true answer, late."""
    TOO_FEW_ITEMS = "too_few_items"
    """The true answer without its last item."""
    EXTRA_ITEM = "extra_item"
    """The true answer and one item more, about a record that was never named."""
    FOREIGN_ID = "foreign_id"
    """The true answer, its last item about a record that was never named."""
    REORDERED = "reordered"
    """The true answer, its items in reverse order."""


_NEED_AN_ANSWER = frozenset(
    {
        FaultKind.SLOW,
        FaultKind.TOO_FEW_ITEMS,
        FaultKind.EXTRA_ITEM,
        FaultKind.FOREIGN_ID,
        FaultKind.REORDERED,
    }
)
_ALIASES = {"close": "drop", "truncate": "truncated"}


class PathFilter(Protocol):
    """Which paths a fault is for: a compiled regular expression, or a :class:`PathText`."""

    @property
    def pattern(self) -> str:
        """What was asked for."""

    def search(self, path: str, /) -> object:
        """Return something true if it is in the path."""


@dataclass(frozen=True, slots=True)
class PathText:
    """Finds a text in time that grows with the path alone: for texts from outside, which may mean harm.

    Attributes:
        pattern: The text; `*` stands for any characters, `^` at its beginning and `$` at its end for those of the
            path.
    """

    pattern: str

    def search(self, path: str) -> bool:
        """Return whether the text is in the path."""
        pieces = self.pattern.removeprefix("^").removesuffix("$").split("*")
        at = 0
        if self.pattern.startswith("^"):
            at = len(pieces[0])
            if not path.startswith(pieces.pop(0)):
                return False
        end = pieces.pop() if self.pattern.endswith("$") and pieces else None
        for piece in pieces:
            found = path.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        if end is None:
            return at == len(path) or not self.pattern.endswith("$")
        return path.endswith(end) and at + len(end) <= len(path)


@dataclass(kw_only=True)
class Fault:
    """One planned fault; returned by :meth:`Engine.fault` so that a test can ask how often it struck.

    Attributes:
        kind: What goes wrong.
        after: Matching calls still let through.
        times: Calls still to be hit; `None` for every one.
        method: HTTP method that it is limited to, or `None`.
        path: What is searched for in the path, or `None`.
        applied: Whether CRM does its work before the fault strikes.
        seconds: Delay of `slow`, in seconds.
        retry_after: Seconds that a `429` tells the client to wait, or `None`.
        status: HTTP status of `answer`.
        body: Body of `answer`.
        headers: Headers of `answer`.
        delivered: How many calls it has hit.
    """

    kind: FaultKind
    after: int = 0
    times: int | None = 1
    method: str | None = None
    path: PathFilter | None = None
    applied: bool = False
    seconds: float = 0.0
    retry_after: float | None = None
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delivered: int = 0

    def strikes(self, request: Request) -> bool:
        """Return whether this call is hit, and count it."""
        if not self._concerns(request) or self.times == 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times = None if self.times is None else self.times - 1
        self.delivered += 1
        return True

    def _concerns(self, request: Request) -> bool:
        if self.method is not None and self.method != request.method:
            return False
        return self.path is None or bool(self.path.search(request.path))

    @property
    def needs_answer(self) -> bool:
        """Whether the true answer has to be worked out first."""
        return self.applied or self.kind in _NEED_AN_ANSWER or self.kind is FaultKind.TRUNCATED

    def spoil(self, reply: Reply) -> Reply:
        """Return what becomes of the answer `reply`."""
        return _EFFECTS[self.kind](self, reply)


def kind_of(kind: str | int) -> FaultKind:
    """Return the kind that a caller names, by its value, an alias, or an HTTP status.

    Raises:
        ValueError: There is no such kind.
    """
    return FaultKind(_ALIASES.get(str(kind), str(kind)))


def applies(kind: FaultKind, applied: bool | None) -> bool:
    """Return whether CRM does its work before such a fault strikes; `None` asks for the kind's own default."""
    return kind in _NEED_AN_ANSWER if applied is None else applied


def encode(body: object) -> bytes:
    """Return a body as bytes: text as UTF-8, half a surrogate pair as a question mark, any other value as JSON."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode(errors="replace")
    return b"" if body is None else json.dumps(body, separators=(",", ":")).encode()


def _broken(delivery: str) -> Callable[[Fault, Reply], Reply]:
    return lambda _fault, reply: replace(reply, delivery=delivery)


def _instead(make: Callable[[], Reply]) -> Callable[[Fault, Reply], Reply]:
    return lambda _fault, _reply: make()


def _changed(change: Callable[[list[Json]], Sequence[Json]]) -> Callable[[Fault, Reply], Reply]:
    """Change the items of the first array in the answer; an answer without one stays as it is."""

    def effect(_fault: Fault, reply: Reply) -> Reply:
        try:
            payload = reply.json()
        except ValueError:
            return reply
        for key, items in payload.items() if isinstance(payload, dict) else ():
            if isinstance(items, list) and items:
                payload[key] = change(items)
                return replace(reply, body=encode(payload))
        return reply

    return effect


def _foreign(entry: Json) -> Json:
    return {**entry, "details": {**(entry.get("details") or {}), "id": FOREIGN_ID}}


def _gateway_page() -> Reply:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
    return Reply(status=502, headers={"Content-Type": "text/html"}, body=page)


def _garbage() -> Reply:
    body = b'{"data":[{"code":"RECORD_LOCKED","details":{"act'
    return Reply(status=200, headers={"Content-Type": JSON_TYPE}, body=body)


_EFFECTS: Mapping[FaultKind, Callable[[Fault, Reply], Reply]] = {
    FaultKind.RESET: _broken("reset"),
    FaultKind.DROP: _broken("drop"),
    FaultKind.TRUNCATED: _broken("truncated"),
    FaultKind.UNAUTHORIZED: _instead(invalid_token),
    FaultKind.THROTTLED: lambda fault, _reply: too_many_requests(fault.retry_after),
    FaultKind.SERVER_ERROR: _instead(lambda: bare(500, "INTERNAL_ERROR", "Internal Server Error")),
    FaultKind.BAD_GATEWAY: _instead(_gateway_page),
    FaultKind.EMPTY: _instead(lambda: Reply(status=204)),
    FaultKind.GARBAGE: _instead(_garbage),
    FaultKind.ANSWER: lambda fault, _reply: Reply(status=fault.status, headers=fault.headers, body=fault.body),
    FaultKind.SLOW: lambda fault, reply: replace(reply, delay=reply.delay + fault.seconds),
    FaultKind.TOO_FEW_ITEMS: _changed(lambda items: items[:-1]),
    FaultKind.EXTRA_ITEM: _changed(lambda items: [*items, _foreign(items[-1])]),
    FaultKind.FOREIGN_ID: _changed(lambda items: [*items[:-1], _foreign(items[-1])]),
    FaultKind.REORDERED: _changed(lambda items: items[::-1]),
}
