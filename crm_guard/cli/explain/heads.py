"""Splits a pasted text into HTTP heads (`curl -i`, `curl -v`) and what stands between them. Pure.

Of the heads only what the guard's reading needs is kept: no credential can get any further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from crm_guard._base.codes import CLIENT_ERROR, OK, REDIRECT
from crm_guard.cli.explain.pasted import Facts

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHOD: Final = r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)"
_VERBOSE: Final = re.compile(rf"(?m)^[<>] (?:HTTP/[\d.]|{_METHOD} \S)")
# Possessive quantifiers never backtrack: a head of any length is scanned once, in constant memory.
_HEAD: Final = re.compile(
    r"(?m)^(?:HTTP/[\d.]++ (?P<status>[1-5][0-9]{2})(?![0-9])"
    rf"|(?P<method>{_METHOD}) (?P<path>\S{{1,8000}}) HTTP/[\d.]++(?=[ \t]*\r?$))"
    r"[^\r\n]*+(?:\r?\n[^\r\n]++)*+(?:\r?\n\r?\n?|\r?\Z)?"
)
_RETRY_AFTER: Final = re.compile(r"(?im)^retry-after:[ \t]*+([0-9]{1,6})[ \t]*+\r?$")
_CONTENT_TYPE: Final = re.compile(r"(?im)^content-type:[ \t]*+([\w.+-]{1,80}/[\w.+-]{1,80})")
# What `curl -v` writes beside the two heads: notes, and sizes where a progress bar would be.
_NOTE: Final = re.compile(r"(?:\*|=>|<=) |[{}] \[\d{1,20} bytes data\]|\* ?$")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The first line of a request; `shown` by curl, which does not print the body that it sends."""

    method: str
    path: str
    shown: bool


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What counts of the head of a response; the delay is `Retry-After`, in seconds."""

    status: int
    media_type: str
    delay: float | None
    form: str

    @property
    def holds_json(self) -> bool:
        """Whether a body that follows may be JSON."""
        return not self.media_type or "json" in self.media_type or self.media_type == "text/plain"

    @property
    def holds_image(self) -> bool:
        """Whether the body is an image, in whose bytes nothing is an answer."""
        return self.media_type.startswith("image/") and self.status < CLIENT_ERROR

    @property
    def precedes_another(self) -> bool:
        """Whether another head of the same call is to be expected: 100 Continue, a redirect, a proxy's answer."""
        return self.status < CLIENT_ERROR and not OK < self.status < REDIRECT


@dataclass(frozen=True, slots=True)
class Turn:
    """A text, and the head before it.

    Attributes:
        head: Of the response that the text follows, None if there is none.
        facts: What the heads of request and response tell of the call.
        sent: Body of the request, None if it is not in the text.
        text: What follows the head, or stands without one.
    """

    head: ResponseHead | None = None
    facts: Facts = field(default_factory=Facts)
    sent: str | None = None
    text: str = ""


Segment = RequestHead | ResponseHead | str


def turns(text: str) -> Iterator[Turn]:
    """Yield each response with what follows its head, and the texts without a head."""
    turn, holds_request = Turn(), False
    for segment in _segments(text):
        if isinstance(segment, str):
            turn = replace(turn, text=turn.text + segment)
        elif isinstance(segment, RequestHead):
            yield from _ended(turn)
            turn, holds_request = Turn(facts=Facts(method=segment.method, path=segment.path)), not segment.shown
        else:
            sent = turn.text if holds_request else turn.sent
            if not holds_request and not _leads_on(turn):
                yield from _ended(turn)
                turn = Turn() if turn.head else turn
            facts = Facts(status=segment.status, retry_after=segment.delay).over(
                replace(turn.facts, retry_after=None)
            )
            turn, holds_request = Turn(head=segment, facts=facts, sent=sent), False
    yield from _ended(turn)


def _ended(turn: Turn) -> Iterator[Turn]:
    if turn.head or turn.text.strip():
        yield turn


def _leads_on(turn: Turn) -> bool:
    """Return whether a head belongs to the same call as the next one."""
    return turn.head is not None and turn.head.precedes_another and not turn.text.strip()


def _segments(text: str) -> Iterator[Segment]:
    """Yield heads, and the texts between them."""
    verbose = _VERBOSE.search(text) is not None
    if verbose:
        text = _without_prefixes(text)
    at = 0
    for found in _HEAD.finditer(text):
        if found.start() > at:
            yield text[at : found.start()]
        at = found.end()
        yield _head(found, verbose=verbose)
    if at < len(text):
        yield text[at:]


def _head(found: re.Match[str], *, verbose: bool) -> RequestHead | ResponseHead:
    if found["method"]:
        return RequestHead(found["method"], found["path"], verbose)
    kind, delay = _CONTENT_TYPE.search(found[0]), _RETRY_AFTER.search(found[0])
    form = "the output of `curl -v`" if verbose else "a response with its head (`curl -i`)"
    return ResponseHead(
        int(found["status"]), kind[1].lower() if kind else "", float(delay[1]) if delay else None, form
    )


def _without_prefixes(text: str) -> str:
    """Return what `curl -v` prints without its notes and without the marks of direction."""
    lines = []
    for line in text.split("\n"):
        if line[:2] in {"> ", "< "}:
            lines.append(line[2:])
        elif line.rstrip("\r") in {">", "<"}:
            lines.append("")
        elif not _NOTE.match(line):
            lines.append(line)
    return "\n".join(lines)
