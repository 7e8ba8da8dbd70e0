"""The answer that CRM would have given had the locks been gone from the start. Pure.

One item per record, in the order of the first answer; the HTTP status and the other members of the body are those
that CRM itself used for an answer of the same kind (all applied, some applied, none applied).
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crm_guard._envelope import LOCKED, Envelope, Item
from crm_guard._spans import members, splice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crm_guard._answer import Answer
    from crm_guard._exchange import Exchange

_OK: Final = 200
_ACCEPTED: Final = 202
_WHOLE: Final = frozenset({200, 201, 202})
_PARTS: Final = _WHOLE | {207}
_COUNTERS: Final = ("success_count", "locked_count")


class _Kind(enum.Enum):
    ALL = enum.auto()
    SOME = enum.auto()
    NONE = enum.auto()


@dataclass(frozen=True, slots=True)
class Merged:
    """Status and body of the merged answer."""

    status: int
    body: bytes


def merge(exchange: Exchange[Any], items: Sequence[Item]) -> Merged:
    """Put CRM's last word on each record into one answer: `items`, in the wording that the caller is to see."""
    kind = _kind(items)
    alike = [answer for answer in exchange.answers if _is_of(answer, kind)]
    models = [answer for answer in alike if answer.envelope and _same_shape(answer.envelope, exchange.envelope)]
    model = models[-1] if models else exchange.answers[0]
    said = [answer.status for answer in alike if _may_say(answer, kind)]
    status = said[-1] if said else _usual_status(exchange, kind)
    return Merged(status, write_body(model.envelope or exchange.envelope, items))


def write_body(envelope: Envelope, items: Sequence[Item]) -> bytes:
    """Write a body of the shape of `envelope` with other items."""
    if envelope.key is None:
        return items[0].raw
    joined = b",".join(item.raw for item in items)
    container = b"[" + joined + b"]" if envelope.listed else joined
    written = {key: bytes(raw) for key, raw in envelope.members.items()}
    written |= _counted(written, items) | {envelope.key: container}
    return b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in written.items()) + b"}"


def with_hint(item: Item, hint: str) -> Item:
    """Return the item with `hint` behind its message, and every other byte as it was."""
    text = item.raw.decode()
    try:
        message = (members(text) or {}).get("message")
    except (ValueError, RecursionError):
        return item
    if message is None or not isinstance(message.value, str):
        return item
    told = json.dumps(f"{message.value} {hint}".strip())
    return item.rewritten(splice(text, {(message.start, message.end): told}).encode())


def _kind(items: Sequence[Item]) -> _Kind:
    applied = sum(item.succeeded for item in items)
    return _Kind.ALL if applied == len(items) else _Kind.SOME if applied else _Kind.NONE


def _is_of(answer: Answer[Any], kind: _Kind) -> bool:
    return answer.envelope is not None and not answer.failed and _kind(answer.envelope.items) is kind


def _may_say(answer: Answer[Any], kind: _Kind) -> bool:
    """Return whether the status of an answer is one that CRM gives to a call of this kind as a whole."""
    if kind is _Kind.ALL and answer.status == _ACCEPTED:  # also that of a change of owners that succeeded in part
        return answer.envelope is not None and all(item.code == "SCHEDULED" for item in answer.envelope.items)
    return answer.status in (_WHOLE if kind is _Kind.ALL else _PARTS) or kind is _Kind.NONE


def _same_shape(envelope: Envelope, first: Envelope) -> bool:
    return envelope.key == first.key and envelope.listed == first.listed


def _usual_status(exchange: Exchange[Any], kind: _Kind) -> int:
    if kind is _Kind.ALL:
        return _OK
    return exchange.call.endpoint.partial_status if kind is _Kind.SOME else exchange.answers[0].status


def _counted(written: Mapping[str, bytes], items: Sequence[Item]) -> dict[str, bytes]:
    """Return the counters that the body has, in the form (text or number) in which CRM wrote them."""
    counts = (sum(item.succeeded for item in items), sum(item.code == LOCKED for item in items))
    return {
        name: b'"%d"' % count if written[name].startswith(b'"') else b"%d" % count
        for name, count in zip(_COUNTERS, counts, strict=True)
        if name in written
    }
